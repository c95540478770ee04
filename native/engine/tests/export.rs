//! Quantized exports of a trained network, through the engine's front door. What the files compute is checked by
//! onnxruntime in `test/export.test.ts`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use oarlock_engine::records::ModelYml;
use oarlock_engine::{CancelToken, run_job};
use oarlock_jobs::{
    DatasetFormat, DatasetRef, ErrorCode, ExportResult, ExportSpec, JobError, JobEvent, JobOutcome,
    JobSpec, MeasureTask, ModelSource, QuantMethod, QuantSpec, TaskType,
};

const SIDE: usize = 32;
const CLASSES: usize = 3;

/// A MobileNetV2 of one epoch in `dir/task`, its data in `dir/data`.
fn trained(dir: &Path) {
    common::dataset(&dir.join("data"), 24, 40);
    let spec = common::spec(dir, "task", "MobileNetV2");
    let outcome = run_job(
        "train",
        JobSpec::Train(Box::new(spec)),
        &|_: JobEvent| {},
        &CancelToken::new(),
    );
    assert!(matches!(outcome, JobOutcome::Train(_)), "{outcome:?}");
}

fn spec(dir: &Path, quant: Option<(QuantMethod, u32)>) -> ExportSpec {
    let at = |name: &str| dir.join(name).display().to_string();
    ExportSpec {
        task_type: TaskType::Classification,
        source: ModelSource {
            checkpoint: at("task/output/best_model"),
            epoch: None,
        },
        save_dir: at("out"),
        quant: quant.map(|(method, images)| QuantSpec { method, images }),
        log_dir: Some(at("logs")),
        dataset: Some(DatasetRef {
            format: DatasetFormat::ImageFolder,
            root: at("data"),
        }),
        threads: 2,
    }
}

/// Stage, done, total.
type Progress = (String, u64, u64);

/// The outcome, and (stage, done, total) of each progress event.
fn export(
    spec: ExportSpec,
    stop_at: Option<&str>,
) -> (Result<ExportResult, JobError>, Vec<Progress>) {
    let cancel = CancelToken::new();
    let events = Mutex::new(Vec::new());
    let sink = |event: JobEvent| {
        if let JobEvent::Progress {
            stage, done, total, ..
        } = event
        {
            if stop_at == Some(stage.as_str()) {
                cancel.cancel();
            }
            events.lock().unwrap().push((stage, done, total));
        }
    };
    let result = match run_job("export", JobSpec::Export(spec), &sink, &cancel) {
        JobOutcome::Export(result) => Ok(*result),
        JobOutcome::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    };
    (result, events.into_inner().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn quantizes_with_training_images_and_prepares_the_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained(dir);
    let (plain, _) = export(spec(dir, None), None);
    let plain = plain.unwrap();
    assert_eq!((plain.calibrated, plain.notes.len()), (None, 0));
    let measure = plain.measure.unwrap();
    assert_eq!((measure.fp32, measure.dataset), (None, None));
    let model = PathBuf::from(&plain.path).join("model.onnx");
    let fp32_file = fs::read(&model).unwrap();

    let mut files = Vec::new();
    for method in [
        QuantMethod::MinMax,
        QuantMethod::Percentile,
        QuantMethod::Entropy,
    ] {
        let (result, events) = export(spec(dir, Some((method, 16))), None);
        let result = result.unwrap();
        assert_eq!(result.calibrated, Some(16));
        assert!(result.notes.is_empty(), "{:?}", result.notes);
        let stages: Vec<&str> = events.iter().map(|(stage, ..)| stage.as_str()).collect();
        let mut order = stages.clone();
        order.dedup();
        let expected = [
            "exporting",
            "Batch",
            "Weight",
            "Activation",
            "Finish",
            "exporting",
        ];
        assert_eq!(order, expected);
        for (stage, units) in [("Batch", 1), ("Weight", 53)] {
            assert_eq!(stages.iter().filter(|s| **s == stage).count(), units);
        }
        let file = fs::read(&model).unwrap();
        assert!(file.len() * 10 < fp32_file.len() * 3, "{}", file.len());
        files.push(file);

        let measure = result.measure.unwrap();
        assert_eq!(fs::read(measure.fp32.unwrap()).unwrap(), fp32_file);
        assert_eq!(measure.classes, 3);
        let MeasureTask::Classes { topk, .. } = measure.task else {
            panic!("no classifier");
        };
        assert_eq!(topk, 3);
        let probe = fs::read(&measure.probe.path).unwrap();
        let images = measure.probe.images as usize;
        assert_eq!(images, 8);
        assert_eq!(
            probe.len(),
            4 * images * (3 * SIDE * SIDE + CLASSES),
            "images, then scores"
        );
        let scores: Vec<f32> = probe[4 * images * 3 * SIDE * SIDE..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        for row in scores.chunks_exact(CLASSES) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        }
        let yml = ModelYml::read(&PathBuf::from(&result.path).join("model.yml")).unwrap();
        assert_eq!(yml.extra["Quantization"]["calibration_images"], 16);
    }
    assert!(files[0] != files[1] && files[1] != files[2]);
    let (again, _) = export(spec(dir, Some((QuantMethod::Entropy, 16))), None);
    again.unwrap();
    assert_eq!(
        fs::read(&model).unwrap(),
        files[2],
        "the same file each time"
    );
    let log = fs::read_to_string(dir.join("logs/out.log")).unwrap();
    for part in [
        "[INFO]\t[Run batch data] Batch=1/1, images=16",
        "[INFO]\t[Calculate weight] Weight_id=53/53, name=classifier.1, ",
        "[INFO]\t[Calculate activation] Activation_id=1/",
        "[INFO]\tFinish quant!",
    ] {
        assert!(log.contains(part), "{part} in\n{log}");
    }

    // Fewer images than asked, one of them damaged: used, and said.
    fs::write(dir.join("data/plain/0.png"), b"no picture").unwrap();
    let (few, _) = export(spec(dir, Some((QuantMethod::Percentile, 500))), None);
    let few = few.unwrap();
    assert_eq!(few.calibrated, Some(71));
    assert_eq!(few.notes.len(), 2, "{:?}", few.notes);
    assert!(few.notes[0].contains("has 72 images, 500 were to calibrate"));
    assert!(few.notes[1].starts_with("1 of 72 calibration images cannot be read"));

    refusals(dir, &model);
}

/// What cannot be: the older export stays as it is, nothing unfinished is left.
fn refusals(dir: &Path, model: &Path) {
    let before = fs::read(model).unwrap();
    let quant = || spec(dir, Some((QuantMethod::MinMax, 16)));
    for stage in ["exporting", "Batch", "Weight", "Activation"] {
        let (result, _) = export(quant(), Some(stage));
        assert_eq!(result.unwrap_err().code, ErrorCode::Cancelled, "{stage}");
        assert_eq!(names(&dir.join("logs")), ["err.log", "out.log"]);
    }
    let log = fs::read_to_string(dir.join("logs/out.log")).unwrap();
    assert!(log.ends_with("[INFO]\tThe export was stopped.\n"), "{log}");
    let without = ExportSpec {
        dataset: None,
        ..quant()
    };
    assert_eq!(
        export(without, None).0.unwrap_err().code,
        ErrorCode::NotReady
    );
    let labels = fs::read_to_string(dir.join("data/labels.txt")).unwrap();
    fs::write(dir.join("data/labels.txt"), labels.clone() + "fourth\n").unwrap();
    let error = export(quant(), None).0.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidData);
    assert!(error.message.contains("4 classes, the model 3"), "{error}");
    let err_log = fs::read_to_string(dir.join("logs/err.log")).unwrap();
    assert!(err_log.contains("4 classes, the model 3"), "{err_log}");
    // An fp32 export needs no images: the probe is noise then.
    let (plain, _) = export(
        ExportSpec {
            save_dir: dir.join("plain").display().to_string(),
            ..spec(dir, None)
        },
        None,
    );
    assert_eq!(plain.unwrap().measure.unwrap().probe.images, 8);
    fs::write(dir.join("data/labels.txt"), labels).unwrap();
    for class in ["plain", "stripes", "checks"] {
        for entry in fs::read_dir(dir.join("data").join(class)).unwrap() {
            fs::write(entry.unwrap().path(), b"no picture").unwrap();
        }
    }
    let error = export(quant(), None).0.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidData, "{error}");
    assert_eq!(fs::read(model).unwrap(), before);
    assert_eq!(names(&dir.join("out")), ["inference_model"]);
}
