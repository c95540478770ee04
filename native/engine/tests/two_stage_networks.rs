//! The two-stage detectors, executed stage by stage: against numbers that torchvision's and PaddleX's own networks
//! computed, as trained and folded.

#[path = "common/recorded.rs"]
mod recorded;

use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::{Head, parameter_count};
use oarlock_zoo::{Origin, detector_of};
use recorded::{images, in_paddle, recorded_weights, values};
use serde_json::Value;
use tch::Tensor;

fn rows(record: &Value) -> Tensor {
    let values = record.as_array().unwrap().iter().flat_map(|row| {
        let row = row.as_array().unwrap().iter();
        row.map(|v| v.as_f64().unwrap() as f32)
    });
    Tensor::from_slice(&values.collect::<Vec<_>>()).reshape([-1, 5])
}

fn compare(name: &str, output: &Tensor, theirs: &Value) {
    let all = values(output);
    let theirs = theirs.as_array().unwrap();
    let step = (all.len() / 24) | 1;
    assert_eq!(
        all.iter().step_by(step).take(24).count(),
        theirs.len(),
        "{name}"
    );
    let largest = all.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    for (ours, theirs) in all.iter().step_by(step).zip(theirs) {
        let theirs = theirs.as_f64().unwrap();
        assert!(
            (ours - theirs).abs() <= 2e-5 * largest,
            "{name}: {ours} instead of {theirs}, of {largest}"
        );
    }
}

fn check(record: &Value) {
    let model = record["model"].as_str().unwrap();
    let (name, backbone) = model.split_once(' ').unwrap();
    let origin = match record["origin"].as_str().unwrap() {
        "torch" => Origin::Torch,
        _ => Origin::Paddle,
    };
    let fpn = record["fpn"].as_bool().unwrap();
    let (graph, names) = detector_of(name, Some(backbone), fpn, 3, origin).unwrap();
    let parameters = record["parameters"].as_u64().unwrap();
    assert_eq!(parameter_count(&graph), parameters, "{model}");
    let Some(Head::TwoStage(head)) = &graph.head else {
        panic!("{model} has no head");
    };
    let theirs = |name: &str| match origin {
        Origin::Torch => name.to_owned(),
        Origin::Paddle => in_paddle(&names, name),
    };
    let weights = recorded_weights(&graph, theirs, record["gain"].as_f64().unwrap());
    let input = images(3, [0, 1].map(|i| record["size"][i].as_i64().unwrap()));
    for network in [
        Network::new(graph.clone(), &weights, Placement::CPU_FP32).unwrap(),
        Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap(),
    ] {
        let check = |output: &Tensor, key: &str| {
            let name = format!("{model} {origin:?} {key}");
            compare(&name, output, &record["outputs"][key]);
        };
        let mut pass = network.begin(&input, false).unwrap();
        for level in 0..head.levels.len() {
            for key in [format!("rpn_score{level}"), format!("rpn_delta{level}")] {
                check(&pass.output(&key).unwrap(), &key);
            }
        }
        pass.give("rois", &rows(&record["rois"])).unwrap();
        check(&pass.output("box_score").unwrap(), "box_score");
        check(&pass.output("box_delta").unwrap(), "box_delta");
        if head.mask_size.is_some() {
            pass.give("mask_rois", &rows(&record["mask_rois"])).unwrap();
            check(&pass.output("mask").unwrap(), "mask");
        }
    }
}

#[test]
fn outputs_and_sizes_equal_torchvisions_and_paddlexs() {
    let path = std::env::var("OARLOCK_TWO_STAGE_RECORDS");
    let text = match path {
        // All backbones, as `record_two_stage_networks.py paddlex all` writes them.
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => include_str!("data/two_stage_networks.jsonl").to_owned(),
    };
    for line in text.lines() {
        check(&serde_json::from_str(line).unwrap());
    }
}
