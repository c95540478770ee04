//! Readers of annotations on hostile content: no panic, no hang, no memory beyond the files'.
//!
//! Mutations are seeded, so a failure repeats. `OARLOCK_FUZZ_ROUNDS` sets how many there are (300).

mod common;

use std::time::{Duration, Instant};

use common::{Bench, jpeg, map};
use oarlock_datasets::coco::Coco;
use oarlock_datasets::voc::VocAnnotation;
use oarlock_datasets::{PreviewOptions, draw_labels, read_annotation};
use oarlock_imaging::Rng;
use oarlock_jobs::{SourceFormat, TaskType};

const XML: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<annotation><size><width>40</width><height>30</height></size><object><name>nut &amp; bolt</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object><object><name>螺丝</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object></annotation>";
const COCO: &str = r#"{"images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}], "categories": [{"id": 2, "name": "ant"}, {"id": 3, "name": "bee"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 20, 10], "area": 100.5, "iscrowd": 0, "segmentation": [[1, 2, 21, 2, 1, 12]]}, {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 9, "segmentation": {"size": [30, 40], "counts": [5, 10, 1185]}}, {"id": 3, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 9, "iscrowd": 0, "segmentation": {"size": [30, 40], "counts": "5:QU1"}}]}"#;
const LABELME: &str = r#"{"imagePath": "..\\a.jpg", "imageWidth": 40, "shapes": [{"label": "ant", "points": [[1, 2], [30, 20]], "shape_type": "rectangle"}, {"label": "bee", "points": [[3, 3], [20, 5], [9.5, 19]], "shape_type": "polygon"}, {"label": "bee", "points": [[10, 10], [14, 10]], "shape_type": "circle"}, {"label": "ant", "points": [[1, 1], [9, 9], [20, 1]], "shape_type": "linestrip"}]}"#;
const EASYDATA: &str = r#"{"labels": [{"name": "ant", "x1": 1, "y1": 2, "x2": 30, "y2": 20}, {"name": "bee", "x1": 0, "y1": 0, "x2": 1, "y2": 15, "mask": "5:QU1"}]}"#;
const JINGLING: &str = r#"{"size": {"width": 40, "height": 30}, "outputs": {"object": [{"name": "ant", "bndbox": {"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 20}}, {"name": "bee", "polygon": {"x1": 1, "y1": 1, "x2": 9, "y2": 1, "x3": 5, "y3": 9}}]}}"#;
const YOLO: &str = "0 0.5 0.5 0.4 0.3\n1 0.1 0.1 0.9 0.1 0.5 0.8\n";

/// Pieces that readers of such files stumble over.
const PIECES: [&[u8]; 34] = [
    b"<",
    b">",
    b"</object>",
    b"<object>",
    b"&",
    b"&#0;",
    b"&lt;",
    b"<![CDATA[",
    b"<!--",
    b"<!DOCTYPE a [<!ENTITY b 'x'>]>",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"-0",
    b"1e400",
    b"99999999999999999999",
    b"4294967296",
    b"NaN",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe7\x8e\xab",
    b"1e-40",
];

fn mutate(text: &str, rng: &mut Rng) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(out.len() + 1);
        match rng.below(7) {
            0 => out.truncate(at),
            1 => out
                .splice(at..at, PIECES[rng.below(PIECES.len())].iter().copied())
                .for_each(drop),
            2 => out
                .drain(at..(at + rng.below(12)).min(out.len()))
                .for_each(drop),
            3 => {
                let copy = out[at..(at + rng.below(80)).min(out.len())].to_vec();
                let place = rng.below(out.len() + 1);
                out.splice(place..place, copy);
            }
            // Another number in the place of one.
            4 => {
                let start = (at..out.len()).find(|i| out[*i].is_ascii_digit());
                if let Some(start) = start {
                    let end = (start..out.len())
                        .find(|i| !out[*i].is_ascii_digit())
                        .unwrap_or(out.len());
                    let numbers = [
                        "0",
                        "-5",
                        "1e9",
                        "1e39",
                        "0.0001",
                        "16777217",
                        "65536",
                        "18446744073709551616",
                    ];
                    out.splice(start..end, numbers[rng.below(numbers.len())].bytes());
                }
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = rng.below(256) as u8;
                }
            }
        }
    }
    out
}

fn rounds() -> u64 {
    let rounds = std::env::var("OARLOCK_FUZZ_ROUNDS").ok();
    rounds.and_then(|r| r.parse().ok()).unwrap_or(300)
}

#[test]
fn mutated_xml_and_coco_texts_give_sound_objects_or_a_reason() {
    let (mut good, mut bad) = (0, 0);
    for round in 0..rounds() * 10 {
        let mut rng = Rng::of(&[round, 91]);
        let started = Instant::now();
        match VocAnnotation::parse(&String::from_utf8_lossy(&mutate(XML, &mut rng))) {
            Ok(read) => {
                good += 1;
                for object in read.objects {
                    let b = object.bbox;
                    assert!(
                        b.x1 < b.x2 && b.y1 < b.y2 && b.area().is_finite() || read.size.is_none(),
                        "{round}: {b:?}"
                    );
                    assert!(!object.name.is_empty());
                }
            }
            Err(error) => {
                bad += 1;
                assert!(error.to_string().len() < 2000, "{round}");
            }
        }
        match Coco::parse(&String::from_utf8_lossy(&mutate(COCO, &mut rng))) {
            Ok(coco) => {
                good += 1;
                for place in 0..coco.annotations.len() {
                    let object = coco.object(place);
                    let b = object.bbox;
                    assert!(object.class < coco.categories.len());
                    assert!(
                        b.x1 >= 0.0 && b.y1 >= 0.0 && b.x2 >= b.x1 && b.y2 >= b.y1,
                        "{round}: {b:?}"
                    );
                }
            }
            Err(reason) => {
                bad += 1;
                assert!(!reason.is_empty());
            }
        }
        assert!(started.elapsed() < Duration::from_secs(2), "round {round}");
    }
    assert!(good > 50 && bad > 50, "{good} read, {bad} refused");
}

/// Imports a set with one mutated file again and again; what is imported can be shown.
fn imports(bench: &Bench, file: &str, text: &str, salt: u64) {
    let (mut good, mut bad) = (0, 0);
    for round in 0..rounds() {
        let mut rng = Rng::of(&[round, salt]);
        bench.put(file, mutate(text, &mut rng));
        let started = Instant::now();
        match bench.run() {
            Ok(result) => {
                good += 1;
                for (picture, annotation) in result.details["file_info"].as_object().unwrap() {
                    let annotation = annotation.as_str().unwrap();
                    assert!(
                        !annotation.contains("..") && !picture.contains(".."),
                        "{round}: {picture} {annotation}"
                    );
                    let drawn = draw_labels(
                        &bench.dest,
                        bench.task_type,
                        picture,
                        &PreviewOptions::default(),
                    );
                    assert!(drawn.is_ok(), "round {round}: {:?}", drawn.err());
                    if bench.task_type == TaskType::InstanceSegmentation {
                        read_annotation(&bench.dest.join(annotation)).unwrap();
                    }
                }
            }
            Err(error) => {
                bad += 1;
                assert!(
                    error.context["stage"] == "checking" && !error.message.is_empty(),
                    "{round}: {}",
                    error.message
                );
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5), "round {round}");
    }
    assert!(good > 5 && bad > 5, "{file}: {good} read, {bad} refused");
}

#[test]
fn imports_of_mutated_annotations_end() {
    let bench = Bench::new(TaskType::Detection);
    bench.put("JPEGImages/a.jpg", jpeg(40, 30, 1));
    imports(&bench, "Annotations/a.xml", XML, 1);

    let bench = Bench::new(TaskType::InstanceSegmentation);
    bench.put("JPEGImages/a.jpg", jpeg(40, 30, 1));
    imports(&bench, "annotations.json", COCO, 2);
}

#[test]
fn conversions_of_mutated_annotations_end() {
    let types = [
        TaskType::Detection,
        TaskType::Segmentation,
        TaskType::InstanceSegmentation,
    ];
    let sources = [
        (SourceFormat::Labelme, "a.json", LABELME),
        (SourceFormat::Easydata, "a.json", EASYDATA),
        (SourceFormat::Jingling, "a.json", JINGLING),
        (SourceFormat::Yolo, "a.txt", YOLO),
        (SourceFormat::Coco, "all.json", COCO),
    ];
    for (i, (format, file, text)) in sources.into_iter().enumerate() {
        let mut bench = Bench::new(types[i % 3]);
        bench.put("a.jpg", jpeg(40, 30, 1));
        bench.format = Some(format);
        for (j, task_type) in types.into_iter().enumerate() {
            bench.task_type = task_type;
            bench.put(file, text);
            let first = bench.run().unwrap();
            assert_eq!(
                first.details["file_info"].as_object().unwrap().len(),
                1,
                "{format:?} {task_type:?}"
            );
            imports(&bench, file, text, (i * 3 + j) as u64 + 10);
        }
    }
}

#[test]
fn mutated_label_maps_are_read_or_named() {
    let bench = Bench::new(TaskType::Segmentation);
    bench.put("JPEGImages/a.jpg", jpeg(40, 30, 1));
    let whole = map(40, 30, |x, _| u8::from(x > 9));
    let mut bad = 0;
    for round in 0..rounds() {
        let mut rng = Rng::of(&[round, 5]);
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.below(256) as u8;
        }
        bytes.truncate(bytes.len() - rng.below(2) * rng.below(bytes.len()));
        bench.put("Annotations/a.png", bytes);
        if let Err(error) = bench.run() {
            bad += 1;
            assert!(
                error.message.contains("Annotations/a.png"),
                "{round}: {}",
                error.message
            );
        }
    }
    assert!(bad > 5);
}
