//! ONNX files, read back with the same schema. That onnxruntime computes what PyTorch computes was
//! checked by hand for every operation here at sizes 5×6 … 13×14 (all activations, poolings with
//! every rounding, adaptive pooling, resizing, shuffling, softmax; differences below 1e-5).

use oarlock_graph::onnx::proto::{GraphProto, ModelProto, NodeProto};
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{Act, Conv, Graph, GraphBuilder, GraphError, Op, init_weights};
use prost::Message;

fn export(graph: &Graph, options: &OnnxOptions) -> Result<ModelProto, GraphError> {
    let bytes = onnx::export(graph, &init_weights(graph, 1), options)?;
    Ok(ModelProto::decode(&bytes[..]).unwrap())
}

fn classifier() -> Graph {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("logits", x, Conv::new(6, 3).stride(2)); // a node called like the output
    let x = b.plain(Op::ChannelShuffle { groups: 2 }, &[x]);
    let x = b.act(x, Act::Relu6);
    let x = b.global_avg_pool(x);
    let x = b.flatten(x);
    let x = b.dropout(x, 0.2);
    let x = b.linear("fc", x, 4);
    b.output("logits", x);
    b.finish().unwrap()
}

fn ints(graph: &GraphProto, name: &str) -> Vec<i64> {
    let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap();
    let raw = tensor.raw_data.as_ref().unwrap();
    raw.chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn dims(graph: &GraphProto, output: bool) -> Vec<Result<i64, String>> {
    let value = if output {
        &graph.output[0]
    } else {
        &graph.input[0]
    };
    let shape = value
        .r#type
        .as_ref()
        .unwrap()
        .tensor_type
        .as_ref()
        .unwrap()
        .shape
        .as_ref();
    let dim =
        |d: &onnx::proto::DimensionProto| d.dim_value.ok_or_else(|| d.dim_param.clone().unwrap());
    shape.unwrap().dim.iter().map(dim).collect()
}

#[test]
fn structure_names_and_open_sizes() {
    let graph = classifier();
    let metadata = vec![("labels".to_owned(), "[\"猫\"]".to_owned())];
    let model = export(
        &graph,
        &OnnxOptions {
            metadata,
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    assert_eq!(model.producer_name, "oarlock");
    assert_eq!(model.metadata_props[0].value, "[\"猫\"]");
    let onnx = model.graph.unwrap();
    let ops: Vec<&str> = onnx.node.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(
        ops,
        [
            "Conv",
            "Gather",
            "Clip",
            "GlobalAveragePool",
            "Flatten",
            "Gemm"
        ]
    );
    // The node called `logits` makes way for the output; its parameters keep their names.
    assert_eq!(onnx.node[0].output, ["logits_"]);
    assert_eq!(onnx.node[0].input, ["image", "logits.weight"]);
    assert_eq!(onnx.node[5].output, ["logits"]);
    assert_eq!(ints(&onnx, "channelshuffle_2.order"), [0, 3, 1, 4, 2, 5]);
    let open = |name: &str| Err(name.to_owned());
    assert_eq!(
        dims(&onnx, false),
        [open("batch"), Ok(3), open("height"), open("width")]
    );
    assert_eq!(dims(&onnx, true), [open("batch"), Ok(4)]);
}

#[test]
fn fixed_sizes_and_softmax() {
    let graph = classifier();
    let options = OnnxOptions {
        input_name: "x".to_owned(),
        image_size: Some([32, 48]),
        batch: Some(2),
        softmax: true,
        detections: false,
        ..Default::default()
    };
    let onnx = export(&graph, &options).unwrap().graph.unwrap();
    assert_eq!(onnx.input[0].name, "x");
    assert_eq!(onnx.output[0].name, "probabilities");
    assert_eq!(onnx.node.last().unwrap().op_type, "Softmax");
    assert_eq!(dims(&onnx, false), [Ok(2), Ok(3), Ok(32), Ok(48)]);
    assert_eq!(dims(&onnx, true), [Ok(2), Ok(4)]);
}

#[test]
fn weights_arrive_unchanged() {
    let graph = classifier();
    let weights = init_weights(&graph, 1);
    let onnx = export(&graph, &OnnxOptions::default())
        .unwrap()
        .graph
        .unwrap();
    for (name, tensor) in &weights {
        let found = onnx.initializer.iter().find(|t| t.name == *name).unwrap();
        let shape: Vec<usize> = found.dims.iter().map(|&d| d as usize).collect();
        assert_eq!(shape, tensor.shape);
        let raw = found.raw_data.as_ref().unwrap();
        let data: Vec<f32> = raw
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(data, tensor.data);
    }
}

#[test]
fn an_output_may_be_the_input_or_shared() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let y = b.act(x, Act::Swish);
    b.output("same", x);
    b.output("first", y);
    b.output("second", y);
    let onnx = export(&b.finish().unwrap(), &OnnxOptions::default())
        .unwrap()
        .graph
        .unwrap();
    let outputs: Vec<&str> = onnx.node.iter().map(|n| n.output[0].as_str()).collect();
    assert_eq!(outputs, ["first.sigmoid", "first", "same", "second"]);
}

fn one(op: Op, options: &OnnxOptions) -> Result<NodeProto, GraphError> {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let y = b.plain(op, &[x]);
    b.output("y", y);
    let mut onnx = export(&b.finish()?, options)?.graph.unwrap();
    Ok(onnx.node.remove(0))
}

fn attribute(node: &NodeProto, name: &str) -> Vec<i64> {
    let found = node.attribute.iter().find(|a| a.name == name).unwrap();
    found.i.map_or_else(|| found.ints.clone(), |i| vec![i])
}

#[test]
fn adaptive_pooling_needs_a_size_unless_global() {
    let open = OnnxOptions::default();
    let at = |h, w| OnnxOptions {
        image_size: Some([h, w]),
        ..Default::default()
    };
    let op = |size| Op::AdaptiveAvgPool { size };
    assert_eq!(one(op([1, 1]), &open).unwrap().op_type, "GlobalAveragePool");
    let error = one(op([6, 6]), &open).unwrap_err().to_string();
    assert!(error.contains("fixed image size"), "{error}");
    let node = one(op([6, 6]), &at(12, 18)).unwrap();
    assert_eq!(
        (node.op_type.as_str(), attribute(&node, "kernel_shape")),
        ("AveragePool", vec![2, 3])
    );
    assert_eq!(one(op([6, 6]), &at(7, 7)).unwrap().op_type, "MatMul");
}

#[test]
fn rounded_up_pooling_follows_pytorch() {
    let pool = |kernel, stride, padding| Op::MaxPool {
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        ceil: true,
    };
    // Windows overlap enough for ONNX and PyTorch to agree at any size.
    let node = one(pool(3, 2, 1), &OnnxOptions::default()).unwrap();
    assert_eq!(attribute(&node, "ceil_mode"), [1]);
    // They do not: PyTorch's 5 → 2, and 6 → 3 by one more column of padding.
    assert!(one(pool(3, 3, 1), &OnnxOptions::default()).is_err());
    let options = OnnxOptions {
        image_size: Some([5, 6]),
        ..Default::default()
    };
    let node = one(pool(3, 3, 1), &options).unwrap();
    assert_eq!(attribute(&node, "ceil_mode"), [0]);
    assert_eq!(attribute(&node, "pads"), [1, 1, 1, 2]);
}

#[test]
fn what_cannot_be_written_is_said() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let graph = classifier();
    let weights = init_weights(&graph, 1);
    let error = onnx::write(&graph, &weights, &OnnxOptions::default(), &mut Full).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`net` cannot be exported: writing failed"),
        "{error}"
    );
    let mut missing = weights.clone();
    missing.shift_remove("fc.bias");
    let error = onnx::export(&graph, &missing, &OnnxOptions::default()).unwrap_err();
    assert!(matches!(error, GraphError::MissingWeight { .. }));
    let options = OnnxOptions {
        image_size: Some([0, 9]),
        ..Default::default()
    };
    assert!(onnx::export(&graph, &weights, &options).is_err());
}
