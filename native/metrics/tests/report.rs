//! The classification report against scikit-learn's numbers.

use oarlock_metrics::{ReportError, classification_report};
use serde_json::Value;

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("class {i}")).collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() < 1e-9, "{what}: {a} is not {b}");
}

#[test]
fn agrees_with_scikit_learn() {
    // Made with numpy and scikit-learn; the file names the release. Rounded scores give ties, one
    // set lacks a class, in another a class is never predicted.
    let file: Value = serde_json::from_str(include_str!("sklearn.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let classes = case["classes"].as_u64().unwrap() as usize;
        let labels: Vec<u32> = numbers(&case["labels"]).iter().map(|&l| l as u32).collect();
        let scores: Vec<f32> = numbers(&case["scores"]).iter().map(|&s| s as f32).collect();
        let topk = case["topk"].as_u64().unwrap() as usize;
        let names = names(classes);
        let report = classification_report(&names, &labels, &scores, Some(3), topk).unwrap();
        assert_eq!(report["Confusion_Matrix"], case["confusion"]);
        let expected = ["precision", "recall", "f1", "auc"].map(|k| numbers(&case[k]));
        for (i, name) in names.iter().enumerate() {
            let occurs = labels.contains(&(i as u32));
            let keys = ["precision", "recall", "F1", "auc"];
            for (key, expected) in keys.iter().zip(&expected) {
                let wanted = if occurs { expected[i] } else { -1.0 };
                close(report["PRF1"][name][key].as_f64().unwrap(), wanted, key);
            }
        }
        let average = &report["PRF1_average"]["over_all"];
        for (key, wanted) in ["precision", "recall", "F1"]
            .iter()
            .zip(numbers(&case["weighted"]))
        {
            close(average[key].as_f64().unwrap(), wanted, key);
        }
        close(
            report["Acc1"].as_f64().unwrap(),
            case["acc1"].as_f64().unwrap(),
            "Acc1",
        );
        close(
            report["Acck"].as_f64().unwrap(),
            case["acck"].as_f64().unwrap(),
            "Acck",
        );
        assert_eq!(report["epoch"], 3);
    }
}

#[test]
fn has_the_keys_that_clients_read() {
    let report =
        classification_report(&names(3), &[0, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], None, 5);
    let report = report.unwrap();
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let wanted = [
        "label_list",
        "epoch",
        "topk",
        "Confusion_Matrix",
        "PRF1",
        "PRF1_average",
    ];
    assert_eq!(keys, [&wanted[..], &["Acc1", "Acck"]].concat());
    assert_eq!(report["epoch"], Value::Null);
    assert_eq!(report["topk"], 3, "capped at the number of classes");
    assert_eq!(
        report["PRF1"]["class 2"]["auc"], -1.0,
        "a class without images"
    );
    assert_eq!(report["Acck"], 1.0);
}

#[test]
fn knows_one_class_only() {
    let report = classification_report(&names(1), &[0, 0], &[0.4, 0.6], None, 5).unwrap();
    assert_eq!(report["PRF1"]["class 0"]["precision"], 1.0);
    assert_eq!(report["PRF1"]["class 0"]["auc"], -1.0, "no negatives");
}

#[test]
fn refuses_what_does_not_belong_together() {
    assert_eq!(
        classification_report(&names(2), &[], &[], None, 1),
        Err(ReportError::Empty)
    );
    assert_eq!(
        classification_report(&[], &[0], &[], None, 1),
        Err(ReportError::Empty)
    );
    assert!(classification_report(&names(2), &[0], &[0.5], None, 1).is_err());
    assert!(classification_report(&names(2), &[2], &[0.5, 0.5], None, 1).is_err());
}

#[test]
fn nothing_that_is_no_number_reaches_json() {
    let nan = f32::NAN;
    let report = classification_report(&names(2), &[0, 1], &[nan, nan, nan, 1.0], None, 1).unwrap();
    assert!(!report.to_string().contains("null,\"recall"));
    assert_eq!(report["PRF1"]["class 0"]["auc"], -1.0);
    assert_eq!(
        report["Acc1"], 1.0,
        "argmax of a row of NaN is the first class"
    );
    assert_eq!(report["Acck"], 0.5, "but a NaN is no hit");
}
