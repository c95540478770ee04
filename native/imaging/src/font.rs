//! Glyphs for any label: WenQuanYi Micro Hei inside the program, the system's fonts beside it.
//!
//! WenQuanYi Micro Hei (Apache-2.0, see `assets/README.md`) has Latin, Greek, Cyrillic, all 20,902
//! unified CJK ideographs, kana and hangul. Other scripts come from fonts found on the machine;
//! what no font has is spelled out as `U+0E01`, never hidden behind a box or a question mark.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use ab_glyph::{Font, FontVec, GlyphId, PxScale, PxScaleFont, ScaleFont};

static EMBEDDED: &[u8] = include_bytes!("../assets/wqy-microhei.ttc.gz");

/// Largest font file of the system that is opened, and how many are looked through.
const MAX_FONT_BYTES: u64 = 40 << 20;
const MAX_FONT_FILES: usize = 500;

static MAIN: LazyLock<Option<Arc<FontVec>>> = LazyLock::new(|| {
    let mut data = Vec::with_capacity(6 << 20);
    flate2::read::GzDecoder::new(EMBEDDED)
        .read_to_end(&mut data)
        .ok()?;
    FontVec::try_from_vec_and_index(data, 0).ok().map(Arc::new)
});

/// System fonts that turned out to be needed, by character.
static FALLBACK: LazyLock<Mutex<HashMap<char, Option<Arc<FontVec>>>>> =
    LazyLock::new(Mutex::default);

/// The embedded font.
pub(crate) fn main_font() -> Option<Arc<FontVec>> {
    MAIN.clone()
}

fn has(font: &FontVec, c: char) -> bool {
    font.glyph_id(c) != GlyphId(0)
}

fn font_files() -> Vec<PathBuf> {
    let mut folders = vec![
        PathBuf::from("/usr/share/fonts"),
        PathBuf::from("/usr/local/share/fonts"),
        PathBuf::from("/System/Library/Fonts"),
        PathBuf::from("/Library/Fonts"),
    ];
    if let Some(home) = std::env::var_os("HOME") {
        folders.push(Path::new(&home).join(".fonts"));
        folders.push(Path::new(&home).join(".local/share/fonts"));
    }
    let mut files = Vec::new();
    let mut seen = 0usize;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > 20_000 {
                return files;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| ["ttf", "otf", "ttc"].contains(&e.to_ascii_lowercase().as_str()))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files.truncate(MAX_FONT_FILES);
    files
}

fn search_system(c: char) -> Option<Arc<FontVec>> {
    font_files().into_iter().find_map(|path| {
        let size = std::fs::metadata(&path).ok()?.len();
        if size > MAX_FONT_BYTES {
            return None;
        }
        let font = FontVec::try_from_vec_and_index(std::fs::read(&path).ok()?, 0).ok()?;
        has(&font, c).then(|| Arc::new(font))
    })
}

/// A font that can draw `c`: the embedded one, else one of the system.
fn font_for(c: char) -> Option<Arc<FontVec>> {
    if let Some(font) = main_font().filter(|f| has(f, c)) {
        return Some(font);
    }
    let mut known = FALLBACK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(&c) {
        return found.clone();
    }
    let found = known
        .values()
        .flatten()
        .find(|f| has(f, c))
        .cloned()
        .or_else(|| search_system(c));
    if known.len() < 10_000 {
        known.insert(c, found.clone());
    }
    found
}

/// Characters of `text` that neither the embedded font nor the system's fonts can draw.
pub fn missing_glyphs(text: &str) -> Vec<char> {
    let mut missing: Vec<char> = text
        .chars()
        .filter(|c| !c.is_control() && !c.is_whitespace() && font_for(*c).is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// One character ready to be drawn.
pub(crate) struct Placed {
    pub font: Arc<FontVec>,
    pub glyph: GlyphId,
    /// Left edge relative to the text's start, in pixels.
    pub x: f32,
}

/// Characters of a line with their places, and the line's width in pixels.
pub(crate) fn layout(text: &str, size: f32) -> (Vec<Placed>, f32) {
    let mut placed: Vec<Placed> = Vec::new();
    let mut x = 0.0f32;
    let mut put = |c: char, font: Arc<FontVec>| {
        let glyph = font.glyph_id(c);
        let advance = scaled(&font, size).h_advance(glyph);
        placed.push(Placed { font, glyph, x });
        x += advance;
    };
    for c in text.chars() {
        let c = if c.is_control() || c.is_whitespace() {
            ' '
        } else {
            c
        };
        if let Some(font) = font_for(c) {
            put(c, font);
        } else if let Some(font) = main_font() {
            for spelled in format!("U+{:04X}", c as u32).chars() {
                put(spelled, font.clone());
            }
        }
    }
    (placed, x)
}

/// The font at a line height of `size` pixels.
pub(crate) fn scaled(font: &FontVec, size: f32) -> PxScaleFont<&FontVec> {
    font.as_scaled(PxScale::from(size))
}
