//! The commands that time steps: a fast wrong step is none.

use oarlock_engine::bench::{BenchOptions, infer, step};
use oarlock_jobs::Precision;

fn options(model: &str, size: u32) -> BenchOptions {
    BenchOptions {
        model: model.to_owned(),
        checkpoint: None,
        batch: 2,
        size,
        steps: 1,
        warmup: 0,
        threads: 2,
        cuda: None,
        precision: Precision::Fp32,
    }
}

#[test]
fn every_kind_of_network_is_timed() {
    for model in [
        "MobileNetV3_small",
        "DeepLabV3P:MobileNetV2",
        "YOLOv3:MobileNetV1",
        "PicoDet:LCNet",
        "FasterRCNN:ResNet18",
        "MaskRCNN:ResNet18",
    ] {
        let options = options(model, 64);
        for answer in [step(&options).unwrap(), infer(&options).unwrap()] {
            assert_eq!(answer["model"], model);
            assert!(answer["images_per_second"].as_f64().unwrap() > 0.0);
            assert!(answer["parameters"].as_u64().unwrap() > 1_000_000);
        }
    }
}

#[test]
fn an_unknown_network_is_named() {
    let error = step(&options("YOLOv3:VGG16", 64)).unwrap_err();
    assert!(error.0.message.contains("VGG16"), "{error}");
}
