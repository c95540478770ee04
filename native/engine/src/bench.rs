//! Timings of the bare compute, without data loading.

use std::path::Path;
use std::time::Instant;

use oarlock_graph::onnx::OnnxOptions;
use oarlock_graph::{Graph, NodeCost};
use oarlock_jobs::{DeviceSpec, ErrorCode, LossKind, LossTerm, Precision};
use oarlock_zoo::{Origin, ZooError};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::detect::{Frame, detect};
use crate::exec::Network;
use crate::runtime::heartbeat::process_time;
use crate::runtime::{self, Placement, memory};
use crate::train::checkpoint;
use crate::train::learner::Learner;
use crate::train::losses::{self, PixelLoss};
use crate::train::objective::objective;
use crate::train::optimizer::{Optimizer, Rule};
use crate::{EngineError, Result, ffi};

mod detectors;
mod kernels;

pub use kernels::kernels;

/// What to time.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Name in the zoo; of a segmenter or detector, maybe with its backbone, `DeepLabV3P:ResNet50_vd`.
    pub model: String,
    /// Checkpoint folder whose network is taken instead.
    pub checkpoint: Option<String>,
    /// Images of a step.
    pub batch: u32,
    /// Height and width.
    pub size: u32,
    /// Timed steps.
    pub steps: u32,
    /// Steps before timing.
    pub warmup: u32,
    /// Threads; 0 = all cores.
    pub threads: u32,
    /// GPU ordinal; none = CPU.
    pub cuda: Option<u32>,
    /// Number format.
    pub precision: Precision,
}

const CLASSES: usize = 1000;
/// Of segmenters, as Cityscapes has.
const PIXEL_CLASSES: usize = 19;
/// Of detectors, as COCO has.
const BOX_CLASSES: usize = 80;
/// Of detectors' steps: without start weights larger ones would soon be no numbers.
const BOX_RATE: f64 = 1e-5;

/// Name and backbone.
fn named(model: &str) -> (&str, Option<&str>) {
    match model.split_once(':') {
        Some((name, backbone)) => (name, Some(backbone)),
        None => (model, None),
    }
}

fn is_segmenter(model: &str) -> bool {
    oarlock_zoo::canonical_segmenter(named(model).0).is_some()
}

fn network(model: &str) -> std::result::Result<Graph, ZooError> {
    let (name, backbone) = named(model);
    if is_segmenter(model) {
        return oarlock_zoo::segmenter(name, backbone, PIXEL_CLASSES, 3);
    }
    if oarlock_zoo::canonical_detector(name).is_some() {
        let built = oarlock_zoo::detector_of(name, backbone, true, BOX_CLASSES, Origin::Torch);
        return built.map(|(graph, _)| graph);
    }
    oarlock_zoo::classifier(model, CLASSES)
}

fn setup(options: &BenchOptions) -> Result<(Graph, oarlock_graph::WeightMap, Placement, Tensor)> {
    let spec = DeviceSpec {
        cuda: options.cuda.into_iter().collect(),
        threads: options.threads,
        precision: options.precision,
    };
    let placement = runtime::place(&spec)?;
    let (graph, weights) = match &options.checkpoint {
        Some(dir) => checkpoint::load_model(Path::new(dir))?,
        None => {
            let graph = network(&options.model)
                .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))?;
            let weights = oarlock_graph::init_weights(&graph, 1);
            (graph, weights)
        }
    };
    let (n, s) = (i64::from(options.batch), i64::from(options.size));
    tch::manual_seed(1);
    let images = Tensor::f_randn([n, 3, s, s], (Kind::Float, placement.device))?
        .f_to_kind(placement.compute)?;
    Ok((graph, weights, placement, ffi::to_channels_last(&images)?))
}

/// Runs `body` and says how long each timed run took.
fn time(
    options: &BenchOptions,
    placement: Placement,
    cost: NodeCost,
    mut body: impl FnMut() -> Result<Tensor>,
) -> Result<Value> {
    let (mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new());
    for i in 0..options.warmup + options.steps {
        let (start, cpu) = (Instant::now(), process_time());
        let result = body()?;
        // Reading a value waits for the device.
        let value = result
            .f_to_kind(Kind::Float)?
            .f_sum(None)?
            .f_double_value(&[])?;
        if i >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
            cpu_seconds.push((process_time() - cpu).as_secs_f64());
        }
        if !value.is_finite() {
            return Err(EngineError::new(
                ErrorCode::NonFinite,
                format!("step {i} gave {value}"),
            ));
        }
    }
    seconds.sort_by(f64::total_cmp);
    cpu_seconds.sort_by(f64::total_cmp);
    let memory = memory::tensors();
    let median = seconds[seconds.len() / 2];
    Ok(json!({
        "model": options.model,
        "batch": options.batch,
        "size": options.size,
        "device": placement.device_name(),
        "precision": placement.precision_name(),
        "threads": ffi::threads(),
        "seconds_median": median,
        "seconds_best": seconds[0],
        "cpu_seconds_median": cpu_seconds[cpu_seconds.len() / 2],
        "cpu_seconds_best": cpu_seconds[0],
        "tensor_bytes_peak": memory.peak,
        "peak_rss_bytes": memory::peak_resident(),
        "macs": cost.macs,
        "parameters": cost.params,
        "images_per_second": f64::from(options.batch) / median,
        "images_per_second_best": f64::from(options.batch) / seconds[0],
    }))
}

fn cost(options: &BenchOptions, graph: &Graph) -> Result<NodeCost> {
    let cost = oarlock_graph::cost(graph, [options.size as usize; 2]);
    Ok(cost
        .map_err(|e| EngineError::internal(e.to_string()))?
        .total)
}

/// Times training steps.
///
/// # Errors
/// An unknown model, a missing GPU, out of memory.
pub fn step(options: &BenchOptions) -> Result<Value> {
    let (graph, weights, placement, images) = setup(options)?;
    let cost = cost(options, &graph)?;
    let mut network = Network::new(graph.clone(), &weights, placement)?;
    let (n, s) = (i64::from(options.batch), i64::from(options.size));
    let optimizer = Optimizer::new(Rule::Sgd, 1e-4, &mut network)?;
    let mut learner = Learner { network, optimizer };
    if graph.head.is_some() {
        return detector_step(options, &mut learner, &images, cost);
    }
    let pixels = is_segmenter(&options.model) && options.checkpoint.is_none();
    let kind = (Kind::Int64, placement.device);
    let labels = match pixels {
        true => Tensor::f_randint(PIXEL_CLASSES as i64, [n, s, s], kind)?,
        false => Tensor::f_arange(n, kind)?,
    };
    let terms = [LossTerm {
        kind: LossKind::CrossEntropy,
        weight: 1.0,
    }];
    let pixel_loss = PixelLoss::new(&terms, &[], PIXEL_CLASSES)?;
    let targets = [labels];
    let loss = |network: &Network, outputs: &[Tensor]| match pixels {
        true => pixel_loss.of_outputs(outputs, &network.graph().loss_weights(), &targets[0]),
        false => losses::classification(outputs, &targets, 0.0),
    };
    let mut seed = 0;
    time(options, placement, cost, || {
        seed += 1;
        Ok(learner.step(&images, &loss, 1e-3, seed)?.loss)
    })
}

/// Steps with the training's own targets and losses, on objects that are always the same.
fn detector_step(
    options: &BenchOptions,
    learner: &mut Learner,
    images: &Tensor,
    cost: NodeCost,
) -> Result<Value> {
    let placement = learner.network.placement();
    let graph = learner.network.graph();
    let Some(head) = &graph.head else {
        return Err(EngineError::internal("the network is no detector"));
    };
    let model = graph.name.split('_').next().unwrap_or_default();
    let objective = objective(model, head)?;
    let (count, size) = (options.batch as usize, options.size as usize);
    let objects = detectors::objects(count, size, head.classes());
    let mut seed = 0;
    time(options, placement, cost, || {
        seed += 1;
        let forward = |network: &Network| objective.learn(network, images, &objects, seed);
        Ok(learner.step_with(&forward, BOX_RATE, seed)?.loss)
    })
}

/// Times inference with batch norm folded; of detectors up to the final boxes and masks.
///
/// # Errors
/// As [`step`].
pub fn infer(options: &BenchOptions) -> Result<Value> {
    let (graph, weights, placement, images) = setup(options)?;
    let network = Network::for_inference(&graph, &weights, placement)?;
    let cost = cost(options, &graph)?;
    let size = (options.size as usize, options.size as usize);
    let frame = Frame {
        full: size,
        shown: size,
    };
    let frames = vec![frame; options.batch as usize];
    time(options, placement, cost, || {
        if graph.head.is_none() {
            return network.forward(&images, false);
        }
        let found = detect(&network, &images, &frames)?;
        let counts: Vec<i64> = found.iter().map(|image| image.len() as i64).collect();
        Ok(Tensor::f_from_slice(&counts)?)
    })
}

/// Writes the network of [`infer`] as ONNX, batch norm folded, for other runtimes to be timed on it.
///
/// # Errors
/// An unknown model, a file that cannot be written.
pub fn onnx(options: &BenchOptions, path: &Path) -> Result<Value> {
    let (graph, weights, _, _) = setup(options)?;
    let internal = |e: oarlock_graph::GraphError| EngineError::internal(e.to_string());
    let (graph, weights) = oarlock_graph::fold_batch_norm(&graph, &weights).map_err(internal)?;
    let options = OnnxOptions {
        image_size: Some([options.size as usize; 2]),
        ..OnnxOptions::default()
    };
    let bytes = oarlock_graph::onnx::export(&graph, &weights, &options).map_err(internal)?;
    std::fs::write(path, &bytes)?;
    Ok(json!({ "bytes": bytes.len() }))
}
