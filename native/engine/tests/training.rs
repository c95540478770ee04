//! Whole trainings on generated pictures.

mod common;

use std::fs;
use std::path::Path;

use common::{Recorder, dataset, recorder, spec};
use oarlock_engine::{CancelToken, EventSink, run_job};
use oarlock_jobs::{
    ErrorCode, JobError, JobEvent, JobOutcome, JobSpec, Resume, TrainParams, TrainResult, TrainSpec,
};

fn run(
    spec: &TrainSpec,
    sink: &dyn EventSink,
    cancel: &CancelToken,
) -> Result<TrainResult, JobError> {
    match run_job("test", JobSpec::Train(Box::new(spec.clone())), sink, cancel) {
        JobOutcome::Train(result) => Ok(result),
        JobOutcome::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn train(spec: &TrainSpec) -> Result<TrainResult, JobError> {
    run(spec, &recorder(), &CancelToken::new())
}

/// Bytes of the weights and of the optimizer state.
fn checkpoint(task: &Path, name: &str) -> [Vec<u8>; 2] {
    ["model.safetensors", "optimizer.safetensors"]
        .map(|f| fs::read(task.join("output").join(name).join(f)).unwrap())
}

#[test]
fn learns_and_leaves_what_the_contract_names() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 24, 32);
    let mut spec = spec(dir.path(), "T0001", "ResNet18");
    spec.params.num_epochs = 5;
    spec.params.save_interval_epochs = 2;
    let sink = recorder();
    let result = run(&spec, &sink, &CancelToken::new()).unwrap();
    assert_eq!((result.stopped, result.completed_epochs), (false, 5));
    let best = result.best_metrics["acc1"].unwrap();
    assert!(
        best > 0.8,
        "accuracy {best} after 5 epochs on three trivial patterns"
    );

    let output = dir.path().join("T0001/output");
    for name in ["epoch_2", "epoch_4", "epoch_5", "best_model"] {
        for file in [
            "model.safetensors",
            "optimizer.safetensors",
            "model.yml",
            "eval_details.json",
            "graph.json",
            ".success",
        ] {
            assert!(output.join(name).join(file).exists(), "{name}/{file}");
        }
    }
    assert!(!output.join("epoch_1").exists() && !output.join("resume").exists());
    let left: Vec<_> = fs::read_dir(&output)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|n| n.to_string_lossy().starts_with('.')),
        "temporary folders stayed: {left:?}"
    );

    let events = sink.events.lock().unwrap();
    assert!(
        matches!(&events[0], JobEvent::Started { device, precision, .. } if device == "cpu" && precision == "fp32")
    );
    let steps: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            JobEvent::Step {
                epoch,
                step,
                steps,
                metrics,
                ..
            } => {
                assert_eq!(
                    metrics.keys().collect::<Vec<_>>(),
                    ["loss", "acc1", "acc3", "lr"]
                );
                Some((*epoch, *step, *steps))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        steps[..5],
        [(1, 2, 9), (1, 4, 9), (1, 6, 9), (1, 8, 9), (2, 2, 9)]
    );
    // Everything fits into memory: from the second epoch on nearly all pictures are there already.
    let last = events.iter().rev().find_map(|e| match e {
        JobEvent::Step { cache_hit_rate, .. } => *cache_hit_rate,
        _ => None,
    });
    assert!(last > Some(0.5), "{last:?}");
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, JobEvent::Eval { .. }))
            .count(),
        3
    );
    let log = fs::read_to_string(dir.path().join("T0001/out.log")).unwrap();
    for text in [
        "[TRAIN] Epoch=1/5, Step=2/9, loss=",
        "[TRAIN] Epoch 5 finished, loss=",
        "[EVAL] Finished, Epoch=5, acc1=",
        "Data: ",
        " % from the cache.",
    ] {
        assert!(log.contains(text), "{text} is not in {log}");
    }
}

#[test]
fn the_same_seed_gives_the_same_training() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 8, 32);
    let mut losses = Vec::new();
    let mut weights = Vec::new();
    for (task, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        let mut spec = spec(dir.path(), task, "MobileNetV3_small");
        spec.params.seed = seed;
        spec.params.num_epochs = 1;
        let sink = recorder();
        run(&spec, &sink, &CancelToken::new()).unwrap();
        losses.push(sink.losses());
        weights.push(checkpoint(&dir.path().join(task), "epoch_1"));
    }
    assert_eq!(losses[0], losses[1]);
    assert!(
        weights[0] == weights[1],
        "the weights of two equal trainings differ"
    );
    assert_ne!(losses[0], losses[2]);
}

/// Stops at each step in turn, resumes, and compares with a training that was never stopped. MobileNetV3 has
/// dropout, so masks, order and augmentation all have to come out the same.
#[test]
fn promise_23_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 11, 32);
    for (model, optimizer) in [("MobileNetV3_small", "SGD"), ("ResNet18", "Adam")] {
        let whole = {
            let mut spec = spec(dir.path(), &format!("whole-{model}"), model);
            spec.params.optimizer = optimizer.to_owned();
            spec.params.learning_rate = 0.005;
            spec.params.batch_size = 5; // 33 images: 6 steps
            train(&spec).unwrap();
            checkpoint(Path::new(&spec.task_dir), "epoch_2")
        };
        let mut spec = spec(dir.path(), &format!("cut-{model}"), model);
        spec.params.optimizer = optimizer.to_owned();
        spec.params.learning_rate = 0.005;
        spec.params.batch_size = 5;
        // Each run is stopped at its first logged step, so the training comes in pieces of two steps.
        let mut pieces = 0;
        loop {
            let cancel = CancelToken::new();
            let stop = cancel.clone();
            let sink = Recorder {
                events: Default::default(),
                on_step: move |_, _| stop.cancel(),
            };
            let result = run(&spec, &sink, &cancel).unwrap();
            pieces += 1;
            spec.resume = Resume::Latest;
            if !result.stopped {
                break;
            }
            assert_eq!(sink.losses().len(), 1, "the stop took more than one step");
            assert!(pieces < 20);
        }
        assert!(pieces >= 6, "{pieces} pieces");
        assert!(
            whole == checkpoint(Path::new(&spec.task_dir), "epoch_2"),
            "{model}: resumed and uninterrupted differ"
        );
    }
}

#[test]
fn a_torn_checkpoint_is_refused_and_an_older_one_used() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 8, 32);
    let mut spec = spec(dir.path(), "T0001", "MobileNetV3_small");
    spec.params.num_epochs = 3;
    train(&spec).unwrap();
    let task = Path::new(&spec.task_dir);
    let expected = checkpoint(task, "epoch_3");

    // Same size, one flipped bit: only the checksum can tell.
    let weights = task.join("output/epoch_3/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&weights).unwrap(); // best_model shares the file
    fs::write(&weights, &bytes).unwrap();
    spec.resume = Resume::Epoch { epoch: 3 };
    let error = train(&spec).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidData);
    assert!(
        error.message.contains("model.safetensors") && error.message.contains("checksum"),
        "{}",
        error.message
    );

    // Resuming from the newest passes it over, trains epoch 3 again and gets the same.
    spec.resume = Resume::Latest;
    let sink = recorder();
    run(&spec, &sink, &CancelToken::new()).unwrap();
    assert!(checkpoint(task, "epoch_3") == expected);
    let notes = match &sink.events.lock().unwrap()[0] {
        JobEvent::Started { notes, .. } => notes.join("\n"),
        other => panic!("{other:?}"),
    };
    assert!(
        notes.contains("damaged") && notes.contains("resumed after epoch 2"),
        "{notes}"
    );

    for file in [".success", "optimizer.safetensors", "state.json"] {
        fs::remove_file(task.join("output/epoch_3").join(file)).unwrap();
        spec.resume = Resume::Epoch { epoch: 3 };
        let error = train(&spec).unwrap_err();
        assert_eq!(
            error.code,
            ErrorCode::InvalidData,
            "{file}: {}",
            error.message
        );
    }
    spec.resume = Resume::Epoch { epoch: 7 };
    assert_eq!(train(&spec).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn an_exploding_loss_ends_the_training_with_advice_and_keeps_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 8, 32);
    let mut spec = spec(dir.path(), "T0001", "MobileNetV3_small");
    spec.params.num_epochs = 1;
    train(&spec).unwrap();
    let before = checkpoint(Path::new(&spec.task_dir), "epoch_1");
    spec.resume = Resume::Latest;
    spec.params.num_epochs = 40;
    spec.params.save_interval_epochs = 40;
    spec.params.learning_rate = 1e12;
    let error = train(&spec).unwrap_err();
    assert_eq!(error.code, ErrorCode::NonFinite, "{}", error.message);
    assert!(
        error.context.contains_key("step") && error.context.contains_key("lr"),
        "{:?}",
        error.context
    );
    assert!(error.hint.unwrap().contains("learning_rate"));
    assert!(before == checkpoint(Path::new(&spec.task_dir), "epoch_1"));
    let log = fs::read_to_string(dir.path().join("T0001/err.log")).unwrap();
    assert!(
        log.contains("Training stop with error! the loss became"),
        "{log}"
    );
}

#[test]
fn parameters_and_data_that_cannot_work_are_named() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 4, 32);
    let base = spec(dir.path(), "T0001", "MobileNetV3_small");
    let with = |change: &dyn Fn(&mut TrainSpec)| {
        let mut spec = base.clone();
        change(&mut spec);
        train(&spec).unwrap_err()
    };
    let error = with(&|s| s.params.model = "ResNet51".into());
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert!(error.message.contains("ResNet51"), "{}", error.message);
    let error = with(&|s| s.params.optimizer = "Sophia".into());
    assert!(error.message.contains("Sophia"), "{}", error.message);
    let error = with(&|s| s.params.learning_rate = f64::NAN);
    assert!(error.message.contains("learning_rate"), "{}", error.message);
    let error = with(&|s| s.weights = Some("/nowhere/weights.pth".into()));
    assert_eq!(error.code, ErrorCode::NotFound);
    let error = with(&|s| s.dataset.root = "/nowhere".into());
    assert_eq!(error.code, ErrorCode::NotReady);

    let list = dir.path().join("data/train_list.txt");
    let good = fs::read_to_string(&list).unwrap();
    for (text, part) in [
        ("plain/0.png 9\n", "line 1"),
        ("plain/0.png\n", "line 1"),
        ("", "no training images"),
    ] {
        fs::write(&list, text).unwrap();
        let error = with(&|_| {});
        assert!(error.message.contains(part), "{}", error.message);
    }
    fs::write(&list, good).unwrap();

    // A batch larger than the training set is made smaller, and said.
    let mut spec = base.clone();
    spec.params.batch_size = 500;
    spec.params.num_epochs = 1;
    if let TrainParams::Classification(params) = &mut spec.params {
        params.class_balance = true;
    }
    let sink = recorder();
    run(&spec, &sink, &CancelToken::new()).unwrap();
    let JobEvent::Started { notes, .. } = &sink.events.lock().unwrap()[0] else {
        panic!("no start")
    };
    assert!(
        notes[0].contains("batch_size was reduced from 500 to 12"),
        "{notes:?}"
    );
}
