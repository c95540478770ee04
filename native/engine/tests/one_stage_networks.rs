//! The one-stage detectors, executed: against numbers that PaddleX's own networks computed, folded and unfolded.

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::{Graph, HostTensor, ParamKind, WeightMap, parameter_count};
use oarlock_zoo::{Origin, PaddleWeight, detector_of};
use serde_json::Value;
use tch::{Kind, Tensor};

/// The hash of `data/record_one_stage_networks.py`: `n` numbers in [-0.5, 0.5).
fn unit(name: &str, n: usize) -> Vec<f64> {
    let s: u64 = (1..).zip(name.bytes()).map(|(k, b)| k * u64::from(b)).sum();
    (0..n as u64)
        .map(|i| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(s * 40503) & 0xffff_ffff;
            x ^= x >> 16;
            x = x.wrapping_mul(0x45d_9f3b) & 0xffff_ffff;
            x ^= x >> 16;
            x as f64 / 4_294_967_296.0 - 0.5
        })
        .collect()
}

/// The weights that PaddleX's network was given, found by their names there.
fn recorded_weights(graph: &Graph, names: &[PaddleWeight], gain: f64) -> WeightMap {
    let mut weights = WeightMap::new();
    for (name, param) in graph.params() {
        let theirs = names.iter().find(|w| w.name == name).unwrap();
        let n = param.shape.iter().product();
        let (scale, shift) = match param.kind {
            ParamKind::Weight => ((24.0 / (n / param.shape[0]) as f64).sqrt(), 0.0),
            ParamKind::RunningVar => (0.4, 1.0),
            ParamKind::NormScale => (0.4 * gain, gain),
            _ => (0.2, 0.0),
        };
        let values = unit(&theirs.paddle_name, n).into_iter();
        let data = values.map(|u| (shift + scale * u) as f32).collect();
        let shape = param.shape;
        weights.insert(name, HostTensor { shape, data });
    }
    weights
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(t.to_kind(Kind::Double).contiguous().flatten(0, -1)).unwrap()
}

#[test]
fn outputs_and_sizes_equal_paddlexs() {
    let recorded = include_str!("data/one_stage_networks.jsonl");
    for line in recorded.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let model = record["model"].as_str().unwrap();
        let (name, backbone) = model.split_once(' ').unwrap();
        let (graph, names) = detector_of(name, Some(backbone), true, 3, Origin::Paddle).unwrap();
        let parameters = record["parameters"].as_u64().unwrap();
        assert_eq!(parameter_count(&graph), parameters, "{model}");
        let weights = recorded_weights(&graph, &names, record["gain"].as_f64().unwrap());
        let [h, w] = [0, 1].map(|i| record["size"][i].as_i64().unwrap());
        let pixels: Vec<f32> = unit("input", (2 * 3 * h * w) as usize)
            .into_iter()
            .map(|u| (u * 4.0) as f32)
            .collect();
        let input = Tensor::from_slice(&pixels).reshape([2, 3, h, w]);
        let plain = Network::new(graph.clone(), &weights, Placement::CPU_FP32).unwrap();
        let folded = Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap();
        for network in [plain, folded] {
            let outputs = network.forward_all(&input, false).unwrap();
            let theirs = record["outputs"].as_object().unwrap();
            assert_eq!(outputs.len(), theirs.len(), "{model}");
            let mut worst = 0f64;
            for (output, ours) in graph.outputs.iter().zip(&outputs) {
                let all = values(ours);
                let theirs = theirs[&output.name].as_array().unwrap();
                let step = (all.len() / 32) | 1;
                let largest = all.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
                for (i, value) in theirs.iter().enumerate() {
                    let (ours, theirs) = (all[i * step], value.as_f64().unwrap());
                    let error = (ours - theirs).abs() / largest;
                    worst = worst.max(error);
                    assert!(
                        error <= 2e-5,
                        "{model} {}: {ours} instead of {theirs}, of {largest}",
                        output.name
                    );
                }
            }
            eprintln!("{model}: {worst:.1e} of the largest value");
        }
    }
}
