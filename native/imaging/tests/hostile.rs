//! Decoders on hostile content: no panic, no hang, bounded memory.
//!
//! Mutations are seeded, so a failure repeats. `OARLOCK_FUZZ_ROUNDS` sets how many a file (60).

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oarlock_imaging::{ImageError, Limits, Rng, decode, decode_raster, inspect};

/// Counts what is held now and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The counters are the whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: hands every call to the system's allocator and only counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `work`; gives its result, its time and the bytes it held at most.
fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let started = Instant::now();
    let result = work();
    (
        result,
        started.elapsed(),
        PEAK.load(Ordering::Relaxed).saturating_sub(before),
    )
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<_> = [folder.clone(), folder.join("raster")]
        .into_iter()
        .flat_map(|f| std::fs::read_dir(f).unwrap().flatten())
        .map(|e| e.path())
        .filter(|p| {
            !p.to_string_lossy().contains("expect_") && p.extension().is_some_and(|e| e != "py")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|p| {
            (
                p.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(p).unwrap(),
            )
        })
        .collect()
}

fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(out.len().max(1));
        match rng.below(8) {
            0 => out.truncate(at),
            1 => {
                let end = (at + 1 + rng.below(32)).min(out.len());
                out.drain(at.min(end)..end);
            }
            2 => {
                let copy: Vec<u8> = out[at..(at + rng.below(64)).min(out.len())].to_vec();
                out.splice(at..at, copy);
            }
            3 => {
                // Extreme numbers where sizes and offsets stand.
                let value = [0u32, 1, 0x7fff_ffff, 0xffff_ffff, 0x0001_0000][rng.below(5)];
                let bytes = if rng.chance(0.5) {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                };
                let head = rng.below(out.len().clamp(1, 200));
                for (slot, byte) in out.iter_mut().skip(head).zip(bytes) {
                    *slot = byte;
                }
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    out
}

/// The checksum of a PNG chunk, so that mutated headers are not stopped at the first gate.
fn repair_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = at.checked_add(8).and_then(|s| s.checked_add(length)) else {
            return;
        };
        if end + 4 > bytes.len() {
            return;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn promise_5_mutated_images_never_panic_hang_or_take_unbounded_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let rounds = std::env::var("OARLOCK_FUZZ_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(60);
    let limits = Limits {
        pixels: 4_000_000,
        file_bytes: 1 << 20,
        raster_bytes: 32 << 20,
    };
    let (mut good, mut bad) = (0, 0);
    for (name, bytes) in corpus() {
        for round in 0..rounds {
            let mut rng = Rng::of(&[round as u64, bytes.len() as u64, 99]);
            let mut mutated = mutate(&bytes, &mut rng);
            if name.ends_with("png") && rng.chance(0.7) {
                repair_png(&mut mutated);
            }
            let cover = [None, Some((9, 9)), Some((1, 1))][rng.below(3)];
            let raster = name.ends_with("npy") || name.ends_with("tif") || rng.chance(0.1);
            let (result, time, memory) = measured(|| match raster {
                true => decode_raster(&mutated, &limits).map(drop),
                false => decode(&mutated, &limits, cover).map(drop),
            });
            assert!(
                time < Duration::from_secs(5),
                "{name} round {round}: {time:?}"
            );
            // 3 bytes of result, 8 of a decoder's widest buffer a pixel (or twice the bytes of a
            // raster), and fixed tables.
            assert!(
                memory < 4_000_000 * 20 + (80 << 20),
                "{name} round {round}: {memory} bytes"
            );
            match result {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
    }
    assert!(
        good > 100 && bad > 100,
        "{good} decoded, {bad} refused: the mutations reach both ends"
    );
}

#[test]
fn every_truncation_is_refused_or_decoded_without_panic() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    for (name, bytes) in corpus() {
        if name.starts_with("animated") {
            continue; // its first frame ends in the middle of the file
        }
        let step = (bytes.len() / 150).max(1);
        for end in (0..bytes.len()).step_by(step) {
            let cut = &bytes[..end];
            let result = match name.ends_with("npy") || name.ends_with("tif") {
                true => decode_raster(cut, &Limits::default()).map(drop),
                false => decode(cut, &Limits::default(), None).map(drop),
            };
            // Only a missing end marker may pass: every pixel is there.
            assert!(
                result.is_err() || end * 100 > bytes.len() * 70,
                "{name} cut to {end} of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn promise_5_a_60000_by_60000_png_is_refused_in_100_ms_and_64_mb() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut bytes = corpus()
        .into_iter()
        .find(|(n, _)| n == "plain.png")
        .unwrap()
        .1;
    bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    repair_png(&mut bytes);
    let (result, time, memory) = measured(|| decode(&bytes, &Limits::default(), Some((224, 224))));
    assert_eq!(
        result,
        Err(ImageError::TooManyPixels {
            width: 60_000,
            height: 60_000,
            limit: 178_956_970
        })
    );
    assert!(
        time < Duration::from_millis(100) && memory < 64 << 20,
        "{time:?} {memory}"
    );
    let message = result.unwrap_err().to_string();
    assert_eq!(
        message,
        "60000×60000 pixels are more than the limit of 178956970 pixels"
    );
}

#[test]
fn a_small_file_that_claims_a_large_allowed_picture_fails_soon() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut bytes = corpus()
        .into_iter()
        .find(|(n, _)| n == "plain.png")
        .unwrap()
        .1;
    bytes[16..24].copy_from_slice(&[0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10]);
    repair_png(&mut bytes);
    let (result, time, _) = measured(|| decode(&bytes, &Limits::default(), None));
    assert!(result.is_err() && time < Duration::from_secs(2), "{time:?}");
}

#[test]
fn what_is_no_image_is_told_apart() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let says = |bytes: &[u8]| inspect(bytes).unwrap_err().to_string();
    assert_eq!(says(b""), "the file is empty (0 bytes)");
    assert_eq!(says(b"hello"), "not an image: the content is text");
    assert_eq!(
        says(b"<!DOCTYPE html><html>"),
        "not an image: the content is an HTML page"
    );
    assert_eq!(
        says(b"%PDF-1.4"),
        "not an image: the content is a PDF document"
    );
    assert_eq!(
        says(b"PK\x03\x04\xff\xfe"),
        "not an image: the content is a ZIP archive or office document"
    );
    assert!(says(b"\0\0\0\x20ftypheic\0\0").contains("HEIC"));
    assert!(says(&[0x12, 0xff, 0x80, 0x81, 0x99]).contains("it starts with 12 ff 80 81 99"));
    assert_eq!(
        says(b"\xff\xd8\xff"),
        "damaged JPEG image: it ends within the header"
    );
    assert_eq!(
        says(&[0; 64]),
        "not an image: the content is only zero bytes"
    );
}
