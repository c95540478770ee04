//! Losses and detections of one-stage detectors against PaddleX's own; gradients against finite differences.

use oarlock_datasets::DetectTarget;
use oarlock_engine::detect::{Frame, detect_in};
use oarlock_engine::train::objective::Parts;
use oarlock_engine::train::objective::pico::Pico;
use oarlock_engine::train::objective::yolo::{Terms, Yolo};
use oarlock_graph::{Head, PicoHead, Suppression, YoloHead, YoloLevel};
use oarlock_imaging::{BBox, Object};
use serde_json::Value;
use tch::{Kind, Tensor};

/// `record_one_stage.py` made it; the file names the releases.
fn file() -> Value {
    serde_json::from_str(include_str!("data/one_stage.json")).unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    let list = v.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn whole(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

fn input(file: &Value) -> (usize, usize) {
    (whole(&file["height"]), whole(&file["width"]))
}

fn object(values: &[f64]) -> Object {
    let side = |i: usize| values[i] as f32;
    Object {
        class: values[4] as usize,
        bbox: BBox::new(side(0), side(1), side(2), side(3)),
        weight: side(5),
        ..Object::default()
    }
}

fn target(objects: Vec<Object>) -> DetectTarget {
    DetectTarget {
        objects,
        full: (128, 96),
        shown: (128, 96),
    }
}

fn objects(file: &Value) -> Vec<DetectTarget> {
    let images = file["things"].as_array().unwrap().iter();
    let of = |image: &Value| {
        let things = image.as_array().unwrap().iter();
        target(things.map(|t| object(&numbers(t))).collect())
    };
    images.map(of).collect()
}

/// An output or its gradient.
fn map(output: &Value, key: &str, kind: Kind) -> Tensor {
    let shape: Vec<i64> = numbers(&output["shape"])
        .iter()
        .map(|&d| d as i64)
        .collect();
    let flat = Tensor::from_slice(&numbers(&output[key])).to_kind(kind);
    flat.reshape(&shape[..])
}

/// With gradients, channels innermost as the executor hands them over.
fn outputs(case: &Value, kind: Kind) -> Vec<Tensor> {
    let outputs = case["outputs"].as_array().unwrap().iter();
    let inner = |o| {
        let o: Tensor = map(o, "values", kind);
        let o = o.permute([0, 2, 3, 1]).contiguous();
        o.permute([0, 3, 1, 2]).detach().set_requires_grad(true)
    };
    outputs.map(inner).collect()
}

fn yolo_head(case: &Value, classes: usize) -> YoloHead {
    let anchors = case["anchors"].as_array().unwrap().iter();
    let strides = numbers(&case["strides"]);
    let level = |(anchors, stride): (&Value, &f64)| YoloLevel {
        stride: *stride as usize,
        anchors: anchors
            .as_array()
            .unwrap()
            .iter()
            .map(|a| [a[0].as_f64().unwrap() as f32, a[1].as_f64().unwrap() as f32])
            .collect(),
    };
    let suppression = if case["matrix"] == true {
        Suppression::Matrix {
            score: 0.1,
            post: 0.05,
            sigma: None,
            candidates: None,
            detections: 20,
        }
    } else {
        nms(0.1, 0.45, 20)
    };
    YoloHead {
        classes,
        levels: anchors.zip(&strides).map(level).collect(),
        scale_xy: case["scale_xy"].as_f64().unwrap() as f32,
        iou_aware: case["iou_aware"].as_f64().map(|f| f as f32),
        objectness: 0.3,
        suppression,
    }
}

fn nms(score: f32, overlap: f32, detections: usize) -> Suppression {
    Suppression::Nms {
        score,
        overlap,
        candidates: Some(1000),
        detections,
    }
}

fn yolo(case: &Value, head: YoloHead) -> Yolo {
    if case["smooth"] == false {
        // The table of the models is tested with it.
        return Yolo::new(case["name"].as_str().unwrap(), head);
    }
    let terms = Terms {
        ignore: case["ignore"].as_f64().unwrap(),
        iou: None,
        iou_aware: 1.0,
        smooth: true,
    };
    Yolo::with_terms(head, terms)
}

fn pico_head(case: &Value, classes: usize) -> PicoHead {
    PicoHead {
        classes,
        strides: numbers(&case["strides"])
            .iter()
            .map(|&s| s as usize)
            .collect(),
        bins: 7,
        offset: 0.5,
        suppression: nms(0.025, 0.6, 20),
    }
}

fn total(parts: &Parts) -> Tensor {
    let parts: Vec<&Tensor> = parts.iter().map(|p| &p.1).collect();
    Tensor::stack(&parts, 0).sum(parts[0].kind())
}

fn assert_like_paddlex(parts: &Parts, outputs: &[Tensor], case: &Value, at: &str) {
    let expected = case["parts"].as_object().unwrap();
    assert_eq!(parts.len(), expected.len(), "{at}");
    for (name, part) in parts {
        let (got, expected) = (part.double_value(&[]), expected[name].as_f64().unwrap());
        let off = (got - expected).abs() / expected.abs().max(1.0);
        assert!(off < 2e-5, "{at}: {name} is {got} instead of {expected}");
    }
    total(parts).backward();
    for (i, output) in outputs.iter().enumerate() {
        let expected = map(&case["outputs"][i], "gradient", output.kind());
        let off = (output.grad() - expected).abs().max().double_value(&[]);
        assert!(off < 2e-5, "{at}: gradient {i} is off by {off}");
    }
}

#[test]
fn losses_and_gradients_are_those_of_paddlex() {
    let file = file();
    let (objects, classes) = (objects(&file), whole(&file["classes"]));
    let cases = file["yolo"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let outputs = outputs(case, Kind::Float);
        let yolo = yolo(case, yolo_head(case, classes));
        let parts = yolo.losses(&outputs, input(&file), &objects).unwrap();
        assert_like_paddlex(&parts, &outputs, case, &case["name"].to_string());
    }
    let case = &file["pico"];
    let outputs = outputs(case, Kind::Float);
    let pico = Pico::new(pico_head(case, classes));
    let parts = pico.losses(&outputs, &objects).unwrap();
    assert_like_paddlex(&parts, &outputs, case, "PicoDet");
}

/// The gradients of `loss` at `values` against central differences at some places, in double precision.
fn assert_smooth(values: &[Tensor], loss: impl Fn() -> Tensor, at: &str) {
    const STEP: f64 = 1e-5;
    loss().backward();
    for (number, tensor) in values.iter().enumerate() {
        let gradient = tensor.grad().contiguous().view(-1);
        let count = gradient.size()[0];
        // The largest gradients and some others.
        let (_, largest) = gradient.abs().topk(4, 0, true, true);
        let largest = Vec::<i64>::try_from(largest).unwrap();
        for place in largest.into_iter().chain((0..count).step_by(97)) {
            let moved = |by: f64| {
                let _guard = tch::no_grad_guard();
                let [_, c, h, w] = tensor.size()[..] else {
                    panic!()
                };
                let index = [
                    place / (c * h * w),
                    place / (h * w) % c,
                    place / w % h,
                    place % w,
                ];
                let mut cell = index.iter().fold(tensor.shallow_clone(), |t, &i| t.get(i));
                let _ = cell.g_add_scalar_(by);
            };
            moved(STEP);
            let above = loss().double_value(&[]);
            moved(-2.0 * STEP);
            let below = loss().double_value(&[]);
            moved(STEP);
            let (got, expected) = (
                gradient.double_value(&[place]),
                (above - below) / (2.0 * STEP),
            );
            assert!(
                (got - expected).abs() < 1e-6,
                "{at}, output {number}, place {place}: {got} instead of {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let file = file();
    let (objects, classes) = (objects(&file), whole(&file["classes"]));
    for case in file["yolo"].as_array().unwrap() {
        let mut head = yolo_head(case, classes);
        // The overlap's loss is smooth, its prediction's target is a constant.
        head.iou_aware = None;
        let skip = if case["iou_aware"].is_null() { 0 } else { 3 };
        let outputs: Vec<Tensor> = outputs(case, Kind::Double)
            .iter()
            .map(|o| o.narrow(1, skip, o.size()[1] - skip).detach().contiguous())
            .map(|o| o.set_requires_grad(true))
            .collect();
        let yolo = yolo(case, head);
        let loss = || total(&yolo.losses(&outputs, input(&file), &objects).unwrap());
        assert_smooth(&outputs, loss, &case["name"].to_string());
    }
}

#[test]
fn detections_are_those_of_paddle() {
    let file = file();
    let classes = whole(&file["classes"]);
    let yolo = file["yolo"].as_array().unwrap().iter();
    let cases = yolo
        .map(|case| (case, Head::Yolo(yolo_head(case, classes))))
        .chain([(&file["pico"], Head::Pico(pico_head(&file["pico"], classes)))]);
    for (case, head) in cases {
        let frames: Vec<Frame> = case["sizes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|size| Frame {
                full: (whole(&size[1]), whole(&size[0])),
                shown: (128, 96),
            })
            .collect();
        let found = detect_in(&head, &outputs(case, Kind::Float), input(&file), &frames).unwrap();
        for (found, expected) in found.iter().zip(case["detections"].as_array().unwrap()) {
            let mut expected: Vec<[f64; 6]> = numbers(expected).as_chunks::<6>().0.to_vec();
            expected.sort_by(|a, b| b[1].total_cmp(&a[1]));
            assert!(!expected.is_empty());
            assert_eq!(found.len(), expected.len(), "{}", case["name"]);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.class, expected[0] as usize, "{}", case["name"]);
                assert!((f64::from(found.score) - expected[1]).abs() < 2e-4);
                for (got, expected) in found.bbox.iter().zip(&expected[2..]) {
                    let off = (f64::from(*got) - expected).abs();
                    assert!(off < 2e-3, "{}: {found:?} {expected}", case["name"]);
                }
            }
        }
    }
}

#[test]
fn crowds_of_things_and_none_at_all_are_learned_from() {
    let file = file();
    let classes = whole(&file["classes"]);
    let many = (0..10_000).map(|i| {
        let (x, y) = (f64::from(i % 100), f64::from(i / 100) * 0.8);
        object(&[x, y, x + 7.0, y + 9.0, f64::from(i % 4), 1.0])
    });
    let flat = object(&[5.0, 5.0, 5.0, 9.0, 1.0, 1.0]);
    let crowded = [target(many.collect()), target(vec![flat]), target(vec![])];
    let empty = [target(vec![]), target(vec![]), target(vec![])];
    for objects in [crowded, empty] {
        let case = &file["yolo"][2];
        let maps = outputs(case, Kind::Float);
        let yolo = yolo(case, yolo_head(case, classes));
        let parts = yolo.losses(&maps, input(&file), &objects).unwrap();
        assert_teaches(&parts, &maps);
        let case = &file["pico"];
        let maps = outputs(case, Kind::Float);
        let pico = Pico::new(pico_head(case, classes));
        let parts = pico.losses(&maps, &objects).unwrap();
        assert_teaches(&parts, &maps[..1]);
    }
}

fn assert_teaches(parts: &Parts, outputs: &[Tensor]) {
    for (name, part) in parts {
        assert!(part.double_value(&[]).is_finite(), "{name}");
    }
    total(parts).backward();
    for output in outputs {
        let most = output.grad().abs().max().double_value(&[]);
        assert!(most.is_finite() && most > 0.0);
    }
}

#[test]
fn outputs_that_are_no_numbers_are_told() {
    let file = file();
    let case = &file["pico"];
    let head = Head::Pico(pico_head(case, whole(&file["classes"])));
    let mut maps = outputs(case, Kind::Float);
    maps[3] = maps[3].f_log().unwrap(); // of negative numbers
    let frames = [Frame {
        full: (10, 10),
        shown: (128, 96),
    }; 3];
    let error = detect_in(&head, &maps, input(&file), &frames).unwrap_err();
    assert_eq!(error.code(), oarlock_jobs::ErrorCode::NonFinite);
}
