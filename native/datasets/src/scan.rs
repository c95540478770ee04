//! The files of a dataset folder: its root and one folder level.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use crate::Problems;

/// Suffixes of pictures, compared without regard to case.
const PICTURES: [&str; 4] = ["jpeg", "jpg", "bmp", "png"];
/// Suffixes of remote sensing pictures.
const RASTERS: [&str; 3] = ["npy", "tif", "tiff"];

/// Whether the name's suffix is a picture's.
pub fn is_picture_name(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, suffix)| PICTURES.iter().any(|p| p.eq_ignore_ascii_case(suffix)))
}

/// Whether the suffix is one of files that hold any number of channels.
pub fn is_raster_name(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, suffix)| RASTERS.iter().any(|p| p.eq_ignore_ascii_case(suffix)))
}

/// Files found, by folder; the root's own files are under the empty name. Sorted by code point.
#[derive(Debug, Default)]
pub struct Listing {
    /// Folder name → file names, each sorted.
    pub folders: BTreeMap<String, Vec<String>>,
    /// Files that lie deeper and are left alone.
    pub deeper: u64,
}

impl Listing {
    /// Paths of all files relative to the root, with `/`.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.folders
            .iter()
            .flat_map(|(folder, files)| files.iter().map(move |file| join(folder, file)))
    }

    /// Whether `path` (relative, with `/`) is one of the files.
    pub fn contains(&self, path: &str) -> bool {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        self.folders
            .get(folder)
            .is_some_and(|files| files.binary_search_by(|f| f.as_str().cmp(file)).is_ok())
    }
}

/// `folder/file`, or the file alone in the root.
pub fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() {
        file.to_owned()
    } else {
        format!("{folder}/{file}")
    }
}

enum Kind {
    File,
    Folder,
    Other,
}

/// Lists root and first level; names beginning with `.` are skipped. Links are followed when they stay
/// inside `root`; links out of it, broken ones and names that are no UTF-8 are problems.
pub fn scan(root: &Path, problems: &mut Problems) -> Listing {
    let mut listing = Listing::default();
    let mut top = Vec::new();
    let root_files = read_folder(root, "", root, problems, |name| top.push(name));
    listing.folders.insert(String::new(), root_files);
    for folder in top {
        let path = root.join(&folder);
        let mut inner = Vec::new();
        let files = read_folder(&path, &folder, root, problems, |name| inner.push(name));
        for name in inner {
            listing.deeper += count_files(&path.join(name), 0);
        }
        listing.folders.insert(folder, files);
    }
    if listing.deeper > 0 {
        problems.warn(format!(
            "{} files lie deeper than one folder and were ignored",
            listing.deeper
        ));
    }
    listing
}

fn read_folder(
    path: &Path,
    shown: &str,
    root: &Path,
    problems: &mut Problems,
    mut folder: impl FnMut(String),
) -> Vec<String> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            let name = if shown.is_empty() { "." } else { shown };
            problems.add(
                name,
                None,
                format!("the folder cannot be read ({error})"),
                "check its permissions",
            );
            return files;
        }
    };
    for entry in entries.flatten() {
        let raw = entry.file_name();
        let Some(name) = raw.to_str() else {
            let lossy = raw.to_string_lossy();
            problems.add(
                join(shown, &lossy),
                None,
                "the name is no valid UTF-8",
                "rename it, e.g. with `convmv -f gbk -t utf8 -r --notest .`",
            );
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if name.contains(['\n', '\r']) {
            problems.add(
                join(shown, &name.escape_debug().to_string()),
                None,
                "the name contains a line break",
                "rename it",
            );
            continue;
        }
        let kind = entry
            .file_type()
            .map(|kind| resolve(kind, &entry.path(), root));
        match kind {
            Ok(Ok(Kind::File)) => files.push(name.to_owned()),
            Ok(Ok(Kind::Folder)) => folder(name.to_owned()),
            Ok(Ok(Kind::Other)) => {
                problems.warn(format!(
                    "{} is no regular file and was ignored",
                    join(shown, name)
                ));
            }
            Ok(Err((reason, remedy))) => problems.add(join(shown, name), None, reason, remedy),
            Err(error) => {
                problems.add(join(shown, name), None, error.to_string(), "check the disk")
            }
        }
    }
    files.sort_unstable();
    files
}

/// What an entry is, behind a link that stays inside the dataset.
fn resolve(kind: FileType, path: &Path, root: &Path) -> Result<Kind, (String, String)> {
    let of = |is_file: bool, is_dir: bool| match (is_file, is_dir) {
        (true, _) => Kind::File,
        (_, true) => Kind::Folder,
        _ => Kind::Other,
    };
    if !kind.is_symlink() {
        return Ok(of(kind.is_file(), kind.is_dir()));
    }
    let Ok(target) = std::fs::canonicalize(path) else {
        return Err((
            "the link leads nowhere".into(),
            "remove it or restore its target".into(),
        ));
    };
    if !target.starts_with(root) {
        return Err((
            "the link leads out of the dataset folder".into(),
            "replace it by the file itself".into(),
        ));
    }
    let meta =
        std::fs::metadata(&target).map_err(|e| (e.to_string(), "check the disk".to_owned()))?;
    Ok(of(meta.is_file(), meta.is_dir()))
}

/// Files below a folder that is not read; links are not followed.
fn count_files(folder: &Path, depth: usize) -> u64 {
    if depth > 64 {
        return 0;
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path(), depth + 1),
            Ok(kind) if kind.is_file() => 1,
            _ => 0,
        })
        .sum()
}

/// The folder with all links resolved; an error naming what is wrong with it otherwise.
pub fn root_of(folder: &Path) -> Result<PathBuf, String> {
    let root = std::fs::canonicalize(folder).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "there is no such folder".to_owned(),
        _ => e.to_string(),
    })?;
    if root.is_dir() {
        Ok(root)
    } else {
        Err("it is no folder".to_owned())
    }
}
