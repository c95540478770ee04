//! The moving average of the weights.

mod common;

#[path = "common/boxes.rs"]
mod boxes;

use std::path::Path;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::average::Average;
use oarlock_engine::train::learner::Learner;
use oarlock_engine::train::optimizer::{Optimizer, Rule};
use oarlock_engine::{CancelToken, run_job};
use oarlock_graph::{Conv, Graph, GraphBuilder, WeightMap, init_weights};
use oarlock_jobs::{JobOutcome, JobSpec, Resume, TrainParams, TrainSpec};
use tch::{Device, Kind, Tensor};

const DECAY: f64 = 0.5;

fn graph() -> Graph {
    let mut g = GraphBuilder::new("small");
    let x = g.input(3);
    let c = g.conv("c", x, Conv::new(4, 3));
    let n = g.batch_norm("n", c);
    g.output("o", n);
    g.finish().unwrap()
}

fn learner(decay: f64) -> Learner {
    let graph = graph();
    let weights = init_weights(&graph, 5);
    let mut network = Network::new(graph, &weights, Placement::CPU_FP32).unwrap();
    let optimizer = Optimizer::new(Rule::Sgd, 0.0, &mut network).unwrap();
    let optimizer = optimizer.with_average(decay, &network).unwrap();
    Learner { network, optimizer }
}

fn step(learner: &mut Learner) {
    let input = Tensor::arange(2 * 3 * 64, (Kind::Float, Device::Cpu)).sin();
    let input = input.reshape([2, 3, 8, 8]);
    let loss = |_: &Network, outputs: &[Tensor]| Ok((&outputs[0] - 1.5).square().mean(Kind::Float));
    learner.step(&input, &loss, 0.1, 1).unwrap();
}

fn assert_near(got: &WeightMap, expected: &WeightMap) {
    assert_eq!(got.len(), expected.len());
    for (name, expected) in expected {
        for (got, expected) in got[name].data.iter().zip(&expected.data) {
            assert!((got - expected).abs() < 1e-6, "{name}: {got} {expected}");
        }
    }
}

#[test]
fn the_average_follows_its_formula_and_is_what_counts() {
    let mut learner = learner(DECAY);
    let mut expected = learner.network.to_weights().unwrap();
    for number in 1..=12_i32 {
        step(&mut learner);
        let keep = DECAY.min(f64::from(number) / f64::from(number + 9)) as f32;
        for (name, own) in learner.network.to_weights().unwrap() {
            let average = expected[&name].data.iter_mut().zip(&own.data);
            average.for_each(|(a, own)| *a = keep * *a + (1.0 - keep) * own);
        }
    }
    let weights = learner.weights().unwrap();
    assert_near(&weights, &expected);
    let own = learner.network.to_weights().unwrap();
    assert_ne!(weights["n.running_mean"], own["n.running_mean"]);
    assert_ne!(weights["c.weight"], own["c.weight"]);

    // What runs on new images has the averaged weights.
    let input = Tensor::ones([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let run = |network: Network| network.forward(&input, false).unwrap();
    let got = run(learner.inference_copy(Kind::Float).unwrap());
    let placement = Placement::CPU_FP32;
    let wanted = run(Network::for_inference(&graph(), &expected, placement).unwrap());
    assert!((got - wanted).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn both_weights_go_on_after_a_break() {
    let mut whole = learner(DECAY);
    (0..3).for_each(|_| step(&mut whole));
    let state = whole.optimizer.to_state(&whole.network).unwrap();
    let saved = whole.weights().unwrap();
    // As a checkpoint holds them: the average as the model, the trained weights beside the optimizer's state.
    let own: WeightMap = state
        .iter()
        .filter_map(|(name, w)| Some((name.strip_prefix("own/")?.to_owned(), w.clone())))
        .collect();
    let mut network = Network::new(graph(), &own, Placement::CPU_FP32).unwrap();
    let optimizer = Optimizer::new(Rule::Sgd, 0.0, &mut network).unwrap();
    let mut optimizer = optimizer.with_average(DECAY, &network).unwrap();
    optimizer.load_state(&network, &state).unwrap();
    let average: &mut Average = optimizer.average_mut().unwrap();
    average.load(&network, &saved).unwrap();
    let mut resumed = Learner { network, optimizer };
    step(&mut whole);
    step(&mut resumed);
    assert_eq!(whole.weights().unwrap(), resumed.weights().unwrap());
    assert_eq!(
        whole.network.to_weights().unwrap(),
        resumed.network.to_weights().unwrap()
    );
}

#[test]
fn without_a_decay_nothing_is_averaged() {
    let mut learner = learner(0.0);
    step(&mut learner);
    let state = learner.optimizer.to_state(&learner.network).unwrap();
    assert!(!state.keys().any(|name| name.starts_with("own/")));
    assert_eq!(
        learner.weights().unwrap(),
        learner.network.to_weights().unwrap()
    );
}

/// Averaged weights and those that are trained, of a checkpoint.
fn checkpoint(task: &Path, epoch: u32) -> [WeightMap; 2] {
    let file = |name: &str| task.join(format!("output/epoch_{epoch}")).join(name);
    let read = |name: &str| oarlock_weights::load(&file(name)).unwrap();
    let own = read("optimizer.safetensors").into_iter();
    let own = own.filter_map(|(name, w)| Some((name.strip_prefix("own/")?.to_owned(), w)));
    [read("model.safetensors"), own.collect()]
}

#[test]
fn a_detector_is_averaged_and_goes_on_from_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let things: &[boxes::Thing] = &[("nut", [5, 5, 40, 45])];
    let set = boxes::voc(&dir.path().join("data"), [&[things; 4], &[things]], "nut\n");
    let mut params = boxes::params("PPYOLOTiny");
    params.ema_decay = 0.9;
    params.random_shape = false;
    let mut spec = TrainSpec {
        dataset: set,
        params: TrainParams::Detection(params),
        ..common::spec(dir.path(), "T0001", "ResNet18")
    };
    let train = |spec: &TrainSpec| {
        let job = JobSpec::Train(Box::new(spec.clone()));
        match run_job("test", job, &common::recorder(), &CancelToken::new()) {
            JobOutcome::Train(result) => assert_eq!(result.completed_epochs, 2),
            other => panic!("{other:?}"),
        }
    };
    train(&spec);
    let task = dir.path().join("T0001");
    let [average, own] = checkpoint(&task, 2);
    assert_eq!(average.len(), own.len());
    let changed = average.iter().filter(|(name, w)| own[*name] != **w).count();
    assert!(
        changed > own.len() / 2,
        "{changed} of {} weights",
        own.len()
    );

    spec.resume = Resume::Epoch { epoch: 1 };
    train(&spec);
    assert_eq!(checkpoint(&task, 2), [average, own]);
}
