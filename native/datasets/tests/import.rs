//! The import job on good and bad folders.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use oarlock_datasets::{SplitDataset, SplitOptions, import, read_index, split, write_split};
use oarlock_imaging::{Image, encode_jpeg, encode_png};
use oarlock_jobs::{ErrorCode, ImportResult, ImportSpec, JobError, JobEvent, TaskType};
use serde_json::json;

struct Bench {
    _folder: tempfile::TempDir,
    source: PathBuf,
    dest: PathBuf,
}

fn bench() -> Bench {
    // In memory where possible: ten thousand folders take a slow disk more than a minute.
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let root = std::fs::canonicalize(folder.path()).unwrap();
    let (source, dest) = (root.join("set"), root.join("ws/D0001"));
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&dest).unwrap();
    Bench {
        _folder: folder,
        source,
        dest,
    }
}

fn jpeg(seed: usize) -> Vec<u8> {
    let mut image = Image::filled(40, 30, [0; 3]);
    for (i, v) in image.data_mut().iter_mut().enumerate() {
        *v = ((i * (seed + 3)) % 251) as u8;
    }
    encode_jpeg(&image, 85).unwrap()
}

fn png() -> Vec<u8> {
    encode_png(&Image::filled(20, 20, [9, 80, 200])).unwrap()
}

fn put(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

impl Bench {
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        put(&self.source, name, bytes);
    }

    fn spec(&self) -> ImportSpec {
        let text = |p: &Path| p.to_str().unwrap().to_owned();
        ImportSpec {
            task_type: TaskType::Classification,
            source: text(&self.source),
            dest: text(&self.dest),
            threads: 2,
            remote: false,
            format: None,
        }
    }

    fn run(&self) -> Result<ImportResult, JobError> {
        import(&self.spec(), &|_| {}, &AtomicBool::new(false))
    }

    /// The failure's message; it must be one of the check.
    fn fails(&self) -> String {
        let error = self.run().unwrap_err();
        assert_eq!(error.context["stage"], "checking");
        assert_eq!(
            std::fs::read_dir(self.dest.parent().unwrap())
                .unwrap()
                .count(),
            1,
            "nothing half-done is left"
        );
        error.message
    }
}

fn flowers() -> Bench {
    let bench = bench();
    for i in 0..6 {
        bench.put(&format!("tulip/t{i}.jpg"), jpeg(i));
        bench.put(&format!("玫瑰/r {i}.PNG"), png());
    }
    bench
}

fn snapshot(root: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push((
                    path.clone(),
                    std::fs::read(&path).unwrap(),
                    entry.metadata().unwrap().modified().unwrap(),
                ));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn folders_become_classes_and_everything_counted_is_copied() {
    let bench = flowers();
    bench.put("readme.md", "text");
    bench.put("tulip/notes.txt", "text");
    bench.put("root.jpg", jpeg(1));
    bench.put(".hidden/x.jpg", "junk");
    bench.put("tulip/.DS_Store", "junk");
    bench.put("tulip/deeper/x.jpg", "not even an image");
    bench.put("tulip/deeper/y/z.jpg", "junk");
    let before = snapshot(&bench.source);
    put(&bench.dest, "stale.jpg", "old");

    let events = Mutex::new(Vec::new());
    let result = import(
        &bench.spec(),
        &|e| events.lock().unwrap().push(e),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(
        before,
        snapshot(&bench.source),
        "the source is never changed"
    );
    assert!(!result.split);
    assert_eq!(result.files, 15);
    let details = &result.details;
    assert_eq!(details["labels"], json!(["tulip", "玫瑰"]));
    assert_eq!(details["file_info"]["玫瑰/r 3.PNG"], "玫瑰");
    assert_eq!(details["file_info"].as_object().unwrap().len(), 12);
    assert_eq!(details["train_files"], json!([]));
    assert_eq!(
        details["class_val_file_list"],
        json!({"tulip": [], "玫瑰": []})
    );
    assert!(!bench.dest.join("stale.jpg").exists() && !bench.dest.join("tulip/deeper").exists());
    for kept in ["readme.md", "tulip/notes.txt", "root.jpg", "玫瑰/r 0.PNG"] {
        assert!(bench.dest.join(kept).is_file(), "{kept}");
    }
    let statis: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.dest.join("statis.json")).unwrap()).unwrap();
    assert_eq!(&statis, details);
    let warnings = result.warnings.join("\n");
    assert!(
        warnings.contains("2 files lie deeper") && warnings.contains("1 pictures lie beside"),
        "{warnings}"
    );
    let stages: Vec<String> = events
        .into_inner()
        .unwrap()
        .iter()
        .map(|e| match e {
            JobEvent::Progress {
                stage, done, total, ..
            } => format!("{stage} {done}/{total}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(stages.first().unwrap(), "checking 0/12");
    assert_eq!(stages.last().unwrap(), "copying 15/15");
}

#[test]
fn promise_24_every_damaged_picture_is_named_with_reason_and_remedy() {
    let bench = flowers();
    let whole = jpeg(3);
    bench.put("tulip/zero.jpg", "");
    bench.put("tulip/half.jpg", &whole[..whole.len() / 2]);
    bench.put("tulip/text.png", "hello");
    bench.put("tulip/cut.png", &png()[..40]);
    let huge: Vec<u8> = {
        let mut bytes = png();
        bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        bytes
    };
    bench.put("tulip/huge.png", huge);
    let error = bench.run().unwrap_err();
    assert_eq!(
        (error.code, error.context["problem_count"].as_u64()),
        (ErrorCode::InvalidData, Some(5))
    );
    for expected in [
        "tulip/zero.jpg: the file is empty (0 bytes); replace or remove the file",
        "tulip/half.jpg: damaged JPEG image: it is truncated",
        "tulip/text.png: not an image: the content is text",
        "tulip/cut.png: damaged PNG image: it is truncated",
        "tulip/huge.png: 60000×60000 pixels are more than the limit",
    ] {
        assert!(
            error.message.contains(expected),
            "{expected} in\n{}",
            error.message
        );
    }
    assert_eq!(error.context["problems"][0]["file"], "tulip/cut.png");
}

#[test]
fn promise_1_links_out_of_the_folder_are_refused_and_inner_ones_followed() {
    use std::os::unix::fs::symlink;
    let bench = flowers();
    symlink("t0.jpg", bench.source.join("tulip/alias.jpg")).unwrap();
    let result = bench.run().unwrap();
    assert_eq!(result.details["file_info"]["tulip/alias.jpg"], "tulip");
    assert!(!bench.dest.join("tulip/alias.jpg").is_symlink());

    put(bench.source.parent().unwrap(), "secret.jpg", jpeg(1));
    std::fs::create_dir(bench.source.parent().unwrap().join("set_evil")).unwrap();
    symlink("../../secret.jpg", bench.source.join("tulip/out.jpg")).unwrap();
    symlink("../set_evil", bench.source.join("twin")).unwrap();
    symlink("nowhere.jpg", bench.source.join("tulip/broken.jpg")).unwrap();
    let message = bench.run().unwrap_err().message;
    for expected in [
        "tulip/out.jpg: the link leads out",
        "twin: the link leads out",
        "tulip/broken.jpg: the link leads nowhere",
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn names_that_cannot_be_used_are_reported() {
    use std::os::unix::ffi::OsStrExt;
    let bench = flowers();
    let raw = std::ffi::OsStr::from_bytes(b"tulip/\xc3\x28.jpg");
    std::fs::write(bench.source.join(raw), jpeg(0)).unwrap();
    bench.put("red rose/a.jpg", jpeg(0));
    bench.put("tulip/a\nb.jpg", jpeg(0));
    let message = bench.fails();
    assert!(
        message.contains("no valid UTF-8") && message.contains("convmv"),
        "{message}"
    );
    assert!(
        message.contains("red rose: the class name contains a blank")
            && message.contains("line break"),
        "{message}"
    );
}

#[test]
fn empty_and_single_class_sources_fail_with_what_is_needed() {
    let bench = bench();
    assert!(
        bench
            .fails()
            .contains("there are no pictures in class folders")
    );
    bench.put("rose/a.jpg", jpeg(0));
    bench.put("empty/readme.txt", "x");
    assert!(
        bench
            .fails()
            .contains("only one class, rose; at least two kinds of images are needed")
    );
    let mut spec = bench.spec();
    spec.source += "/nowhere";
    let error = import(&spec, &|_| {}, &AtomicBool::new(false)).unwrap_err();
    assert!(
        error.message.ends_with("nowhere: there is no such folder"),
        "{}",
        error.message
    );
    spec.source = bench.source.join("rose/a.jpg").to_str().unwrap().into();
    assert!(
        import(&spec, &|_| {}, &AtomicBool::new(false))
            .unwrap_err()
            .message
            .ends_with("it is no folder")
    );
}

#[test]
fn split_sources_are_read_whatever_wrote_their_lists() {
    let bench = flowers();
    let gb = encoding_rs::GB18030
        .encode("玫瑰/r 0.PNG 1\r\ntulip\\t0.jpg\t0\r\n./tulip/t1.jpg 0\r\n\r\n")
        .0
        .into_owned();
    bench.put("labels.txt", "\u{feff}tulip\r\n玫瑰\r\nunused\r\n");
    bench.put("train_list.txt", gb);
    bench.put("val_list.txt", "tulip/t2.jpg 0\n玫瑰/r 1.PNG 1\n");
    let result = bench.run().unwrap();
    assert!(result.split);
    assert_eq!(result.details["labels"], json!(["tulip", "玫瑰", "unused"]));
    assert_eq!(
        result.details["train_files"],
        json!(["玫瑰/r 0.PNG", "tulip/t0.jpg", "tulip/t1.jpg"])
    );
    assert_eq!(result.details["test_files"], json!([]));
    assert_eq!(result.details["label_info"]["unused"], json!([]));
    assert_eq!(result.details["file_info"].as_object().unwrap().len(), 5);
    assert_eq!(
        std::fs::read_to_string(bench.dest.join("train_list.txt")).unwrap(),
        "玫瑰/r 0.PNG 1\ntulip/t0.jpg 0\ntulip/t1.jpg 0\n"
    );
    assert_eq!(
        std::fs::read_to_string(bench.dest.join("labels.txt")).unwrap(),
        "tulip\n玫瑰\nunused\n"
    );
    assert!(
        bench.dest.join("tulip/t5.jpg").is_file(),
        "files in no list are copied too"
    );
    assert!(
        result
            .warnings
            .join("\n")
            .contains("7 pictures are in no list")
    );

    let opened = SplitDataset::open(&bench.dest).unwrap();
    assert_eq!(
        (
            opened.labels.len(),
            opened.train.len(),
            opened.val.len(),
            opened.test.len()
        ),
        (3, 3, 2, 0)
    );
    assert!(opened.train.iter().all(|s| s.path.is_file()) && opened.train[0].label == 1);
}

#[test]
fn every_rule_of_the_lists_names_file_line_reason_and_remedy() {
    let bench = flowers();
    bench.put("labels.txt", "tulip\n玫瑰\n");
    bench.put("tulip/real.jpg/x.txt", "a folder named like a picture");
    bench.put("tulip/deep/x.jpg", jpeg(0));
    bench.put("train_list.txt", "tulip/t0.jpg 0\nonecolumn\ntulip/t1.jpg zero\ntulip/t1.jpg 2\ntulip/none.jpg 0\ntulip/t2.jpg 1\n../x.jpg 0\n/etc/x.jpg 0\ntulip/notes.txt 0\ntulip/.x.jpg 0\ntulip/real.jpg 0\ntulip/deep/x.jpg 0\ntulip/t1.jpg -1\n");
    let message = bench.fails();
    for expected in [
        "val_list.txt: it is missing; a dataset with train_list.txt also needs",
        "train_list.txt, line 2: `onecolumn` has one column instead of two; write path, blank, class id",
        "train_list.txt, line 3: class id `zero` is no whole number",
        "train_list.txt, line 4: class id 2 is not in labels.txt, which has 2 classes",
        "train_list.txt, line 5: tulip/none.jpg is not there",
        "train_list.txt, line 6: tulip/t2.jpg has class id 1, which labels.txt calls 玫瑰, but lies in folder `tulip`",
        "train_list.txt, line 7: ../x.jpg leads out of the dataset",
        "train_list.txt, line 8: /etc/x.jpg leads out of the dataset",
        "train_list.txt, line 9: tulip/notes.txt is no picture name",
        "train_list.txt, line 10: tulip/.x.jpg is no picture name",
        "train_list.txt, line 11: tulip/real.jpg is a folder",
        "train_list.txt, line 12: tulip/deep/x.jpg lies deeper",
        "train_list.txt, line 13: class id `-1` is no whole number",
    ] {
        assert!(message.contains(expected), "{expected} in\n{message}");
    }
    bench.put("labels.txt", "tulip\ntulip\n");
    assert!(
        bench
            .fails()
            .contains("labels.txt, line 2: class tulip is named already in line 1")
    );
    std::fs::remove_file(bench.source.join("labels.txt")).unwrap();
    assert!(bench.fails().contains("labels.txt: it is missing"));
}

#[test]
fn only_the_first_hundred_problems_are_told_and_all_are_counted() {
    let bench = flowers();
    for i in 0..250 {
        bench.put(&format!("tulip/bad{i:03}.jpg"), "");
    }
    let error = bench.run().unwrap_err();
    assert!(
        error.message.starts_with("The dataset has 250 problems:\n")
            && error.message.ends_with("… and 150 more")
    );
    assert_eq!(error.context["problems"].as_array().unwrap().len(), 100);
}

#[test]
fn importing_a_folder_into_itself_copies_nothing() {
    let bench = flowers();
    let mut spec = bench.spec();
    spec.dest = spec.source.clone();
    let before = snapshot(&bench.source);
    let result = import(&spec, &|_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(result.files, 0);
    std::fs::remove_file(bench.source.join("statis.json")).unwrap();
    assert_eq!(before, snapshot(&bench.source));
    // Lists are brought into the form that training reads.
    for (name, text) in [
        ("labels.txt", "tulip\r\n玫瑰\r\n"),
        ("train_list.txt", "tulip\\t1.jpg 0\n"),
        ("val_list.txt", "玫瑰/r 1.PNG 1\n"),
    ] {
        bench.put(name, text);
    }
    assert!(
        import(&spec, &|_| {}, &AtomicBool::new(false))
            .unwrap()
            .split
    );
    assert_eq!(
        std::fs::read_to_string(bench.source.join("train_list.txt")).unwrap(),
        "tulip/t1.jpg 0\n"
    );
    assert_eq!(
        std::fs::read_to_string(bench.source.join("labels.txt")).unwrap(),
        "tulip\n玫瑰\n"
    );
    let before = snapshot(&bench.source);
    // A source inside its own destination would be removed with the old content.
    spec.dest = bench.source.parent().unwrap().to_str().unwrap().to_owned();
    let error = import(&spec, &|_| {}, &AtomicBool::new(false)).unwrap_err();
    assert!(error.code == ErrorCode::InvalidArgument && before == snapshot(&bench.source));
}

#[test]
fn a_stopped_or_failed_import_leaves_the_old_content() {
    let bench = flowers();
    put(&bench.dest, "old.txt", "old");
    for stop_in in ["checking", "copying"] {
        let cancel = AtomicBool::new(false);
        let events = |e: JobEvent| {
            if matches!(e, JobEvent::Progress { stage, .. } if stage == stop_in) {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let error = import(&bench.spec(), &events, &cancel).unwrap_err();
        assert_eq!(
            (error.code, error.context["stage"].as_str()),
            (ErrorCode::Cancelled, Some(stop_in))
        );
        assert!(bench.dest.join("old.txt").is_file());
        assert_eq!(
            std::fs::read_dir(bench.dest.parent().unwrap())
                .unwrap()
                .count(),
            1
        );
    }
}

#[test]
fn splitting_writes_lists_that_training_reads() {
    let bench = flowers();
    bench.run().unwrap();
    let (index, _) = read_index(&bench.dest, TaskType::Classification, false).unwrap();
    let options = SplitOptions {
        val_split: 0.3,
        test_split: 0.1,
        seed: 1,
        stratify: true,
    };
    let details = write_split(
        &bench.dest,
        TaskType::Classification,
        &split(&index, options).unwrap(),
    )
    .unwrap();
    assert_eq!(details["val_files"].as_array().unwrap().len(), 3);
    let (again, warnings) = read_index(&bench.dest, TaskType::Classification, false).unwrap();
    assert!(again.split && warnings.is_empty());
    assert_eq!(
        again.details()["class_train_file_list"],
        details["class_train_file_list"]
    );
    let opened = SplitDataset::open(&bench.dest).unwrap();
    assert_eq!(
        (opened.train.len(), opened.val.len(), opened.test.len()),
        (8, 3, 1)
    );
    let resplit = split(&again, SplitOptions { seed: 2, ..options }).unwrap();
    assert_eq!(resplit.files.len(), 12);
}

#[test]
fn more_than_ten_thousand_classes_are_handled() {
    let bench = bench();
    let bytes = png();
    for i in 0..10_500 {
        bench.put(&format!("class{i:05}/a.png"), &bytes);
    }
    let result = bench.run().unwrap();
    assert_eq!(result.details["labels"].as_array().unwrap().len(), 10_500);
    assert_eq!(result.files, 10_500);
}
