//! Detectors: `--model NAME/BACKBONE`, two-stage ones with `--fpn no` without a feature pyramid.
//!
//! `DIR/<model>/` gets `model.onnx`, which ends with final boxes, `input.f32`, one image, and `found.json`: `size`
//! as the file's second input takes it, and what the engine finds, masks as the run lengths of COCO.

use std::fs;
use std::path::Path;

use oarlock_engine::Result;
use oarlock_engine::detect::{Frame, detect};
use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{Graph, fold_batch_norm};
use oarlock_jobs::{ErrorCode, JobError};
use serde_json::json;
use tch::Tensor;

/// How much more the last convolutions say than freshly initialised ones: scores differ, but none is nearly 1.
const LOUDER: f32 = 0.15;
/// Width and height of a stored picture that would have become the input.
const STORED: (usize, usize) = (333, 207);

pub fn run(
    model: &str,
    graph: &Graph,
    seed: u64,
    input: &Tensor,
    dir: &Path,
    placement: Placement,
) -> Result<()> {
    let internal = |e: oarlock_graph::GraphError| JobError::new(ErrorCode::Internal, e.to_string());
    let mut weights = super::live_weights(graph, seed, input, placement)?;
    for output in &graph.outputs {
        let name = &graph.nodes[super::layer_of(graph, output.node)].name;
        if let Some(weight) = weights.get_mut(&format!("{name}.weight")) {
            weight.data.iter_mut().for_each(|v| *v *= LOUDER);
        }
    }
    let image = input.f_narrow(0, 0, 1)?;
    let [height, width] = [2, 3].map(|axis| image.size()[axis] as usize);
    let frame = Frame {
        full: STORED,
        shown: (width, height),
    };
    let network = Network::for_inference(graph, &weights, placement)?;
    let found = detect(&network, &image, &[frame])?;
    let (folded, folded_weights) = fold_batch_norm(graph, &weights).map_err(internal)?;
    let options = OnnxOptions {
        image_size: Some([height, width]),
        batch: Some(1),
        detections: true,
        ..OnnxOptions::default()
    };
    fs::create_dir_all(dir)?;
    let bytes = onnx::export(&folded, &folded_weights, &options).map_err(internal)?;
    fs::write(dir.join("model.onnx"), bytes)?;
    fs::write(dir.join("input.f32"), super::bytes(&image)?)?;
    let found: Vec<_> = found.iter().flatten().collect();
    let said = json!({
        "size": [STORED.1, STORED.0, height, width],
        "boxes": found.iter().map(|d| d.bbox).collect::<Vec<_>>(),
        "scores": found.iter().map(|d| d.score).collect::<Vec<_>>(),
        "masks": found.iter().map(|d| d.mask.as_ref().map(|m| m.counts())).collect::<Vec<_>>(),
        "labels": found.iter().map(|d| d.class).collect::<Vec<_>>(),
    });
    fs::write(dir.join("found.json"), said.to_string())?;
    println!(
        "{}",
        json!({ "model": model, "input": image.size(), "found": found.len() })
    );
    Ok(())
}
