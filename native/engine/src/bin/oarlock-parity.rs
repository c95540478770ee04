//! Writes a network as ONNX beside the engine's own results, for a comparison by another runtime.
//!
//! `oarlock-parity --model NAME[,NAME…]|all --image FILE[,FILE…] --out DIR [--classes N] [--size S] [--seed N]
//! [--origin torch|paddle] [--fpn no]`
//!
//! `operations/deform` and `operations/regions` are small networks of what detectors need; see `parity/operations.rs`.
//!
//! A segmenter is called `NAME` or `NAME/BACKBONE`; its images have two thirds of the height, so that nothing
//! mistakes height for width. So is a detector, see `parity/detectors.rs`.
//!
//! Weights are random but live: batch norm statistics are those of the images, slightly disturbed, so
//! that activations stay in the range that trained networks have and folding has something to fold.
//! Batch norms that end one of L residual branches are scaled by 1/√L, which keeps the variance along the
//! network as training does: with full random branches two hundred layers multiply every rounding error a
//! thousandfold.
//! For each model `DIR/<model>/` gets `model.onnx` (batch norm folded, output `logits`), `input.f32`
//! (images × 3 × height × width, normalised, little-endian) and `logits.f32`; one JSON line a model tells shapes
//! and `fold_difference`, the greatest difference of the network with and without folding.

// This program's results are for other programs that read its standard output; it is no part of a compute host.
#![allow(clippy::print_stdout)]

#[path = "parity/detectors.rs"]
mod detectors;
#[path = "parity/operations.rs"]
mod operations;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use oarlock_datasets::ClassifyPipeline;
use oarlock_engine::Result;
use oarlock_engine::exec::{Network, normalized_input};
use oarlock_engine::runtime::{self, Placement};
use oarlock_graph::onnx::OnnxOptions;
use oarlock_graph::{Graph, Node, Op, ParamKind, WeightMap, fold_batch_norm, init_weights, onnx};
use oarlock_imaging::Rng;
use oarlock_jobs::{DeviceSpec, ErrorCode, JobError, Precision};
use oarlock_zoo::Origin;
use serde_json::json;
use tch::{Kind, Tensor};

/// ImageNet's mean and deviation of R, G, B.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", json!({ "error": JobError::from(error) }));
            ExitCode::FAILURE
        }
    }
}

fn argument(message: impl Into<String>) -> JobError {
    JobError::new(ErrorCode::InvalidArgument, message)
}

fn run(args: Vec<String>) -> Result<()> {
    let mut options = HashMap::new();
    for pair in args.chunks(2) {
        match pair {
            [key, value] if key.starts_with("--") => {
                options.insert(key[2..].to_owned(), value.as_str())
            }
            _ => return Err(argument(format!("expected `--option value`, got {pair:?}")).into()),
        };
    }
    let need = |key: &str| {
        options
            .get(key)
            .copied()
            .ok_or_else(|| argument(format!("--{key} is missing")))
    };
    let number = |key: &str| {
        options
            .get(key)
            .map(|v| {
                v.parse::<u64>()
                    .map_err(|_| argument(format!("--{key} must be a whole number")))
            })
            .transpose()
    };
    let models: Vec<&str> = match need("model")? {
        "all" => oarlock_zoo::classifier_names().to_vec(),
        list => list.split(',').collect(),
    };
    let fpn = options.get("fpn").copied() != Some("no");
    let images: Vec<&str> = need("image")?.split(',').collect();
    let out = Path::new(need("out")?);
    let classes = number("classes")?.unwrap_or(10) as usize;
    let size = number("size")?;
    let seed = number("seed")?.unwrap_or(1);
    let origin = match options.get("origin").copied() {
        None | Some("torch") => Origin::Torch,
        Some("paddle") => Origin::Paddle,
        Some(other) => return Err(argument(format!("no origin `{other}`")).into()),
    };
    let device = DeviceSpec {
        cuda: Vec::new(),
        threads: 0,
        precision: Precision::Fp32,
    };
    let placement = runtime::place(&device)?;
    for model in models {
        if let Some(case) = model.strip_prefix("operations/") {
            operations::run(case, seed, &out.join(model.replace('/', "_")), placement)?;
            continue;
        }
        let (name, backbone) = match model.split_once('/') {
            Some((name, backbone)) => (name, Some(backbone)),
            None => (model, None),
        };
        let usual = oarlock_zoo::input_size(name).map_or(224, |s| s.usual as u64);
        let side = size.unwrap_or(usual) as usize;
        let mut input = read(&images, side, placement)?;
        if oarlock_zoo::canonical_detector(name).is_some() {
            // A multiple of every stride.
            let input = read(&images, side / 64 * 64, placement)?;
            let input = input.f_narrow(2, 0, (2 * side / 3 / 64 * 64) as i64)?;
            let built = oarlock_zoo::detector_of(name, backbone, fpn, classes, origin);
            let (graph, _) = built.map_err(|e| argument(e.to_string()))?;
            let dir = out.join(model.replace('/', "_"));
            detectors::run(model, &graph, seed, &input, &dir, placement)?;
            continue;
        }
        let built = if oarlock_zoo::canonical_segmenter(name).is_some() {
            input = input.f_narrow(2, 0, (2 * side / 3) as i64)?;
            oarlock_zoo::segmenter_of(name, backbone, classes, 3, origin)
        } else {
            oarlock_zoo::classifier_of(name, classes, origin)
        };
        let (graph, _) = built.map_err(|e| argument(e.to_string()))?;
        let dir = out.join(model.replace('/', "_"));
        parity(model, &graph, seed, &input, &dir, placement)?;
    }
    Ok(())
}

/// The images as network input.
fn read(images: &[&str], side: usize, placement: Placement) -> Result<Tensor> {
    let pipeline = ClassifyPipeline::eval_of(side, side);
    let mut pixels = vec![0; images.len() * side * side * 3];
    for (path, out) in images.iter().zip(pixels.chunks_exact_mut(side * side * 3)) {
        pipeline
            .run_file(Path::new(path), &mut Rng::of(&[]), out)
            .map_err(|e| argument(format!("{path}: {e}")))?;
    }
    normalized_input(&pixels, [images.len(), side, side], MEAN, STD, placement)
}

fn parity(
    model: &str,
    graph: &Graph,
    seed: u64,
    input: &Tensor,
    dir: &Path,
    placement: Placement,
) -> Result<()> {
    let weights = live_weights(graph, seed, input, placement)?;
    let plain = Network::new(graph.clone(), &weights, placement)?.forward(input, false)?;
    let logits = Network::for_inference(graph, &weights, placement)?.forward(input, false)?;
    let difference = (&plain - &logits).abs().max().double_value(&[]);
    let internal = |e: oarlock_graph::GraphError| JobError::new(ErrorCode::Internal, e.to_string());
    let (folded, folded_weights) = fold_batch_norm(graph, &weights).map_err(internal)?;
    fs::create_dir_all(dir)?;
    let onnx = onnx::export(&folded, &folded_weights, &OnnxOptions::default()).or_else(|_| {
        // Networks that take one size only.
        let image_size = [2, 3].map(|axis| input.size()[axis] as usize);
        let options = OnnxOptions {
            image_size: Some(image_size),
            ..OnnxOptions::default()
        };
        onnx::export(&folded, &folded_weights, &options).map_err(internal)
    })?;
    fs::write(dir.join("model.onnx"), onnx)?;
    fs::write(dir.join("input.f32"), bytes(input)?)?;
    fs::write(dir.join("logits.f32"), bytes(&logits)?)?;
    let line = json!({
        "model": model,
        "input": input.size(),
        "logits": logits.size(),
        "fold_difference": difference,
        "largest": logits.abs().max().double_value(&[]),
    });
    println!("{line}");
    Ok(())
}

/// The layer that makes a value: what stands before slices and activations.
fn layer_of(graph: &Graph, mut id: usize) -> usize {
    while let Op::Slice { .. } | Op::Activation(_) = graph.nodes[id].op {
        id = graph.nodes[id].inputs[0];
    }
    id
}

/// A training pass without an end, over regions of every size where the network wants some.
fn run_through(network: &Network, batch: &Tensor) -> Result<()> {
    let size = batch.size();
    let (height, width) = (size[2] as f32, size[3] as f32);
    let mut rows = Vec::new();
    for image in 0..size[0] {
        for side in [0.1, 0.25, 0.5, 1.0] {
            let (x, y) = (width * (1.0 - side) / 2.0, height * (1.0 - side) / 2.0);
            rows.extend([image as f32, x, y, x + side * width, y + side * height]);
        }
    }
    let regions = Tensor::f_from_slice(&rows)?.f_reshape([-1, 5])?;
    let mut pass = network.begin(batch, true)?;
    while let Some(node) = pass.waits_for().map(str::to_owned) {
        pass.give(&node, &regions)?;
    }
    Ok(())
}

/// Row-major little-endian floats.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor
        .f_contiguous()?
        .f_to_kind(Kind::Float)?
        .f_reshape([-1])?;
    let values = Vec::<f32>::try_from(&flat)?;
    Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// Batch norms of maps that were pooled to a few pixels: those of one batch hardly vary, and every disturbance
/// before would be many times their deviation.
fn pooled_norms(graph: &Graph) -> HashSet<&str> {
    let mut pooled: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    let mut norms = HashSet::new();
    for node in &graph.nodes {
        let before = node.inputs.first().is_some_and(|&id| pooled[id]);
        pooled.push(match node.op {
            Op::GlobalAvgPool | Op::AdaptiveAvgPool { .. } => true,
            Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Activation(_) => before,
            _ => false,
        });
        if before && matches!(node.op, Op::BatchNorm { .. }) {
            norms.insert(node.name.as_str());
        }
    }
    norms
}

/// Random weights whose batch norm statistics belong to the images, then disturbed a little.
fn live_weights(
    graph: &Graph,
    seed: u64,
    input: &Tensor,
    placement: Placement,
) -> Result<WeightMap> {
    let mut initial = init_weights(graph, seed);
    // A detector that begins with seeing nothing anywhere would give nothing to compare.
    for (name, tensor) in &mut initial {
        if name.ends_with(".bias") {
            tensor.data.iter_mut().for_each(|v| *v = v.max(0.0));
        }
    }
    let adds: Vec<&Node> = graph
        .nodes
        .iter()
        .filter(|node| node.op == Op::Add)
        .collect();
    let branch_scale = 1.0 / (adds.len().max(1) as f32).sqrt();
    for add in adds {
        for &branch in &add.inputs {
            let Node { name, op, .. } = &graph.nodes[branch];
            let scale = initial.get_mut(&format!("{name}.weight"));
            if let (Op::BatchNorm { .. }, Some(scale)) = (op, scale) {
                scale.data.fill(branch_scale);
            }
        }
    }
    // With momentum 1 one training pass leaves the statistics of its batch.
    let mut measuring = graph.clone();
    for node in &mut measuring.nodes {
        if let Op::BatchNorm { momentum, .. } = &mut node.op {
            *momentum = 1.0;
        }
    }
    let batch = Tensor::f_cat(
        &[
            input.shallow_clone(),
            input.f_flip([3])?,
            input * 0.7,
            input * -0.5,
        ],
        0,
    )?;
    let network = Network::new(measuring, &initial, placement)?;
    tch::no_grad(|| run_through(&network, &batch))?;
    let mut weights = network.to_weights()?;
    let mut rng = Rng::of(&[seed]);
    let pooled = pooled_norms(graph);
    for (name, param) in graph.params() {
        // Means move by their deviation: where it is small, more would be amplified beyond all measure.
        let norm = name.rsplit_once('.').map_or("", |(norm, _)| norm);
        let least = if pooled.contains(norm) { 1.0 } else { 1e-3 };
        let variance = weights.get(&format!("{norm}.running_var"));
        let deviations = variance.map(|v| v.data.iter().map(|v| v.max(least).sqrt()).collect());
        let deviations: Vec<f32> = deviations.unwrap_or_default();
        let Some(tensor) = weights.get_mut(&name) else {
            continue;
        };
        for (i, v) in tensor.data.iter_mut().enumerate() {
            let u = rng.uniform(-1.0, 1.0) as f32;
            match param.kind {
                ParamKind::NormScale => *v *= 1.0 + 0.2 * u,
                ParamKind::RunningVar => *v = v.max(least) * (1.0 + 0.2 * u),
                ParamKind::RunningMean => *v += 0.1 * u * deviations.get(i).unwrap_or(&1.0),
                ParamKind::NormShift | ParamKind::Bias => *v += 0.1 * u,
                ParamKind::Weight => {}
            }
        }
    }
    Ok(weights)
}
