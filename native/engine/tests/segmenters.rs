//! The segmentation networks, executed: against numbers that PaddleX's own networks computed, folded against
//! unfolded, in bf16, and what a training step reads and writes.

#[path = "common/recorded.rs"]
mod recorded;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::{
    Graph, Keep, Op, ParamKind, WeightMap, channel_groups, init_weights, mask, parameter_count,
    prune,
};
use oarlock_zoo::{Origin, segmenter, segmenter_backbones, segmenter_names, segmenter_of};
use recorded::{images, in_paddle, recorded_weights, unit, values};
use serde_json::Value;
use tch::{Device, Kind, Reduction, Tensor};

#[test]
fn outputs_and_sizes_equal_paddlexs() {
    for line in include_str!("data/paddleseg.jsonl").lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let model = record["model"].as_str().unwrap();
        let (name, backbone) = match model.split_once(' ') {
            Some((name, backbone)) => (name, Some(backbone)),
            None => (model, None),
        };
        let (graph, names) = segmenter_of(name, backbone, 5, 3, Origin::Paddle).unwrap();
        assert_eq!(
            parameter_count(&graph),
            record["parameters"].as_u64().unwrap(),
            "{model}"
        );
        let weights = recorded_weights(
            &graph,
            |name| in_paddle(&names, name),
            record["gain"].as_f64().unwrap(),
        );
        let size = [0, 1].map(|i| record["size"][i].as_i64().unwrap());
        let input = images(3, size);
        let network = Network::new(graph.clone(), &weights, Placement::CPU_FP32).unwrap();
        let mut outputs = network.forward_all(&input, false).unwrap();
        let theirs = record["outputs"].as_array().unwrap();
        assert_eq!(outputs.len(), theirs.len(), "{model}");
        // The inference network has the first output only.
        let folded = Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap();
        let mut logits = folded.forward_all(&input, false).unwrap();
        assert_eq!(logits.len(), 1);
        outputs.append(&mut logits);
        let theirs = theirs.iter().chain(&theirs[..1]);
        // Rounding reaches 2e-5 here with libtorch's operators already, and 2.5e-5 with the own ones.
        let tolerance = if model.contains("MobileNetV3") {
            4e-5
        } else {
            2e-5
        };
        for (output, theirs) in outputs.iter().zip(theirs) {
            let all = values(output);
            let step = (all.len() / 64) | 1;
            let largest = all.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
            for (i, value) in theirs.as_array().unwrap().iter().enumerate() {
                let (ours, theirs) = (all[i * step], value.as_f64().unwrap());
                assert!(
                    (ours - theirs).abs() <= tolerance * largest,
                    "{model} {size:?}: {ours} instead of {theirs}, of {largest}"
                );
            }
        }
    }
}

/// Every segmenter with every kind of backbone, largest ones aside; remote sensing for one.
fn networks() -> Vec<(String, Graph, i64)> {
    let mut all = Vec::new();
    for &name in segmenter_names() {
        let backbones = match segmenter_backbones(name) {
            [] => vec![None],
            list => list.iter().map(|&b| Some(b)).collect(),
        };
        for backbone in backbones {
            let channels = if name == "UNet" { 6 } else { 3 };
            let graph = segmenter(name, backbone, 5, channels as usize).unwrap();
            let twin =
                backbone.is_some_and(|b| b.starts_with("MobileNetV2") && !b.ends_with("0.5"));
            if parameter_count(&graph) < 30_000_000 && !twin {
                all.push((graph.name.clone(), graph, channels));
            }
        }
    }
    all
}

/// Random weights, batch norms with the statistics of these images, slightly disturbed: activations stay in
/// the range of trained networks.
fn live_weights(graph: &Graph, images: &Tensor) -> WeightMap {
    let mut measuring = graph.clone();
    for node in &mut measuring.nodes {
        if let Op::BatchNorm { momentum, .. } = &mut node.op {
            *momentum = 1.0;
        }
    }
    let initial = init_weights(graph, 5);
    let network = Network::new(measuring, &initial, Placement::CPU_FP32).unwrap();
    drop(tch::no_grad(|| network.forward_all(images, true)).unwrap());
    let mut weights = network.to_weights().unwrap();
    for (name, param) in graph.params().filter(|(_, p)| p.shape.len() == 1) {
        let tensor = &mut weights[&name];
        let noise = unit(&name, tensor.data.len());
        for (v, u) in tensor.data.iter_mut().zip(noise) {
            *v = v.max(if param.kind == ParamKind::RunningVar {
                1e-2
            } else {
                f32::MIN
            });
            *v = *v * (1.0 + 0.1 * u as f32)
                + if param.kind == ParamKind::NormShift {
                    0.2 * u as f32
                } else {
                    0.0
                };
        }
    }
    weights
}

fn difference(a: &Tensor, b: &Tensor) -> (f64, f64) {
    let largest = b.abs().max().double_value(&[]);
    ((a - b).abs().max().double_value(&[]), largest)
}

#[test]
fn folding_and_pruning_change_nothing_but_what_they_should() {
    for (name, graph, channels) in networks() {
        let input = images(channels, [64, 96]);
        let weights = live_weights(&graph, &input);
        let run = |graph: &Graph, weights: &WeightMap| {
            let network = Network::new(graph.clone(), weights, Placement::CPU_FP32).unwrap();
            network.forward_all(&input, false).unwrap()
        };
        let whole = run(&graph, &weights);
        // fp32 rounding through a hundred layers whose statistics come from two images.
        let folded = Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap();
        let (error, largest) = difference(&folded.forward(&input, false).unwrap(), &whole[0]);
        assert!(
            error <= 3e-4 * largest,
            "{name} folded: {error} of {largest}"
        );

        // A third of each group goes; from the masked network, what is dead is only not computed.
        let groups = channel_groups(&graph).unwrap();
        let keep: Keep = groups
            .groups
            .iter()
            .map(|g| {
                (
                    g.name.clone(),
                    (0..g.size()).filter(|i| i % 3 != 1).collect(),
                )
            })
            .collect();
        let (pruned, sliced) = prune(&graph, &weights, &groups, &keep).unwrap();
        let masked = mask(&graph, &weights, &groups, &keep).unwrap();
        let (pruned, masked) = (run(&pruned, &sliced), run(&graph, &masked));
        assert_eq!(pruned.len(), whole.len());
        for (i, (pruned, masked)) in pruned.iter().zip(&masked).enumerate() {
            let (error, largest) = difference(pruned, masked);
            assert!(
                error <= 3e-4 * largest,
                "{name} pruned, output {i}: {error} of {largest}"
            );
            let (error, _) = difference(masked, &whole[i]);
            assert!(error > 1e-2 * largest, "{name}: nothing was pruned");
        }
    }
}

/// A training step reaches every parameter, auxiliary heads included, and bf16 follows fp32.
#[test]
fn training_reaches_every_parameter() {
    for (name, graph, channels) in networks() {
        let input = images(channels, [64, 96]);
        let labels = Tensor::arange(2 * 64 * 96, (Kind::Int64, Device::Cpu))
            .divide_scalar_mode(100, "floor");
        let labels = labels.remainder(5).reshape([2, 64, 96]);
        let weights = live_weights(&graph, &input);
        let mut losses = Vec::new();
        for compute in [Kind::Float, Kind::BFloat16] {
            let placement = Placement {
                device: Device::Cpu,
                compute,
            };
            let network = Network::new(graph.clone(), &weights, placement).unwrap();
            let outputs = network.forward_all(&input, true).unwrap();
            let loss_weights = graph.loss_weights();
            assert_eq!(outputs.len(), loss_weights.len());
            let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
            for (output, weight) in outputs.iter().zip(loss_weights) {
                assert_eq!(output.size(), [2, 5, 64, 96], "{name}");
                loss += output
                    .to_kind(Kind::Float)
                    .f_cross_entropy_loss::<&Tensor>(&labels, None, Reduction::Mean, 255, 0.0)
                    .unwrap()
                    * f64::from(weight);
            }
            let wanted: Vec<_> = network
                .parameters()
                .iter()
                .filter(|p| p.trainable())
                .collect();
            let inputs: Vec<_> = wanted.iter().map(|p| &p.compute).collect();
            let grads = Tensor::f_run_backward(&[&loss], &inputs, false, false).unwrap();
            for (p, grad) in wanted.iter().zip(&grads) {
                assert!(grad.defined(), "{name}: no gradient for {}", p.name);
                let norm = grad.to_kind(Kind::Double).norm().double_value(&[]);
                assert!(norm.is_finite(), "{name}: {} of {}", norm, p.name);
                if p.kind == ParamKind::Weight && compute == Kind::Float {
                    assert!(norm > 0.0, "{name}: no gradient for {}", p.name);
                }
            }
            losses.push(loss.double_value(&[]));
        }
        assert!(
            (losses[0] - losses[1]).abs() < 0.05 * losses[0],
            "{name}: {losses:?}"
        );
    }
}
