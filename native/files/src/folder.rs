//! Whole folders, and copies.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::{sibling, sync_folder, temp_beside};

/// Copies content into a new file; the kernel shares the blocks where the file system can (reflink).
///
/// Never a hard link: a later change of the user's file would change the dataset.
///
/// # Errors
/// When one of them cannot be opened, read or written; `to` must not exist.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    // The standard library uses copy_file_range here, which reflinks on XFS, Btrfs and others.
    io::copy(&mut source, &mut target)
}

/// Makes everything written to the folder's file system durable, with one call for all files.
///
/// # Errors
/// What the system says.
pub fn sync_tree(folder: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let file = File::open(folder)?;
        // SAFETY: the descriptor is open for the length of the call.
        if unsafe { libc::syncfs(file.as_raw_fd()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                sync_tree(&path)?
            } else {
                File::open(path)?.sync_all()?
            }
        }
        sync_folder(folder)
    }
}

/// A fresh hidden folder beside `place`, to be filled and then moved there; the folder that holds both is created.
///
/// # Errors
/// When a folder cannot be created.
pub fn temp_folder(place: &Path) -> io::Result<PathBuf> {
    let temp = temp_beside(place);
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if temp.exists() {
        std::fs::remove_dir_all(&temp)?;
    }
    std::fs::create_dir(&temp)?;
    Ok(temp)
}

/// Puts the folder `new` in the place of `place` (which may be there or not) and removes the old one.
/// On Linux the two change places in one step; no reader ever sees the place empty.
///
/// # Errors
/// When a rename fails; `place` then holds what it held.
pub fn replace_folder(new: &Path, place: &Path) -> io::Result<()> {
    let parent = place.parent().unwrap_or(Path::new("."));
    sync_folder(new)?;
    if !place.exists() {
        std::fs::rename(new, place)?;
        return sync_folder(parent);
    }
    if exchange(new, place).is_ok() {
        sync_folder(parent)?;
        return remove(new); // holds the old content now
    }
    let old = sibling(place, "old");
    std::fs::rename(place, &old)?;
    if let Err(error) = std::fs::rename(new, place) {
        std::fs::rename(&old, place)?;
        return Err(error);
    }
    sync_folder(parent)?;
    remove(&old)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let a = CString::new(a.as_os_str().as_bytes())?;
    let b = CString::new(b.as_os_str().as_bytes())?;
    // SAFETY: both are NUL-terminated paths that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_bytes;

    #[test]
    fn folders_and_files_are_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (folder, text) in [("new", "2"), ("place", "1")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::write(at(folder).join("f"), text).unwrap();
        }
        std::fs::write(at("place").join("stale"), "x").unwrap();
        replace_folder(&at("new"), &at("place")).unwrap();
        assert_eq!(std::fs::read_to_string(at("place").join("f")).unwrap(), "2");
        assert!(!at("new").exists() && !at("place").join("stale").exists());

        write_bytes(&at("place").join("f"), b"3").unwrap();
        assert_eq!(std::fs::read_to_string(at("place").join("f")).unwrap(), "3");
        assert_eq!(std::fs::read_dir(at("place")).unwrap().count(), 1);
        assert!(write_bytes(&at("nowhere").join("f"), b"3").is_err());
    }
}
