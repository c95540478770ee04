//! Splitting into training, validation and test images.

use std::path::Path;

use oarlock_imaging::Rng;
use oarlock_jobs::{ErrorCode, JobError, TaskType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Index;
use crate::coco::write_parts;
use oarlock_files::write_bytes;

/// How to split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Share of validation images, 0–1.
    pub val_split: f64,
    /// Share of test images, 0–1; may be 0.
    pub test_split: f64,
    /// Makes the split repeatable.
    pub seed: u64,
    /// Keeps the shares within each class, as far as whole images allow.
    #[serde(default)]
    pub stratify: bool,
}

/// Splits: `val = floor(N·val_split)`, `test = floor(N·test_split)`, the rest is for training; first
/// training, then validation, then test of one random order. Errors: shares that are negative, not
/// finite or leave nothing to train or validate with.
pub fn split(index: &Index, options: SplitOptions) -> Result<Index, JobError> {
    let SplitOptions {
        val_split,
        test_split,
        seed,
        stratify,
    } = options;
    let bad = |field: &str, message: String| {
        JobError::new(ErrorCode::InvalidArgument, message).with("field", field)
    };
    for (field, share) in [("val_split", val_split), ("test_split", test_split)] {
        if !share.is_finite() || !(0.0..1.0).contains(&share) {
            return Err(bad(
                field,
                format!("{field} must be a fraction from 0 to below 1, not {share}"),
            ));
        }
    }
    if val_split + test_split >= 1.0 {
        let message = format!(
            "val_split and test_split together are {}, which leaves nothing to train with",
            val_split + test_split
        );
        return Err(bad("val_split", message));
    }
    let total = index.files.len();
    let val = (total as f64 * val_split).floor() as usize;
    let test = (total as f64 * test_split).floor() as usize;
    if val == 0 {
        let message = format!(
            "the number of validation images must be greater than 0, but val_split {val_split} of {total} images is 0"
        );
        return Err(bad("val_split", message));
    }
    if total <= val + test {
        return Err(bad(
            "val_split",
            "the number of training images must be greater than 0".to_owned(),
        ));
    }
    let mut order: Vec<usize> = (0..total).collect();
    Rng::of(&[seed, 0x73706c6974]).shuffle(&mut order);
    let train = total - val - test;
    if stratify {
        order = stratified(index, &order, [train, val, test]);
    }
    Ok(Index {
        split: true,
        train: order[..train].to_vec(),
        val: order[train..train + val].to_vec(),
        test: order[train + val..].to_vec(),
        ..index.clone()
    })
}

/// Reorders so that the three parts of these sizes hold each class in proportion: images are taken
/// class by class, each for the part that is furthest behind its share.
fn stratified(index: &Index, order: &[usize], sizes: [usize; 3]) -> Vec<usize> {
    let mut by_class = order.to_vec();
    by_class.sort_by_key(|&place| index.files[place].classes.first()); // stable: random within a class
    let total = order.len() as f64;
    let mut parts: [Vec<usize>; 3] = Default::default();
    for (dealt, &place) in by_class.iter().enumerate() {
        let behind = |part: usize| {
            let due = (dealt + 1) as f64 * sizes[part] as f64 / total;
            due - parts[part].len() as f64
        };
        let open = (0..3).filter(|&part| parts[part].len() < sizes[part]);
        if let Some(part) = open.max_by(|&a, &b| behind(a).total_cmp(&behind(b))) {
            parts[part].push(place);
        }
    }
    // Classes lie one after the other now; mix each part again.
    let mut rng = Rng::of(&[
        order.first().copied().unwrap_or(0) as u64,
        total as u64,
        0x6d6978,
    ]);
    parts.iter_mut().for_each(|part| rng.shuffle(part));
    parts.concat()
}

/// Writes `labels.txt` and the list files, of instance segmentation `train.json`, `val.json` and
/// `test.json`, and `statis.json`, each atomically; the training list last, because its presence is what
/// marks a dataset as split.
pub fn write_split(root: &Path, task_type: TaskType, index: &Index) -> Result<Value, JobError> {
    if task_type == TaskType::InstanceSegmentation {
        let details = index.details();
        write_parts(root, index)?;
        write_bytes(&root.join("statis.json"), details.to_string().as_bytes())?;
        return Ok(details);
    }
    let details = index.details();
    let [first @ .., train] = index.lists();
    let texts = first
        .into_iter()
        .chain([("statis.json", details.to_string()), train]);
    for (name, text) in texts {
        write_bytes(&root.join(name), text.as_bytes()).map_err(|error| {
            let mut job = JobError::from(error);
            job.message = format!("{name} cannot be written: {}", job.message);
            job
        })?;
    }
    Ok(details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn index(counts: &[usize]) -> Index {
        let labels: Vec<String> = (0..counts.len()).map(|i| format!("c{i}")).collect();
        let files = counts
            .iter()
            .enumerate()
            .flat_map(|(label, &n)| {
                (0..n).map(move |i| Entry {
                    picture: format!("c{label}/{i}.jpg"),
                    classes: vec![label],
                    ..Entry::default()
                })
            })
            .collect();
        Index {
            labels,
            files,
            ..Index::default()
        }
    }

    fn options(val_split: f64, test_split: f64) -> SplitOptions {
        SplitOptions {
            val_split,
            test_split,
            seed: 5,
            stratify: false,
        }
    }

    #[test]
    fn counts_are_floors_and_every_file_is_in_one_part() {
        for stratify in [false, true] {
            let result = split(
                &index(&[70, 20, 13]),
                SplitOptions {
                    stratify,
                    ..options(0.2, 0.1)
                },
            )
            .unwrap();
            assert_eq!(
                (result.train.len(), result.val.len(), result.test.len()),
                (73, 20, 10)
            );
            let mut every: Vec<usize> = [&result.train[..], &result.val, &result.test].concat();
            every.sort_unstable();
            assert_eq!(every, (0..103).collect::<Vec<_>>());
        }
        let none = split(&index(&[5, 5]), options(0.3, 0.0)).unwrap();
        assert_eq!(
            (none.train.len(), none.val.len(), none.test.len()),
            (7, 3, 0)
        );
    }

    #[test]
    fn a_seed_repeats_the_split_and_another_changes_it() {
        let source = index(&[50, 50]);
        let first = split(&source, options(0.2, 0.1)).unwrap();
        assert_eq!(first, split(&source, options(0.2, 0.1)).unwrap());
        assert_ne!(
            first,
            split(
                &source,
                SplitOptions {
                    seed: 6,
                    ..options(0.2, 0.1)
                }
            )
            .unwrap()
        );
    }

    #[test]
    fn stratified_parts_hold_each_class_in_proportion() {
        let result = split(
            &index(&[200, 60, 40, 10]),
            SplitOptions {
                stratify: true,
                ..options(0.2, 0.1)
            },
        )
        .unwrap();
        for (part, share) in [
            (&result.train, 0.7),
            (&result.val, 0.2),
            (&result.test, 0.1),
        ] {
            for (label, count) in [200.0f64, 60.0, 40.0, 10.0].into_iter().enumerate() {
                let got = part
                    .iter()
                    .filter(|&&i| result.files[i].classes == [label])
                    .count() as f64;
                assert!(
                    (got - count * share).abs() <= 2.0,
                    "class {label}: {got} of {}",
                    count * share
                );
            }
        }
    }

    #[test]
    fn shares_that_make_no_sense_are_refused_by_name() {
        let cases = [
            (-0.1, 0.0),
            (f64::NAN, 0.0),
            (0.5, 0.5),
            (0.9, 0.2),
            (1.0, 0.0),
            (0.01, 0.0),
            (0.0, 0.2),
            (0.5, f64::INFINITY),
        ];
        for (val, test) in cases {
            let error = split(&index(&[5, 5]), options(val, test)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{val} {test}");
            assert!(error.context.contains_key("field"));
        }
    }
}
