//! Roofline of the own CPU kernels: time, least bytes and FLOPs, against the machine's own rates and libtorch's operators.

use std::time::Instant;

use oarlock_graph::{Act, init_weights};
use oarlock_jobs::{DeviceSpec, Precision};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::exec::Network;
use crate::runtime::Placement;
use crate::train::optimizer::{Optimizer, Rule};
use crate::{EngineError, Result, ffi, runtime};

/// All families of kernels.
const ALL: u32 = u32::MAX;
/// libtorch's own operators everywhere.
const NONE: u32 = 0;
/// Side of the matrices whose product is the machine's FLOP rate.
const GEMM: i64 = 2048;

/// One measured piece of work.
struct Case {
    name: String,
    kind: Kind,
    /// Bytes that must move when each map is read and written as often as the computation needs.
    bytes: f64,
    flops: f64,
    work: Box<dyn FnMut() -> Result<()>>,
}

/// Seconds of the fastest of `rounds` runs of each; they take turns.
fn fastest(rounds: u32, work: &mut [&mut dyn FnMut() -> Result<()>]) -> Result<Vec<f64>> {
    let mut best = vec![f64::INFINITY; work.len()];
    for round in 0..=rounds {
        for (best, work) in best.iter_mut().zip(work.iter_mut()) {
            let start = Instant::now();
            work()?;
            // The first round warms up.
            if round > 0 {
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(best)
}

fn random(size: &[i64], kind: Kind) -> Result<Tensor> {
    ffi::to_channels_last(&Tensor::f_randn(size, (Kind::Float, Device::Cpu))?.f_to_kind(kind)?)
}

fn bytes_of(kind: Kind) -> f64 {
    if kind == Kind::BFloat16 { 2.0 } else { 4.0 }
}

/// A layer whose forward and backward pass are measured by themselves.
struct Layer {
    name: String,
    kind: Kind,
    /// Elements that each pass reads and writes at least.
    elements: [f64; 2],
    flops: [f64; 2],
}

impl Layer {
    fn cases<F>(self, inputs: Vec<Tensor>, forward: F) -> Result<Vec<Case>>
    where
        F: Fn(&[Tensor]) -> Result<Tensor> + Clone + 'static,
    {
        let size = bytes_of(self.kind);
        let [forward_bytes, backward_bytes] = self.elements.map(|e| e * size);
        let (again, copies) = (
            forward.clone(),
            inputs.iter().map(Tensor::shallow_clone).collect::<Vec<_>>(),
        );
        let (name, kind) = (self.name, self.kind);
        let run = move || {
            drop(forward(&inputs)?);
            Ok(())
        };
        // Each set of kernels has its own graph, made at its first turn.
        let mut graphs: Vec<(bool, Tensor, Tensor)> = Vec::new();
        let back = move || {
            let own = ffi::use_kernels(ALL)? == ALL;
            ffi::use_kernels(if own { ALL } else { NONE })?;
            if !graphs.iter().any(|g| g.0 == own) {
                let y = again(&copies)?;
                let dy = Tensor::f_ones_like(&y)?;
                graphs.push((own, y, dy));
            }
            let Some((_, y, dy)) = graphs.iter().find(|g| g.0 == own) else {
                return Ok(());
            };
            let wanted: Vec<&Tensor> = copies.iter().filter(|t| t.requires_grad()).collect();
            ffi::gradients(y, dy, &wanted)?;
            Ok(())
        };
        Ok(vec![
            Case {
                name: format!("{name}, forward"),
                kind,
                bytes: forward_bytes,
                flops: self.flops[0],
                work: Box::new(run),
            },
            Case {
                name: format!("{name}, backward"),
                kind,
                bytes: backward_bytes,
                flops: self.flops[1],
                work: Box::new(back),
            },
        ])
    }
}

fn depthwise(n: i64, c: i64, side: i64, k: i64, stride: i64, kind: Kind) -> Result<Vec<Case>> {
    let x = random(&[n, c, side, side], kind)?.set_requires_grad(true);
    let w = random(&[c, 1, k, k], kind)?.set_requires_grad(true);
    let numbers = ffi::Conv {
        stride: [stride; 2],
        padding: [k / 2; 2],
        dilation: [1, 1],
        groups: c,
    };
    let out = (side - 1) / stride + 1;
    let (input, output) = ((n * c * side * side) as f64, (n * c * out * out) as f64);
    let flops = 2.0 * output * (k * k) as f64;
    let layer = Layer {
        name: format!("depthwise {k}×{k}, stride {stride}, {c} × {side}²"),
        kind,
        elements: [input + output, 2.0 * input + output],
        flops: [flops, 2.0 * flops],
    };
    layer.cases(vec![x, w], move |t| ffi::conv(&t[0], &t[1], None, &numbers))
}

fn norm(n: i64, c: i64, side: i64, residual: bool, act: Act, kind: Kind) -> Result<Vec<Case>> {
    let x = random(&[n, c, side, side], kind)?.set_requires_grad(true);
    let ones = |v: f64| Tensor::f_full([c], v, (Kind::Float, Device::Cpu));
    let mut inputs = vec![
        x,
        ones(1.0)?.set_requires_grad(true),
        ones(0.0)?.set_requires_grad(true),
        ones(0.0)?,
        ones(1.0)?,
    ];
    if residual {
        inputs.push(random(&[n, c, side, side], kind)?.set_requires_grad(true));
    }
    let map = (n * c * side * side) as f64;
    let more = f64::from(u8::from(residual));
    let layer = Layer {
        name: format!(
            "batch norm{} + {act:?}, {c} × {side}²",
            if residual { " + sum" } else { "" }
        ),
        kind,
        // The statistics need a pass of their own, forward and backward.
        elements: [(3.0 + more) * map, (5.0 + 3.0 * more) * map],
        flops: [6.0 * map, 10.0 * map],
    };
    layer.cases(inputs, move |t| {
        let norm = ffi::Norm {
            gamma: &t[1],
            beta: &t[2],
            running_mean: &t[3],
            running_var: &t[4],
            train: true,
            momentum: 0.1,
            eps: 1e-5,
        };
        ffi::norm_act(&t[0], &norm, t.get(5), Some(act))
    })
}

fn squeeze_excite(n: i64, c: i64, side: i64, kind: Kind) -> Result<Vec<Case>> {
    let x = random(&[n, c, side, side], kind)?.set_requires_grad(true);
    let act = Act::HardSigmoid {
        slope: 0.2,
        offset: 0.5,
    };
    let map = (n * c * side * side) as f64;
    let layer = Layer {
        name: format!("squeeze-excite, {c} × {side}²"),
        kind,
        elements: [3.0 * map, 4.0 * map],
        flops: [2.0 * map, 4.0 * map],
    };
    layer.cases(vec![x], move |t| {
        let pooled = ffi::global_pool(&t[0])?;
        ffi::excite(&t[0], &pooled, Some(&pooled), Some(act))
    })
}

fn pointwise(n: i64, c: i64, out: i64, side: i64, kind: Kind) -> Result<Vec<Case>> {
    let x = random(&[n, c, side, side], kind)?;
    let w = random(&[out, c, 1, 1], kind)?.set_requires_grad(true);
    let numbers = ffi::Conv {
        stride: [1, 1],
        padding: [0, 0],
        dilation: [1, 1],
        groups: 1,
    };
    let pixels = (n * side * side) as f64;
    let (c_in, c_out) = (c as f64, out as f64);
    let flops = 2.0 * pixels * c_in * c_out;
    let layer = Layer {
        name: format!("1×1 convolution to {out}, {c} × {side}², weight"),
        kind,
        elements: [pixels * (c_in + c_out); 2],
        flops: [flops; 2],
    };
    // The forward pass is oneDNN's.
    Ok(layer
        .cases(vec![x, w], move |t| ffi::conv(&t[0], &t[1], None, &numbers))?
        .split_off(1))
}

/// A step of all of ResNet50's parameters.
fn optimizer(rule: Rule, kind: Kind) -> Result<Case> {
    let graph = oarlock_zoo::classifier("ResNet50", 1000)
        .map_err(|e| EngineError::internal(e.to_string()))?;
    let mut placement = Placement::CPU_FP32;
    placement.compute = kind;
    let mut network = Network::new(graph.clone(), &init_weights(&graph, 1), placement)?;
    let mut optimizer = Optimizer::new(rule, 1e-4, &mut network)?;
    let grads = optimizer
        .wanted(&network)
        .into_iter()
        .map(|t| Ok((t.f_detach()?.f_randn_like()? * 1e-3).f_to_kind(t.kind())?))
        .collect::<Result<Vec<_>>>()?;
    let count: usize = grads.iter().map(Tensor::numel).sum();
    let copy = if kind == Kind::Float { 0.0 } else { 2.0 };
    let (states, flops) = match rule {
        Rule::Sgd => (1.0, 6.0),
        Rule::Adam => (2.0, 15.0),
    };
    // The gradient is read, its bf16 copy written; weight and states are read and written.
    let bytes = bytes_of(kind) + copy + 8.0 + 8.0 * states;
    Ok(Case {
        name: format!("{rule:?} step, ResNet50's parameters"),
        kind,
        bytes: bytes * count as f64,
        flops: flops * count as f64,
        work: Box::new(move || {
            let grads = grads.iter().map(Tensor::shallow_clone).collect();
            optimizer.step(&network, grads, 1e-6)
        }),
    })
}

fn cases(n: i64, kind: Kind) -> Result<Vec<Case>> {
    let mut list = depthwise(n, 144, 56, 3, 1, kind)?;
    list.extend(depthwise(n, 144, 56, 3, 2, kind)?);
    list.extend(depthwise(n, 960, 7, 3, 1, kind)?);
    list.extend(depthwise(n, 240, 14, 5, 1, kind)?);
    list.extend(norm(n, 144, 56, false, Act::Relu6, kind)?);
    list.extend(norm(n, 240, 14, false, Act::HardSwish, kind)?);
    list.extend(norm(n, 256, 56, true, Act::Relu, kind)?);
    list.extend(squeeze_excite(n, 240, 14, kind)?);
    if kind == Kind::BFloat16 {
        list.extend(pointwise(n, 144, 24, 56, kind)?);
    }
    for rule in [Rule::Sgd, Rule::Adam] {
        list.push(optimizer(rule, kind)?);
    }
    Ok(list)
}

/// Seconds of one product and FLOPs per second.
fn gemm_rate(rounds: u32, kind: Kind) -> Result<f64> {
    let a = Tensor::f_randn([GEMM, GEMM], (Kind::Float, Device::Cpu))?.f_to_kind(kind)?;
    let best = fastest(
        rounds,
        &mut [&mut || a.f_mm(&a).map(drop).map_err(Into::into)],
    )?;
    Ok(2.0 * (GEMM as f64).powi(3) / best[0])
}

fn measure(case: &mut Case, copy: &mut dyn FnMut() -> Result<()>, rounds: u32) -> Result<[f64; 3]> {
    let Case { work, .. } = case;
    let work = std::cell::RefCell::new(work);
    let with = |families: u32| {
        let work = &work;
        move || {
            ffi::use_kernels(families)?;
            (work.borrow_mut())()
        }
    };
    let best = fastest(rounds, &mut [&mut with(ALL), &mut with(NONE), copy]);
    ffi::use_kernels(ALL)?;
    let best = best?;
    Ok([best[0], best[1], best[2]])
}

/// Measures all kernels on maps of `batch` images.
///
/// # Errors
/// Out of memory; `OARLOCK_DISABLE_KERNELS` names an unknown kernel.
pub fn kernels(batch: u32, threads: u32, rounds: u32) -> Result<Value> {
    runtime::place(&DeviceSpec {
        cuda: Vec::new(),
        threads,
        precision: Precision::Fp32,
    })?;
    let mut rows = Vec::new();
    let mut rates = serde_json::Map::new();
    for (kind, name) in [(Kind::Float, "fp32"), (Kind::BFloat16, "bf16")] {
        let gemm = gemm_rate(rounds, kind)?;
        let from = random(&[i64::from(batch), 144, 56, 56], kind)?;
        let mut to = from.f_zeros_like()?;
        let copied = 2.0 * from.numel() as f64 * bytes_of(kind);
        let mut best_copy = f64::INFINITY;
        let mut measured = Vec::new();
        for mut case in cases(i64::from(batch), kind)? {
            let mut copy = || to.f_copy_(&from).map_err(Into::into);
            let [ours, theirs, copy] = measure(&mut case, &mut copy, rounds)?;
            best_copy = best_copy.min(copy);
            measured.push((case.name, case.kind, case.bytes, case.flops, ours, theirs));
        }
        let bandwidth = copied / best_copy;
        rates.insert(
            name.to_owned(),
            json!({ "copy_bytes_per_second": bandwidth, "gemm_flops_per_second": gemm }),
        );
        for (name, kind, bytes, flops, ours, theirs) in measured {
            let memory = bytes / bandwidth;
            let limit = memory.max(flops / gemm);
            rows.push(json!({
                "kernel": name,
                "precision": if kind == Kind::Float { "fp32" } else { "bf16" },
                "seconds": ours,
                "libtorch_seconds": theirs,
                "bytes": bytes,
                "flops": flops,
                "bound": if limit > memory { "compute" } else { "memory" },
                "share": limit / ours,
            }));
        }
    }
    Ok(json!({
        "kernel_set": ffi::kernel_set(),
        "threads": ffi::threads(),
        "batch": batch,
        "rates": rates,
        "kernels": rows,
    }))
}
