//! Labels, files and split of a dataset, and its `details` object.

use std::collections::HashMap;

use oarlock_jobs::TaskType;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A picture and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the dataset with `/`.
    pub picture: String,
    /// Path of its annotation; empty for classification.
    pub annotation: String,
    /// Places in `labels` of the classes in it, each once; exactly one for classification.
    pub classes: Vec<usize>,
}

/// A dataset: what its folders, annotations and list files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Class names. Their place is the class id, but for instance segmentation, whose names are sorted
    /// and whose ids follow the categories of the annotation file.
    pub labels: Vec<String>,
    /// Pictures.
    pub files: Vec<Entry>,
    /// Whether there are list files.
    pub split: bool,
    /// Places in `files`.
    pub train: Vec<usize>,
    /// Places in `files`.
    pub val: Vec<usize>,
    /// Places in `files`.
    pub test: Vec<usize>,
}

/// What of the `details` object is needed to make an index of it again.
#[derive(Deserialize)]
struct Stored {
    labels: Vec<String>,
    file_info: Map<String, Value>,
    label_info: HashMap<String, Vec<String>>,
    train_files: Vec<String>,
    val_files: Vec<String>,
    test_files: Vec<String>,
}

impl Index {
    /// The `details` object of the PaddleX API: every label is a key of all four maps.
    pub fn details(&self) -> Value {
        let mut file_info = Map::with_capacity(self.files.len());
        for file in &self.files {
            let class = || file.classes.first().and_then(|&c| self.labels.get(c));
            let about = match file.annotation.as_str() {
                "" => class().map_or("", String::as_str),
                annotation => annotation,
            };
            file_info.insert(file.picture.clone(), about.into());
        }
        let everything: Vec<usize> = (0..self.files.len()).collect();
        let list = |places: &[usize]| -> Value {
            places
                .iter()
                .map(|&i| Value::from(self.files[i].picture.as_str()))
                .collect()
        };
        json!({
            "fields": [
                "file_info", "label_info", "labels", "train_files", "val_files", "test_files",
                "class_train_file_list", "class_val_file_list", "class_test_file_list",
            ],
            "labels": self.labels,
            "file_info": file_info,
            "label_info": self.by_class(&everything),
            "train_files": list(&self.train),
            "val_files": list(&self.val),
            "test_files": list(&self.test),
            "class_train_file_list": self.by_class(&self.train),
            "class_val_file_list": self.by_class(&self.val),
            "class_test_file_list": self.by_class(&self.test),
        })
    }

    /// The index that gave these details (JSON text); `None` when the text is something else.
    pub fn from_details(text: &[u8], task_type: TaskType) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(text).ok()?;
        let mut places = HashMap::with_capacity(stored.file_info.len());
        let mut files = Vec::with_capacity(stored.file_info.len());
        for (picture, about) in stored.file_info {
            let annotation = match task_type {
                TaskType::Classification => String::new(),
                _ => about.as_str()?.to_owned(),
            };
            places.insert(picture.clone(), files.len());
            files.push(Entry {
                picture,
                annotation,
                classes: Vec::new(),
            });
        }
        for (class, label) in stored.labels.iter().enumerate() {
            for picture in stored.label_info.get(label).into_iter().flatten() {
                let classes = &mut files[*places.get(picture)?].classes;
                if classes.last() != Some(&class) {
                    classes.push(class);
                }
            }
        }
        let list = |paths: &[String]| -> Option<Vec<usize>> {
            paths.iter().map(|path| places.get(path).copied()).collect()
        };
        Some(Self {
            split: !stored.train_files.is_empty(),
            train: list(&stored.train_files)?,
            val: list(&stored.val_files)?,
            test: list(&stored.test_files)?,
            labels: stored.labels,
            files,
        })
    }

    fn by_class(&self, places: &[usize]) -> Value {
        let mut lists: Vec<Vec<Value>> = vec![Vec::new(); self.labels.len()];
        for &place in places {
            let file = &self.files[place];
            for &class in &file.classes {
                lists[class].push(file.picture.as_str().into());
            }
        }
        let named = self
            .labels
            .iter()
            .cloned()
            .zip(lists.into_iter().map(Value::from));
        Value::Object(named.collect())
    }

    /// Text of a list file: path and class id, or path and annotation, a line.
    pub fn list_text(&self, places: &[usize]) -> String {
        let line = |&place: &usize| {
            let file = &self.files[place];
            match file.annotation.as_str() {
                "" => {
                    let class = file.classes.first().copied().unwrap_or(0);
                    format!("{} {class}\n", file.picture)
                }
                annotation => format!("{} {annotation}\n", file.picture),
            }
        };
        places.iter().map(line).collect()
    }

    /// Text of `labels.txt`.
    pub fn labels_text(&self) -> String {
        self.labels
            .iter()
            .map(|label| format!("{label}\n"))
            .collect()
    }

    /// Names and texts of the list files; the training list last, because its presence is what marks a
    /// dataset as split.
    pub fn lists(&self) -> [(&'static str, String); 4] {
        [
            ("labels.txt", self.labels_text()),
            ("test_list.txt", self.list_text(&self.test)),
            ("val_list.txt", self.list_text(&self.val)),
            ("train_list.txt", self.list_text(&self.train)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(picture: &str, annotation: &str, classes: &[usize]) -> Entry {
        Entry {
            picture: picture.into(),
            annotation: annotation.into(),
            classes: classes.to_vec(),
        }
    }

    #[test]
    fn every_label_is_a_key_of_every_map() {
        let index = Index {
            labels: vec!["nut".into(), "screw".into(), "unused".into()],
            files: vec![
                entry("nut/a.jpg", "", &[0]),
                entry("screw/b b.jpg", "", &[1]),
            ],
            split: true,
            train: vec![0],
            val: vec![1],
            test: vec![],
        };
        let details = index.details();
        assert_eq!(details["file_info"]["screw/b b.jpg"], "screw");
        for map in [
            "label_info",
            "class_train_file_list",
            "class_val_file_list",
            "class_test_file_list",
        ] {
            assert_eq!(details[map].as_object().unwrap().len(), 3, "{map}");
        }
        assert_eq!(details["label_info"]["unused"], json!([]));
        assert_eq!(
            details["class_val_file_list"]["screw"],
            json!(["screw/b b.jpg"])
        );
        assert_eq!(details["fields"].as_array().unwrap().len(), 9);
        assert_eq!(index.list_text(&[1, 0]), "screw/b b.jpg 1\nnut/a.jpg 0\n");
        let text = details.to_string();
        let again = Index::from_details(text.as_bytes(), TaskType::Classification);
        assert_eq!(again, Some(index));
    }

    #[test]
    fn pictures_with_annotations_belong_to_all_their_classes() {
        let index = Index {
            labels: vec!["a".into(), "b".into()],
            files: vec![
                entry("JPEGImages/1.jpg", "Annotations/1.xml", &[0, 1]),
                entry("JPEGImages/2.jpg", "Annotations/2.xml", &[]),
            ],
            split: true,
            train: vec![1, 0],
            ..Index::default()
        };
        let details = index.details();
        assert_eq!(
            details["label_info"],
            json!({"a": ["JPEGImages/1.jpg"], "b": ["JPEGImages/1.jpg"]})
        );
        assert_eq!(
            details["file_info"]["JPEGImages/2.jpg"],
            "Annotations/2.xml"
        );
        assert_eq!(
            index.lists()[3].1,
            "JPEGImages/2.jpg Annotations/2.xml\nJPEGImages/1.jpg Annotations/1.xml\n"
        );
        let read = |text: &str| Index::from_details(text.as_bytes(), TaskType::Detection);
        assert_eq!(read(&details.to_string()), Some(index));
        let strange = details.to_string().replace("[\"JPEGImages/2", "[\"other/2");
        assert_eq!((read(&strange), read("{}"), read("[")), (None, None, None));
    }
}
