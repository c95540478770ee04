//! Sensitivity analyses and pruned trainings of small networks that were really trained.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::{dataset, recorder, spec};
use oarlock_engine::exec::Network;
use oarlock_engine::prune::table::Table;
use oarlock_engine::prune::{JUDGES, RATIOS};
use oarlock_engine::records::EvalDetails;
use oarlock_engine::runtime::Placement;
use oarlock_engine::runtime::heartbeat::Heart;
use oarlock_engine::train::plan::Plan;
use oarlock_engine::train::{checkpoint, family::Watch};
use oarlock_engine::{CancelToken, run_job};
use oarlock_graph::{
    Criterion, Keep, Sensitivities, WeightMap, channel_groups, cost, keep_for_ratio, mask,
    plan_cuts, unit_scores,
};
use oarlock_imaging::{Limits, decode_file};
use oarlock_jobs::{
    ErrorCode, JobError, JobEvent, JobOutcome, JobSpec, ModelSource, PruneSpec, PruneSummary,
    PruneTarget, Resume, SensitivityResult, SensitivitySpec, TaskType, TrainSpec,
};

/// A folder with `data` and the trained task `parent`.
struct Trained {
    dir: tempfile::TempDir,
    spec: TrainSpec,
}

fn trained(model: &str) -> Trained {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 40, 32);
    let mut spec = spec(dir.path(), "parent", model);
    spec.params.num_epochs = 4;
    spec.params.save_interval_epochs = 2;
    train(&spec).unwrap();
    Trained { dir, spec }
}

fn train(spec: &TrainSpec) -> Result<Vec<JobEvent>, JobError> {
    let sink = recorder();
    let job = JobSpec::Train(Box::new(spec.clone()));
    match run_job("test", job, &sink, &CancelToken::new()) {
        JobOutcome::Train(_) => Ok(sink.events.into_inner().unwrap()),
        JobOutcome::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

impl Trained {
    fn best(&self) -> PathBuf {
        self.dir.path().join("parent/output/best_model")
    }

    fn analysis(&self, out: &str) -> SensitivitySpec {
        SensitivitySpec {
            task_type: TaskType::Classification,
            source: ModelSource {
                checkpoint: self.best().display().to_string(),
                epoch: None,
            },
            dataset: self.spec.dataset.clone(),
            out_dir: self.dir.path().join(out).display().to_string(),
            batch_size: 8,
            device: self.spec.device.clone(),
        }
    }

    /// A pruned training with the sensitivities in the folder `out`.
    fn pruned(&self, task: &str, out: &str, target: PruneTarget) -> TrainSpec {
        let mut spec = spec(self.dir.path(), task, &self.spec.params.model);
        spec.params.num_epochs = 1;
        spec.weights = Some(self.best().display().to_string());
        let table = self.dir.path().join(out).join("sensitivities.json");
        spec.prune = Some(PruneSpec {
            sensitivities: table.display().to_string(),
            target,
        });
        spec
    }
}

/// Runs an analysis; `on_event` may cancel it.
fn analyse(
    spec: &SensitivitySpec,
    on_event: impl Fn(&JobEvent, &CancelToken) + Sync + Send,
) -> (Result<SensitivityResult, JobError>, Vec<JobEvent>) {
    let (cancel, events) = (CancelToken::new(), Mutex::new(Vec::new()));
    let sink = |event: JobEvent| {
        on_event(&event, &cancel);
        events.lock().unwrap().push(event);
    };
    let result = match run_job("test", JobSpec::Sensitivity(spec.clone()), &sink, &cancel) {
        JobOutcome::Sensitivity(result) => Ok(result),
        JobOutcome::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    };
    (result, events.into_inner().unwrap())
}

fn table(spec: &SensitivitySpec) -> Table {
    Table::read(&Path::new(&spec.out_dir).join("sensitivities.json")).unwrap()
}

/// (evaluations done, of, seconds left) of each report.
fn progress(events: &[JobEvent]) -> Vec<(u64, u64, Option<f64>)> {
    let each = events.iter().filter_map(|event| match event {
        JobEvent::Progress {
            done, total, eta, ..
        } => Some((*done, *total, *eta)),
        _ => None,
    });
    each.collect()
}

/// Masks the channels in the trained network and evaluates it as training does.
fn brute_force(trained: &Trained) -> (f64, Sensitivities) {
    let (graph, weights) = checkpoint::load_model(&trained.best()).unwrap();
    let plan = Plan::new(&trained.spec, Placement::CPU_FP32).unwrap();
    let groups = channel_groups(&graph).unwrap();
    let accuracy = |weights: &WeightMap| {
        let network = Network::for_inference(&graph, weights, Placement::CPU_FP32).unwrap();
        let cancel = CancelToken::new();
        let watch = Watch {
            cancel: &cancel,
            heart: &Heart::default(),
        };
        let validation = plan.family.validate(&network, &plan.supply, watch).unwrap();
        validation.unwrap().metrics["acc1"].unwrap()
    };
    let base = accuracy(&weights);
    let losses = groups.groups.iter().map(|group| {
        let scores =
            unit_scores(&graph, &weights, &groups, group, Criterion::L1Norm, JUDGES).unwrap();
        let points = RATIOS.map(|ratio| {
            let keep = Keep::from([(group.name.clone(), keep_for_ratio(&scores, ratio, None))]);
            let masked = mask(&graph, &weights, &groups, &keep).unwrap();
            (ratio, (base - accuracy(&masked)) / base)
        });
        (group.name.clone(), points.to_vec())
    });
    (base, losses.collect())
}

#[test]
fn losses_are_those_of_masking_and_evaluating_everything() {
    for model in ["ResNet18", "MobileNetV3_small"] {
        let trained = trained(model);
        let spec = trained.analysis("prune");
        let (result, events) = analyse(&spec, |_, _| {});
        let result = result.unwrap();
        let (base, expected) = brute_force(&trained);
        assert!(
            (result.base - base).abs() < 1e-3 && base > 0.3,
            "{model} {base}"
        );
        let table = table(&spec);
        assert!(table.sensitivities.keys().eq(expected.keys()));
        let mut largest = 0.0f64;
        for (name, points) in &expected {
            for (ours, theirs) in table.sensitivities[name].iter().zip(points) {
                assert_eq!(ours.0, theirs.0);
                let apart = (ours.1 - theirs.1).abs() * base;
                assert!(apart < 1e-3, "{model} {name} {ours:?} {theirs:?}");
                largest = largest.max(theirs.1);
            }
        }
        assert!(largest > 0.2, "{model}: pruning never hurt, {largest}");

        assert_eq!((result.stopped, result.metric.as_str()), (false, "acc1"));
        assert_eq!(result.layers as usize, expected.len());
        assert_eq!(result.curve.len(), 19);
        assert!(result.curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
        let steps = progress(&events);
        let total = 9 * expected.len() as u64;
        let done: Vec<u64> = steps.iter().map(|s| s.0).collect();
        assert_eq!(done, (0..=total).collect::<Vec<_>>());
        assert!(steps[1..].iter().all(|s| s.1 == total && s.2.is_some()));
        assert_eq!(steps.last().unwrap().2, Some(0.0));
        let log = fs::read_to_string(Path::new(&spec.out_dir).join("out.log")).unwrap();
        let line = format!("Total evaluate iters={total}, current=7, progress=");
        assert!(log.contains(&line), "{log}");
        let picture = Path::new(&spec.out_dir).join("sensitivities.png");
        let picture = decode_file(&picture, &Limits::default(), None).unwrap();
        assert!(picture.width() > 900 && picture.height() > 600);
    }
}

#[test]
fn stops_kills_and_changes_lose_no_layer_and_keep_no_wrong_one() {
    let trained = trained("MobileNetV3_small");
    let whole = trained.analysis("whole");
    analyse(&whole, |_, _| {}).0.unwrap();
    let expected = table(&whole);

    // Stopped in the third layer.
    let spec = trained.analysis("stopped");
    let (result, _) = analyse(&spec, |event, cancel| {
        if let JobEvent::Progress { done: 20, .. } = event {
            cancel.cancel();
        }
    });
    let result = result.unwrap();
    assert_eq!((result.stopped, result.layers), (true, 2));
    assert!(result.curve.is_empty());
    assert_eq!(table(&spec).sensitivities.len(), 2);
    assert!(!Path::new(&spec.out_dir).join("sensitivities.png").exists());
    let (again, events) = analyse(&spec, |_, _| {});
    assert!(!again.unwrap().stopped);
    assert_eq!(
        progress(&events)[0].0,
        18,
        "two layers are not measured again"
    );
    assert_eq!(table(&spec), expected);

    // Killed.
    let spec = trained.analysis("killed");
    let file = trained.dir.path().join("spec.json");
    fs::write(&file, serde_json::to_vec(&spec).unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_oarlock-engine"))
        .args(["sensitivity", "--spec", file.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = Path::new(&spec.out_dir).join("sensitivities.json");
    let limit = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < limit, "no layer was done in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = table(&spec).sensitivities.len() as u64;
    let (again, events) = analyse(&spec, |_, _| {});
    assert!(!again.unwrap().stopped);
    assert_eq!(progress(&events)[0].0, 9 * left);
    assert_eq!(table(&spec), expected);

    // A torn table and one of other images are measured anew.
    fs::write(&path, "{").unwrap();
    let (_, events) = analyse(&spec, |event, cancel| {
        if let JobEvent::Progress { done: 3, .. } = event {
            cancel.cancel();
        }
    });
    assert_eq!(progress(&events)[0].0, 0);
    expected.write(&path).unwrap();
    let list = trained.dir.path().join("data/val_list.txt");
    let lines = fs::read_to_string(&list).unwrap();
    let fewer: Vec<&str> = lines.lines().skip(1).collect();
    fs::write(&list, fewer.join("\n")).unwrap();
    let (_, events) = analyse(&spec, |event, cancel| {
        if let JobEvent::Progress { done: 3, .. } = event {
            cancel.cancel();
        }
    });
    assert_eq!(progress(&events)[0].0, 0);

    // A model that is always wrong has nothing to lose.
    let details = EvalDetails::read(&trained.best().join("eval_details.json"), 3).unwrap();
    let wrong = lines
        .lines()
        .zip(details.scores.chunks(3))
        .map(|(line, scores)| {
            let file = line.rsplit_once(' ').unwrap().0;
            format!("{file} {}\n", (oarlock_metrics::argmax(scores) + 1) % 3)
        });
    fs::write(&list, wrong.collect::<String>()).unwrap();
    let spec = trained.analysis("wrong");
    let (result, events) = analyse(&spec, |_, _| {});
    assert_eq!(result.unwrap().base, 0.0);
    assert!(
        table(&spec)
            .sensitivities
            .values()
            .flatten()
            .all(|p| p.1 == 0.0)
    );
    let warned =
        |e: &JobEvent| matches!(e, JobEvent::Warning { message } if message.contains("is 0"));
    assert!(events.iter().any(warned));
}

fn summary(events: &[JobEvent]) -> PruneSummary {
    let mut found = events.iter().filter_map(|event| match event {
        JobEvent::Pruned(summary) => Some(summary.clone()),
        _ => None,
    });
    found.next().expect("a pruned training says what it pruned")
}

#[test]
fn pruned_trainings_begin_smaller_and_stay_so() {
    let trained = trained("ResNet18");
    let analysis = trained.analysis("prune");
    let by_flops = PruneTarget::Flops { value: 0.4 };
    let by_loss = |value| PruneTarget::Loss { value };

    let missing = train(&trained.pruned("t0", "prune", by_flops)).unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotReady);
    let (stopped, _) = analyse(&analysis, |event, cancel| {
        if let JobEvent::Progress { done: 10, .. } = event {
            cancel.cancel();
        }
    });
    assert!(stopped.unwrap().stopped);
    let partial = train(&trained.pruned("t0", "prune", by_flops)).unwrap_err();
    assert_eq!(partial.code, ErrorCode::NotReady);
    assert!(partial.message.contains("1 of 12 layers"), "{partial}");
    analyse(&analysis, |_, _| {}).0.unwrap();

    let spec = trained.pruned("flops", "prune", by_flops);
    let events = train(&spec).unwrap();
    let pruned = summary(&events);
    let share = 1.0 - pruned.macs_after as f64 / pruned.macs_before as f64;
    assert!((share - 0.4).abs() < 0.05, "{share}");
    assert!(!pruned.ratios.is_empty() && pruned.ratios.values().all(|r| (0.0..=0.9).contains(r)));
    let best = trained.dir.path().join("flops/output/best_model");
    let (graph, _) = checkpoint::load_model(&best).unwrap();
    let total = cost(&graph, [32, 32]).unwrap().total;
    assert_eq!(
        (total.macs, total.params),
        (pruned.macs_after, pruned.parameters_after)
    );
    let yml = fs::read_to_string(best.join("model.yml")).unwrap();
    assert!(
        yml.contains(&format!("after: {}", pruned.macs_after)),
        "{yml}"
    );
    let prune_yml = fs::read_to_string(best.join("prune.yml")).unwrap();
    for name in pruned.ratios.keys() {
        assert!(prune_yml.contains(name), "{prune_yml}");
    }

    // Trained further, it is still the pruned network.
    let mut longer = spec.clone();
    longer.params.num_epochs = 2;
    longer.resume = Resume::Latest;
    assert_eq!(summary(&train(&longer).unwrap()), pruned);
    let (resumed, _) = checkpoint::load_model(&best.with_file_name("epoch_2")).unwrap();
    assert_eq!(resumed, graph);

    // A loss that nothing exceeds prunes all that was measured, one that nothing keeps prunes nothing.
    let all = summary(&train(&trained.pruned("loss", "prune", by_loss(10.0))).unwrap());
    assert!(all.macs_after < pruned.macs_after);
    let mut table = table(&analysis);
    for points in table.sensitivities.values_mut() {
        points.iter_mut().for_each(|p| p.1 = 0.5 + p.0 / 10.0);
    }
    let costly = trained.dir.path().join("costly");
    fs::create_dir(&costly).unwrap();
    table.write(&costly.join("sensitivities.json")).unwrap();
    let refused = |target, out: &str| train(&trained.pruned("t0", out, target)).unwrap_err();
    let nothing = refused(by_loss(0.05), "costly");
    assert_eq!(nothing.code, ErrorCode::InvalidArgument);
    assert!(
        nothing.message.contains("nothing is left to prune"),
        "{nothing}"
    );
    let short = trained.dir.path().join("short");
    fs::create_dir(&short).unwrap();
    table.sensitivities.values_mut().for_each(|p| p.truncate(2));
    table.write(&short.join("sensitivities.json")).unwrap();
    let beyond = refused(PruneTarget::Flops { value: 0.6 }, "short");
    assert_eq!(beyond.code, ErrorCode::InvalidArgument);
    let reached = beyond.context["reached"].as_f64().unwrap();
    assert!(
        beyond.message.contains("reaches") && reached < 0.4,
        "{beyond}"
    );
    for bad in [by_loss(-0.1), PruneTarget::Flops { value: 1.0 }] {
        assert_eq!(refused(bad, "prune").code, ErrorCode::InvalidArgument);
    }
    // Sensitivities of another network, here of the pruned one.
    let mut other = trained.analysis("other");
    other.source.checkpoint = best.display().to_string();
    analyse(&other, |_, _| {}).0.unwrap();
    let foreign = refused(by_flops, "other");
    assert_eq!(foreign.code, ErrorCode::InvalidData);
    // But that one can be pruned again with them.
    let mut again = trained.pruned("again", "other", PruneTarget::Flops { value: 0.3 });
    again.weights = Some(best.display().to_string());
    let twice = summary(&train(&again).unwrap());
    assert_eq!(twice.macs_before, pruned.macs_after);
}

#[test]
fn a_plan_saves_most_of_the_work() {
    // What the analysis of a ResNet18 runs, by multiply-accumulates.
    let graph = oarlock_zoo::classifier("ResNet18", 10).unwrap();
    let groups = channel_groups(&graph).unwrap().groups;
    let plan = plan_cuts(&graph, &groups, [224, 224], u64::MAX, 9).unwrap();
    let share = plan.macs as f64 / plan.brute_force_macs as f64;
    assert!(share < 0.6, "{share}");
}
