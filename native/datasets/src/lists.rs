//! List files: one picture a line, with its class id or its annotation file.

use std::path::Path;

use crate::{
    DataError, Entry, Problems, SegmentSample, is_picture_name, lines, normal_path, read_text,
};

/// What is wrong with a line, and what to do about it.
pub(crate) type Fault = (String, String);

/// The right lines of a list file; the others become problems.
pub(crate) fn read_entries(
    root: &Path,
    list: &str,
    problems: &mut Problems,
    entry: impl Fn(&str) -> Result<Entry, Fault>,
) -> Vec<Entry> {
    let text = match read_text(&root.join(list)) {
        Ok(text) => text,
        Err(error) => {
            problems.add(list, None, error.to_string(), "save it as UTF-8 text");
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for (number, line) in lines(&text) {
        match entry(line) {
            Ok(entry) => entries.push(entry),
            Err((reason, remedy)) => problems.add(list, Some(number), reason, &remedy),
        }
    }
    entries
}

/// Parts a line of a list at the blank before the annotation's path: both paths may hold blanks
/// themselves. `None` when no blank has a picture's name before it.
pub fn split_pair(line: &str) -> Option<(String, String)> {
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.rsplit_once('.').map_or(name, |n| n.0).to_owned()
    };
    let blanks = line.match_indices([' ', '\t']);
    let pairs = blanks.map(|(at, _)| {
        let (picture, annotation) = (line[..at].trim_end(), line[at + 1..].trim_start());
        (normal_path(picture), normal_path(annotation))
    });
    let fits =
        |(picture, annotation): &(String, String)| is_picture(picture) && !annotation.is_empty();
    let pairs: Vec<_> = pairs.filter(fits).collect();
    // Usually picture and annotation have the same name.
    let same = pairs.iter().position(|(p, a)| stem(p) == stem(a));
    pairs.into_iter().nth(same.unwrap_or(0))
}

/// Rasters are pictures too where annotations are label maps.
fn is_picture(path: &str) -> bool {
    let suffix = path.rsplit_once('.').map_or("", |p| p.1);
    let raster = ["npy", "tif", "tiff"];
    is_picture_name(path) || raster.iter().any(|r| suffix.eq_ignore_ascii_case(r))
}

/// The samples of a segmentation list, e.g. `train_list.txt`. Whether the files are there is left to the
/// loader, which names what is missing. Errors: the list cannot be read, or a line of it.
pub fn read_segment_list(root: &Path, list: &str) -> Result<Vec<SegmentSample>, DataError> {
    let text = read_text(&root.join(list))?;
    let mut samples = Vec::new();
    for (number, line) in lines(&text) {
        let leads_out = |path: &str| path.starts_with('/') || path.split('/').any(|p| p == "..");
        match split_pair(line) {
            Some((picture, map)) if !leads_out(&picture) && !leads_out(&map) => {
                samples.push(SegmentSample {
                    path: root.join(picture),
                    map: root.join(map),
                });
            }
            _ => {
                return Err(DataError::Invalid(format!(
                    "{list}, line {number}: expected a picture and its label map, both relative to the dataset: `{line}`"
                )));
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parted_before_the_annotation() {
        let pair = |line| split_pair(line).map(|(p, a)| format!("{p}|{a}"));
        let same = [
            (
                "JPEGImages/a.jpg Annotations/a.png",
                "JPEGImages/a.jpg|Annotations/a.png",
            ),
            (
                "JPEGImages/a b.jpg Annotations/a b.png",
                "JPEGImages/a b.jpg|Annotations/a b.png",
            ),
            (
                "JPEGImages/x.png y.png\tAnnotations/x.png y.png",
                "JPEGImages/x.png y.png|Annotations/x.png y.png",
            ),
            (r".\JPEGImages\a.JPG  m\b.png", "JPEGImages/a.JPG|m/b.png"),
            ("s/a.tif s/a.png", "s/a.tif|s/a.png"),
        ];
        for (line, parted) in same {
            assert_eq!(pair(line).as_deref(), Some(parted));
        }
        assert_eq!(pair("JPEGImages/a.jpg"), None);
        assert_eq!(pair("a.txt b.png"), None);
    }

    #[test]
    fn a_faulty_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("train_list.txt"), text);
        write("J/a.jpg A/a.png\n\nJ/b.jpg A/b.png\n").unwrap();
        let read = || read_segment_list(folder.path(), "train_list.txt");
        let samples = read().unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1].map, folder.path().join("A/b.png"));
        for bad in ["J/a.jpg", "../a.jpg A/a.png", "J/a.jpg /etc/a.png"] {
            write(&format!("J/a.jpg A/a.png\n{bad}\n")).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.starts_with("train_list.txt, line 2"), "{error}");
        }
    }
}
