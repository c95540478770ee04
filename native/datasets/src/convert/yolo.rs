//! YOLO: a text file for each picture, a line for each thing: class id, then centre and size of its box, or
//! the corners of its outline, as fractions of the picture's sides.

use std::collections::HashMap;
use std::path::Path;

use oarlock_imaging::BBox;
use serde_yaml_ng::Value;

use super::find::{pictures, stem, suffix};
use super::{Geometry, Shape, Source};
use crate::Problems;
use crate::text::{lines, read_text};

const NAME_FILES: [&str; 5] = [
    "classes.txt",
    "labels.txt",
    "obj.names",
    "classes.names",
    "names.txt",
];

pub fn read(root: &Path, files: &[String], problems: &mut Problems) -> Source {
    let names = class_names(root, files, problems);
    let texts: HashMap<String, &String> = files
        .iter()
        .filter(|f| suffix(f) == "txt")
        .map(|f| (place(f), f))
        .collect();
    let mut source = Source {
        relative: true,
        ..Source::default()
    };
    let mut largest = None;
    for path in pictures(files).into_values().flatten() {
        let mut shapes = Vec::new();
        // Next to the picture, or in `labels` where it lies in `images`; none = no things.
        let beside = texts.get(&place(path)).copied();
        if let Some(file) = beside {
            read_file(
                root,
                file,
                names.as_deref(),
                &mut shapes,
                &mut largest,
                problems,
            );
        }
        source.pictures.push((path.clone(), shapes));
    }
    source.pictures.sort_by(|a, b| a.0.cmp(&b.0));
    let empty = source
        .pictures
        .iter()
        .filter(|(_, shapes)| shapes.is_empty())
        .count();
    if empty > 0 {
        problems.warn(format!("{empty} pictures have no objects"));
    }
    source.names =
        names.or_else(|| largest.map(|n| (0..=n).map(|i: usize| i.to_string()).collect()));
    source
}

/// Folder and stem, with `images` and `labels` as the same folder.
fn place(path: &str) -> String {
    let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
    let parts = folder
        .split('/')
        .filter(|part| !["images", "labels", "jpegimages"].contains(&part.to_lowercase().as_str()));
    format!("{}/{}", parts.collect::<Vec<_>>().join("/"), stem(path))
}

fn class_names(root: &Path, files: &[String], problems: &mut Problems) -> Option<Vec<String>> {
    let named = |f: &&String| {
        let name = f.rsplit('/').next().unwrap_or(f);
        NAME_FILES.contains(&name)
    };
    for file in files
        .iter()
        .filter(|f| ["yaml", "yml"].contains(&suffix(f).as_str()))
    {
        let text = read_text(&root.join(file)).unwrap_or_default();
        let Ok(value) = serde_yaml_ng::from_str::<Value>(&text) else {
            problems.warn(format!("{file} cannot be read as YAML and was ignored"));
            continue;
        };
        let texts = match value.get("names") {
            Some(Value::Sequence(list)) => list
                .iter()
                .enumerate()
                .map(|(i, v)| text_of(v).unwrap_or_else(|| i.to_string()))
                .collect(),
            Some(Value::Mapping(map)) => {
                let mut list: Vec<(u64, String)> = map
                    .iter()
                    .filter_map(|(k, v)| Some((k.as_u64()?, text_of(v)?)))
                    .collect();
                list.sort();
                // Ids must be places.
                let whole = list.iter().enumerate().all(|(i, (id, _))| i as u64 == *id);
                if !whole {
                    problems.add(
                        file.as_str(),
                        None,
                        "its names leave out ids",
                        "number them 0, 1, 2 …",
                    );
                }
                list.into_iter().map(|(_, name)| name).collect()
            }
            _ => Vec::new(),
        };
        if !texts.is_empty() {
            return Some(texts);
        }
    }
    let file = files.iter().find(named)?;
    let text = read_text(&root.join(file)).ok()?;
    let names: Vec<String> = lines(&text).map(|(_, line)| line.to_owned()).collect();
    (!names.is_empty()).then_some(names)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn read_file(
    root: &Path,
    file: &str,
    names: Option<&[String]>,
    shapes: &mut Vec<Shape>,
    largest: &mut Option<usize>,
    problems: &mut Problems,
) {
    let text = match read_text(&root.join(file)) {
        Ok(text) => text,
        Err(error) => {
            problems.add(file, None, error.to_string(), "save it as UTF-8 text");
            return;
        }
    };
    for (number, line) in lines(&text) {
        let mut bad =
            |reason: String, remedy: &str| problems.add(file, Some(number), reason, remedy);
        let mut columns = line.split_whitespace();
        let id = columns
            .next()
            .and_then(|id| id.parse::<usize>().ok())
            .filter(|id| *id < 100_000);
        let numbers: Option<Vec<f32>> = columns
            .map(|n| n.parse().ok().filter(|v: &f32| v.is_finite()))
            .collect();
        let (Some(id), Some(numbers)) = (id, numbers) else {
            bad(
                format!("`{line:.60}` is no class id with numbers"),
                "write class id, centre x, centre y, width, height",
            );
            continue;
        };
        let name = match names {
            None => id.to_string(),
            Some(names) => match names.get(id) {
                Some(name) => name.clone(),
                None => {
                    bad(
                        format!(
                            "class id {id} has no name; there are {} (ids from 0)",
                            names.len()
                        ),
                        "add the name or correct the id",
                    );
                    continue;
                }
            },
        };
        *largest = (*largest).max(Some(id));
        if numbers.iter().any(|v| !(-0.5..=1.5).contains(v)) {
            bad(
                format!("`{line:.60}` holds numbers beyond the picture"),
                "write fractions of the picture's sides, 0 to 1",
            );
            continue;
        }
        let geometry = match numbers.as_slice() {
            // A fifth number is a score.
            [x, y, w, h] | [x, y, w, h, _] => Geometry::Box(BBox::new(
                x - w / 2.0,
                y - h / 2.0,
                x + w / 2.0,
                y + h / 2.0,
            )),
            outline if outline.len() >= 6 && outline.len().is_multiple_of(2) => {
                Geometry::Polygons(vec![
                    outline.chunks_exact(2).map(|p| [p[0], p[1]]).collect(),
                ])
            }
            other => {
                bad(
                    format!("{} numbers follow the class id", other.len()),
                    "write four for a box, or pairs of x and y for an outline",
                );
                continue;
            }
        };
        shapes.push(Shape { name, geometry });
    }
}
