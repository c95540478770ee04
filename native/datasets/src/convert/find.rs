//! Which files a source has, and whose annotations they are.

use std::collections::BTreeMap;
use std::path::Path;

use oarlock_jobs::{SourceFormat, TaskType};
use serde_json::Value;

use crate::Problems;
use crate::coco::{PARTS, WHOLE, read_json};
use crate::scan::{Listing, is_picture_name, is_raster_name, join};
use crate::sets::{ANNOTATIONS, PICTURES};

/// Folders below the root that are searched: `images/train/x.jpg` is 3 deep.
const DEPTH: usize = 4;
/// Files that a source may have.
const MAX_FILES: usize = 5_000_000;
/// Annotation files looked into to recognise a format.
const LOOKED: usize = 20;
/// Largest annotation of one picture.
pub const MAX_BYTES: u64 = 64 << 20;

/// All files of a source, relative with `/`, sorted. Links and names with a leading dot are left out.
pub fn walk(root: &Path, problems: &mut Problems) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&folder)) else {
            problems.warn(format!("folder {folder} cannot be read and was ignored"));
            continue;
        };
        for entry in entries.flatten() {
            let raw = entry.file_name();
            let Some(name) = raw
                .to_str()
                .filter(|n| !n.starts_with('.') && !n.contains(['\n', '\r']))
            else {
                continue;
            };
            let path = join(&folder, name);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH => folders.push((path, depth + 1)),
                Ok(kind) if kind.is_file() && files.len() < MAX_FILES => files.push(path),
                _ => {}
            }
        }
    }
    files.sort_unstable();
    files
}

/// The last part of a path without its suffix.
pub fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

pub fn suffix(path: &str) -> String {
    path.rsplit_once('.')
        .map_or(String::new(), |(_, s)| s.to_lowercase())
}

/// Pictures by their stems; of several with one stem all.
pub fn pictures(files: &[String]) -> BTreeMap<&str, Vec<&String>> {
    let mut found: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for path in files.iter().filter(|p| is_picture_name(p)) {
        found.entry(stem(path)).or_default().push(path);
    }
    found
}

pub fn is_native(task_type: TaskType, listing: &Listing, remote: bool) -> bool {
    let annotated = |suffix: &str| {
        let files = listing.folders.get(ANNOTATIONS);
        files.is_some_and(|all| all.iter().any(|f| f.to_lowercase().ends_with(suffix)))
    };
    let pictures = listing.folders.get(PICTURES).is_some_and(|all| {
        let is_picture = |f: &&String| is_picture_name(f) || remote && is_raster_name(f);
        all.iter().any(|f| is_picture(&f))
    });
    match task_type {
        TaskType::Classification => true,
        TaskType::Detection => listing.contains("train_list.txt") || pictures && annotated(".xml"),
        TaskType::Segmentation => {
            remote || listing.contains("train_list.txt") || pictures && annotated(".png")
        }
        TaskType::InstanceSegmentation => {
            pictures && (listing.contains(WHOLE) || listing.contains(PARTS[0]))
        }
    }
}

/// The tool whose annotations a JSON object holds.
fn tool(value: &Value) -> Option<SourceFormat> {
    let has = |key: &str| value.get(key).is_some_and(Value::is_array);
    if has("images") && has("categories") {
        Some(SourceFormat::Coco)
    } else if has("shapes") {
        Some(SourceFormat::Labelme)
    } else if value.get("outputs").is_some_and(Value::is_object) {
        Some(SourceFormat::Jingling)
    } else if has("labels") {
        Some(SourceFormat::Easydata)
    } else {
        None
    }
}

/// The format of a folder that is not in the format of its type; `None` when nothing is known in it.
pub fn recognise(root: &Path) -> Option<SourceFormat> {
    let files = walk(root, &mut Problems::default());
    let pictures = pictures(&files);
    let beside: Vec<&String> = files
        .iter()
        .filter(|f| suffix(f) == "json" && pictures.contains_key(stem(f)))
        .collect();
    for file in beside.iter().take(LOOKED) {
        if let Some(found) = read_value(root, file).ok().as_ref().and_then(tool) {
            return Some(found);
        }
    }
    if files
        .iter()
        .any(|f| suffix(f) == "json" && is_coco(root, f))
    {
        return Some(SourceFormat::Coco);
    }
    let texts = files
        .iter()
        .filter(|f| suffix(f) == "txt" && pictures.contains_key(stem(f)));
    for file in texts.take(LOOKED) {
        let text = crate::read_text(&root.join(file)).unwrap_or_default();
        let mut lines = crate::lines(&text).peekable();
        let numbers = |line: &str| {
            line.split_whitespace().count() >= 5
                && line.split_whitespace().all(|n| n.parse::<f32>().is_ok())
        };
        if lines.peek().is_some() && lines.all(|(_, line)| numbers(line)) {
            return Some(SourceFormat::Yolo);
        }
    }
    None
}

/// Whether a file holds the lists of MSCOCO; large files are not built up in memory for it.
pub fn is_coco(root: &Path, file: &str) -> bool {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)] // only whether they are there
    struct Head {
        images: Vec<serde::de::IgnoredAny>,
        categories: Vec<serde::de::IgnoredAny>,
    }
    let text = read_json(&root.join(file));
    text.is_ok_and(|text| serde_json::from_str::<Head>(&text).is_ok())
}

/// The JSON annotation of one picture.
pub fn read_value(root: &Path, file: &str) -> Result<Value, String> {
    let path = root.join(file);
    let size = std::fs::metadata(&path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!(
            "{size} bytes are too many for the annotation of one picture"
        ));
    }
    let text = read_json(&path).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| format!("broken JSON: {e}"))
}
