//! Trainings with the own kernels and with libtorch's operators instead.

// The test that runs again as a child tells its losses this way.
#![allow(clippy::print_stdout)]

use std::process::Command;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::learner::Learner;
use oarlock_engine::train::losses::classification;
use oarlock_engine::train::optimizer::{Optimizer, Rule};
use tch::{Kind, Tensor};

/// Relative to the loss, in fp32: of the first two steps, and of later ones. Sums are added in another order; batch
/// norms over few pixels and kinks of activations magnify that from step to step.
const TOLERANCE: [f64; 2] = [5e-3, 0.1];

/// Four classes of striped pictures with noise; the network must learn to tell them apart.
fn batch(step: i64) -> (Tensor, Tensor) {
    let (n, size) = (16, 64);
    let mut values = Vec::new();
    let mut noise = step as u64 + 1;
    for image in 0..n {
        let period = 4 << (image % 4);
        for i in 0..3 * size * size {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let stripe = if (i % size / period) % 2 == 0 {
                1.0
            } else {
                -1.0
            };
            values.push(stripe + (noise >> 40) as f32 / (1u64 << 24) as f32 - 0.5);
        }
    }
    let labels: Vec<i64> = (0..n).map(|i| i % 4).collect();
    let images = Tensor::from_slice(&values).reshape([n, 3, size, size]);
    (images, Tensor::from_slice(&labels))
}

/// Losses of some steps.
fn losses(model: &str, rule: Rule, compute: Kind) -> Vec<f64> {
    let graph = oarlock_zoo::classifier(model, 4).unwrap();
    let weights = oarlock_graph::init_weights(&graph, 3);
    let mut placement = Placement::CPU_FP32;
    placement.compute = compute;
    let mut network = Network::new(graph, &weights, placement).unwrap();
    let optimizer = Optimizer::new(rule, 1e-4, &mut network).unwrap();
    let mut learner = Learner { network, optimizer };
    let steps = 0..6;
    steps
        .map(|i| {
            let (images, labels) = batch(i);
            let targets = [labels];
            let loss = |_: &Network, outputs: &[Tensor]| classification(outputs, &targets, 0.0);
            let done = learner
                .step(&images.to_kind(compute), &loss, 1e-3, 7)
                .unwrap();
            done.loss.double_value(&[])
        })
        .collect()
}

fn all() -> Vec<(String, Vec<f64>)> {
    let mut list = Vec::new();
    for (model, rule) in [
        ("MobileNetV3_small", Rule::Adam),
        ("MobileNetV2", Rule::Sgd),
    ] {
        list.push((model.to_owned(), losses(model, rule, Kind::Float)));
    }
    list
}

#[test]
fn a_training_goes_the_same_way_with_each_kernel_switched_off() {
    if std::env::var_os("OARLOCK_DISABLE_KERNELS").is_some() {
        for (name, losses) in all() {
            println!("losses {name}: {losses:?}");
        }
        return;
    }
    let ours = all();
    for off in [
        "depthwise,pointwise",
        "norm",
        "se",
        "optim",
        "depthwise,pointwise,norm,se,optim",
    ] {
        let run = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_training_goes_the_same_way_with_each_kernel_switched_off",
                "--nocapture",
            ])
            .env("OARLOCK_DISABLE_KERNELS", off)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{off}: {text}");
        for (name, ours) in &ours {
            let line = format!("losses {name}: ");
            let at = text
                .find(&line)
                .unwrap_or_else(|| panic!("{off}: no {name} in {text}"));
            let list = text[at + line.len()..].lines().next().unwrap();
            let theirs: Vec<f64> = serde_json::from_str(list).unwrap();
            for (step, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                let tolerance = TOLERANCE[usize::from(step >= 2)];
                assert!(
                    (a - b).abs() <= tolerance * b,
                    "{name} without {off}: {ours:?} instead of {theirs:?}"
                );
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
}
