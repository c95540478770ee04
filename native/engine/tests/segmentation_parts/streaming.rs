//! Sensitivities of remote sensing pictures, and of pictures that do not fit into memory.

use oarlock_engine::prune::analysis::{Progress, Watcher, analyse as analyse_with};
use oarlock_engine::prune::images::{Opening, Reading};
use oarlock_engine::prune::segmenter::SegmenterSet;
use oarlock_engine::prune::subject::Subject;
use oarlock_engine::prune::table::Table;
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::plan::Plan;
use oarlock_engine::train::{checkpoint, data};
use oarlock_graph::Criterion;

use super::smaller::{Truth, analyse, analysis};
use super::*;

/// Sensitivities of arrays of six channels; also where neither the pictures nor what is computed of them fits into memory.
#[test]
fn sensitivities_of_rasters_need_no_memory_for_pictures() {
    let dir = tempfile::tempdir().unwrap();
    raster_dataset(&dir.path().join("data"), 24, 64);
    let mut parent = spec(dir.path(), "parent", "FastSCNN", None);
    parent.params.num_epochs = 6;
    parent.params.save_interval_epochs = 6;
    parent.params.learning_rate = 0.1;
    train(&parent, &recorder()).unwrap();
    let result = analyse(&analysis(dir.path(), &parent, "prune")).unwrap();
    let table = Table::read(&dir.path().join("prune/sensitivities.json")).unwrap();
    let truth = Truth::of(&parent);
    let base = truth.base();
    assert!((result.base - base).abs() < 1e-3 && base > 0.3, "{base}");
    let mut largest = 0.0f64;
    for (name, points) in &table.sensitivities {
        for &(ratio, loss) in points.iter().step_by(4) {
            let wanted = truth.miou(name, ratio);
            let apart = (base * (1.0 - loss) - wanted).abs();
            assert!(apart < 1e-3, "{name} at {ratio}: {apart}");
            largest = largest.max(loss);
        }
    }
    assert!(largest > 0.2, "pruning never hurt, {largest}");

    for budget in [0, 300_000] {
        let streamed = streamed(&parent, &table, budget);
        assert_eq!(streamed.base, table.base, "{budget} bytes");
        assert_eq!(
            streamed.sensitivities, table.sensitivities,
            "{budget} bytes"
        );
    }
}

/// The analysis with so many bytes for pictures and for what is computed of them.
fn streamed(parent: &TrainSpec, whole: &Table, budget: u64) -> Table {
    struct Quiet;
    impl Watcher for Quiet {
        fn tick(&self) -> oarlock_engine::Result<()> {
            Ok(())
        }
        fn progress(&mut self, _: Progress) {}
    }
    let best = Path::new(&parent.task_dir).join("output/best_model");
    let (graph, weights) = checkpoint::load_model(&best).unwrap();
    let plan = Plan::new(parent, Placement::CPU_FP32).unwrap();
    let val = data::read_pairs(&parent.dataset).unwrap().val;
    let opening = Opening {
        batch_size: 4,
        preprocessing: &plan.family.preprocessing(),
        placement: Placement::CPU_FP32,
        reading: Reading::Once,
        budget,
        tick: &|| Ok(()),
    };
    let criterion = Criterion::L1Norm;
    let mut set = SegmenterSet::open(val, CLASSES.len(), &opening).unwrap();
    let subject = Subject::new(&graph, &weights, criterion, Placement::CPU_FP32).unwrap();
    let print = whole.fingerprint.clone();
    let mut table = Table::new(&graph.name, "miou", criterion, print, subject.groups());
    let path = Path::new(&parent.task_dir).join("streamed.json");
    analyse_with(&subject, &mut set, &mut table, &path, budget, &mut Quiet).unwrap();
    table
}
