//! Whether every picture of a dataset can really be read.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oarlock_imaging::{ImageError, Limits, decode_region, plan, read_file};

/// Reads and decodes one picture completely, so that truncated files are found. JPEG is decoded at
/// 1/8: every coded bit is still read, but hardly any pixel computed.
pub fn check_picture(path: &Path) -> Result<(), ImageError> {
    let limits = Limits::default();
    let bytes = read_file(path, &limits)?;
    let plan = plan(&bytes, &limits, Some((1, 1)))?;
    decode_region(&bytes, &plan, None).map(drop)
}

/// Runs `work` for 0..count on `threads` threads; stops early when `cancel` is set. Results that are
/// `Some` come back sorted by their number. `done` is called with the number of finished items, from
/// any thread but never from two at once.
pub fn parallel<T: Send>(
    count: usize,
    threads: usize,
    cancel: &AtomicBool,
    done: &(dyn Fn(usize) + Sync),
    work: &(dyn Fn(usize) -> Option<T> + Sync),
) -> Vec<(usize, T)> {
    let next = AtomicUsize::new(0);
    let finished = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let telling = Mutex::new(());
    let run = || {
        while !cancel.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return;
            }
            if let Some(result) = work(item) {
                results
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((item, result));
            }
            let so_far = finished.fetch_add(1, Ordering::Relaxed) + 1;
            if let Ok(_only_one) = telling.try_lock() {
                done(so_far);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, count.max(1)) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(item, _)| *item);
    results
}

/// What to do about a file that cannot be read.
pub(crate) fn remedy(error: &ImageError) -> &'static str {
    match error {
        ImageError::Io(_, std::io::ErrorKind::PermissionDenied) => {
            "give the server read permission"
        }
        ImageError::Io(..) => "check the file and the disk",
        ImageError::TooManyPixels { .. } | ImageError::TooManyBytes { .. } => "shrink the picture",
        ImageError::Unsupported { .. } => "save it as JPEG or PNG",
        _ => "replace or remove the file",
    }
}
