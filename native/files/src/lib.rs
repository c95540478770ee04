//! Files and folders that are either whole or not there.

mod folder;

pub use folder::{copy_file, replace_folder, sync_tree, temp_folder};

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A name beside `path` that no other writer uses, for content that is not complete yet.
pub fn temp_beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{n}.tmp", std::process::id()))
}

/// Writes `path` through a temporary file: content, `fsync`, rename, `fsync` of the folder.
///
/// On failure the temporary file is removed and an older file of that name stays as it was.
///
/// # Errors
/// Whatever creating, writing, syncing or renaming says, or what `fill` returns.
pub fn write<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let temp = temp_beside(path);
    let result = (|| {
        let mut writer = BufWriter::with_capacity(1 << 20, File::create_new(&temp)?);
        fill(&mut writer)?;
        let file = writer.into_inner().map_err(|e| E::from(e.into_error()))?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        sync_parent(path)?;
        Ok(())
    })();
    if result.is_err() {
        // Best effort: the error that matters is already in hand.
        let _ = fs::remove_file(&temp);
    }
    result
}

/// [`write`] for content that is already in memory.
///
/// # Errors
/// See [`write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, |w| w.write_all(bytes))
}

/// `.name.tag-<pid>` beside `path`.
pub fn sibling(path: &Path, tag: &str) -> PathBuf {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.{tag}-{}", std::process::id()))
}

/// Makes a rename or a creation in the folder of `path` durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

/// Makes the names of a folder durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
