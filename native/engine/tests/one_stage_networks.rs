//! The one-stage detectors, executed: against numbers that PaddleX's own networks computed, folded and unfolded.

#[path = "common/recorded.rs"]
mod recorded;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::parameter_count;
use oarlock_zoo::{Origin, detector_of};
use recorded::{images, in_paddle, recorded_weights, values};
use serde_json::Value;

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
        let weights = recorded_weights(
            &graph,
            |name| in_paddle(&names, name),
            record["gain"].as_f64().unwrap(),
        );
        let [h, w] = [0, 1].map(|i| record["size"][i].as_i64().unwrap());
        let input = images(3, [h, w]);
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
                        error <= 4e-5,
                        "{model} {}: {ours} instead of {theirs}, of {largest}",
                        output.name
                    );
                }
            }
            eprintln!("{model}: {worst:.1e} of the largest value");
        }
    }
}
