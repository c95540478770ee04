//! Measures of label maps against PaddleX's own numbers.

use oarlock_metrics::{Confusion, PixelCounter, ReportError, overlap, segmentation_report};
use serde_json::Value;

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn bytes(v: &Value) -> Vec<u8> {
    numbers(v).iter().map(|v| *v as u8).collect()
}

fn counted(classes: usize, truth: &[u8], predicted: &[u8]) -> Confusion {
    let mut counter = PixelCounter::new(classes);
    counter.add(truth, predicted);
    counter.finish()
}

#[test]
fn agrees_with_paddlex() {
    // `record_paddleseg.py` made it; the file names the releases. It computes in single precision. One set lacks a
    // class altogether.
    let file: Value = serde_json::from_str(include_str!("paddleseg.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let classes = case["classes"].as_u64().unwrap() as usize;
        let confusion = counted(classes, &bytes(&case["truth"]), &bytes(&case["predicted"]));
        let rows: Vec<Vec<u64>> = confusion.rows().map(<[u64]>::to_vec).collect();
        assert_eq!(serde_json::json!(rows), case["confusion"]);
        let measures = overlap(&confusion);
        let close = |a: f64, b: &Value| assert!((a - b.as_f64().unwrap()).abs() < 1e-6, "{a} {b}");
        close(measures.miou, &case["miou"]);
        close(measures.accuracy, &case["oacc"]);
        close(measures.kappa.unwrap(), &case["kappa"]);
        for (c, class) in measures.classes.iter().enumerate() {
            close(class.iou, &case["category_iou"][c]);
            close(class.accuracy, &case["category_acc"][c]);
            close(class.f1, &case["category_f1"][c]);
        }
    }
}

/// Maps with runs, noise and every byte.
fn maps(count: usize, values: u64) -> (Vec<u8>, Vec<u8>) {
    let mut state = 7u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    let (mut truth, mut predicted) = (Vec::new(), Vec::new());
    while truth.len() < count {
        let (t, p, run) = (next() % values, next() % values, 1 + next() % 40);
        for _ in 0..run.min((count - truth.len()) as u64) {
            truth.push(t as u8);
            predicted.push(if next() % 9 == 0 { p as u8 } else { t as u8 });
        }
    }
    (truth, predicted)
}

#[test]
fn counts_every_pixel_once_and_leaves_out_what_is_no_class() {
    for (classes, values, length) in [(3, 256, 10_007), (255, 256, 65_536), (2, 2, 7), (7, 9, 0)] {
        let (truth, predicted) = maps(length, values);
        let mut expected = vec![vec![0u64; classes]; classes];
        for (t, p) in truth.iter().zip(&predicted) {
            let (t, p) = (usize::from(*t), usize::from(*p));
            if t < classes && p < classes && t != 255 && p != 255 {
                expected[t][p] += 1;
            }
        }
        // In pieces, as a set of maps comes.
        let mut counter = PixelCounter::new(classes);
        for (t, p) in truth.chunks(997).zip(predicted.chunks(997)) {
            counter.add(t, p);
        }
        let rows: Vec<Vec<u64>> = counter.finish().rows().map(<[u64]>::to_vec).collect();
        assert_eq!(rows, expected);
    }
}

#[test]
fn the_report_has_the_shape_that_clients_read() {
    let confusion = Confusion::from_counts(3, vec![90, 10, 0, 5, 15, 0, 0, 0, 0]);
    let names = ["road", "树", "never"].map(String::from);
    let report = segmentation_report(&names, &confusion, Some(4)).unwrap();
    let expected = serde_json::json!({
        "label_list": names,
        "epoch": 4,
        "Confusion_Matrix": [[90, 10, 0], [5, 15, 0], [0, 0, 0]],
        "Mean_IoU": (90.0 / 105.0 + 15.0 / 30.0 + 0.0) / 3.0,
        "Mean_Acc": 105.0 / 120.0,
        "PRIoU": {
            "road": { "precision": 90.0 / 95.0, "recall": 0.9, "iou": 90.0 / 105.0 },
            "树": { "precision": 0.6, "recall": 0.75, "iou": 0.5 },
            "never": { "precision": -1.0, "recall": -1.0, "iou": 0.0 },
        },
    });
    assert_eq!(report, expected);
    let empty = Confusion::new(3);
    assert_eq!(
        segmentation_report(&names, &empty, None),
        Err(ReportError::Empty)
    );
    assert!(matches!(
        segmentation_report(&names[..2], &confusion, None),
        Err(ReportError::Shape(_))
    ));
}

#[test]
fn agreement_that_chance_explains_has_no_kappa() {
    let one = overlap(&Confusion::from_counts(2, vec![50, 0, 0, 0]));
    assert_eq!((one.kappa, one.accuracy, one.miou), (None, 1.0, 0.5));
    let none = overlap(&Confusion::new(2));
    assert_eq!((none.kappa, none.accuracy), (None, 0.0));
}
