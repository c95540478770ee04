//! Networks in stages, shared parameters, frozen batch norms.

#[path = "common/recorded.rs"]
mod recorded;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::learner::{Learned, Learner};
use oarlock_engine::train::optimizer::{Optimizer, Rule};
use oarlock_graph::{Act, Conv, Graph, GraphBuilder, Op, ParamKind, init_weights};
use recorded::images;
use tch::{Device, Kind, Tensor};

const BF16: Placement = Placement {
    device: Device::Cpu,
    compute: Kind::BFloat16,
};

/// A two-stage network in small: maps of two levels that share a head, boxes, then masks.
fn two_stage() -> Graph {
    let mut g = GraphBuilder::new("two-stage");
    let x = g.input(3);
    let c1 = g.conv("c1", x, Conv::new(8, 3).stride(4));
    let n1 = g.batch_norm("n1", c1);
    let fine = g.act(n1, Act::Relu);
    let c2 = g.conv("c2", fine, Conv::new(8, 3).stride(2));
    let coarse = g.batch_norm("n2", c2);
    let score = g.conv("score", fine, Conv::new(2, 1).bias());
    let shared = g.shared("score2", score, &[coarse]);
    g.output("rpn_score0", score);
    g.output("rpn_score1", shared);
    let align = |size| Op::RoiAlign {
        size: [size, size],
        sampling: 0,
        strides: vec![4, 8],
        aligned: true,
    };
    let rois = g.op("rois", Op::Rois, &[]);
    let pooled = g.op("pool", align(2), &[rois, fine, coarse]);
    let flat = g.plain(Op::Flatten, &[pooled]);
    let boxes = g.linear("box", flat, 5);
    g.output("box_score", boxes);
    let mask_rois = g.op("mask_rois", Op::Rois, &[]);
    let pooled = g.op("mask_pool", align(4), &[mask_rois, fine, coarse]);
    let c = g.conv("mask_conv", pooled, Conv::new(8, 3));
    let n = g.batch_norm("mask_norm", c);
    let up = Op::ConvTranspose2d {
        in_channels: 8,
        out_channels: 4,
        kernel: [2, 2],
        stride: [2, 2],
        padding: [0, 0],
        bias: true,
    };
    let up = g.op("mask_up", up, &[n]);
    let up = g.act(up, Act::Relu);
    g.output("mask", up);
    g.finish().unwrap()
}

fn network(placement: Placement) -> Network {
    let graph = two_stage();
    let weights = init_weights(&graph, 3);
    Network::new(graph, &weights, placement).unwrap()
}

/// The same at each call: libtorch's random numbers are shared with the tests beside.
fn image() -> Tensor {
    images(3, [32, 40])
}

fn rois(k: i64) -> Tensor {
    let all = [
        0f32, 3.0, 4.0, 20.0, 30.0, 1.0, 0.0, 0.0, 40.0, 32.0, 1.0, 8.0, 9.0, 15.5, 14.0,
    ];
    Tensor::from_slice(&all).reshape([3, 5]).narrow(0, 0, k)
}

#[test]
fn a_pass_runs_up_to_the_regions_it_waits_for() {
    for placement in [Placement::CPU_FP32, BF16] {
        let network = network(placement);
        let mut pass = network.begin(&image(), false).unwrap();
        assert_eq!(pass.output("rpn_score1").unwrap().size(), [2, 2, 4, 5]);
        assert_eq!(pass.output("rpn_score1").unwrap().kind(), Kind::Float);
        assert_eq!(pass.waits_for(), Some("rois"));
        for name in ["box_score", "nothing"] {
            let error = pass.output(name).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let error = pass.give("mask_rois", &rois(2)).unwrap_err().to_string();
        assert!(error.contains("`rois`"), "{error}");
        let error = pass.give("rois", &rois(2).narrow(1, 0, 4)).unwrap_err();
        assert!(error.to_string().contains("K×5"), "{error}");
        let error = pass.give("rois", &(rois(2) + 1.0)).unwrap_err().to_string();
        assert!(error.contains("image 2 of a batch of 2"), "{error}");

        pass.give("rois", &rois(3)).unwrap();
        assert_eq!(pass.output("box_score").unwrap().size(), [3, 5]);
        pass.give("mask_rois", &rois(2)).unwrap();
        assert_eq!(pass.output("mask").unwrap().size(), [2, 4, 8, 8]);
        assert_eq!(pass.waits_for(), None);
        let error = pass.give("rois", &rois(1)).unwrap_err().to_string();
        assert!(error.contains("no regions"), "{error}");
    }
}

#[test]
fn a_network_with_regions_does_not_run_in_one_go() {
    let network = network(Placement::CPU_FP32);
    let error = network
        .forward_all(&image(), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("run it in stages"), "{error}");
}

#[test]
fn stages_without_regions_give_no_rows_and_no_gradient() {
    for placement in [Placement::CPU_FP32, BF16] {
        for frozen in [false, true] {
            let mut network = network(placement);
            network.freeze_norms(frozen);
            let optimizer = Optimizer::new(Rule::Sgd, 1e-4, &mut network).unwrap();
            let mut learner = Learner { network, optimizer };
            let before = learner.network.to_weights().unwrap();
            let step = |network: &Network| {
                let mut pass = network.begin(&image(), true)?;
                pass.give("rois", &rois(0))?;
                pass.give("mask_rois", &rois(0))?;
                assert_eq!(pass.output("box_score")?.size(), [0, 5]);
                assert_eq!(pass.output("mask")?.size(), [0, 4, 8, 8]);
                let mut loss = pass.output("rpn_score0")?.square().mean(Kind::Float);
                for name in ["rpn_score1", "box_score", "mask"] {
                    loss += pass.output(name)?.square().sum(Kind::Float);
                }
                let output = pass.output("rpn_score0")?;
                let parts = Vec::new();
                Ok(Learned {
                    loss,
                    parts,
                    output,
                })
            };
            learner.step_with(&step, 0.01, 1).unwrap();
            let after = learner.network.to_weights().unwrap();
            assert_eq!(
                before["mask_norm.running_mean"],
                after["mask_norm.running_mean"]
            );
            assert_ne!(before["c1.weight"], after["c1.weight"]);
            assert!(after.values().flat_map(|t| &t.data).all(|v| v.is_finite()));
        }
    }
}

#[test]
fn shared_parameters_are_there_once_and_learn_from_every_use() {
    let network = network(Placement::CPU_FP32);
    let names: Vec<&str> = network
        .parameters()
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("score")).count(), 2);
    assert!(!network.to_weights().unwrap().contains_key("score2.weight"));

    let parameter = |name: &str| {
        network
            .parameters()
            .iter()
            .find(|p| p.name == name)
            .unwrap()
    };
    let grad = |outputs: &[&str]| {
        let pass = network.begin(&image(), true).unwrap();
        let sums = outputs
            .iter()
            .map(|o| pass.output(o).unwrap().sum(Kind::Float));
        let loss: Tensor = sums.reduce(|a, b| a + b).unwrap();
        Tensor::run_backward(&[loss], &[&parameter("score.weight").compute], false, false).remove(0)
    };
    let (one, other) = (grad(&["rpn_score0"]), grad(&["rpn_score1"]));
    let both = grad(&["rpn_score0", "rpn_score1"]);
    assert!(other.abs().max().double_value(&[]) > 0.0);
    let difference = (both - (one + other)).abs().max().double_value(&[]);
    assert!(difference < 1e-3, "{difference}");

    // A variant with another head has it in both places.
    let mut other = network.to_weights().unwrap();
    other.retain(|name, _| name.starts_with("score."));
    other
        .values_mut()
        .for_each(|t| t.data.iter_mut().for_each(|v| *v *= 2.0));
    let variant = network.variant(network.graph().clone(), &other).unwrap();
    let [before, after] = [&network, &variant].map(|n| {
        let pass = n.begin(&image(), false).unwrap();
        ["rpn_score0", "rpn_score1"].map(|o| pass.output(o).unwrap())
    });
    for (before, after) in before.iter().zip(&after) {
        assert!((before * 2.0 - after).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn frozen_norms_use_and_keep_what_they_have() {
    let mut g = GraphBuilder::new("norms");
    let x = g.input(3);
    let c = g.conv("c", x, Conv::new(8, 3));
    let n = g.batch_norm("n", c);
    let a = g.act(n, Act::Relu);
    let d = g.conv("d", a, Conv::new(8, 3));
    let m = g.batch_norm("m", d);
    let sum = g.add(m, a);
    let out = g.act(sum, Act::Relu);
    g.output("y", out);
    let graph = g.finish().unwrap();
    let mut weights = init_weights(&graph, 2);
    for (name, tensor) in &mut weights {
        let shift = if name.ends_with("running_mean") {
            0.3
        } else {
            0.0
        };
        tensor.data.iter_mut().for_each(|v| *v += shift);
    }
    for placement in [Placement::CPU_FP32, BF16] {
        let mut network = Network::new(graph.clone(), &weights, placement).unwrap();
        network.freeze_norms(true);
        let plain = network.forward(&image(), false).unwrap();
        let trained = network.forward(&image(), true).unwrap();
        assert_eq!((plain - trained).abs().max().double_value(&[]), 0.0);
        let optimizer = Optimizer::new(Rule::Adam, 1e-2, &mut network).unwrap();
        assert_eq!(optimizer.wanted(&network).len(), 2);
        let mut learner = Learner { network, optimizer };
        let loss = |_: &Network, o: &[Tensor]| Ok(o[0].square().mean(Kind::Float));
        learner.step(&image(), &loss, 0.1, 1).unwrap();
        let after = learner.network.to_weights().unwrap();
        for (name, param) in graph.params() {
            let learned = param.kind == ParamKind::Weight;
            assert_eq!(weights[&name] != after[&name], learned, "{name}");
        }
        learner.network.freeze_norms(false);
        learner.step(&image(), &loss, 0.1, 2).unwrap();
        let after = learner.network.to_weights().unwrap();
        for (name, _) in graph.params() {
            assert_ne!(weights[&name], after[&name], "{name}");
        }
    }
}

#[test]
fn frozen_layers_keep_what_they_have() {
    let mut g = GraphBuilder::new("layers");
    let x = g.input(3);
    let c = g.conv("first.c", x, Conv::new(8, 3).bias());
    let n = g.batch_norm("first.n", c);
    let a = g.act(n, Act::Relu);
    let d = g.conv("second.c", a, Conv::new(8, 3));
    let m = g.batch_norm("second.n", d);
    g.output("y", m);
    let graph = g.finish().unwrap();
    let weights = init_weights(&graph, 2);
    for placement in [Placement::CPU_FP32, BF16] {
        let mut network = Network::new(graph.clone(), &weights, placement).unwrap();
        let optimizer = Optimizer::new(Rule::Adam, 1e-2, &mut network).unwrap();
        network.freeze_norms(true);
        network.freeze_layers(&["first."]);
        assert_eq!(optimizer.wanted(&network).len(), 1);
        let mut learner = Learner { network, optimizer };
        let loss = |_: &Network, o: &[Tensor]| Ok(o[0].square().mean(Kind::Float));
        learner.step(&image(), &loss, 0.1, 1).unwrap();
        let after = learner.network.to_weights().unwrap();
        for (name, _) in graph.params() {
            let learned = name == "second.c.weight";
            assert_eq!(weights[&name] != after[&name], learned, "{name}");
        }
    }
}
