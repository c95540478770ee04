//! Labels, files and split of a classification dataset, and its `details` object.

use serde_json::{Map, Value, json};

/// A classification dataset: what its folders and list files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Class names; the place is the class id.
    pub labels: Vec<String>,
    /// Path relative to the dataset with `/`, and class id.
    pub files: Vec<(String, usize)>,
    /// Whether there are list files.
    pub split: bool,
    /// Places in `files`.
    pub train: Vec<usize>,
    /// Places in `files`.
    pub val: Vec<usize>,
    /// Places in `files`.
    pub test: Vec<usize>,
}

impl Index {
    /// The `details` object of the PaddleX API: every label is a key of all four maps.
    pub fn details(&self) -> Value {
        let name = |label: usize| self.labels.get(label).map_or("", String::as_str);
        let mut file_info = Map::with_capacity(self.files.len());
        for (path, label) in &self.files {
            file_info.insert(path.clone(), name(*label).into());
        }
        let everything: Vec<usize> = (0..self.files.len()).collect();
        let list = |places: &[usize]| -> Value {
            places
                .iter()
                .map(|&i| Value::from(self.files[i].0.as_str()))
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

    fn by_class(&self, places: &[usize]) -> Value {
        let mut lists: Vec<Vec<Value>> = vec![Vec::new(); self.labels.len()];
        for &place in places {
            let (path, label) = &self.files[place];
            lists[*label].push(path.as_str().into());
        }
        let named = self
            .labels
            .iter()
            .cloned()
            .zip(lists.into_iter().map(Value::from));
        Value::Object(named.collect())
    }

    /// Text of a list file: path and class id a line.
    pub fn list_text(&self, places: &[usize]) -> String {
        places
            .iter()
            .map(|&i| format!("{} {}\n", self.files[i].0, self.files[i].1))
            .collect()
    }

    /// Text of `labels.txt`.
    pub fn labels_text(&self) -> String {
        self.labels
            .iter()
            .map(|label| format!("{label}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_a_key_of_every_map() {
        let index = Index {
            labels: vec!["nut".into(), "screw".into(), "unused".into()],
            files: vec![("nut/a.jpg".into(), 0), ("screw/b b.jpg".into(), 1)],
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
    }
}
