//! Pictures in `JPEGImages` with an annotation file each in `Annotations`, and the lists that pair them.

use std::collections::HashSet;
use std::path::Path;

use crate::folder::{LABELS, LISTS, read_labels, take_lists, warn_of_unused};
use crate::lists::{Fault, read_entries};
use crate::scan::{Listing, join};
use crate::text::normal_path;
use crate::{Entry, Index, Problems};

pub const PICTURES: &str = "JPEGImages";
pub const ANNOTATIONS: &str = "Annotations";

/// What the files of a set of pairs are called.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Suffix of annotations, lower case, without dot.
    pub suffix: &'static str,
    /// Whether a name is a picture's.
    pub is_picture: fn(&str) -> bool,
    /// Such names, for messages.
    pub pictures: &'static str,
    /// Whether split sets must have `labels.txt`.
    pub needs_labels: bool,
}

/// The pairs as folders or lists say them, and the labels of `labels.txt` (none = there is no such file);
/// no picture and no annotation is opened.
pub fn index(
    root: &Path,
    listing: &Listing,
    kind: Kind,
    problems: &mut Problems,
) -> (Index, Option<Vec<String>>) {
    let labels = listing
        .contains(LABELS)
        .then(|| read_labels(root, problems));
    let split = listing.contains(LISTS[0]);
    if !split {
        return (from_folders(listing, kind, problems), labels);
    }
    for (file, needed) in [(LABELS, kind.needs_labels), (LISTS[1], true)] {
        if needed && !listing.contains(file) {
            let with = if kind.needs_labels {
                "labels.txt and val_list.txt"
            } else {
                "val_list.txt"
            };
            let remedy = format!("a dataset with train_list.txt also needs {with}");
            problems.add(file, None, "it is missing", remedy);
        }
    }
    let mut index = Index::default();
    take_lists(
        &mut index,
        listing,
        problems,
        "annotation path",
        |list, problems| {
            read_entries(root, list, problems, |line| {
                list_entry(root, line, listing, kind)
            })
        },
    );
    warn_of_unused(
        &index,
        listing,
        |path| path.starts_with("JPEGImages/") && (kind.is_picture)(path),
        problems,
    );
    (index, labels)
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn from_folders(listing: &Listing, kind: Kind, problems: &mut Problems) -> Index {
    let mut index = Index::default();
    let Kind {
        suffix,
        is_picture,
        pictures,
        ..
    } = kind;
    for (folder, holds) in [
        (PICTURES, "the pictures"),
        (ANNOTATIONS, "the annotations of the pictures"),
    ] {
        if !listing.folders.contains_key(folder) {
            let remedy = format!("put {holds} into a folder of this name");
            problems.add(folder, None, "there is no such folder", remedy);
        }
    }
    let (Some(found), Some(annotations)) = (
        listing.folders.get(PICTURES),
        listing.folders.get(ANNOTATIONS),
    ) else {
        return index;
    };
    let mut used = HashSet::new();
    let mut others = 0usize;
    for picture in found {
        if !is_picture(picture) {
            others += 1;
            continue;
        }
        let wanted = format!("{}.{suffix}", stem(picture));
        let shouted = format!("{}.{}", stem(picture), suffix.to_uppercase());
        let there = [&wanted, &shouted]
            .into_iter()
            .find(|name| annotations.binary_search(name).is_ok());
        let path = join(PICTURES, picture);
        let Some(annotation) = there else {
            let reason = format!("its annotation {ANNOTATIONS}/{wanted} is missing");
            problems.add(path, None, reason, "add it or remove the picture");
            continue;
        };
        used.insert(annotation.clone());
        index.files.push(Entry {
            picture: path,
            annotation: join(ANNOTATIONS, annotation),
            classes: Vec::new(),
        });
    }
    if others > 0 {
        problems.warn(format!(
            "{others} files in {PICTURES} are no pictures ({pictures}) and are not used"
        ));
    }
    let lone = annotations
        .iter()
        .filter(|name| name.to_lowercase().ends_with(suffix) && !used.contains(*name));
    let lone: Vec<&String> = lone.collect();
    if let Some(first) = lone.first() {
        let count = lone.len();
        problems.warn(format!(
            "{count} annotations have no picture and are not used; the first is {ANNOTATIONS}/{first}"
        ));
    }
    if index.files.is_empty() && problems.count() == 0 {
        let remedy = format!("put pictures ({pictures}) into it");
        problems.add(PICTURES, None, "there are no pictures in it", remedy);
    }
    index
}

/// The two paths of a line. Names may hold blanks: of all blanks the one is taken at which both sides
/// are files of the dataset, else the one that looks most like it.
fn columns(line: &str, kind: Kind, there: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let blanks = line.char_indices().filter(|(_, c)| matches!(c, ' ' | '\t'));
    let parts = blanks.map(|(at, _)| {
        let (left, right) = line.split_at(at);
        (normal_path(left.trim()), normal_path(right.trim()))
    });
    let parts: Vec<(String, String)> = parts
        .filter(|(left, right)| !left.is_empty() && !right.is_empty())
        .collect();
    let suffix = format!(".{}", kind.suffix);
    type Parts = (String, String);
    let picture = |(left, _): &&Parts| there(left);
    let annotation = |(_, right): &&Parts| there(right);
    let looks =
        |(left, right): &&Parts| (kind.is_picture)(left) && right.to_lowercase().ends_with(&suffix);
    parts
        .iter()
        .find(|p| picture(p) && annotation(p))
        .or_else(|| parts.iter().find(annotation))
        .or_else(|| parts.iter().find(picture))
        .or_else(|| parts.iter().find(looks))
        .or_else(|| parts.last())
        .cloned()
}

/// What is wrong with a listed path as such.
fn bad_path(path: &str, listing: &Listing, root: &Path) -> Option<(String, &'static str)> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let reason = format!("{path} leads out of the dataset");
        return Some((reason, "write the path relative to the dataset folder"));
    }
    if listing.contains(path) {
        return None;
    }
    let (what, remedy) = if root.join(path).is_dir() {
        ("is a folder", "name a file")
    } else if path.matches('/').count() > 1 {
        (
            "lies deeper than one folder",
            "put it into JPEGImages or Annotations directly",
        )
    } else {
        ("is not there", "add the file or remove the line")
    };
    Some((format!("{path} {what}"), remedy))
}

/// A line of a list file: paths of a picture and its annotation.
fn list_entry(root: &Path, line: &str, listing: &Listing, kind: Kind) -> Result<Entry, Fault> {
    let Some((picture, annotation)) = columns(line, kind, |path| listing.contains(path)) else {
        return Err((
            format!("`{line}` has one column instead of two"),
            "write path of the picture, blank, path of its annotation".to_owned(),
        ));
    };
    let (suffix, name) = (kind.suffix, annotation.to_lowercase());
    let file = picture.rsplit('/').next();
    if !(kind.is_picture)(&picture) || file.is_none_or(|n| n.starts_with('.')) {
        let remedy = format!("list {} files only", kind.pictures);
        return Err((format!("{picture} is no picture name"), remedy));
    }
    if !name.ends_with(&format!(".{suffix}")) {
        let remedy = format!("write the path of a .{suffix} file as second column");
        return Err((format!("{annotation} is no .{suffix} file"), remedy));
    }
    let path = bad_path(&picture, listing, root).or_else(|| bad_path(&annotation, listing, root));
    if let Some((reason, remedy)) = path {
        return Err((reason, remedy.to_owned()));
    }
    Ok(Entry {
        picture,
        annotation,
        classes: Vec::new(),
    })
}
