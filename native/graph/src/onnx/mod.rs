//! Export to ONNX (opset 17, IR version 8).
//!
//! The file is written front to back with the weights straight from the [`WeightMap`]: a model of
//! 500 MB needs no second 500 MB.

pub mod detection;
mod integers;
mod lower;
pub mod proto;
mod resize;
mod sampling;
mod write;

use std::collections::HashSet;

use crate::shape::infer_values;
use crate::{Graph, GraphError, Head, Op, Quantization, WeightMap};
use detection::TwoStage;
use lower::Lowering;
use proto::{
    DimensionProto, ModelProto, OperatorSetIdProto, ShapeProto, StringStringEntryProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

/// What an exported model looks like from outside.
#[derive(Debug, Clone)]
pub struct OnnxOptions {
    /// Name of the input, N×C×H×W, fp32, already normalised.
    pub input_name: String,
    /// Fixed height and width; `None` leaves them open (not possible with AlexNet's pooling).
    pub image_size: Option<[usize; 2]>,
    /// Fixed batch size; `None` leaves it open.
    pub batch: Option<usize>,
    /// Ends with a softmax over the classes: an output called `logits` becomes `probabilities`; one that is a map becomes
    /// `label_map` (N×H×W, int64, the greatest channel) and `score_map`.
    pub softmax: bool,
    /// Ends with final boxes instead of a detector's maps ([`detection`]); needs `image_size`, and a batch of 1.
    pub detections: bool,
    /// Free pairs stored in the file (`metadata_props`): labels, mean, std …
    pub metadata: Vec<(String, String)>,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            input_name: "image".to_owned(),
            image_size: None,
            batch: None,
            softmax: false,
            detections: false,
            metadata: Vec::new(),
        }
    }
}

/// The ONNX file as bytes. [`write()`] needs less memory.
///
/// # Errors
/// See [`write()`].
pub fn export(
    graph: &Graph,
    weights: &WeightMap,
    options: &OnnxOptions,
) -> Result<Vec<u8>, GraphError> {
    let mut bytes = Vec::new();
    write(graph, weights, options, &mut bytes)?;
    Ok(bytes)
}

/// Writes the ONNX file. Fold batch norms first ([`crate::fold_batch_norm`]) for a faster model;
/// dropout is left out. Regions of interest are inputs of their own, K×5, named as their nodes, unless the file ends with final boxes.
///
/// # Errors
/// An invalid graph, missing or misshapen weights, an image size that the network cannot take, a
/// model beyond protobuf's 2 GiB, or a failed write.
pub fn write(
    graph: &Graph,
    weights: &WeightMap,
    options: &OnnxOptions,
    target: &mut impl std::io::Write,
) -> Result<(), GraphError> {
    write_with(graph, weights, None, options, target)
}

/// Writes the network of `quantization` ([`crate::quantize()`] of the same graph and weights): integer weights,
/// and each quantized value as a pair of `QuantizeLinear` and `DequantizeLinear` before those who read it.
///
/// # Errors
/// See [`write()`]; a quantization of another graph.
pub fn write_quantized(
    graph: &Graph,
    weights: &WeightMap,
    quantization: &Quantization,
    options: &OnnxOptions,
    target: &mut impl std::io::Write,
) -> Result<(), GraphError> {
    write_with(graph, weights, Some(quantization), options, target)
}

fn write_with(
    graph: &Graph,
    weights: &WeightMap,
    quantization: Option<&Quantization>,
    options: &OnnxOptions,
    target: &mut impl std::io::Write,
) -> Result<(), GraphError> {
    graph.validate()?;
    graph.validate_weights(weights)?;
    if quantization
        .is_some_and(|q| q.values.len() != graph.nodes.len() || q.absorbed.len() != q.values.len())
    {
        return Err(graph.error("the quantization is that of another graph"));
    }
    let values = infer_values(graph, graph.input_channels(), options.image_size)?;
    let mut lowering = Lowering::new(graph, weights, &values, quantization.map(|q| &q.params));
    let mut names = value_names(graph, options);
    let absorbed = |id: usize| quantization.is_some_and(|q| q.absorbed[id]);
    for (id, node) in graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(id, _)| absorbed(*id))
    {
        names[node.inputs[0]] = names[id].clone();
    }
    let head = graph.head.as_ref().filter(|_| options.detections);
    let picture = match (head, options.image_size, options.batch) {
        (None, _, _) => None,
        (Some(head), Some(size), Some(1)) => Some((head, size)),
        _ => return Err(graph.error("final boxes need a fixed image size and a batch of 1")),
    };
    let mut stages = picture.and_then(|(head, size)| match head {
        Head::TwoStage(head) => Some(TwoStage::new(graph, head, &names, size)),
        _ => None,
    });
    // What readers of each value get: the value itself or what is left of it after quantization.
    let mut read: Vec<String> = Vec::with_capacity(names.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let inputs: Vec<&str> = node.inputs.iter().map(|&i| read[i].as_str()).collect();
        match (&node.op, &mut stages) {
            (Op::Rois, Some(stages)) => stages.regions(&mut lowering, &names[id])?,
            _ if absorbed(id) => {}
            _ => lowering.node(id, node, &inputs, &names[id])?,
        }
        read.push(match (&node.op, quantization.and_then(|q| q.values[id])) {
            (Op::Dropout { .. } | Op::DropBlock { .. }, _) => read[node.inputs[0]].clone(),
            (_, Some(affine)) => lowering.quantized_value(&names[id], affine),
            (_, None) => names[id].clone(),
        });
    }
    let regions = regions(graph, &names);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let staged = stages.is_some();
    if let Some((head, size)) = picture {
        let maps = graph.outputs.iter().map(|o| names[o.node].clone());
        let maps: Vec<String> = maps.collect();
        let (input, found) = detection::append(&mut lowering, graph, head, &maps, size, stages)?;
        inputs.push(input);
        outputs = found;
    }
    for output in graph.outputs.iter().filter(|_| head.is_none()) {
        let name = output_name(&output.name, options);
        let rows = || match &regions[output.node] {
            Some(rois) => dimension(None, &format!("{rois}_count")),
            None => dimension(options.batch, "batch"),
        };
        let dims = match values[output.node] {
            crate::Value::Map { channels, hw } => {
                let side = |i: usize| dimension(hw.map(|hw| hw[i]), ["out_height", "out_width"][i]);
                vec![rows(), fixed(channels), side(0), side(1)]
            }
            crate::Value::Vector { features } => {
                vec![rows(), fixed(features)]
            }
        };
        if options.softmax && output.name == LOGITS {
            if let [batch, _, height, width] = &dims[..] {
                lowering.softmax(output.node, &names[output.node], SCORE_MAP);
                lowering.greatest_channel(&names[output.node], LABEL_MAP);
                let ids = vec![batch.clone(), height.clone(), width.clone()];
                outputs.push(typed_info(LABEL_MAP.to_owned(), lower::INT64, ids));
                outputs.push(value_info(SCORE_MAP.to_owned(), dims));
                continue;
            }
            lowering.softmax(output.node, &names[output.node], &name);
        } else if names[output.node] != name {
            lowering.emit("Identity", &[&names[output.node]], &name, Vec::new());
        }
        outputs.push(value_info(name, dims));
    }
    let mut lowered = lowering.finish();
    let [height, width] = [0, 1].map(|i| options.image_size.map(|hw| hw[i]));
    let dims = vec![
        dimension(options.batch, "batch"),
        fixed(graph.input_channels()),
        dimension(height, "height"),
        dimension(width, "width"),
    ];
    lowered.proto.name = graph.name.clone();
    let given = graph.nodes.iter().zip(&names);
    for (_, name) in given.filter(|(node, _)| !staged && matches!(node.op, Op::Rois)) {
        let dims = vec![dimension(None, &format!("{name}_count")), fixed(5)];
        inputs.push(value_info(name.clone(), dims));
    }
    inputs.insert(0, value_info(options.input_name.clone(), dims));
    lowered.proto.input = inputs;
    lowered.proto.output = outputs;

    let model = ModelProto {
        ir_version: 8,
        producer_name: "oarlock".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: None, // written after the rest, with the weights
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        metadata_props: options
            .metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    };
    write::model(&graph.name, &model, &lowered, target)
}

/// For each node whose value has a row for each region the value that holds the regions.
fn regions(graph: &Graph, names: &[String]) -> Vec<Option<String>> {
    let mut regions: Vec<Option<String>> = Vec::with_capacity(graph.nodes.len());
    for (node, name) in graph.nodes.iter().zip(names) {
        regions.push(match node.op {
            Op::Rois => Some(name.clone()),
            _ => node.inputs.iter().find_map(|&i| regions[i].clone()),
        });
    }
    regions
}

const LOGITS: &str = "logits";
/// Class ids of a segmenter, N×H×W.
const LABEL_MAP: &str = "label_map";
/// Probabilities of a segmenter, N×classes×H×W.
const SCORE_MAP: &str = "score_map";

fn output_name(name: &str, options: &OnnxOptions) -> String {
    if options.softmax && name == LOGITS {
        "probabilities"
    } else {
        name
    }
    .to_owned()
}

/// The ONNX value that holds each node: its own name, or that of the graph output it is; dropout is
/// its input.
fn value_names(graph: &Graph, options: &OnnxOptions) -> Vec<String> {
    let mut taken: HashSet<String> = graph
        .outputs
        .iter()
        .map(|o| output_name(&o.name, options))
        .collect();
    taken.extend([LABEL_MAP, SCORE_MAP].map(str::to_owned));
    taken.insert(options.input_name.clone());
    let mut names: Vec<String> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let direct = graph.outputs.iter().find(|o| o.node == id);
        let direct = direct.filter(|o| !(options.softmax && o.name == LOGITS));
        let name = match (&node.op, direct) {
            (Op::Input { .. }, _) => options.input_name.clone(),
            (Op::Dropout { .. } | Op::DropBlock { .. }, _) => names[node.inputs[0]].clone(),
            (_, Some(output)) => output.name.clone(),
            _ => {
                let mut name = node.name.clone();
                while !taken.insert(name.clone()) {
                    name.push('_');
                }
                name
            }
        };
        names.push(name);
    }
    names
}

fn value_info(name: String, dim: Vec<DimensionProto>) -> ValueInfoProto {
    typed_info(name, lower::FLOAT, dim)
}

fn typed_info(name: String, elem_type: i32, dim: Vec<DimensionProto>) -> ValueInfoProto {
    let shape = Some(ShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type, shape });
    ValueInfoProto {
        name,
        r#type: Some(TypeProto { tensor_type }),
    }
}

fn fixed(size: usize) -> DimensionProto {
    DimensionProto {
        dim_value: Some(size as i64),
        dim_param: None,
    }
}

fn dimension(size: Option<usize>, name: &str) -> DimensionProto {
    size.map_or_else(
        || DimensionProto {
            dim_value: None,
            dim_param: Some(name.to_owned()),
        },
        fixed,
    )
}
