//! Sensitivities, pruned trainings and quantized exports of trained segmenters.

use std::path::Path;

use oarlock_engine::exec::Network;
use oarlock_engine::prune::table::Table;
use oarlock_engine::prune::{JUDGES, RATIOS};
use oarlock_engine::runtime::Placement;
use oarlock_engine::runtime::heartbeat::Heart;
use oarlock_engine::train::plan::Plan;
use oarlock_engine::train::{checkpoint, family::Watch};
use oarlock_graph::{
    Criterion, Graph, Keep, Sensitivities, WeightMap, channel_groups, cost, keep_for_ratio, mask,
    unit_scores,
};
use oarlock_jobs::{
    ExportResult, MeasureTask, PruneSpec, PruneTarget, QuantMethod, QuantSpec, SampleKind,
    SensitivityResult, SensitivitySpec,
};

use super::*;

pub(super) fn analysis(dir: &Path, of: &TrainSpec, out: &str) -> SensitivitySpec {
    SensitivitySpec {
        task_type: TaskType::Segmentation,
        source: source(&Path::new(&of.task_dir).join("output/best_model")),
        dataset: of.dataset.clone(),
        out_dir: dir.join(out).display().to_string(),
        batch_size: 4,
        device: device(),
    }
}

pub(super) fn analyse(spec: &SensitivitySpec) -> Result<SensitivityResult, JobError> {
    let job = JobSpec::Sensitivity(spec.clone());
    match run(job, &recorder(), &CancelToken::new())? {
        JobOutcome::Sensitivity(result) => Ok(result),
        other => panic!("{other:?}"),
    }
}

/// A trained network whose channels can be masked, evaluated as training does.
pub(super) struct Truth {
    pub(super) graph: Graph,
    weights: WeightMap,
    plan: Plan,
}

impl Truth {
    pub(super) fn of(spec: &TrainSpec) -> Self {
        let best = Path::new(&spec.task_dir).join("output/best_model");
        let (graph, weights) = checkpoint::load_model(&best).unwrap();
        let plan = Plan::new(spec, Placement::CPU_FP32).unwrap();
        let graph = graph.without_auxiliary();
        Self {
            graph,
            weights,
            plan,
        }
    }

    fn evaluated(&self, weights: &WeightMap) -> f64 {
        let network = Network::for_inference(&self.graph, weights, Placement::CPU_FP32).unwrap();
        let (cancel, heart) = (CancelToken::new(), Heart::default());
        let watch = Watch {
            cancel: &cancel,
            heart: &heart,
        };
        let plan = &self.plan;
        let validation = plan.family.validate(&network, &plan.supply, watch).unwrap();
        validation.unwrap().metrics["miou"].unwrap()
    }

    pub(super) fn base(&self) -> f64 {
        self.evaluated(&self.weights)
    }

    /// Mean IoU without the least important channels of a group.
    pub(super) fn miou(&self, group: &str, ratio: f64) -> f64 {
        let (graph, weights) = (&self.graph, &self.weights);
        let groups = channel_groups(graph).unwrap();
        let group = groups.groups.iter().find(|g| g.name == group).unwrap();
        let scores = unit_scores(graph, weights, &groups, group, Criterion::L1Norm, JUDGES);
        let units = keep_for_ratio(&scores.unwrap(), ratio, None);
        let keep = Keep::from([(group.name.clone(), units)]);
        self.evaluated(&mask(graph, weights, &groups, &keep).unwrap())
    }
}

/// Masks the channels of every group at every ratio: base metric and losses.
fn brute_force(spec: &TrainSpec) -> (f64, Sensitivities) {
    let truth = Truth::of(spec);
    let base = truth.base();
    let groups = channel_groups(&truth.graph).unwrap().groups;
    let losses = groups.iter().map(|group| {
        let points = RATIOS.map(|ratio| (ratio, (base - truth.miou(&group.name, ratio)) / base));
        (group.name.clone(), points.to_vec())
    });
    (base, losses.collect())
}

#[test]
fn segmenters_lose_what_masking_and_evaluating_says_and_are_pruned() {
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 36, (80, 72));
    let mut parent = spec(dir.path(), "parent", "FastSCNN", None);
    parent.params.num_epochs = 10;
    parent.params.save_interval_epochs = 10;
    train(&parent, &recorder()).unwrap();
    let analysis = analysis(dir.path(), &parent, "prune");
    let result = analyse(&analysis).unwrap();
    let (base, expected) = brute_force(&parent);
    assert_eq!((result.stopped, result.metric.as_str()), (false, "miou"));
    assert!((result.base - base).abs() < 1e-3 && base > 0.4, "{base}");
    let path = dir.path().join("prune/sensitivities.json");
    let table = Table::read(&path).unwrap();
    assert!(table.sensitivities.keys().eq(expected.keys()));
    let mut largest = 0.0f64;
    for (name, points) in &expected {
        for (ours, theirs) in table.sensitivities[name].iter().zip(points) {
            let apart = (ours.1 - theirs.1).abs() * base;
            assert!(apart < 1e-3, "{name} {ours:?} {theirs:?}");
            largest = largest.max(theirs.1);
        }
    }
    assert!(largest > 0.2, "pruning never hurt, {largest}");
    assert!(!result.curve.is_empty());

    // The child is smaller, and its auxiliary heads are still trained.
    let best = dir.path().join("parent/output/best_model");
    let mut child = spec(dir.path(), "child", "FastSCNN", None);
    child.params.num_epochs = 1;
    child.weights = Some(best.display().to_string());
    let target = PruneTarget::Flops { value: 0.3 };
    child.prune = Some(PruneSpec {
        sensitivities: path.display().to_string(),
        target,
    });
    train(&child, &recorder()).unwrap();
    let (whole, _) = checkpoint::load_model(&best).unwrap();
    let (pruned, _) = checkpoint::load_model(&dir.path().join("child/output/best_model")).unwrap();
    assert!(whole.outputs.len() > 1, "auxiliary heads");
    assert_eq!(pruned.outputs.len(), whole.outputs.len());
    let macs = |graph| cost(graph, [64, 64]).unwrap().total.macs as f64;
    let share = 1.0 - macs(&pruned) / macs(&whole);
    assert!(share > 0.2, "{share}");

    // Another network, and other classes, are no parent.
    let mut other = child.clone();
    other.params.model = "UNet".into();
    let error = train(&other, &recorder()).unwrap_err();
    assert!(error.message.contains("wants UNet"), "{error}");
    let labels = dir.path().join("data/labels.txt");
    fs::write(&labels, "background\ndisc\nring\n").unwrap();
    for error in [
        train(&child, &recorder()).unwrap_err(),
        analyse(&analysis).unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::InvalidData);
        assert!(error.message.contains("ring"), "{error}");
    }
}

pub(super) fn export(dir: &Path, of: &TrainSpec, images: u32) -> Result<ExportResult, JobError> {
    let export = JobSpec::Export(ExportSpec {
        task_type: TaskType::Segmentation,
        source: source(&Path::new(&of.task_dir).join("output/best_model")),
        save_dir: dir.join("out").display().to_string(),
        quant: Some(QuantSpec {
            method: QuantMethod::Percentile,
            images,
        }),
        dataset: Some(of.dataset.clone()),
        log_dir: Some(dir.join("logs").display().to_string()),
        threads: 2,
    });
    match run(export, &recorder(), &CancelToken::new())? {
        JobOutcome::Export(result) => Ok(*result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn segmenters_are_quantized_with_pictures_of_any_channels() {
    for raster in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let channels = if raster { 6 } else { 3 };
        match raster {
            true => raster_dataset(&data, 16, 64),
            false => dataset(&data, 16, (70, 64)),
        }
        let mut spec = spec(dir.path(), "T0001", "FastSCNN", None);
        spec.params.num_epochs = 1;
        train(&spec, &recorder()).unwrap();
        let result = export(dir.path(), &spec, 12).unwrap();
        assert_eq!(result.calibrated, Some(12));
        assert!(result.notes.is_empty(), "{:?}", result.notes);
        let model = fs::metadata(Path::new(&result.path).join("model.onnx")).unwrap();
        let measure = result.measure.unwrap();
        let plain = fs::metadata(measure.fp32.unwrap()).unwrap();
        assert!(model.len() * 10 < plain.len() * 4, "{}", model.len());
        let MeasureTask::Pixels {
            raster: kind,
            range,
        } = measure.task
        else {
            panic!("no label maps");
        };
        assert_eq!(kind, raster.then_some(SampleKind::Uint16));
        assert_eq!(range.len(), if raster { 6 } else { 0 });
        assert_eq!((measure.size, measure.classes), ([64, 64], 3));
        assert_eq!(measure.probe.images, 4, "the whole validation list");
        let probe = fs::read(&measure.probe.path).unwrap();
        let plane = 64 * 64;
        assert_eq!(probe.len(), 4 * 4 * (channels + 3) * plane);
        let scores: Vec<f32> = probe[4 * 4 * channels * plane..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        for image in scores.chunks_exact(3 * plane) {
            for at in [0, 77, plane - 1] {
                let sum: f32 = (0..3).map(|class| image[class * plane + at]).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
        // Pictures of other channels cannot calibrate.
        fs::remove_dir_all(&data).unwrap();
        match raster {
            true => dataset(&data, 16, (70, 64)),
            false => raster_dataset(&data, 16, 64),
        }
        let error = export(dir.path(), &spec, 12).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidData);
        assert!(error.message.contains("channels"), "{error}");
    }
}
