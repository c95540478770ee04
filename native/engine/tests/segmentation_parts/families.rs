//! Sensitivities, pruned trainings and quantized exports of every family of segmenters, as they come from one epoch.

use oarlock_engine::prune::table::Table;
use oarlock_engine::train::checkpoint;
use oarlock_graph::{channel_groups, cost};
use oarlock_jobs::{PruneSpec, PruneTarget};
use oarlock_zoo::{segmenter_backbones, segmenter_names};

use super::smaller::{Truth, analyse, analysis, export};
use super::*;

/// Analyses, prunes and quantizes a network that has learned for one epoch.
fn becomes_smaller(model: &str, backbone: Option<&str>) {
    let name = format!("{model} {}", backbone.unwrap_or(""));
    let dir = tempfile::tempdir().unwrap();
    dataset(&dir.path().join("data"), 8, (72, 64));
    let mut parent = spec(dir.path(), "parent", model, backbone);
    parent.params.batch_size = 3;
    parent.params.num_epochs = 1;
    train(&parent, &recorder()).unwrap_or_else(|e| panic!("{name}: {e}"));

    // Every layer is measured, some of them also by masking their filters.
    let analysis = analysis(dir.path(), &parent, "prune");
    let result = analyse(&analysis).unwrap_or_else(|e| panic!("{name}: {e}"));
    let path = dir.path().join("prune/sensitivities.json");
    let table = Table::read(&path).unwrap();
    let truth = Truth::of(&parent);
    let groups = channel_groups(&truth.graph).unwrap().groups;
    let base = truth.base();
    assert!((result.base - base).abs() < 2e-3, "{name}: {base}");
    assert_eq!(result.layers as usize, groups.len(), "{name}");
    let measured = groups.iter().step_by(groups.len().div_ceil(4));
    for group in measured.chain(groups.last()) {
        let (ratio, loss) = table.sensitivities[&group.name][5];
        let wanted = truth.miou(&group.name, ratio);
        let apart = (base * (1.0 - loss) - wanted).abs();
        assert!(
            apart < 2e-3,
            "{name}, {} at {ratio}: {apart} apart",
            group.name
        );
    }

    let best = dir.path().join("parent/output/best_model");
    let mut child = spec(dir.path(), "child", model, backbone);
    child.params.batch_size = 3;
    child.params.num_epochs = 1;
    child.weights = Some(best.display().to_string());
    child.prune = Some(PruneSpec {
        sensitivities: path.display().to_string(),
        target: PruneTarget::Flops { value: 0.3 },
    });
    train(&child, &recorder()).unwrap_or_else(|e| panic!("{name} pruned: {e}"));
    let (pruned, _) = checkpoint::load_model(&dir.path().join("child/output/best_model")).unwrap();
    let (whole, _) = checkpoint::load_model(&best).unwrap();
    let macs = |graph| cost(graph, [64, 64]).unwrap().total.macs as f64;
    let share = 1.0 - macs(&pruned) / macs(&whole);
    assert!(share > 0.1, "{name}: {share} of the work went");
    assert_eq!(pruned.outputs.len(), whole.outputs.len(), "{name}");

    // Both are quantized: 8-bit weights take a quarter.
    for spec in [&parent, &child] {
        let out = dir.path().join(format!("{}-int8", spec.task_id));
        let result = export(&out, spec, 4).unwrap_or_else(|e| panic!("{name} int8: {e}"));
        let model = fs::metadata(Path::new(&result.path).join("model.onnx")).unwrap();
        let plain = fs::metadata(result.measure.unwrap().fp32.unwrap()).unwrap();
        let share = model.len() as f64 / plain.len() as f64;
        assert!(share < 0.45, "{name}: int8 takes {share} of fp32");
    }
}

#[test]
fn a_mobile_deeplab_becomes_smaller() {
    becomes_smaller("DeepLabV3P", Some("MobileNetV2_x0.25"));
}

#[test]
fn a_unet_becomes_smaller() {
    becomes_smaller("UNet", None);
}

#[test]
fn an_hrnet_becomes_smaller() {
    becomes_smaller("HRNet_W18", None);
}

#[test]
fn a_bisenet_becomes_smaller() {
    becomes_smaller("BiSeNetV2", None);
}

/// Minutes: `cargo test --release -p oarlock-engine --test segmentation -- --ignored --nocapture every`.
#[test]
#[ignore = "takes minutes"]
fn every_segmenter_becomes_smaller() {
    for &model in segmenter_names() {
        let backbones = match segmenter_backbones(model) {
            [] => vec![None],
            list => list.iter().map(|&b| Some(b)).collect(),
        };
        for backbone in backbones {
            becomes_smaller(model, backbone);
        }
    }
}
