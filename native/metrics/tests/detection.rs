//! Average precision and reports against pycocotools and PaddleX, and what must hold for any results.

use oarlock_imaging::{Rle, Rng};
use oarlock_metrics::{
    CocoParameters, CocoResult, Detection, DetectionSettings, ImageResult, Region, ReportError,
    Truth, coco_evaluate, detection_report, instance_report, voc_evaluate,
};
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("detection.json")).unwrap()
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn images(case: &Value) -> Vec<ImageResult> {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let bbox = |value: &Value| [0, 1, 2, 3].map(|i| float(&value["bbox"][i]));
    let image = |image: &Value| {
        let [w, h] = [0, 1].map(|i| image["size"][i].as_u64().unwrap() as u32);
        let mask = |v: &Value| {
            let text = v["mask"].as_str()?;
            Some(Rle::from_compressed(w, h, text).unwrap())
        };
        let truth = |t: &Value| Truth {
            class: t["class"].as_u64().unwrap() as usize,
            bbox: bbox(t),
            area: float(&t["area"]),
            crowd: t["crowd"] == 1,
            difficult: t["difficult"] == 1,
            mask: mask(t),
        };
        let detection = |d: &Value| Detection {
            class: d["class"].as_u64().unwrap() as usize,
            score: float(&d["score"]),
            bbox: bbox(d),
            mask: mask(d),
        };
        ImageResult {
            size: Some((w, h)),
            truths: list(&image["truths"]).iter().map(truth).collect(),
            detections: list(&image["detections"]).iter().map(detection).collect(),
        }
    };
    list(&case["images"]).iter().map(image).collect()
}

fn classes(case: &Value) -> usize {
    case["classes"].as_u64().unwrap() as usize
}

fn evaluate(images: &[ImageResult], classes: usize, region: Region, threads: usize) -> CocoResult {
    coco_evaluate(images, classes, region, CocoParameters::default(), threads).unwrap()
}

/// Everything that `expected` has, within 1e-6.
fn assert_like(ours: &Value, expected: &Value, at: &str) {
    match expected {
        Value::Object(map) => {
            for (key, value) in map {
                assert_like(&ours[key], value, &format!("{at}.{key}"));
            }
        }
        Value::Array(list) => {
            assert_eq!(ours.as_array().map(Vec::len), Some(list.len()), "{at}");
            for (i, value) in list.iter().enumerate() {
                assert_like(&ours[i], value, &format!("{at}[{i}]"));
            }
        }
        Value::Number(_) => {
            let (ours, expected) = (ours.as_f64(), float(expected));
            assert!(
                ours.is_some_and(|v| (v - expected).abs() < 1e-6),
                "{at}: {ours:?} is not {expected}"
            );
        }
        _ => assert_eq!(ours, expected, "{at}"),
    }
}

/// Our figures in the form of the fixture.
fn figures(result: &CocoResult, classes: usize) -> Value {
    let s = result.summary();
    let stats = [
        &[s.ap, s.ap50, s.ap75][..],
        &s.ap_by_size,
        &s.ar,
        &s.ar_by_size,
    ];
    let stats: Vec<f64> = stats
        .concat()
        .into_iter()
        .map(|v| v.unwrap_or(-1.0))
        .collect();
    let absent = vec![-1.0; 101];
    let curve = |c: usize| result.curve(c, 5);
    serde_json::json!({
        "stats": stats,
        "class_ap": (0..classes).map(|c| result.class_average_precision(c, None)).collect::<Vec<_>>(),
        "class_ap50": (0..classes).map(|c| result.class_average_precision(c, Some(0))).collect::<Vec<_>>(),
        "precision75": (0..classes).map(|c| curve(c).map_or(&absent, |v| &v.precision)).collect::<Vec<_>>(),
        "score75": (0..classes).map(|c| curve(c).map_or(&absent, |v| &v.score)).collect::<Vec<_>>(),
        "by_detections": (0..3).map(|m| (0..4).map(|a| result.average_precision(None, a, m)).collect()).collect::<Vec<Vec<_>>>(),
    })
}

#[test]
fn coco_figures_are_those_of_pycocotools() {
    let mut compared = 0;
    for case in fixture()["cases"].as_array().unwrap() {
        let (images, classes) = (images(case), classes(case));
        for (key, region) in [("bbox", Region::Box), ("segm", Region::Mask)] {
            if case[key].is_null() {
                continue;
            }
            let result = evaluate(&images, classes, region, 1);
            let at = format!("{} {key}", case["name"]);
            assert_like(&figures(&result, classes), &case[key], &at);
            assert_eq!(
                result,
                evaluate(&images, classes, region, 7),
                "threads change nothing"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 5);
}

#[test]
fn area_average_precision_follows_its_definition() {
    for case in fixture()["cases"].as_array().unwrap() {
        let images = images(case);
        if images.iter().flat_map(|i| &i.truths).any(|t| t.crowd) {
            continue;
        }
        let result = voc_evaluate(&images, classes(case), 0.5).unwrap();
        let areas = result
            .classes
            .iter()
            .map(|c| (c.truths > 0).then_some(c.area));
        let ours = serde_json::json!(areas.collect::<Vec<_>>());
        assert_like(&ours, &case["area_ap"], case["name"].as_str().unwrap());
    }
}

#[test]
fn reports_are_those_of_paddlex() {
    for case in fixture()["cases"].as_array().unwrap() {
        let images = images(case);
        let names: Vec<String> = (0..classes(case)).map(|i| format!("class {i}")).collect();
        for wanted in case["reports"].as_array().unwrap() {
            let settings = DetectionSettings {
                epoch: Some(30),
                score_thresh: float(&wanted["score"]),
                overlap_thresh: float(&wanted["overlap"]),
                threads: 2,
            };
            let make = if wanted["report"]["Mask_PRAP"].is_null() {
                detection_report
            } else {
                instance_report
            };
            let report = make(&names, &images, &settings).unwrap();
            let at = format!("{} at {settings:?}", case["name"]);
            assert_like(&report, &wanted["report"], &at);
            assert_eq!(report["epoch"], 30);
            assert_eq!(report["score_thresh"], wanted["score"]);
        }
    }
}

/// Objects on a grid; `found` says which detections to make.
fn grid(count: usize, found: impl Fn(usize) -> Option<f64>) -> ImageResult {
    let bbox = |i: usize| [(i % 10) as f64 * 20.0, (i / 10) as f64 * 20.0, 12.0, 12.0];
    let truth = |i: usize| Truth {
        class: 0,
        bbox: bbox(i),
        area: 144.0,
        crowd: false,
        difficult: false,
        mask: None,
    };
    let detection = |i: usize| {
        let score = found(i)?;
        Some(Detection {
            class: 0,
            score,
            bbox: bbox(i),
            mask: None,
        })
    };
    ImageResult {
        size: Some((200, 200)),
        truths: (0..count).map(truth).collect(),
        detections: (0..count).filter_map(detection).collect(),
    }
}

#[test]
fn closed_forms() {
    let ap = |image: ImageResult| evaluate(&[image], 1, Region::Box, 1).summary().ap;
    assert_eq!(ap(grid(50, |_| Some(0.5))), Some(1.0));
    assert_eq!(ap(grid(50, |_| None)), Some(0.0));
    // Half of the objects found without a mistake: precision 1 up to recall 0.5.
    let half = ap(grid(50, |i| (i % 2 == 0).then_some(0.5))).unwrap();
    assert!((half - 51.0 / 101.0).abs() < 1e-12);
    assert_eq!(ap(ImageResult::default()), None);
    let voc = voc_evaluate(&[grid(50, |i| (i < 25).then_some(0.5))], 1, 0.5).unwrap();
    assert!((voc.eleven_point().unwrap() - 6.0 / 11.0).abs() < 1e-12);
    assert!((voc.area().unwrap() - 0.5).abs() < 1e-12);
}

#[test]
fn any_results_keep_within_bounds_and_do_not_depend_on_order() {
    let mut rng = Rng::of(&[21]);
    for round in 0..40 {
        let mut random = |count: usize| {
            let bbox = |rng: &mut Rng| {
                [0, 1, 2, 3].map(|i| rng.uniform(if i < 2 { 0.0 } else { 5.0 }, 60.0))
            };
            let mut image = ImageResult::default();
            for _ in 0..count {
                let (class, bbox) = (rng.below(3), bbox(&mut rng));
                let crowd = rng.below(8) == 0;
                image.truths.push(Truth {
                    class,
                    bbox,
                    area: bbox[2] * bbox[3],
                    crowd,
                    difficult: false,
                    mask: None,
                });
            }
            for _ in 0..count * 3 {
                // No ties: equal scores count in their order.
                let score = rng.uniform(0.0, 1.0);
                image.detections.push(Detection {
                    class: rng.below(3),
                    score,
                    bbox: bbox(&mut rng),
                    mask: None,
                });
            }
            image
        };
        let mut images: Vec<ImageResult> = (0..4).map(|i| random(i * 3)).collect();
        let before = evaluate(&images, 3, Region::Box, 3);
        for figure in [
            before.summary().ap,
            before.summary().ap50,
            before.summary().ar[2],
        ] {
            assert!(
                figure.is_none_or(|v| (0.0..=1.0).contains(&v)),
                "{round}: {figure:?}"
            );
        }
        for t in 1..10 {
            let at = |t| before.average_precision(Some(t), 0, 2);
            assert!(
                at(t) <= at(t - 1).map(|v| v + 1e-12),
                "stricter overlap, better score"
            );
        }
        images.reverse();
        for image in &mut images {
            image.detections.reverse();
        }
        assert_eq!(
            evaluate(&images, 3, Region::Box, 2),
            before,
            "round {round}"
        );
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let names = vec!["nut".to_string()];
    let settings = DetectionSettings {
        epoch: None,
        score_thresh: 0.5,
        overlap_thresh: 0.5,
        threads: 1,
    };
    assert_eq!(
        detection_report(&names, &[], &settings),
        Err(ReportError::Empty)
    );
    assert_eq!(
        instance_report(&[], &[ImageResult::default()], &settings),
        Err(ReportError::Empty)
    );
    let mut image = grid(3, |_| Some(0.5));
    image.detections[2].score = f64::NAN;
    let error = detection_report(&names, &[image.clone()], &settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the score of detection 2 of image 0 is no number"
    );
    image.detections[2] = Detection {
        class: 4,
        ..image.detections[1].clone()
    };
    assert!(instance_report(&names, &[image], &settings).is_err());
    let odd = ImageResult {
        size: Some((0, 0)),
        truths: vec![Truth {
            bbox: [f64::NAN; 4],
            ..grid(1, |_| None).truths[0].clone()
        }],
        detections: vec![Detection {
            class: 0,
            score: f64::INFINITY,
            bbox: [f64::MAX; 4],
            mask: None,
        }],
    };
    detection_report(&names, std::slice::from_ref(&odd), &settings).unwrap();
    instance_report(&names, &[odd], &settings).unwrap();
    let none = CocoParameters {
        overlaps: vec![],
        ..CocoParameters::default()
    };
    assert!(coco_evaluate(&[], 1, Region::Box, none, 1).is_err());
}
