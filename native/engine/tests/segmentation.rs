//! Whole trainings of segmenters on composed pictures, and what is done with them.

mod common;
#[path = "segmentation_parts/families.rs"]
mod families;
#[path = "segmentation_parts/smaller.rs"]
mod smaller;
#[path = "segmentation_parts/streaming.rs"]
mod streaming;

use std::fs;
use std::path::{Path, PathBuf};

use common::{augment, common as parameters, recorder};
use oarlock_engine::{CancelToken, EventSink, run_job};
use oarlock_imaging::{
    Image, Limits, Pixels, Plane, Rng, decode_file, decode_label_map, encode_label_map, encode_png,
};
use oarlock_jobs::{
    AugmentParams, DatasetFormat, DatasetRef, DeviceSpec, ErrorCode, EvaluateSpec, ExportSpec,
    JobError, JobEvent, JobOutcome, JobSpec, LossKind, LossTerm, LrPolicy, ModelSource, Precision,
    PredictImage, PredictResult, PredictSpec, Resume, SegmentationParams, TaskType, TrainParams,
    TrainResult, TrainSpec,
};
use serde_json::Value;
use smaller::Truth;

const CLASSES: [&str; 3] = ["background", "disc", "方块 box"];

/// Discs and boxes on noise; a frame of ignored pixels. Returns the picture and its label map.
fn composition(width: usize, height: usize, seed: u64) -> (Image, Plane) {
    let mut rng = Rng::of(&[seed]);
    let mut image = Image::filled(width, height, [0; 3]);
    for value in image.data_mut() {
        *value = 60 + (rng.bits() % 60) as u8;
    }
    let mut map = Plane::filled(width, height, 0);
    for class in [1u8, 2, 1, 2] {
        let side = (width.min(height) / 4 + rng.below(width.min(height) / 6)) as i64;
        let x0 = rng.below(width) as i64;
        let y0 = rng.below(height) as i64;
        for y in 0..height as i64 {
            for x in 0..width as i64 {
                let (dx, dy) = (x - x0, y - y0);
                let inside = match class {
                    1 => dx * dx + dy * dy <= side * side / 4,
                    _ => dx.abs() <= side / 2 && dy.abs() <= side / 2,
                };
                if inside {
                    let shade = (rng.bits() % 40) as u8;
                    let colour = match class {
                        1 => [200 + shade, 60, 60 + shade],
                        _ => [40, 120 + shade, 210],
                    };
                    let at = (y as usize * width + x as usize) * 3;
                    image.data_mut()[at..at + 3].copy_from_slice(&colour);
                    map.data_mut()[y as usize * width + x as usize] = class;
                }
            }
        }
    }
    for x in 0..width {
        map.data_mut()[x] = 255;
    }
    (image, map)
}

fn lists(root: &Path, pictures: usize, suffix: &str) {
    fs::write(root.join("labels.txt"), CLASSES.join("\n")).unwrap();
    let line = |i: &usize| format!("JPEGImages/{i}.{suffix} Annotations/{i}.png\n");
    let list =
        |of: std::ops::Range<usize>| of.collect::<Vec<_>>().iter().map(line).collect::<String>();
    let split = pictures * 3 / 4;
    fs::write(root.join("train_list.txt"), list(0..split)).unwrap();
    fs::write(root.join("val_list.txt"), list(split..pictures)).unwrap();
}

/// Pictures of `width`×`height` in the contract's layout.
fn dataset(root: &Path, pictures: usize, (width, height): (usize, usize)) {
    for folder in ["JPEGImages", "Annotations"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for i in 0..pictures {
        let (image, map) = composition(width, height, i as u64);
        let png = encode_png(&image).unwrap();
        fs::write(root.join(format!("JPEGImages/{i}.png")), png).unwrap();
        let map = encode_label_map(&map).unwrap();
        fs::write(root.join(format!("Annotations/{i}.png")), map).unwrap();
    }
    lists(root, pictures, "png");
}

/// The same scenes as arrays of six channels of 16 bits, of which one tells discs and another boxes.
fn raster_dataset(root: &Path, pictures: usize, side: usize) {
    for folder in ["JPEGImages", "Annotations"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for i in 0..pictures {
        let (_, map) = composition(side, side, 100 + i as u64);
        let mut rng = Rng::of(&[7, i as u64]);
        let mut header =
            format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({side}, {side}, 6), }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        for id in map.data() {
            for channel in 0..6u16 {
                let signal =
                    u16::from(channel == 4 && *id == 1) + u16::from(channel == 1 && *id == 2);
                let value = 900 + 100 * channel + (rng.bits() % 200) as u16 + signal * 2500;
                bytes.extend(value.to_le_bytes());
            }
        }
        fs::write(root.join(format!("JPEGImages/{i}.npy")), bytes).unwrap();
        let map = encode_label_map(&map).unwrap();
        fs::write(root.join(format!("Annotations/{i}.png")), map).unwrap();
    }
    lists(root, pictures, "npy");
}

fn spec(dir: &Path, task: &str, model: &str, backbone: Option<&str>) -> TrainSpec {
    let task_dir = dir.join(task);
    fs::create_dir_all(&task_dir).unwrap();
    let mut common = parameters(model);
    common.image_shape = [64, 64];
    common.batch_size = 4;
    common.learning_rate = 0.05;
    common.lr_policy = LrPolicy::Polynomial;
    common.warmup_steps = 0;
    TrainSpec {
        task_id: task.to_owned(),
        task_dir: task_dir.display().to_string(),
        dataset: DatasetRef {
            format: DatasetFormat::SegmentationPairs,
            root: dir.join("data").display().to_string(),
        },
        params: TrainParams::Segmentation(SegmentationParams {
            common,
            augment: AugmentParams {
                rotate: false,
                hue: false,
                ..augment()
            },
            backbone: backbone.map(str::to_owned),
            losses: vec![LossTerm {
                kind: LossKind::CrossEntropy,
                weight: 1.0,
            }],
            class_weights: vec![],
            image_mean: vec![0.5; 3],
            image_std: vec![0.5; 3],
            min_val: vec![],
            max_val: vec![],
            blur: false,
            blur_prob: 0.1,
            scale_aspect: false,
            min_ratio: 0.5,
            aspect_ratio: 0.33,
        }),
        weights: None,
        resume: Resume::Fresh,
        prune: None,
        device: device(),
    }
}

fn device() -> DeviceSpec {
    DeviceSpec {
        cuda: vec![],
        threads: 2,
        precision: Precision::Fp32,
    }
}

fn segmentation(spec: &mut TrainSpec) -> &mut SegmentationParams {
    match &mut spec.params {
        TrainParams::Segmentation(p) => p,
        _ => unreachable!(),
    }
}

fn run(spec: JobSpec, sink: &dyn EventSink, cancel: &CancelToken) -> Result<JobOutcome, JobError> {
    match run_job("test", spec, sink, cancel) {
        JobOutcome::Failed(error) => Err(error),
        outcome => Ok(outcome),
    }
}

fn train(spec: &TrainSpec, sink: &dyn EventSink) -> Result<TrainResult, JobError> {
    let spec = JobSpec::Train(Box::new(spec.clone()));
    match run(spec, sink, &CancelToken::new())? {
        JobOutcome::Train(result) => Ok(result),
        other => panic!("{other:?}"),
    }
}

fn source(checkpoint: &Path) -> ModelSource {
    ModelSource {
        checkpoint: checkpoint.display().to_string(),
        epoch: None,
    }
}

fn predict(
    checkpoint: &Path,
    images: Vec<PredictImage>,
    out: &Path,
) -> Result<PredictResult, JobError> {
    fs::create_dir_all(out).unwrap();
    let spec = JobSpec::Predict(PredictSpec {
        task_type: TaskType::Segmentation,
        source: source(checkpoint),
        images,
        out_dir: out.display().to_string(),
        score_threshold: 0.5,
        device: device(),
    });
    match run(spec, &recorder(), &CancelToken::new())? {
        JobOutcome::Predict(result) => Ok(result),
        other => panic!("{other:?}"),
    }
}

fn image(path: &Path, output: &str, truth: Option<PathBuf>) -> PredictImage {
    PredictImage::File {
        path: path.display().to_string(),
        output: output.to_owned(),
        truth: truth.map(|t| t.display().to_string()),
    }
}

/// Share of pixels of `path`'s label map that agree with `truth`, ignored ones left out.
fn agreement(result: &Value, truth: &Plane) -> f64 {
    let bytes = fs::read(result["label_map"].as_str().unwrap()).unwrap();
    let map = decode_label_map(&bytes, &Limits::default()).unwrap();
    assert_eq!(map.size(), truth.size());
    let pairs = map
        .data()
        .iter()
        .zip(truth.data())
        .filter(|(_, t)| **t != 255);
    let (right, all) = pairs.fold((0, 0), |(r, n), (p, t)| (r + usize::from(p == t), n + 1));
    right as f64 / all as f64
}

#[test]
fn learns_evaluates_predicts_and_exports() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 40, (96, 80));
    let mut spec = spec(dir.path(), "T0001", "DeepLabV3P", Some("MobileNetV2"));
    spec.params.num_epochs = 16;
    spec.params.save_interval_epochs = 8;
    let sink = recorder();
    let result = train(&spec, &sink).unwrap();
    let best = result.best_metrics["miou"].unwrap();
    assert!(best > 0.85, "mIoU {best}: {:?}", result.best_metrics);
    assert_eq!(
        result.best_metrics.keys().collect::<Vec<_>>(),
        ["miou", "oacc", "kappa"]
    );
    let losses = sink.losses();
    assert!(losses.last().unwrap().2 < losses[0].2 / 2.0, "{losses:?}");
    let first = sink.events.lock().unwrap().iter().find_map(|e| match e {
        JobEvent::Step { metrics, .. } => Some(metrics.keys().cloned().collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(first.unwrap(), ["loss", "lr"]);
    let task = dir.path().join("T0001");
    let log = fs::read_to_string(task.join("out.log")).unwrap();
    for text in [
        "miou=",
        "category_iou=[",
        "category_acc=[",
        "category_F1-score=[",
    ] {
        assert!(log.contains(text), "{text} is not in {log}");
    }
    let checkpoint = task.join("output/best_model");
    let yml = fs::read_to_string(checkpoint.join("model.yml")).unwrap();
    for text in [
        "Model: DeepLabV3P",
        "model_type: segmenter",
        "backbone: MobileNetV2_x1.0",
        "target_size",
    ] {
        assert!(yml.contains(text), "{text} is not in {yml}");
    }

    // The report is that of the stored matrix.
    let evaluate = JobSpec::Evaluate(EvaluateSpec {
        task_type: TaskType::Segmentation,
        source: source(&checkpoint),
        topk: 5,
        score_thresh: None,
        overlap_thresh: None,
    });
    let JobOutcome::Evaluate(report) = run(evaluate, &recorder(), &CancelToken::new()).unwrap()
    else {
        panic!("no report");
    };
    let mean = report.report["Mean_IoU"].as_f64().unwrap();
    assert!((mean - best).abs() < 1e-12, "{mean} {best}");
    assert_eq!(
        report.report["Confusion_Matrix"].as_array().unwrap().len(),
        3
    );
    let pixels: u64 = report.report["Confusion_Matrix"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|v| v.as_u64().unwrap())
        .sum();
    assert_eq!(pixels, 10 * 96 * 79, "ignored pixels are left out");

    // A picture of the trained size, one of a single pixel, one so large that it is looked at in windows.
    let out = dir.path().join("pictures");
    let (large, truth) = mosaic();
    fs::write(dir.path().join("large.png"), encode_png(&large).unwrap()).unwrap();
    let tiny = Image::filled(1, 1, [90; 3]);
    fs::write(dir.path().join("tiny.png"), encode_png(&tiny).unwrap()).unwrap();
    let data = dir.path().join("data");
    let images = vec![
        image(
            &data.join("JPEGImages/35.png"),
            "a.png",
            Some(data.join("Annotations/35.png")),
        ),
        image(&dir.path().join("large.png"), "large.png", None),
        image(&dir.path().join("tiny.png"), "tiny.png", None),
        image(&dir.path().join("missing.png"), "b.png", None),
    ];
    let items = predict(&checkpoint, images, &out).unwrap().items;
    let bytes = fs::read(data.join("Annotations/35.png")).unwrap();
    let small = decode_label_map(&bytes, &Limits::default()).unwrap();
    assert!(agreement(&items[0].result, &small) > 0.93, "{:?}", items[0]);
    assert!(
        agreement(&items[1].result, &truth) > 0.9,
        "{}",
        agreement(&items[1].result, &truth)
    );
    assert_eq!(items[2].result["width"], 1);
    assert!(items[3].error.is_some() && items[3].picture.is_none());
    let shares: f64 = items[0].result["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let drawn = decode_file(
        Path::new(items[0].picture.as_ref().unwrap()),
        &Limits::default(),
        None,
    );
    assert!(drawn.unwrap().width() > 3 * 96, "three panels and a legend");
    if let Ok(keep) = std::env::var("OARLOCK_TEST_PICTURES") {
        for item in &items {
            if let Some(picture) = &item.picture {
                let name = Path::new(picture).file_name().unwrap();
                fs::copy(picture, Path::new(&keep).join(name)).unwrap();
            }
        }
    }

    let export = JobSpec::Export(ExportSpec {
        task_type: TaskType::Segmentation,
        source: source(&checkpoint),
        save_dir: dir.path().join("export").display().to_string(),
        quant: None,
        dataset: None,
        log_dir: None,
        threads: 2,
    });
    run(export, &recorder(), &CancelToken::new()).unwrap();
    let folder = dir.path().join("export/inference_model");
    let yml = fs::read_to_string(folder.join("model.yml")).unwrap();
    for text in ["label_map", "score_map", "status: Infer"] {
        assert!(yml.contains(text), "{text} is not in {yml}");
    }
    assert!(fs::metadata(folder.join("model.onnx")).unwrap().len() > 1 << 20);
    let pipeline = fs::read_to_string(folder.join("pipeline.yml")).unwrap();
    assert!(pipeline.contains("segmenter"), "{pipeline}");
}

/// Objects of the trained scale on a picture of 20 times the area.
fn mosaic() -> (Image, Plane) {
    let (width, height) = (96 * 5, 80 * 4);
    let mut image = Image::filled(width, height, [0; 3]);
    let mut map = Plane::filled(width, height, 0);
    for i in 0..20 {
        let (x, y) = (i % 5 * 96, i / 5 * 80);
        let (part, labels) = composition(96, 80, 500 + i as u64);
        image.paste(&part, x, y);
        for (row, ids) in labels.data().chunks(96).enumerate() {
            map.data_mut()[(y + row) * width + x..][..96].copy_from_slice(ids);
        }
    }
    (image, map)
}

#[test]
fn a_resumed_training_equals_the_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 16, (48, 48));
    let mut whole = spec(dir.path(), "whole", "FastSCNN", None);
    segmentation(&mut whole).losses.push(LossTerm {
        kind: LossKind::Dice,
        weight: 0.5,
    });
    train(&whole, &recorder()).unwrap();
    let mut parted = TrainSpec {
        task_id: "parted".into(),
        task_dir: dir.path().join("parted").display().to_string(),
        ..whole
    };
    fs::create_dir_all(&parted.task_dir).unwrap();
    let cancel = CancelToken::new();
    let sink = common::Recorder {
        events: std::sync::Mutex::new(vec![]),
        on_step: |epoch, step| {
            if (epoch, step) == (2, 2) {
                cancel.cancel();
            }
        },
    };
    let job = JobSpec::Train(Box::new(parted.clone()));
    let JobOutcome::Train(stopped) = run(job, &sink, &cancel).unwrap() else {
        panic!("no training");
    };
    assert!(stopped.stopped);
    parted.resume = Resume::Latest;
    train(&parted, &recorder()).unwrap();
    let read = |task: &str, file: &str| {
        fs::read(dir.path().join(task).join("output/epoch_2").join(file)).unwrap()
    };
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "eval_details.json",
    ] {
        assert_eq!(read("whole", file), read("parted", file), "{file}");
    }
}

#[test]
fn a_training_in_16_bits_is_validated_in_32() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 16, (64, 64));
    let mut half = spec(dir.path(), "half", "FastSCNN", None);
    half.device.precision = Precision::Bf16;
    let result = train(&half, &recorder()).unwrap();
    assert_eq!(result.best_metrics["miou"], Some(Truth::of(&half).base()));
}

#[test]
fn six_channels_of_16_bits_are_learned() {
    let dir = tempfile::tempdir().unwrap();
    raster_dataset(&dir.path().join("data"), 24, 64);
    let mut spec = spec(dir.path(), "T0001", "FastSCNN", None);
    spec.params.num_epochs = 12;
    spec.params.save_interval_epochs = 12;
    spec.params.learning_rate = 0.1;
    let sink = recorder();
    let result = train(&spec, &sink).unwrap();
    let best = result.best_metrics["miou"].unwrap();
    assert!(best > 0.6, "mIoU {best}");
    let notes: Vec<String> = match &sink.events.lock().unwrap()[0] {
        JobEvent::Started { notes, .. } => notes.clone(),
        other => panic!("{other:?}"),
    };
    assert!(notes.iter().any(|n| n.contains("min_val")), "{notes:?}");
    let checkpoint = dir.path().join("T0001/output/best_model");
    let path = dir.path().join("data/JPEGImages/23.npy");
    let out = dir.path().join("out");
    let items = predict(&checkpoint, vec![image(&path, "a.png", None)], &out)
        .unwrap()
        .items;
    assert!(
        items[0].error.is_none() && items[0].picture.is_some(),
        "{items:?}"
    );
    // A photograph has too few channels.
    let photograph = dir.path().join("p.png");
    fs::write(&photograph, encode_png(&composition(64, 64, 1).0).unwrap()).unwrap();
    let error = predict(&checkpoint, vec![image(&photograph, "p.png", None)], &out).unwrap_err();
    assert!(error.message.contains("3 channels"), "{error}");
}

#[test]
fn parameters_and_data_that_cannot_work_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, 8, (40, 40));
    let base = spec(dir.path(), "T0001", "UNet", None);
    let refused = |change: &dyn Fn(&mut SegmentationParams), code: ErrorCode, text: &str| {
        let mut spec = base.clone();
        change(segmentation(&mut spec));
        let error = train(&spec, &recorder()).unwrap_err();
        assert!(
            error.code == code && error.message.contains(text),
            "{error:?}"
        );
    };
    use ErrorCode::InvalidArgument as Argument;
    refused(&|p| p.class_weights = vec![1.0], Argument, "class_weights");
    refused(&|p| p.losses.clear(), Argument, "losses");
    refused(&|p| p.image_mean = vec![0.1, 0.2], Argument, "image_mean");
    refused(&|p| p.max_val = vec![0.0; 3], Argument, "min_val");
    refused(
        &|p| p.common.image_shape = [16, 16],
        Argument,
        "image_shape",
    );
    refused(&|p| p.common.model = "UNet9".into(), Argument, "UNet9");
    // More damaged files than are passed over with a warning.
    let small = encode_label_map(&Plane::filled(10, 10, 0)).unwrap();
    for i in 0..6 {
        fs::write(data.join(format!("Annotations/{i}.png")), &small).unwrap();
    }
    refused(&|_| {}, ErrorCode::InvalidData, "10×10");
    fs::write(data.join("labels.txt"), "only one\n").unwrap();
    refused(&|_| {}, ErrorCode::InvalidData, "labels.txt");
}
