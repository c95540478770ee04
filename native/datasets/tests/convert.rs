//! Annotations of other tools: recognised, converted, and what is wrong with them.

mod common;

use common::{Bench, jpeg};
use oarlock_datasets::voc::VocAnnotation;
use oarlock_datasets::{read_annotation, read_class_names};
use oarlock_imaging::{BBox, Limits, Plane, Rle, decode_label_map};
use oarlock_jobs::{SourceFormat, TaskType};
use serde_json::{Value, json};

fn boxes(bench: &Bench, name: &str) -> Vec<(String, BBox)> {
    let read = VocAnnotation::read(&bench.dest.join(name)).unwrap();
    read.objects.into_iter().map(|o| (o.name, o.bbox)).collect()
}

fn ids(bench: &Bench, name: &str) -> Plane {
    let bytes = std::fs::read(bench.dest.join(name)).unwrap();
    decode_label_map(&bytes, &Limits::default()).unwrap()
}

fn count(map: &Plane, id: u8) -> usize {
    map.data().iter().filter(|v| **v == id).count()
}

fn labelme() -> Bench {
    let bench = Bench::new(TaskType::Segmentation);
    bench.put("图 1.jpg", jpeg(80, 60, 1));
    bench.put("2.jpg", jpeg(80, 60, 2));
    bench.put("unlabelled.jpg", jpeg(80, 60, 3));
    bench.put("lone.json", "{}");
    let shape = |label: &str, kind: &str, points: Value| json!({"label": label, "shape_type": kind, "points": points, "group_id": null});
    let first = json!({"version": "5.0", "imagePath": "..\\x\\图 1.jpg", "imageHeight": 60, "shapes": [
        shape("road", "polygon", json!([[0, 0], [40, 0], [40, 30], [0, 30]])),
        shape("car", "rectangle", json!([[20, 20], [10, 10]])),
        shape("dot", "point", json!([[60, 30]])),
        shape("wire", "linestrip", json!([[0, 50], [40, 50], [79, 50]])),
        shape("sun", "circle", json!([[60, 10], [66, 10]])),
        shape("blob", "mask", json!([[60, 10], [66, 10]])),
    ]});
    bench.put("图 1.json", format!("\u{feff}{first}"));
    bench.put(
        "2.json",
        json!({"shapes": [shape("car", "rectangle", json!([[1, 2], [31, 22]]))]}).to_string(),
    );
    bench
}

#[test]
fn labelme_becomes_label_maps() {
    let bench = labelme();
    let result = bench.run().unwrap();
    let labels = ["_background_", "car", "road", "dot", "wire", "sun"];
    assert_eq!(
        result.details["labels"],
        json!(labels),
        "in order of appearance, pictures sorted"
    );
    assert_eq!(
        result.details["file_info"]["JPEGImages/图 1.jpg"],
        "Annotations/图 1.png"
    );
    assert_eq!(read_class_names(&bench.dest).unwrap(), labels);
    let map = ids(&bench, "Annotations/图 1.png");
    assert_eq!((map.width(), map.height()), (80, 60));
    assert_eq!(count(&map, 1), 100, "the rectangle over the polygon");
    assert_eq!(count(&map, 2), 40 * 30 - 100);
    assert_eq!(count(&map, 4), 79 * 10, "10 pixels wide");
    assert!(
        (70..88).contains(&count(&map, 3)),
        "radius 5: {}",
        count(&map, 3)
    );
    assert!(
        (100..126).contains(&count(&map, 5)),
        "radius 6: {}",
        count(&map, 5)
    );
    let warnings = result.warnings.join("\n");
    for part in [
        "the annotations were converted from labelme",
        "图 1.json: shape 6: shapes of the type `mask` are not read; it is left out",
        "1 JSON files belong to no picture",
        "1 pictures have no annotation file and are not used",
    ] {
        assert!(warnings.contains(part), "{part} in\n{warnings}");
    }
    assert!(!bench.dest.join("JPEGImages/unlabelled.jpg").exists());
}

#[test]
fn labelme_becomes_boxes_and_instances() {
    let mut bench = labelme();
    bench.task_type = TaskType::Detection;
    let result = bench.run().unwrap();
    assert_eq!(result.details["labels"], json!(["car", "sun"]));
    assert_eq!(
        boxes(&bench, "Annotations/图 1.xml"),
        [
            ("car".into(), BBox::new(10.0, 10.0, 20.0, 20.0)),
            ("sun".into(), BBox::new(54.0, 4.0, 66.0, 16.0))
        ]
    );
    assert!(
        result
            .warnings
            .join("\n")
            .contains("3 shapes are no boxes and are not used")
    );
    bench.task_type = TaskType::InstanceSegmentation;
    let result = bench.run().unwrap();
    assert_eq!(result.details["labels"], json!(["car", "road"]));
    let read: Value =
        serde_json::from_str(&read_annotation(&bench.dest.join("Annotations/图 1.npy")).unwrap())
            .unwrap();
    assert_eq!(read["gt_class"], json!(["road", "car"]));
    let whole: Value = serde_json::from_str(&bench.text("annotations.json")).unwrap();
    assert_eq!(whole["images"][0]["id"], 1);
    assert_eq!(
        whole["categories"][0],
        json!({"id": 1, "name": "car", "supercategory": "component"})
    );
    // Where there is no box at all, outlines give theirs.
    let bench = Bench::new(TaskType::Detection);
    bench.put("a.png", common::rgb_png(30, 20));
    bench.put(
        "a.json",
        r#"{"shapes": [{"label": "leaf", "points": [[1, 2], [20, 3], [5, 50]]}]}"#,
    );
    bench.run().unwrap();
    assert_eq!(
        boxes(&bench, "Annotations/a.xml"),
        [("leaf".into(), BBox::new(1.0, 2.0, 20.0, 19.0))]
    );
}

#[test]
fn easydata_masks_become_polygons_and_keep_their_holes() {
    let mut bench = Bench::new(TaskType::InstanceSegmentation);
    bench.put("pics/a.png", common::rgb_png(12, 10));
    let mut ring = Plane::filled(12, 10, 0);
    let mut two = ring.clone();
    for y in 2..8 {
        ring.data_mut()[y * 12 + 2..y * 12 + 8].fill(1);
        two.data_mut()[y * 12] = 1;
        two.data_mut()[y * 12 + 11] = 1;
    }
    ring.data_mut()[5 * 12 + 5] = 0;
    let text = |mask: &Plane| Rle::from_plane(mask).unwrap().compressed();
    let label = |name: &str, mask: Option<String>| json!({"name": name, "x1": 1, "y1": 2, "x2": 9, "y2": 8, "mask": mask});
    bench.put("pics/a.json", json!({"labels": [label("ring", Some(text(&ring))), label("two", Some(text(&two))), label("box", None)]}).to_string());
    bench.run().unwrap();
    let whole: Value = serde_json::from_str(&bench.text("annotations.json")).unwrap();
    let of = |i: usize| &whole["annotations"][i];
    assert_eq!(
        of(0)["segmentation"],
        json!({"size": [10, 12], "counts": text(&ring)})
    );
    assert_eq!(
        (of(0)["area"].as_f64(), of(1)["area"].as_f64()),
        (Some(35.0), Some(12.0))
    );
    assert_eq!(of(1)["segmentation"].as_array().unwrap().len(), 2);
    assert_eq!(
        of(2)["segmentation"],
        json!([[1.0, 2.0, 9.0, 2.0, 9.0, 8.0, 1.0, 8.0]])
    );
    bench.task_type = TaskType::Segmentation;
    bench.run().unwrap();
    let map = ids(&bench, "Annotations/a.png");
    assert_eq!(
        (count(&map, 3), count(&map, 2)),
        (48, 12),
        "later shapes over earlier ones"
    );
    bench.task_type = TaskType::Detection;
    bench.run().unwrap();
    assert_eq!(boxes(&bench, "Annotations/a.xml").len(), 3);
}

#[test]
fn jingling_is_read() {
    let mut bench = Bench::new(TaskType::Detection);
    bench.put("a.jpg", jpeg(40, 30, 0));
    let object = json!([
        {"name": "cat", "bndbox": {"xmin": 1, "ymin": "2", "xmax": 11, "ymax": 12}},
        {"name": "dog", "polygon": {"x1": 5, "y1": 5, "x2": 25, "y2": 5, "x3": 5, "y3": 25}},
    ]);
    bench.put("a.json", json!({"path": "C:\\a.jpg", "size": {"width": 40, "height": 30, "depth": 3}, "outputs": {"object": object}}).to_string());
    assert_eq!(bench.run().unwrap().details["labels"], json!(["cat"]));
    bench.task_type = TaskType::Segmentation;
    assert_eq!(
        bench.run().unwrap().details["labels"],
        json!(["_background_", "cat", "dog"])
    );
    bench.task_type = TaskType::InstanceSegmentation;
    assert_eq!(
        bench.run().unwrap().details["labels"],
        json!(["cat", "dog"])
    );
}

#[test]
fn yolo_folders_are_read_with_their_names() {
    let mut bench = Bench::new(TaskType::Detection);
    bench.put("images/train/a.jpg", jpeg(100, 50, 0));
    bench.put("images/val/a.jpg", jpeg(100, 50, 1));
    bench.put("images/val/empty.jpg", jpeg(100, 50, 2));
    bench.put(
        "labels/train/a.txt",
        "1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.3 0.1 0.2 0.4\n",
    );
    bench.put("labels/val/a.txt", "0 0.5 0.5 1.0 1.0 0.93\n");
    bench.put(
        "data.yaml",
        "train: images/train\nnc: 2\nnames: [person, 'car']\n",
    );
    let result = bench.run().unwrap();
    assert_eq!(result.details["labels"], json!(["car", "person"]));
    let mut files: Vec<&String> = result.details["file_info"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "JPEGImages/empty.jpg",
            "JPEGImages/images_train_a_jpg.jpg",
            "JPEGImages/images_val_a_jpg.jpg"
        ]
    );
    let [(name, b)] = &boxes(&bench, "Annotations/images_train_a_jpg.xml")[..] else {
        panic!("the outline is no box");
    };
    let off = |(a, b): (f32, f32)| (a - b).abs();
    let worst = [(b.x1, 40.0), (b.y1, 15.0), (b.x2, 60.0), (b.y2, 35.0)].map(off);
    assert!(name == "car" && worst.iter().all(|v| *v < 1e-4), "{b:?}");
    bench.put("data.yaml", "names:\n  0: person\n  1: car\n  2: bus\n");
    bench.task_type = TaskType::InstanceSegmentation;
    assert_eq!(
        bench.run().unwrap().details["labels"],
        json!(["car", "person"])
    );
    let whole: Value = serde_json::from_str(&bench.text("annotations.json")).unwrap();
    assert_eq!(
        whole["categories"][2]["name"], "bus",
        "the order of the source"
    );
    bench.put("data.yaml", "names: [person]\n");
    bench.put(
        "labels/val/a.txt",
        "0 0.5 0.5\n0 0.5 x 1 1\n0 50 20 10 10\n",
    );
    bench.format = Some(SourceFormat::Yolo);
    bench.fails_with(&[
        "labels/train/a.txt, line 1: class id 1 has no name; there are 1 (ids from 0)",
        "labels/val/a.txt, line 1: 2 numbers follow the class id; write four for a box",
        "labels/val/a.txt, line 2: `0 0.5 x 1 1` is no class id with numbers",
        "labels/val/a.txt, line 3: `0 50 20 10 10` holds numbers beyond the picture",
    ]);
}

#[test]
fn coco_folders_become_every_type() {
    let mut bench = Bench::new(TaskType::Detection);
    let part = |file: &str, id: i64| {
        json!({
            "images": [{"id": id, "file_name": file, "width": 40, "height": 30}],
            "annotations": [{"id": 1, "image_id": id, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100, "iscrowd": 0, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}],
            "categories": [{"id": 1, "name": "猫"}, {"id": 2, "name": "dog"}],
        })
    };
    bench.put("train2017/1.jpg", jpeg(40, 30, 0));
    bench.put("val2017/2.jpg", jpeg(40, 30, 1));
    bench.put(
        "annotations/instances_train2017.json",
        part("1.jpg", 1).to_string(),
    );
    bench.put(
        "annotations/instances_val2017.json",
        part("2.jpg", 1).to_string(),
    );
    let result = bench.run().unwrap();
    assert_eq!(
        (&result.details["labels"], result.files),
        (&json!(["猫"]), 2)
    );
    assert_eq!(
        boxes(&bench, "Annotations/2.xml"),
        [("猫".into(), BBox::new(5.0, 5.0, 15.0, 15.0))]
    );
    bench.task_type = TaskType::Segmentation;
    assert_eq!(
        bench.run().unwrap().details["labels"],
        json!(["_background_", "猫", "dog"])
    );
    assert_eq!(count(&ids(&bench, "Annotations/1.png"), 1), 100);
    bench.task_type = TaskType::InstanceSegmentation;
    assert_eq!(bench.run().unwrap().details["labels"], json!(["猫"]));
    bench.put(
        "annotations/instances_val2017.json",
        part("3.jpg", 1).to_string(),
    );
    bench.fails_with(&["annotations/instances_val2017.json: image 1: there is no picture 3.jpg"]);
    // A detection project takes the layout of instance segmentation as well.
    let bench = Bench::new(TaskType::Detection);
    bench.put("JPEGImages/1.jpg", jpeg(40, 30, 0));
    bench.put("annotations.json", part("1.jpg", 1).to_string());
    assert_eq!(
        bench.run().unwrap().details["file_info"]["JPEGImages/1.jpg"],
        "Annotations/1.xml"
    );
}

#[test]
fn formats_that_do_not_fit_and_broken_files_are_told() {
    let mut bench = Bench::new(TaskType::Detection);
    bench.put("a.jpg", jpeg(8, 8, 0));
    bench.put("a.json", "{\"shapes\": [");
    bench.format = Some(SourceFormat::Labelme);
    bench.fails_with(&["a.json: broken JSON"]);
    bench.put("a.json", "{\"labels\": []}");
    bench.fails_with(&["a.json: it holds no list of shapes; check the format"]);
    bench.format = Some(SourceFormat::Easydata);
    bench.fails_with(&["no annotation has a shape that this type of dataset can use"]);
    bench.format = Some(SourceFormat::Coco);
    bench.fails_with(&["there are no pictures with annotations of this format"]);
    // Nothing is recognised: the messages of the type's own format.
    bench.format = None;
    bench.put("a.json", "{}");
    bench.fails_with(&["JPEGImages: there is no such folder"]);
    bench.format = Some(SourceFormat::Native);
    bench.put("a.json", r#"{"shapes": []}"#);
    bench.fails_with(&["JPEGImages: there is no such folder"]);
}
