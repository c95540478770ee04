//! Split files: `train.json`, `val.json`, `test.json` out of `annotations.json`, and back.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use oarlock_files::write_bytes;
use oarlock_jobs::{ErrorCode, JobError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Id, Raw, flag, read_json};
use crate::Index;

/// Files of the parts, in the order train, val, test.
pub const PARTS: [&str; 3] = ["train.json", "val.json", "test.json"];
/// The file of a set that is not split.
pub const WHOLE: &str = "annotations.json";

#[derive(Deserialize)]
struct ImageHead {
    id: Id,
    file_name: String,
}

#[derive(Deserialize)]
struct AnnotationHead {
    image_id: Id,
    #[serde(default, deserialize_with = "flag")]
    iscrowd: bool,
}

/// Writes the three files by the split of the index, each entry as `annotations.json` has it, crowds left
/// out. The training file is last, because its presence is what marks a set as split.
pub fn write_parts(root: &Path, index: &Index) -> Result<(), JobError> {
    let invalid = |reason: String| {
        JobError::new(ErrorCode::InvalidData, format!("{WHOLE}: {reason}"))
            .hint("import the dataset again")
    };
    let text = read_json(&root.join(WHOLE)).map_err(|e| invalid(e.to_string()))?;
    let raw: Raw = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
    let lists = [&index.train, &index.val, &index.test];
    let mut part_of: HashMap<&str, usize> = HashMap::new();
    for (part, list) in lists.into_iter().enumerate() {
        for &place in list {
            let name = index.files[place].picture.rsplit('/').next();
            part_of.insert(name.unwrap_or(""), part);
        }
    }
    // Of entries with the same name the last counts, as it did in the import.
    let mut images: HashMap<String, (Id, &RawValue)> = HashMap::new();
    let mut order = Vec::new();
    for entry in &raw.images {
        let Ok(head) = serde_json::from_str::<ImageHead>(entry.get()) else {
            continue;
        };
        let name = head.file_name.rsplit(['/', '\\']).next().unwrap_or("");
        if part_of.contains_key(name) && images.insert(name.to_owned(), (head.id, entry)).is_none()
        {
            order.push(name.to_owned());
        }
    }
    let mut chosen: [(Vec<&RawValue>, Vec<&RawValue>); 3] = Default::default();
    let mut of_image = HashMap::new();
    for name in &order {
        if let (Some((id, entry)), Some(&part)) = (images.get(name), part_of.get(name.as_str())) {
            chosen[part].0.push(entry);
            of_image.insert(id.clone(), part);
        }
    }
    for entry in &raw.annotations {
        let Ok(head) = serde_json::from_str::<AnnotationHead>(entry.get()) else {
            continue;
        };
        if let Some(&part) = of_image.get(&head.image_id)
            && !head.iscrowd
        {
            chosen[part].1.push(entry);
        }
    }
    for (name, (images, annotations)) in PARTS.iter().zip(&chosen).rev() {
        let mut out = Vec::new();
        part_text(&mut out, annotations, images, &raw.categories)
            .and_then(|()| write_bytes(&root.join(name), &out))
            .map_err(|error| {
                let mut job = JobError::from(error);
                job.message = format!("{name} cannot be written: {}", job.message);
                job
            })?;
    }
    Ok(())
}

fn part_text(
    out: &mut Vec<u8>,
    annotations: &[&RawValue],
    images: &[&RawValue],
    categories: &[&RawValue],
) -> io::Result<()> {
    let lists = [
        ("{\"annotations\":[", annotations),
        ("],\"images\":[", images),
        ("],\"categories\":[", categories),
    ];
    for (head, entries) in lists {
        out.write_all(head.as_bytes())?;
        for (i, entry) in entries.iter().enumerate() {
            out.write_all(if i == 0 { b"" } else { b"," })?;
            out.write_all(entry.get().as_bytes())?;
        }
    }
    out.write_all(b"]}")
}

/// One text of several parts, `(file, text)` each: images and annotations numbered anew from 0, the
/// categories of the first. Errors: broken JSON, a category that the first does not have by name.
pub fn merged(parts: &[(&str, String)]) -> Result<String, String> {
    let mut images: Vec<Value> = Vec::new();
    let mut annotations: Vec<Value> = Vec::new();
    let mut categories: Vec<Value> = Vec::new();
    let mut by_name: HashMap<String, Value> = HashMap::new();
    for (number, (file, text)) in parts.iter().enumerate() {
        let bad = |reason: String| format!("{file}: {reason}");
        let mut read: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| bad(format!("broken JSON: {e}")))?;
        let mut list = |key: &str| match read.remove(key) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let mut ids: HashMap<String, Value> = HashMap::new();
        for category in list("categories") {
            let (id, name) = (category["id"].clone(), category["name"].to_string());
            if number == 0 {
                by_name.insert(name, id.clone());
                ids.insert(id.to_string(), id);
                categories.push(category);
            } else {
                let known = by_name
                    .get(&name)
                    .ok_or_else(|| bad(format!("its category {name} is not in {}", parts[0].0)))?;
                ids.insert(id.to_string(), known.clone());
            }
        }
        let mut places: HashMap<String, usize> = HashMap::new();
        for mut image in list("images") {
            places.insert(image["id"].to_string(), images.len());
            if let Some(object) = image.as_object_mut() {
                object.insert("id".into(), json!(images.len()));
                images.push(image);
            }
        }
        for mut annotation in list("annotations") {
            let image = places.get(&annotation["image_id"].to_string()).copied();
            let category = ids.get(&annotation["category_id"].to_string()).cloned();
            if let (Some(object), Some(image)) = (annotation.as_object_mut(), image) {
                object.insert("id".into(), json!(annotations.len()));
                object.insert("image_id".into(), json!(image));
                if let Some(category) = category {
                    object.insert("category_id".into(), category);
                }
                annotations.push(annotation);
            }
        }
    }
    let whole = json!({"images": images, "annotations": annotations, "categories": categories});
    Ok(whole.to_string())
}
