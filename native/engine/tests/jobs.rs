//! Evaluate, predict and export on real checkpoints, through the engine's front door.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indexmap::IndexMap;
use oarlock_engine::records::{Details, EvalDetails, ModelYml, Preprocessing, Resize};
use oarlock_engine::train::checkpoint::{self, Content};
use oarlock_engine::train::state::TrainState;
use oarlock_engine::{CancelToken, run_job};
use oarlock_graph::{WeightMap, init_weights};
use oarlock_imaging::{Image, Limits, decode_file, encode_jpeg, encode_png};
use oarlock_jobs::{
    DeviceSpec, ErrorCode, EvaluateSpec, ExportSpec, JobEvent, JobOutcome, JobSpec, ModelSource,
    Precision, PredictImage, PredictResult, PredictSpec, TaskType,
};
use oarlock_zoo::Origin;
use serde_json::json;

const LABELS: [&str; 3] = ["daisy", "玫瑰 rose", "тюльпан"];
const CROP: u32 = 64;

fn yml(model: &str) -> ModelYml {
    ModelYml {
        model: model.into(),
        backbone: None,
        model_type: "classifier".into(),
        labels: LABELS.map(String::from).to_vec(),
        eval_metrics: [("acc1".to_owned(), Some(0.5))].into_iter().collect(),
        best_accuracy: Some(0.5),
        best_model_epoch: Some(2),
        completed_epochs: 2,
        fixed_input_shape: None,
        preprocessing: Preprocessing {
            resize: Resize::ShortCrop {
                short: 73,
                crop: CROP,
            },
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            range: Vec::new(),
            image_size: None,
        },
        status: "Normal".into(),
        init_params: IndexMap::new(),
        extra: IndexMap::new(),
    }
}

/// A checkpoint as training writes it.
fn save(dir: &Path, seed: u64, eval: Option<&EvalDetails>) {
    let graph = oarlock_zoo::classifier("MobileNetV3_small", LABELS.len()).unwrap();
    let state: TrainState = serde_json::from_value(json!({
        "version": 1, "run": 1, "epoch": 2, "step": 0, "steps_per_epoch": 5, "global_step": 10,
        "best": null, "evaluations_without_gain": 0, "sums": { "count": 0, "sums": {} }, "seed": 1,
        "batch_size": 4, "dataset": "", "compute": { "device": "cpu", "precision": "fp32", "threads": 1 },
    }))
    .unwrap();
    let eval = eval.map(|e| Details::Classes(e.clone()));
    let content = Content {
        weights: &init_weights(&graph, seed),
        graph: &graph,
        optimizer: &WeightMap::new(),
        state: &state,
        yml: &yml("MobileNetV3_small"),
        eval: eval.as_ref(),
    };
    checkpoint::save(dir, &content).unwrap();
}

struct Run {
    outcome: JobOutcome,
    events: Vec<JobEvent>,
}

fn run(spec: JobSpec, cancel: &CancelToken) -> Run {
    let events = Mutex::new(Vec::new());
    let outcome = run_job(
        "test",
        spec,
        &|e: JobEvent| events.lock().unwrap().push(e),
        cancel,
    );
    Run {
        outcome,
        events: events.into_inner().unwrap(),
    }
}

fn source(dir: &Path, epoch: Option<u32>) -> ModelSource {
    ModelSource {
        checkpoint: dir.display().to_string(),
        epoch,
    }
}

fn device() -> DeviceSpec {
    DeviceSpec {
        cuda: Vec::new(),
        threads: 2,
        precision: Precision::Auto,
    }
}

fn predict_spec(checkpoint: &Path, images: &[PathBuf], out: &Path) -> JobSpec {
    JobSpec::Predict(PredictSpec {
        task_type: TaskType::Classification,
        source: source(checkpoint, None),
        images: images
            .iter()
            .enumerate()
            .map(|(i, path)| PredictImage::File {
                path: path.display().to_string(),
                output: format!("{i}.png"),
                truth: None,
            })
            .collect(),
        out_dir: out.display().to_string(),
        score_threshold: 0.5,
        device: device(),
    })
}

fn predicted(run: Run) -> PredictResult {
    match run.outcome {
        JobOutcome::Predict(result) => result,
        other => panic!("{other:?}"),
    }
}

fn failed(run: Run) -> oarlock_jobs::JobError {
    match run.outcome {
        JobOutcome::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

/// A picture in which every place differs.
fn gradient(width: usize, height: usize) -> Image {
    let mut image = Image::filled(width, height, [0; 3]);
    for y in 0..height {
        for (x, pixel) in image.row_mut(y).chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[
                (x * 255 / width) as u8,
                (y * 255 / height) as u8,
                (x ^ y) as u8,
            ]);
        }
    }
    image
}

#[test]
fn predicts_images_of_every_size_and_goes_on_past_unreadable_ones() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    save(&at("best_model"), 1, None);
    fs::create_dir(at("out")).unwrap();
    fs::write(at("tiny 数.png"), encode_png(&gradient(28, 28)).unwrap()).unwrap();
    fs::write(
        at("big.jpg"),
        encode_jpeg(&gradient(4000, 3000), 80).unwrap(),
    )
    .unwrap();
    fs::write(at("one.png"), encode_png(&gradient(1, 1)).unwrap()).unwrap();
    fs::write(at("empty.png"), b"").unwrap();
    let whole = fs::read(at("big.jpg")).unwrap();
    fs::write(at("text.jpg"), b"no image at all").unwrap();
    let cut = encode_png(&gradient(300, 200)).unwrap();
    fs::write(at("cut.png"), &cut[..cut.len() / 2]).unwrap();
    assert!(whole.len() > 1000);
    let mut images: Vec<PathBuf> = [
        "tiny 数.png",
        "empty.png",
        "big.jpg",
        "text.jpg",
        "one.png",
        "cut.png",
        "missing.png",
    ]
    .map(at)
    .to_vec();
    // More than one batch.
    images.extend(std::iter::repeat_n(at("tiny 数.png"), 40));

    let spec = predict_spec(&at("best_model"), &images, &at("out"));
    let first = run(spec.clone(), &CancelToken::new());
    let done: Vec<u64> = first
        .events
        .iter()
        .filter_map(|e| match e {
            JobEvent::Progress {
                done, total, stage, ..
            } => {
                assert_eq!((*total, stage.as_str()), (47, "predicting"));
                Some(*done)
            }
            _ => None,
        })
        .collect();
    assert_eq!(done.first(), Some(&0));
    assert_eq!(done.last(), Some(&47));
    assert!(done.is_sorted() && done.len() > 2, "{done:?}");
    assert!(
        first
            .events
            .iter()
            .any(|e| matches!(e, JobEvent::Started { precision, .. } if precision == "fp32"))
    );

    let result = predicted(first);
    assert_eq!(result.items.len(), images.len());
    let bad = [1, 3, 5, 6];
    for (i, item) in result.items.iter().enumerate() {
        assert_eq!(item.source, images[i].display().to_string());
        let picture = at("out").join(format!("{i}.png"));
        if bad.contains(&i) {
            assert!(item.error.as_deref().is_some_and(|e| !e.is_empty()), "{i}");
            assert!(item.picture.is_none() && item.result.is_null() && !picture.exists());
            continue;
        }
        assert_eq!(item.error, None);
        assert_eq!(item.picture.as_deref(), picture.to_str());
        let drawn = decode_file(&picture, &Limits::default(), None).unwrap();
        assert!(drawn.width() > 500 && drawn.width() < 1100 && drawn.height() < 800);
        let list = item.result.as_array().unwrap();
        assert_eq!(list.len(), 3);
        let sum: f64 = list.iter().map(|e| e["score"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert!(list[0]["score"].as_f64() >= list[1]["score"].as_f64());
        let id = list[0]["category_id"].as_u64().unwrap() as usize;
        assert_eq!(list[0]["category"], LABELS[id]);
    }
    // One image gives the same alone, in another batch, and from the warm network.
    for item in &result.items[7..] {
        let scores = |i: &oarlock_jobs::PredictItem| -> Vec<f64> {
            i.result
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["score"].as_f64().unwrap())
                .collect()
        };
        let (a, b) = (scores(item), scores(&result.items[0]));
        assert!(
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5),
            "{a:?} {b:?}"
        );
    }
    let left = fs::read_dir(at("out")).unwrap().count();
    assert_eq!(left, images.len() - bad.len(), "no temporary files");
    let again = predicted(run(spec, &CancelToken::new()));
    assert_eq!(again.items[0].result, result.items[0].result);
}

#[test]
fn a_prediction_without_any_readable_image_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    save(&dir.path().join("m"), 1, None);
    let image = dir.path().join("x.png");
    fs::write(&image, b"hello").unwrap();
    let spec = |images: &[PathBuf]| predict_spec(&dir.path().join("m"), images, dir.path());
    let error = failed(run(spec(std::slice::from_ref(&image)), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidData);
    assert!(error.message.contains("not an image"), "{}", error.message);
    let error = failed(run(spec(&[image.clone(), image]), &CancelToken::new()));
    assert!(error.message.contains("none of the 2"), "{}", error.message);
    let error = failed(run(spec(&[]), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidArgument);
}

#[test]
fn predictions_follow_a_replaced_checkpoint_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("best_model");
    let image = dir.path().join("x.png");
    fs::write(&image, encode_png(&gradient(100, 80)).unwrap()).unwrap();
    save(&model, 1, None);
    let spec = predict_spec(&model, std::slice::from_ref(&image), dir.path());
    let first = predicted(run(spec.clone(), &CancelToken::new()));
    save(&model, 2, None);
    let second = predicted(run(spec.clone(), &CancelToken::new()));
    assert_ne!(
        first.items[0].result, second.items[0].result,
        "the old network was used again"
    );

    let stop = CancelToken::new();
    stop.cancel();
    assert_eq!(failed(run(spec.clone(), &stop)).code, ErrorCode::Cancelled);

    // A byte of the weights flips: noticed, not used.
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&weights, bytes).unwrap();
    let error = failed(run(spec.clone(), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidData);
    assert!(
        error.message.contains("model.safetensors"),
        "{}",
        error.message
    );
    fs::remove_dir_all(&model).unwrap();
    assert_eq!(
        failed(run(spec, &CancelToken::new())).code,
        ErrorCode::NotFound
    );
}

#[test]
fn uses_a_checkpoint_that_paddlex_wrote() {
    // No graph and no manifest: the network comes from its name, the weights have Paddle's names.
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("best_model");
    fs::create_dir(&model).unwrap();
    let (graph, names) =
        oarlock_zoo::classifier_of("ResNet18", LABELS.len(), Origin::Paddle).unwrap();
    let mut ours = init_weights(&graph, 3);
    let theirs: WeightMap = names
        .iter()
        .map(|p| (p.paddle_name.clone(), ours.shift_remove(&p.name).unwrap()))
        .collect();
    oarlock_weights::save_safetensors(&model.join("model.safetensors"), &theirs, &[]).unwrap();
    fs::write(model.join("model.yml"), yml("ResNet18").to_yaml().unwrap()).unwrap();
    fs::write(model.join(".success"), b"").unwrap();
    let image = dir.path().join("x.png");
    fs::write(&image, encode_png(&gradient(100, 80)).unwrap()).unwrap();
    let spec = predict_spec(&model, std::slice::from_ref(&image), dir.path());
    let result = predicted(run(spec.clone(), &CancelToken::new()));
    assert_eq!(result.items[0].result.as_array().unwrap().len(), 3);

    fs::write(model.join("model.yml"), yml("ResNet34").to_yaml().unwrap()).unwrap();
    let error = failed(run(spec.clone(), &CancelToken::new()));
    assert!(
        error.message.contains("not those of ResNet34"),
        "{}",
        error.message
    );
    fs::write(
        model.join("model.yml"),
        "Model: x\n_Attributes: {labels: [a], model_type: detector}",
    )
    .unwrap();
    assert_eq!(
        failed(run(spec, &CancelToken::new())).code,
        ErrorCode::Unsupported
    );
}

#[test]
fn evaluates_stored_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let details = EvalDetails {
        true_labels: vec![0, 0, 1, 1],
        scores: vec![0.8, 0.1, 0.1, 0.4, 0.5, 0.1, 0.1, 0.8, 0.1, 0.3, 0.6, 0.1],
        classes: 3,
    };
    save(dir.path().join("epoch_2").as_path(), 1, Some(&details));
    save(dir.path().join("epoch_1").as_path(), 1, None);
    let spec = |name: &str, epoch| {
        JobSpec::Evaluate(EvaluateSpec {
            task_type: TaskType::Classification,
            source: source(&dir.path().join(name), epoch),
            topk: 5,
            score_thresh: None,
            overlap_thresh: None,
        })
    };
    let JobOutcome::Evaluate(result) = run(spec("epoch_2", Some(2)), &CancelToken::new()).outcome
    else {
        panic!("no report");
    };
    let report = result.report;
    assert_eq!(report["label_list"], json!(LABELS));
    assert_eq!(report["epoch"], 2);
    assert_eq!(report["topk"], 3);
    assert_eq!(
        report["Confusion_Matrix"],
        json!([[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    );
    assert_eq!(report["Acc1"], 0.75);
    assert_eq!(report["Acck"], 1.0);
    assert_eq!(report["PRF1"]["тюльпан"]["precision"], -1.0);
    let error = failed(run(spec("epoch_1", Some(1)), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::NotReady);
    assert!(
        error.message.contains("eval_details.json"),
        "{}",
        error.message
    );
    assert_eq!(
        failed(run(spec("epoch_9", Some(9)), &CancelToken::new())).code,
        ErrorCode::NotFound
    );
    fs::write(dir.path().join("epoch_2/eval_details.json"), b"{}").unwrap();
    let error = failed(run(spec("epoch_2", Some(2)), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidData);
}

#[test]
fn exports_a_complete_folder_and_replaces_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    save(&at("best_model"), 1, None);
    let spec = |model: &str| {
        JobSpec::Export(ExportSpec {
            task_type: TaskType::Classification,
            source: source(&at(model), None),
            save_dir: at("new/export 出").display().to_string(),
            quant: None,
            log_dir: None,
            dataset: None,
            threads: 2,
        })
    };
    for _ in 0..2 {
        let JobOutcome::Export(result) = run(spec("best_model"), &CancelToken::new()).outcome
        else {
            panic!("no export");
        };
        let folder = PathBuf::from(&result.path);
        assert_eq!(folder, at("new/export 出").join("inference_model"));
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                ".success",
                "labels.txt",
                "model.onnx",
                "model.yml",
                "pipeline.yml"
            ]
        );
        assert_eq!(
            fs::read_to_string(folder.join("labels.txt")).unwrap(),
            LABELS.join("\n") + "\n"
        );
        let described = ModelYml::read(&folder.join("model.yml")).unwrap();
        assert_eq!(described.status, "Infer");
        assert_eq!(described.fixed_input_shape, Some([CROP, CROP]));
        assert_eq!(described.extra["Inputs"][0]["name"], "image");
        assert_eq!(described.extra["Outputs"][0]["name"], "probabilities");
        assert!(result.parameters > 1_000_000 && result.macs > 1_000_000);
        let siblings = fs::read_dir(at("new/export 出")).unwrap().count();
        assert_eq!(siblings, 1, "no temporary folders");
    }
    let before = fs::read(at("new/export 出/inference_model/model.onnx")).unwrap();
    assert_eq!(
        failed(run(spec("missing"), &CancelToken::new())).code,
        ErrorCode::NotFound
    );
    let stop = CancelToken::new();
    stop.cancel();
    assert_eq!(
        failed(run(spec("best_model"), &stop)).code,
        ErrorCode::Cancelled
    );
    assert_eq!(
        fs::read(at("new/export 出/inference_model/model.onnx")).unwrap(),
        before
    );

    // A folder that is no export is not deleted.
    fs::remove_dir_all(at("new")).unwrap();
    fs::create_dir_all(at("new/export 出/inference_model")).unwrap();
    fs::write(at("new/export 出/inference_model/thesis.txt"), b"mine").unwrap();
    let error = failed(run(spec("best_model"), &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert!(at("new/export 出/inference_model/thesis.txt").exists());
    // Nor is a file in the way of the folder to be created.
    fs::remove_dir_all(at("new")).unwrap();
    fs::write(at("new"), b"a file").unwrap();
    assert!(matches!(
        run(spec("best_model"), &CancelToken::new()).outcome,
        JobOutcome::Failed(_)
    ));
}

#[test]
fn a_checkpoint_of_another_task_type_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = JobSpec::Evaluate(EvaluateSpec {
        task_type: TaskType::Detection,
        source: source(dir.path(), None),
        topk: 5,
        score_thresh: None,
        overlap_thresh: None,
    });
    let error = failed(run(spec, &CancelToken::new()));
    assert_eq!(error.code, ErrorCode::InvalidData);
}
