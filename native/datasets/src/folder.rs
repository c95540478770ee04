//! Image folders: one folder of pictures per class, with or without list files.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::lists::{Fault, read_entries};
use crate::scan::{Listing, is_picture_name, join};
use crate::text::{lines, normal_path, read_text};
use crate::{DataError, Entry, Index, Problems, Sample};

pub(crate) const LABELS: &str = "labels.txt";
pub(crate) const LISTS: [&str; 3] = ["train_list.txt", "val_list.txt", "test_list.txt"];

/// Reads labels, files and split from folders or list files; no picture is opened.
pub fn index(root: &Path, listing: &Listing, problems: &mut Problems) -> Index {
    if listing.contains(LISTS[0]) {
        index_split(root, listing, problems)
    } else {
        index_folders(listing, problems)
    }
}

fn entry(picture: String, class: usize) -> Entry {
    Entry {
        picture,
        annotation: String::new(),
        classes: vec![class],
    }
}

fn index_folders(listing: &Listing, problems: &mut Problems) -> Index {
    let mut index = Index::default();
    let mut others = 0usize;
    for (folder, files) in &listing.folders {
        let pictures: Vec<&String> = files.iter().filter(|f| is_picture_name(f)).collect();
        if folder.is_empty() {
            if !pictures.is_empty() {
                problems.warn(format!(
                    "{} pictures lie beside the class folders, belong to no class and are not used",
                    pictures.len()
                ));
            }
            continue;
        }
        others += files.len() - pictures.len();
        if pictures.is_empty() {
            problems.warn(format!("folder {folder} holds no pictures and is no class"));
            continue;
        }
        if folder.contains(char::is_whitespace) {
            problems.add(
                folder,
                None,
                "the class name contains a blank",
                "rename the folder, e.g. with _ in its place",
            );
        }
        let label = index.labels.len();
        index.labels.push(folder.clone());
        index.files.extend(
            pictures
                .into_iter()
                .map(|file| entry(join(folder, file), label)),
        );
    }
    if others > 0 {
        problems.warn(format!("{others} files in class folders are no pictures (.jpg, .jpeg, .png, .bmp) and are not used"));
    }
    match index.labels.len() {
        0 => problems.add("", None, "there are no pictures in class folders", "put the pictures of each class into a folder of their own, named like the class (.jpg, .jpeg, .png, .bmp)"),
        1 => {
            let only = format!("there is only one class, {}", index.labels[0]);
            problems.add("", None, only, "at least two kinds of images are needed, each in a folder of its own");
        }
        _ => {}
    }
    index
}

/// The class names of `labels.txt`.
pub(crate) fn read_labels(root: &Path, problems: &mut Problems) -> Vec<String> {
    let text = match read_text(&root.join(LABELS)) {
        Ok(text) => text,
        Err(error) => {
            problems.add(LABELS, None, error.to_string(), "save it as UTF-8 text");
            return Vec::new();
        }
    };
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut labels = Vec::new();
    for (line, label) in lines(&text) {
        if let Some(first) = known.insert(label, line) {
            let reason = format!("class {label} is named already in line {first}");
            problems.add(LABELS, Some(line), reason, "name each class once");
        }
        labels.push(label.to_owned());
    }
    if labels.is_empty() {
        problems.add(
            LABELS,
            None,
            "it names no class",
            "write one class name a line",
        );
    }
    labels
}

fn index_split(root: &Path, listing: &Listing, problems: &mut Problems) -> Index {
    let mut index = Index::default();
    for file in [LABELS, LISTS[1]] {
        if !listing.contains(file) {
            problems.add(
                file,
                None,
                "it is missing",
                "a dataset with train_list.txt also needs labels.txt and val_list.txt",
            );
        }
    }
    if listing.contains(LABELS) {
        index.labels = read_labels(root, problems);
    }
    let labels = index.labels.clone();
    take_lists(
        &mut index,
        listing,
        problems,
        "class id",
        |list, problems| {
            read_entries(root, list, problems, |line| {
                list_entry(root, line, listing, &labels)
            })
        },
    );
    warn_of_unused(&index, listing, is_picture_name, problems);
    index
}

/// Fills files and split of the index from the list files that are there; `read` gives the right lines of
/// one, whose second column is called `second`.
pub(crate) fn take_lists(
    index: &mut Index,
    listing: &Listing,
    problems: &mut Problems,
    second: &str,
    mut read: impl FnMut(&str, &mut Problems) -> Vec<Entry>,
) {
    index.split = true;
    let mut places: HashMap<String, usize> = HashMap::new();
    for (number, list) in LISTS.into_iter().enumerate() {
        if !listing.contains(list) {
            continue;
        }
        let before = problems.count();
        let entries = read(list, problems);
        if entries.is_empty() && number < 2 && problems.count() == before {
            problems.add(
                list,
                None,
                "it names no picture",
                format!("write one line a picture: path, blank, {second}"),
            );
        }
        let mut inside = HashSet::new();
        let mut repeated = 0;
        for entry in entries {
            let place = *places.entry(entry.picture.clone()).or_insert_with(|| {
                index.files.push(entry);
                index.files.len() - 1
            });
            if !inside.insert(place) {
                repeated += 1;
                continue;
            }
            match number {
                0 => index.train.push(place),
                1 => index.val.push(place),
                _ => index.test.push(place),
            }
        }
        if repeated > 0 {
            problems.warn(format!(
                "{list} names {repeated} pictures more than once; each is used once"
            ));
        }
    }
    warn_of_shared(index, problems);
}

pub(crate) fn warn_of_shared(index: &Index, problems: &mut Problems) {
    let train: HashSet<usize> = index.train.iter().copied().collect();
    let shared = index
        .val
        .iter()
        .chain(&index.test)
        .filter(|p| train.contains(p))
        .count();
    if shared > 0 {
        problems.warn(format!("{shared} pictures are used for training and for validation or test; their accuracy says little"));
    }
}

/// Tells how many pictures of the folder the split leaves out.
pub(crate) fn warn_of_unused(
    index: &Index,
    listing: &Listing,
    is_picture: impl Fn(&str) -> bool,
    problems: &mut Problems,
) {
    let mut used: HashSet<&str> = index.files.iter().map(|f| f.picture.as_str()).collect();
    used.extend(index.files.iter().map(|f| f.annotation.as_str()));
    let unused = listing
        .paths()
        .filter(|p| is_picture(p) && !used.contains(p.as_str()))
        .count();
    if unused > 0 {
        problems.warn(format!("{unused} pictures are in no list and are not used"));
    }
}

/// A line of a list file: path and class id.
fn list_entry(
    root: &Path,
    line: &str,
    listing: &Listing,
    labels: &[String],
) -> Result<Entry, Fault> {
    let bad = |reason: String, remedy: &str| Err((reason, remedy.to_owned()));
    const FORM: &str = "write path, blank, class id";
    // The last blank parts path and id: paths may contain blanks themselves.
    let Some((path, id)) = line.rsplit_once([' ', '\t']) else {
        return bad(format!("`{line}` has one column instead of two"), FORM);
    };
    let path = normal_path(path.trim_end());
    let Ok(id) = id.parse::<usize>() else {
        return bad(format!("class id `{id}` is no whole number"), FORM);
    };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return bad(
            format!("{path} leads out of the dataset"),
            "write the path relative to the dataset folder",
        );
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
    if file.starts_with('.') || !is_picture_name(file) {
        return bad(
            format!("{path} is no picture name"),
            "list .jpg, .jpeg, .png and .bmp files only",
        );
    }
    if !labels.is_empty() && id >= labels.len() {
        let reason = format!(
            "class id {id} is not in labels.txt, which has {} classes (ids from 0)",
            labels.len()
        );
        return bad(reason, "add the class or correct the id");
    }
    if !listing.contains(&path) {
        let (reason, remedy) = if root.join(&path).is_dir() {
            ("is a folder", "list the pictures in it")
        } else if folder.contains('/') {
            (
                "lies deeper than one folder",
                "put the pictures of a class directly into its folder",
            )
        } else {
            ("is not there", "add the file or remove the line")
        };
        return bad(format!("{path} {reason}"), remedy);
    }
    if let Some(label) = labels.get(id)
        && folder != label
    {
        let reason = format!(
            "{path} has class id {id}, which labels.txt calls {label}, but lies in folder `{folder}`"
        );
        return bad(
            reason,
            "give labels.txt the order that the ids were made with",
        );
    }
    Ok(entry(path, id))
}

/// The class names of an imported and split dataset (`labels.txt`), in order of their ids. Errors: the file
/// is missing or names none.
pub fn read_class_names(root: &Path) -> Result<Vec<String>, DataError> {
    let mut problems = Problems::default();
    let labels = read_labels(root, &mut problems);
    match problems.list().first() {
        Some(first) => Err(DataError::Invalid(first.to_string())),
        None => Ok(labels),
    }
}

/// An imported and split dataset, ready for training.
#[derive(Debug, Clone)]
pub struct SplitDataset {
    /// Class names; the place is the class id.
    pub labels: Vec<String>,
    /// Training images.
    pub train: Arc<Vec<Sample>>,
    /// Validation images.
    pub val: Arc<Vec<Sample>>,
    /// Test images, maybe none.
    pub test: Arc<Vec<Sample>>,
}

impl SplitDataset {
    /// Reads `labels.txt` and the list files of a dataset folder. Whether the pictures are there is
    /// left to the loader, which names what is missing. Errors: a list missing or faulty.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let mut problems = Problems::default();
        let labels = read_labels(root, &mut problems);
        let mut lists = LISTS.map(|list| {
            let file = root.join(list);
            if list == LISTS[2] && !file.exists() {
                return Arc::default();
            }
            Arc::new(read_samples(root, &file, labels.len(), &mut problems))
        });
        if let Some(first) = problems.list().first() {
            return Err(DataError::Invalid(first.to_string()));
        }
        let [train, val, test] = &mut lists;
        Ok(Self {
            labels,
            train: train.clone(),
            val: val.clone(),
            test: test.clone(),
        })
    }
}

fn read_samples(root: &Path, file: &Path, classes: usize, problems: &mut Problems) -> Vec<Sample> {
    let name = file
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let text = match read_text(file) {
        Ok(text) => text,
        Err(error) => {
            problems.add(name, None, error.to_string(), "split the dataset again");
            return Vec::new();
        }
    };
    let mut samples = Vec::new();
    for (number, line) in lines(&text) {
        let parts = line
            .rsplit_once([' ', '\t'])
            .and_then(|(path, id)| Some((normal_path(path.trim_end()), id.parse::<i64>().ok()?)));
        match parts {
            Some((path, label))
                if (0..classes as i64).contains(&label)
                    && !path.split('/').any(|p| p == "..")
                    && !path.starts_with('/') =>
            {
                samples.push(Sample {
                    path: root.join(path),
                    label,
                });
            }
            _ => problems.add(
                name.as_str(),
                Some(number),
                format!("`{line}` is no path with a class id below {classes}"),
                "split the dataset again",
            ),
        }
    }
    samples
}
