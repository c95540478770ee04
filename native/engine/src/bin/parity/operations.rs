//! Small networks of the operations that detectors need: `--model operations/deform|regions`.
//!
//! `DIR/<model>/` gets `model.onnx` and `fixed.onnx` (open and fixed image size), `input.f32`, one `.f32` for each
//! region input and each output; one JSON line tells all shapes.

use std::fs;
use std::path::Path;

use oarlock_engine::Result;
use oarlock_engine::exec::Network;
use oarlock_engine::runtime::Placement;
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{
    Act, Conv, Graph, GraphBuilder, HostTensor, NodeId, Op, ParamKind, WeightMap, fold_batch_norm,
};
use oarlock_imaging::Rng;
use oarlock_jobs::{ErrorCode, JobError};
use serde_json::{Map, json};
use tch::{Device, Kind, Tensor};

pub fn run(case: &str, seed: u64, dir: &Path, placement: Placement) -> Result<()> {
    let internal = |e: oarlock_graph::GraphError| JobError::new(ErrorCode::Internal, e.to_string());
    let graph = match case {
        "deform" => deform(),
        "regions" => regions(),
        _ => return Err(super::argument(format!("no operations `{case}`")).into()),
    }
    .map_err(internal)?;
    let mut rng = Rng::of(&[seed]);
    let weights = random_weights(&graph, &mut rng);
    let size = [61, 83];
    let count = 2 * 3 * size[0] * size[1];
    let values: Vec<f32> = (0..count).map(|_| rng.uniform(-2.0, 2.0) as f32).collect();
    let shape = [2, 3, size[0] as i64, size[1] as i64];
    let input = Tensor::f_from_slice(&values)?.f_reshape(shape)?;

    fs::create_dir_all(dir)?;
    let (folded, folded_weights) = fold_batch_norm(&graph, &weights).map_err(internal)?;
    for (file, image_size) in [("model.onnx", None), ("fixed.onnx", Some(size))] {
        let options = OnnxOptions {
            image_size,
            ..OnnxOptions::default()
        };
        let bytes = onnx::export(&folded, &folded_weights, &options).map_err(internal)?;
        fs::write(dir.join(file), bytes)?;
    }
    let save = |name: &str, tensor: &Tensor| -> Result<()> {
        Ok(fs::write(
            dir.join(format!("{name}.f32")),
            super::bytes(tensor)?,
        )?)
    };
    save("input", &input)?;

    let network = Network::for_inference(&graph, &weights, placement)?;
    let plain = Network::new(graph.clone(), &weights, placement)?;
    let (mut pass, mut unfolded) = (network.begin(&input, false)?, plain.begin(&input, false)?);
    let mut given = Map::new();
    while let Some(node) = pass.waits_for().map(str::to_owned) {
        let rois = some_regions()?;
        save(&node, &rois)?;
        pass.give(&node, &rois)?;
        unfolded.give(&node, &rois)?;
        given.insert(node, json!(rois.size()));
    }
    let mut outputs = Map::new();
    let mut difference: f64 = 0.0;
    for output in &graph.outputs {
        let value = pass.output(&output.name)?;
        let other = unfolded.output(&output.name)?;
        difference = difference.max(other.f_sub(&value)?.abs().max().double_value(&[]));
        save(&output.name, &value)?;
        outputs.insert(output.name.clone(), json!(value.size()));
    }
    let line = json!({
        "model": format!("operations/{case}"),
        "input": input.size(),
        "regions": given,
        "outputs": outputs,
        "fold_difference": difference,
    });
    println!("{line}");
    Ok(())
}

type Built = std::result::Result<Graph, oarlock_graph::GraphError>;

/// Deformable convolutions of both strides, coordinates, a transposed convolution, norms behind all of them.
fn deform() -> Built {
    let mut b = GraphBuilder::new("deform");
    let x = b.input(3);
    let x = b.conv("stem", x, Conv::new(6, 3));
    let x = b.batch_norm("stem_norm", x);
    let x = deformable(&mut b, "first", x, 8, 1, false);
    let x = b.batch_norm("first_norm", x);
    let x = b.act(x, Act::Relu);
    let x = deformable(&mut b, "second", x, 5, 2, true);
    b.output("second", x);
    let x = b.op("places", Op::Coordinates { last: 1.0 }, &[x]);
    let x = b.op("drop", Op::DropBlock { size: 3, keep: 0.9 }, &[x]);
    let up = Op::ConvTranspose2d {
        in_channels: 7,
        out_channels: 4,
        kernel: [4, 3],
        stride: [2, 3],
        padding: [1, 0],
        bias: true,
    };
    let x = b.op("up", up, &[x]);
    let x = b.batch_norm("up_norm", x);
    let x = b.act(x, Act::HardSwish);
    b.output("up", x);
    b.finish()
}

fn deformable(
    b: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    out: usize,
    stride: usize,
    bias: bool,
) -> NodeId {
    let places = b.conv(
        format!("{name}_places"),
        x,
        Conv::new(27, 3).stride(stride).bias(),
    );
    let offset = b.slice(places, 0, 18);
    let factor = b.slice(places, 18, 9);
    let factor = b.act(factor, Act::Sigmoid);
    let op = Op::DeformConv2d {
        in_channels: b.channels(x),
        out_channels: out,
        kernel: [3, 3],
        stride: [stride, stride],
        padding: [1, 1],
        dilation: [1, 1],
        bias,
    };
    b.op(name, op, &[x, offset, factor])
}

/// A pyramid whose levels share a head, and regions pooled from all of them and from one.
fn regions() -> Built {
    let mut b = GraphBuilder::new("regions");
    let mut x = b.input(3);
    let mut levels = Vec::new();
    for (i, stride) in [4, 2, 2, 2].into_iter().enumerate() {
        x = b.conv(format!("level{i}"), x, Conv::new(6, 5).stride(stride));
        levels.push(x);
    }
    let head = b.conv("head", levels[0], Conv::new(4, 3).bias());
    let norm = b.batch_norm("head_norm", head);
    b.output("score0", norm);
    let other = b.shared("head1", head, &[levels[1]]);
    let other = b.shared("head_norm1", norm, &[other]);
    b.output("score1", other);
    let align = |size, sampling, strides: &[usize], aligned| Op::RoiAlign {
        size: [size, size + 1],
        sampling,
        strides: strides.to_vec(),
        aligned,
    };
    let rois = b.op("rois", Op::Rois, &[]);
    let mut inputs = vec![rois];
    inputs.extend(&levels);
    let pooled = b.op("pool", align(3, 0, &[4, 8, 16, 32], true), &inputs);
    b.output("pooled", pooled);
    let flat = b.flatten(pooled);
    let score = b.linear("score", flat, 7);
    b.output("box_score", score);
    let masks = b.op("mask_rois", Op::Rois, &[]);
    let pooled = b.op("pool1", align(4, 2, &[8], false), &[masks, levels[1]]);
    let up = Op::ConvTranspose2d {
        in_channels: 6,
        out_channels: 3,
        kernel: [2, 2],
        stride: [2, 2],
        padding: [0, 0],
        bias: true,
    };
    let up = b.op("up", up, &[pooled]);
    b.output("mask", up);
    b.finish()
}

/// Of all levels, small and large, within the image and beyond it.
fn some_regions() -> Result<Tensor> {
    let rois: [[f32; 5]; 9] = [
        [0.0, 3.2, 5.1, 40.7, 33.3],
        [1.0, -250.0, -100.0, 260.0, 420.0],
        [1.0, 0.0, 0.0, 83.0, 61.0],
        [0.0, -30.0, -60.0, 150.0, 100.0],
        [1.0, 12.0, 12.0, 12.0, 12.0],
        [0.0, 60.0, 40.0, 130.0, 90.0],
        [0.0, -5.0, -5.0, 240.0, 250.0],
        [1.0, 200.0, 200.0, 320.0, 320.0],
        [0.0, 10.0, 20.0, 11.0, 60.5],
    ];
    Ok(Tensor::f_from_slice(rois.as_flattened())?
        .f_reshape([-1, 5])?
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?)
}

fn random_weights(graph: &Graph, rng: &mut Rng) -> WeightMap {
    graph
        .params()
        .map(|(name, param)| {
            let count: usize = param.shape.iter().product();
            let fan = (count / param.shape[0]).max(1) as f64;
            let (low, high) = match param.kind {
                ParamKind::Weight => (-(3.0 / fan).sqrt(), (3.0 / fan).sqrt()),
                ParamKind::NormScale | ParamKind::RunningVar => (0.5, 1.5),
                _ => (-0.3, 0.3),
            };
            let data = (0..count).map(|_| rng.uniform(low, high) as f32).collect();
            let shape = param.shape;
            (name, HostTensor { shape, data })
        })
        .collect()
}
