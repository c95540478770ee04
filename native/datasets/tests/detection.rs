//! Pascal VOC and MSCOCO sets: import, split, previews, and everything that can be wrong.

mod common;

use common::{Bench, jpeg};
use oarlock_datasets::{
    PreviewOptions, SplitOptions, coco, draw_labels, read_annotation, read_class_names, read_index,
    split, voc, write_split,
};
use oarlock_imaging::{BBox, Limits, class_colour, decode};
use oarlock_jobs::TaskType;
use serde_json::{Value, json};

const HALF: SplitOptions = SplitOptions {
    val_split: 0.34,
    test_split: 0.17,
    seed: 1,
    stratify: false,
};

fn xml(size: (u32, u32), objects: &[(&str, [f32; 4])]) -> String {
    let objects: String = objects
        .iter()
        .map(|(name, [a, b, c, d])| format!("<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"))
        .collect();
    let (w, h) = size;
    format!(
        "<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>{objects}</annotation>"
    )
}

/// Six pictures of 80×60; nuts in all but the last, which has no object, screws in the even ones.
fn bolts() -> Bench {
    let bench = Bench::new(TaskType::Detection);
    for i in 0..6 {
        bench.put(&format!("JPEGImages/b {i}.jpg"), jpeg(80, 60, i));
        let mut objects = vec![("nut", [5.0, 6.0, 30.0, 40.0])];
        if i % 2 == 0 {
            objects.push(("螺丝", [40.0, 10.0, 79.0, 59.0]));
        }
        let objects = if i == 5 { &[][..] } else { &objects };
        bench.put(&format!("Annotations/b {i}.xml"), xml((80, 60), objects));
    }
    bench
}

#[test]
fn voc_sets_are_imported_split_and_read_for_training() {
    let bench = bolts();
    let result = bench.run().unwrap();
    let details = &result.details;
    assert_eq!(details["labels"], json!(["nut", "螺丝"]));
    assert_eq!(
        details["file_info"]["JPEGImages/b 5.jpg"],
        "Annotations/b 5.xml"
    );
    assert_eq!(details["label_info"]["nut"].as_array().unwrap().len(), 5);
    assert_eq!(details["label_info"]["螺丝"].as_array().unwrap().len(), 3);
    assert!(
        result
            .warnings
            .join("\n")
            .contains("1 pictures have no objects")
    );
    let (index, _) = read_index(&bench.dest, TaskType::Detection, false).unwrap();
    write_split(
        &bench.dest,
        TaskType::Detection,
        &split(&index, HALF).unwrap(),
    )
    .unwrap();
    let labels = read_class_names(&bench.dest).unwrap();
    assert_eq!(labels, ["nut", "螺丝"]);
    let lists = ["train_list.txt", "val_list.txt", "test_list.txt"];
    let lists = lists.map(|list| voc::read_list(&bench.dest, list, &labels).unwrap());
    assert_eq!(lists.each_ref().map(Vec::len), [3, 2, 1]);
    let all: Vec<_> = lists.iter().flatten().collect();
    assert_eq!(all.iter().map(|s| s.objects.len()).sum::<usize>(), 8);
    let first = all.iter().find(|s| s.path.ends_with("b 0.jpg")).unwrap();
    assert_eq!(
        (first.objects[1].class, first.objects[1].bbox),
        (1, BBox::new(40.0, 10.0, 79.0, 59.0))
    );
}

#[test]
fn split_voc_sets_keep_their_order_of_labels() {
    let bench = bolts();
    bench.put("labels.txt", "螺丝\nwasher\nnut\n");
    bench.put("train_list.txt", "JPEGImages/b 0.jpg Annotations/b 0.xml\n");
    bench.put("val_list.txt", "JPEGImages/b 1.jpg Annotations/b 1.xml\n");
    let details = bench.run().unwrap().details;
    assert_eq!(details["labels"], json!(["螺丝", "washer", "nut"]));
    assert_eq!(
        details["class_val_file_list"],
        json!({"螺丝": [], "washer": [], "nut": ["JPEGImages/b 1.jpg"]})
    );
    bench.put("labels.txt", "washer\nnut\n");
    bench.fails_with(&["Annotations/b 0.xml: object 2: its class 螺丝 is not in labels.txt; add the class to labels.txt or correct the name"]);
    bench.remove("labels.txt");
    bench.fails_with(&["labels.txt: it is missing; a dataset with train_list.txt also needs labels.txt and val_list.txt"]);
}

#[test]
fn every_kind_of_bad_voc_file_is_named() {
    let bench = bolts();
    bench.put("Annotations/b 0.xml", "<annotation><object></annotation>");
    bench.put(
        "Annotations/b 1.xml",
        xml((80, 60), &[(" ", [1.0, 1.0, 5.0, 5.0])]),
    );
    bench.put("Annotations/b 2.xml", "");
    bench.remove("Annotations/b 3.xml");
    bench.put("JPEGImages/b 4.jpg", "text");
    bench.put("Annotations/b 5.xml", [0xff, 0x00, 0x81]);
    bench.fails_with(&[
        "Annotations/b 0.xml: the XML is not well formed",
        "Annotations/b 1.xml: object 1 has no name; correct the object or remove it",
        "Annotations/b 2.xml: the XML is not well formed",
        "JPEGImages/b 3.jpg: its annotation Annotations/b 3.xml is missing",
        "JPEGImages/b 4.jpg: not an image",
        "Annotations/b 5.xml: it is no UTF-8 or GB18030 text",
    ]);
    // What hurts single objects only is told and left out.
    let bench = bolts();
    bench.put(
        "Annotations/b 0.xml",
        xml(
            (80, 60),
            &[
                ("nut", [90.0, 1.0, 95.0, 5.0]),
                ("nut", [5.0, 5.0, 5.0, 9.0]),
            ],
        ),
    );
    bench.put(
        "Annotations/b 1.xml",
        xml((60, 80), &[("nut", [1.0, 1.0, 5.0, 5.0])]),
    );
    let warnings = bench.run().unwrap().warnings.join("\n");
    for part in [
        "Annotations/b 0.xml: object 1 (nut): its box 90, 1 – 95, 5 lies outside the picture of 80×60; the object is left out",
        "Annotations/b 0.xml: object 2 (nut): its box 5, 5 – 5, 9 has no area",
        "Annotations/b 1.xml says that the picture is 60×80, but JPEGImages/b 1.jpg is 80×60",
    ] {
        assert!(warnings.contains(part), "{part} in\n{warnings}");
    }
    let bench = Bench::new(TaskType::Detection);
    bench.put("JPEGImages/a.jpg", jpeg(8, 8, 0));
    bench.put("Annotations/a.xml", xml((8, 8), &[]));
    bench.fails_with(&["Annotations: no annotation has an object; annotate at least one object"]);
    let many: Vec<(&str, [f32; 4])> = vec![("dot", [1.0, 1.0, 3.0, 3.0]); 10_000];
    bench.put("Annotations/a.xml", xml((8, 8), &many));
    assert_eq!(bench.run().unwrap().details["labels"], json!(["dot"]));
}

#[test]
fn voc_previews_show_boxes_in_the_colours_of_the_sorted_labels() {
    let bench = bolts();
    bench.put("JPEGImages/large.jpg", jpeg(1160, 800, 7));
    bench.put(
        "Annotations/large.xml",
        xml((1160, 800), &[("螺丝", [200.0, 200.0, 600.0, 600.0])]),
    );
    bench.run().unwrap();
    let draw = |name: &str| {
        let png = draw_labels(
            &bench.dest,
            TaskType::Detection,
            name,
            &PreviewOptions::default(),
        );
        decode(&png.unwrap(), &Limits::default(), None).unwrap()
    };
    let large = draw("JPEGImages/large.jpg");
    assert_eq!((large.width(), large.height()), (580, 400));
    assert_eq!(large.pixel(100, 250), class_colour(2));
    let small = draw("b 1.jpg");
    assert_eq!(
        (small.width(), small.height(), small.pixel(5, 30)),
        (80, 60, class_colour(1))
    );
}

/// The COCO file of `count` pictures of 40×30: a triangle of class 7 in each, a mask of class 3 in the
/// even ones, one crowd.
fn coco_json(count: usize) -> Value {
    let images: Vec<Value> = (0..count)
        .map(|i| json!({"id": i + 10, "file_name": format!("some\\folder/图 {i}.jpg"), "width": 40, "height": 30}))
        .collect();
    let mut annotations = Vec::new();
    for i in 0..count {
        annotations.push(json!({
            "id": annotations.len(), "image_id": i + 10, "category_id": 7, "bbox": [2, 3, 20, 10], "area": 100.0,
            "segmentation": [[2, 3, 22, 3, 2, 13]], "iscrowd": 0,
        }));
        if i % 2 == 0 {
            // Columns 20–29 of rows 10–19, as run lengths down the columns.
            let mut counts = vec![20 * 30 + 10, 10];
            (1..10).for_each(|_| counts.extend([20, 10]));
            counts.push(10 * 30 + 10);
            annotations.push(json!({
                "id": annotations.len(), "image_id": i + 10, "category_id": 3, "bbox": [20, 10, 10, 10], "area": 100,
                "segmentation": {"size": [30, 40], "counts": counts}, "iscrowd": 0,
            }));
        }
    }
    annotations.push(json!({"id": 999, "image_id": 10, "category_id": 3, "bbox": [0, 0, 0, 0], "area": 0, "segmentation": [], "iscrowd": 1}));
    json!({
        "info": {"year": 2026}, "images": images, "annotations": annotations,
        "categories": [{"id": 7, "name": "zebra"}, {"id": 3, "name": "ant"}, {"id": 9, "name": "never"}],
    })
}

fn zoo(count: usize) -> Bench {
    let bench = Bench::new(TaskType::InstanceSegmentation);
    for i in 0..count {
        bench.put(&format!("JPEGImages/图 {i}.jpg"), jpeg(40, 30, i));
    }
    bench.put("annotations.json", coco_json(count).to_string());
    bench
}

#[test]
fn coco_sets_are_imported_split_and_read_for_training() {
    let bench = zoo(6);
    bench.put("JPEGImages/extra.jpg", jpeg(8, 8, 0));
    let result = bench.run().unwrap();
    let details = &result.details;
    assert_eq!(
        details["labels"],
        json!(["ant", "zebra"]),
        "sorted, and only those that occur"
    );
    assert_eq!(
        details["file_info"]["JPEGImages/图 3.jpg"],
        "Annotations/图 3.npy"
    );
    assert_eq!(details["file_info"].as_object().unwrap().len(), 6);
    assert_eq!(details["label_info"]["ant"].as_array().unwrap().len(), 3);
    let warnings = result.warnings.join("\n");
    assert!(
        warnings.contains("1 annotations are crowds")
            && warnings.contains("1 pictures are not in the annotation file"),
        "{warnings}"
    );

    let read: Value =
        serde_json::from_str(&read_annotation(&bench.dest.join("Annotations/图 0.npy")).unwrap())
            .unwrap();
    assert_eq!(
        read,
        json!({"h": 30.0, "w": 40.0, "gt_class": ["zebra", "ant"], "gt_bbox": [[2.0, 3.0, 21.0, 12.0], [20.0, 10.0, 29.0, 19.0]],
               "gt_poly": [[[2.0, 3.0, 22.0, 3.0, 2.0, 13.0]], [[20.0, 10.0, 30.0, 10.0, 30.0, 20.0, 20.0, 20.0]]]})
    );
    let (index, _) = read_index(&bench.dest, TaskType::InstanceSegmentation, false).unwrap();
    let details = write_split(
        &bench.dest,
        TaskType::InstanceSegmentation,
        &split(&index, HALF).unwrap(),
    )
    .unwrap();
    let mut seen = 0;
    for (part, list, count) in [
        ("train.json", "train_files", 3),
        ("val.json", "val_files", 2),
        ("test.json", "test_files", 1),
    ] {
        let text: Value = serde_json::from_str(&bench.text(part)).unwrap();
        assert_eq!(text["images"].as_array().unwrap().len(), count);
        assert_eq!(
            text["categories"].as_array().unwrap().len(),
            3,
            "all of them"
        );
        assert!(
            text["annotations"]
                .as_array()
                .unwrap()
                .iter()
                .all(|a| a["iscrowd"] == 0)
        );
        let (labels, samples) = coco::read_part(&bench.dest, part, true).unwrap();
        assert_eq!(
            labels,
            ["zebra", "ant", "never"],
            "in the order of the file"
        );
        let mut names: Vec<String> = samples
            .iter()
            .map(|s| {
                format!(
                    "JPEGImages/{}",
                    s.path.file_name().unwrap().to_str().unwrap()
                )
            })
            .collect();
        let mut listed: Vec<String> = serde_json::from_value(details[list].clone()).unwrap();
        names.sort();
        listed.sort();
        assert_eq!(names, listed);
        seen += samples.iter().map(|s| s.objects.len()).sum::<usize>();
    }
    assert_eq!(seen, 9);
    assert!(!bench.dest.join("labels.txt").exists());
}

#[test]
fn split_coco_sets_without_a_whole_file_get_one() {
    let bench = zoo(4);
    bench.remove("annotations.json");
    let part = |range: std::ops::Range<usize>, shift: i64| {
        let mut all = coco_json(4);
        let ids: Vec<i64> = range.map(|i| i as i64 + 10).collect();
        let within = |v: &Value, key: &str| ids.contains(&v[key].as_i64().unwrap());
        all["images"]
            .as_array_mut()
            .unwrap()
            .retain(|v| within(v, "id"));
        all["annotations"]
            .as_array_mut()
            .unwrap()
            .retain(|v| within(v, "image_id"));
        // Another file may number its categories otherwise.
        for (list, key) in [("categories", "id"), ("annotations", "category_id")] {
            for entry in all[list].as_array_mut().unwrap() {
                entry[key] = json!(entry[key].as_i64().unwrap() + shift);
            }
        }
        all.to_string()
    };
    bench.put("train.json", part(0..3, 0));
    bench.fails_with(&["val.json: it is missing; a dataset with train.json also needs val.json"]);
    bench.put("val.json", part(3..4, 100));
    let result = bench.run().unwrap();
    assert!(result.split);
    assert_eq!(result.details["train_files"].as_array().unwrap().len(), 3);
    assert_eq!(
        result.details["class_val_file_list"],
        json!({"ant": [], "zebra": ["JPEGImages/图 3.jpg"]})
    );
    let whole: Value = serde_json::from_str(&bench.text("annotations.json")).unwrap();
    let ids: Vec<i64> = whole["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    let last = whole["annotations"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["image_id"].as_i64(), last["category_id"].as_i64()),
        (Some(3), Some(7))
    );
    let (index, _) = read_index(&bench.dest, TaskType::InstanceSegmentation, false).unwrap();
    write_split(
        &bench.dest,
        TaskType::InstanceSegmentation,
        &split(
            &index,
            SplitOptions {
                val_split: 0.5,
                ..HALF
            },
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(
        coco::read_part(&bench.dest, "val.json", true)
            .unwrap()
            .1
            .len(),
        2
    );
}

#[test]
fn every_kind_of_bad_coco_entry_is_named() {
    let bench = zoo(3);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut all = coco_json(3);
        change(&mut all);
        bench.put("annotations.json", all.to_string());
    };
    let set = |place: usize, key: &'static str, value: Value| {
        move |all: &mut Value| all["annotations"][place][key] = value.clone()
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(set(0, "category_id", json!(5))),
            "annotations.json: annotation 0 of image 10 (图 0.jpg): its category 5 is not in categories",
        ),
        (
            Box::new(set(2, "area", json!(0))),
            "annotation 2 of image 11 (图 1.jpg): its area is 0",
        ),
        (
            Box::new(set(2, "bbox", json!([50, 3, 20, 10]))),
            "its box 50, 3, 20, 10 lies outside the picture of 40×30",
        ),
        (
            Box::new(set(2, "bbox", json!([1e39, 3, 5, 10]))),
            "annotation entry 3: number out of range",
        ),
        (
            Box::new(set(2, "segmentation", json!([[1, 2, 3, 4, 5, 1e39]]))),
            "its polygons hold a number that is too large",
        ),
        (
            Box::new(set(2, "bbox", json!([5, 3, 0, 10]))),
            "its box 5, 3, 0, 10 has no area",
        ),
        (
            Box::new(set(2, "bbox", json!([5, 3]))),
            "annotation entry 3: invalid length 2",
        ),
        (
            Box::new(set(2, "id", json!(0))),
            "annotation 0 of image 11 (图 1.jpg): its id is used twice",
        ),
        (
            Box::new(set(2, "segmentation", json!([[1, 2, 3, 4]]))),
            "annotation entry 3: a polygon of 4 numbers; it takes three or more pairs of x and y",
        ),
        (
            Box::new(set(2, "segmentation", json!([[5, 5, 6, 6, 7, 7]]))),
            "its polygons have no area",
        ),
        (
            Box::new(set(
                1,
                "segmentation",
                json!({"size": [30, 40], "counts": [5, 5]}),
            )),
            "annotation entry 2: the run lengths sum up to 10",
        ),
        (
            Box::new(set(
                1,
                "segmentation",
                json!({"size": [3, 4], "counts": [5, 7]}),
            )),
            "its mask is 4×3, but the picture 40×30",
        ),
        (
            Box::new(|all| all["images"][1]["id"] = json!(10)),
            "image 10: its id is used twice",
        ),
        (
            Box::new(|all| all["images"][1]["file_name"] = json!("none.jpg")),
            "annotations.json: image 11: JPEGImages/none.jpg is not there; add the picture or remove the entry",
        ),
        (
            Box::new(|all| all["images"][1]["width"] = json!(30)),
            "JPEGImages/图 1.jpg: it is 40×30, but image 11 says 30×30",
        ),
        (
            Box::new(|all| all["categories"][1]["name"] = json!("zebra")),
            "category 3: category 7 has the same name zebra",
        ),
        (
            Box::new(|all| all["annotations"] = json!([])),
            "it has no annotation that could be used",
        ),
        (
            Box::new(|all| all["images"] = json!([])),
            "it names no picture",
        ),
    ];
    for (change, part) in cases {
        with(&change);
        bench.fails_with(&[part]);
    }
    for (text, part) in [
        ("{", "annotations.json: broken JSON"),
        ("[]", "broken JSON"),
        ("", "broken JSON"),
        ("{\"images\": []}", "missing field `categories`"),
    ] {
        bench.put("annotations.json", text);
        bench.fails_with(&[part]);
    }
    bench.remove("annotations.json");
    bench.fails_with(&["annotations.json: it is missing; add the MSCOCO annotations of the pictures, or train.json and val.json"]);
    // Things that are left out without harm.
    with(&|all| {
        all["annotations"][2]["image_id"] = json!(77);
        all["images"]
            .as_array_mut()
            .unwrap()
            .push(json!({"id": 50, "file_name": "图 0.jpg", "width": 40, "height": 30}));
        all["annotations"][3]["segmentation"] = json!([]);
    });
    let warnings = bench.run().unwrap().warnings.join("\n");
    for part in [
        "1 annotations belong to no entry of images",
        "图 0.jpg has several entries in images; the last one, image 50, counts",
        "it has no mask",
    ] {
        assert!(warnings.contains(part), "{part} in\n{warnings}");
    }
}

#[test]
fn coco_previews_fill_shapes_and_pickles_are_not_loaded() {
    let bench = zoo(2);
    bench.run().unwrap();
    let draw = || {
        let png = draw_labels(
            &bench.dest,
            TaskType::InstanceSegmentation,
            "JPEGImages/图 0.jpg",
            &PreviewOptions::default(),
        )
        .unwrap();
        decode(&png, &Limits::default(), None).unwrap()
    };
    let drawn = draw();
    assert_eq!((drawn.width(), drawn.height()), (40, 30));
    assert_eq!(drawn.pixel(20, 15), class_colour(1), "the box of the mask");
    let before = read_annotation(&bench.dest.join("Annotations/图 0.npy")).unwrap();
    // What PaddleX wrote stays, and annotations.json is read instead.
    let path = bench.dest.join("Annotations/图 0.npy");
    std::fs::write(&path, b"\x93NUMPY\x01\0pickle").unwrap();
    assert_eq!(read_annotation(&path).unwrap(), before);
    assert_eq!(draw(), drawn);
    let mut spec = bench.spec();
    spec.source = spec.dest.clone();
    oarlock_datasets::import(&spec, &|_| {}, &std::sync::atomic::AtomicBool::new(false)).unwrap();
    assert!(std::fs::read(&path).unwrap().starts_with(b"\x93NUMPY"));
    assert!(read_annotation(&bench.dest.join("annotations.json")).is_err());
}

#[test]
fn a_picture_may_hold_ten_thousand_things() {
    let bench = zoo(1);
    let mut all = coco_json(1);
    let one = all["annotations"][0].clone();
    all["annotations"] = (0..10_000)
        .map(|i| {
            let mut next = one.clone();
            next["id"] = json!(i);
            next
        })
        .collect();
    bench.put("annotations.json", all.to_string());
    bench.run().unwrap();
    let read = read_annotation(&bench.dest.join("Annotations/图 0.npy")).unwrap();
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read["gt_class"].as_array().unwrap().len(), 10_000);
}
