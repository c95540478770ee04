//! Non-maximum suppression against torchvision and Paddle.

use oarlock_imaging::{
    Chosen, Decay, Rng, Selection, matrix_nms, multiclass_nms, nms, nms_by_class,
};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_f64().unwrap() as f32).collect()
}

fn places(value: &Value) -> Vec<usize> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_u64().unwrap() as usize).collect()
}

fn boxes(case: &Value) -> Vec<[f32; 4]> {
    floats(&case["boxes"]).as_chunks::<4>().0.to_vec()
}

#[test]
fn keeps_what_torchvision_keeps() {
    let file: Value = serde_json::from_str(include_str!("fixtures/nms.json")).unwrap();
    for (i, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let (boxes, scores) = (boxes(case), floats(&case["scores"]));
        let overlap = case["overlap"].as_f64().unwrap() as f32;
        assert_eq!(
            nms(&boxes, &scores, overlap),
            places(&case["keep"]),
            "case {i}"
        );
        let classes: Vec<u32> = places(&case["classes"]).iter().map(|&c| c as u32).collect();
        let kept = nms_by_class(&boxes, &scores, &classes, overlap);
        assert_eq!(kept, places(&case["by_class"]), "case {i} by class");
    }
}

fn assert_chosen(ours: &[Chosen], expected: &Value, at: &str) {
    let expected = expected.as_array().unwrap();
    assert_eq!(ours.len(), expected.len(), "{at}");
    for (ours, expected) in ours.iter().zip(expected) {
        let (class, index) = (expected[0].as_u64().unwrap(), expected[1].as_u64().unwrap());
        assert_eq!(
            (ours.class as u64, ours.index as u64),
            (class, index),
            "{at}"
        );
        assert!(
            (f64::from(ours.score) - expected[2].as_f64().unwrap()).abs() < 1e-5,
            "{at}"
        );
    }
}

#[test]
fn chooses_what_paddle_chooses() {
    let file: Value = serde_json::from_str(include_str!("fixtures/detections.json")).unwrap();
    for (i, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let (boxes, scores) = (boxes(case), floats(&case["scores"]));
        let float = |key: &str| case[key].as_f64().unwrap() as f32;
        let selection = Selection {
            score_threshold: float("score_threshold"),
            candidates: case["candidates"].as_u64().unwrap() as usize,
            detections: case["detections"].as_u64().unwrap() as usize,
            background: case["background"].as_u64().map(|c| c as usize),
            inclusive: case["normalized"] == false,
        };
        let decay = if case["gaussian"] == true {
            Decay::Gaussian {
                sigma: float("sigma"),
            }
        } else {
            Decay::Linear
        };
        let chosen = matrix_nms(&boxes, &scores, decay, float("post_threshold"), &selection);
        assert_chosen(&chosen, &case["matrix"], &format!("matrix {i}"));
        let chosen = multiclass_nms(&boxes, &scores, float("overlap"), &selection);
        assert_chosen(&chosen, &case["multiclass"], &format!("multiclass {i}"));
    }
}

fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let shared = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let both = shared(0) * shared(1);
    both / (area(a) + area(b) - both)
}

#[test]
fn what_stays_is_apart_and_what_goes_is_covered() {
    let mut rng = Rng::of(&[4]);
    for round in 0..30 {
        let count = rng.below(300);
        let mut unit = || rng.uniform(0.0, 1.0) as f32;
        let boxes: Vec<[f32; 4]> = (0..count)
            .map(|_| {
                let (x, y) = (unit() * 100.0, unit() * 100.0);
                [x, y, x + 1.0 + unit() * 40.0, y + 1.0 + unit() * 40.0]
            })
            .collect();
        let scores: Vec<f32> = (0..count).map(|_| unit()).collect();
        let kept = nms(&boxes, &scores, 0.4);
        for (place, &i) in kept.iter().enumerate() {
            for &j in &kept[..place] {
                assert!(scores[j] >= scores[i] && overlap(&boxes[i], &boxes[j]) <= 0.4);
            }
        }
        for i in (0..count).filter(|i| !kept.contains(i)) {
            let covers =
                |&&j: &&usize| scores[j] >= scores[i] && overlap(&boxes[i], &boxes[j]) > 0.4;
            assert!(kept.iter().any(|j| covers(&j)), "round {round}, box {i}");
        }
        assert_eq!(nms_by_class(&boxes, &scores, &vec![7; count], 0.4), kept);
        let mut every = nms_by_class(&boxes, &scores, &(0..count as u32).collect::<Vec<_>>(), 0.4);
        every.sort_unstable();
        assert_eq!(every, (0..count).collect::<Vec<_>>(), "a class each");
    }
}

#[test]
fn numbers_that_are_none_do_no_harm() {
    let nan = f32::NAN;
    let boxes = [
        [0.0, 0.0, 4.0, 4.0],
        [nan; 4],
        [0.0, 0.0, 4.0, 4.0],
        [f32::INFINITY; 4],
    ];
    assert_eq!(nms(&boxes, &[nan, 0.5, 0.9, 0.1], 0.5), [2, 1, 3]);
    assert!(nms(&boxes, &[], 0.5).is_empty());
    assert_eq!(nms(&boxes[..1], &[0.5, 0.6], 0.5), [0]);
    let selection = Selection {
        score_threshold: 0.0,
        candidates: 10,
        detections: 10,
        background: None,
        inclusive: true,
    };
    let scores = [nan, 0.5, 0.9, 0.1, 0.3];
    let chosen = matrix_nms(&boxes, &scores, Decay::Linear, 0.0, &selection);
    assert!(
        chosen.iter().all(|c| c.class == 0 && c.score > 0.0),
        "{chosen:?}"
    );
    assert!(multiclass_nms(&[], &scores, 0.5, &selection).is_empty());
}
