//! The pickles of a PaddleX workspace, written by Python in every protocol.

use oarlock_weights::pickle::{PickleError, Profile, read};
use serde_json::{Value, json};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/fixtures/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn parse(name: &str, profile: Profile) -> Value {
    read(&fixture(name), profile).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn reads_dataset_statistics() {
    for protocol in 0..6 {
        let statis = parse(&format!("statis_{protocol}.pkl"), Profile::Statistics);
        assert_eq!(
            statis,
            json!({
                "fields": ["file_info", "label_info"],
                "file_info": { "猫/a b.jpg": "猫", "dog/1.jpg": "dog" },
                "label_info": { "猫": ["猫/a b.jpg"], "dog": ["dog/1.jpg"] },
                "labels": ["dog", "猫"],
                "train_files": ["dog/1.jpg"],
                "val_files": [],
                "test_files": [],
                "class_train_file_list": { "dog": ["dog/1.jpg"], "猫": [] },
                "count": 2,
                "ratio": 0.5,
                "none": null,
                "flag": true,
                "big": 1_099_511_627_776_i64,
                "negative": -5,
                "tuple": [1, [2, 3]],
            }),
            "protocol {protocol}"
        );
    }
}

#[test]
fn reads_task_parameters_whatever_package_wrote_them() {
    for build in ["new", "old"] {
        for protocol in [0, 2, 4] {
            let name = format!("params_{build}_{protocol}.pkl");
            let params = parse(&name, Profile::Params);
            assert_eq!(params["pid"], "P0001");
            assert_eq!(params["desc"], "一");
            assert_eq!(
                params["train"],
                json!({
                    "cuda_visible_devices": "",
                    "batch_size": 2,
                    "save_interval_epochs": 1,
                    "model": "MobileNetV2",
                    "learning_rate": 0.00025,
                    "lr_decay_epochs": [4, 6, 8],
                    "image_shape": [224, 224],
                    "horizontal_flip": true,
                    "pretrain_weights": null,
                }),
                "{name}"
            );
            // The class belongs to this one kind of file.
            let error = read(&fixture(&name), Profile::Statistics).unwrap_err();
            assert!(matches!(error, PickleError::Forbidden { .. }), "{error}");
        }
    }
}

#[test]
fn reads_reports_with_numpy_values() {
    for protocol in [0, 2, 4, 5] {
        assert_eq!(
            parse(&format!("eval_res_{protocol}.pkl"), Profile::Report),
            json!({
                "Confusion_Matrix": [[18.0, 1.0], [0.0, 20.0]],
                "Acc1": 0.75,
                "Acck": 1.0,
                "count": 39,
                "ok": true,
                "PRF1": { "a": { "precision": 0.9, "auc": null } },
                "ints": [[0, 2, 4], [1, 3, 5]],
                "empty": [],
                "label_list": ["a", "b"],
                "topk": 2,
            }),
            "protocol {protocol}"
        );
    }
    let error = read(&fixture("eval_res_4.pkl"), Profile::Statistics).unwrap_err();
    assert!(error.to_string().contains("numpy"), "{error}");
}

#[test]
fn reads_sensitivities() {
    let xy = parse("sensitivities_xy.pkl", Profile::Sensitivities);
    assert_eq!(xy, json!({ "0.1": 0.98, "0.5": 0.25, "1.0": 0.0 }));
    let status = parse("model.sensi.data", Profile::SensitivityStatus);
    assert_eq!(
        status["sensitivies"],
        json!({ "conv1.w_0": { "0.1": 0.01, "0.2": 0.05 } })
    );
    assert_eq!(status["is_ckp"], true);
    for (file, profile) in [
        ("statis.pkl", Profile::Statistics),
        ("params.pkl", Profile::Params),
        ("eval_res.pkl", Profile::Report),
        ("sensitivities_xy.pkl", Profile::Sensitivities),
        ("model.sensi.data", Profile::SensitivityStatus),
    ] {
        assert_eq!(Profile::of_file(file), Some(profile));
    }
    assert_eq!(Profile::of_file("evil.pkl"), None);
}
