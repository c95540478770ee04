//! Operations that depend on the size of another map, and auxiliary outputs, through all passes.
//! What they compute: `native/engine/tests`.

use indexmap::IndexMap;
use oarlock_graph::onnx::proto::{GraphProto, ModelProto};
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{
    Act, Conv, Graph, GraphBuilder, Op, Range, calibration_values, channel_groups, cost,
    cut_points, fold_batch_norm, infer_shapes, init_weights, parameter_count, prune_graph,
    quantize, same_padding,
};
use prost::Message;

/// A map of half the size made as large as a shortcut, concatenated; an auxiliary head at the small map.
fn segmenter() -> Graph {
    let mut b = GraphBuilder::new("segmenter");
    let image = b.input(3);
    let high = b.conv("high", image, Conv::new(4, 3));
    let high = b.batch_norm("high.bn", high);
    let (kernel, stride) = ([3; 2], [2; 2]);
    let padded = b.op("padded", Op::SamePad { kernel, stride }, &[high]);
    let low = b.conv("low", padded, Conv::new(6, 3).stride(2).padding(0));
    let large = b.op(
        "large",
        Op::Resize {
            align_corners: true,
        },
        &[low, high],
    );
    let both = b.concat(&[large, high]);
    let logits = b.conv("head", both, Conv::new(2, 1).bias());
    let aux = b.conv("aux.0", low, Conv::new(5, 3));
    let aux = b.conv("aux.1", aux, Conv::new(2, 1).bias());
    let aux = b.resize(aux, image, false);
    b.output("logits", logits);
    b.auxiliary_output("auxiliary1", aux, 0.4);
    b.finish().unwrap()
}

fn id(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().position(|n| n.name == name).unwrap()
}

#[test]
fn shapes_follow_the_other_map() {
    let graph = segmenter();
    for ([h, w], [low_h, low_w]) in [([8, 12], [4, 6]), ([7, 9], [4, 5]), ([1, 1], [1, 1])] {
        let shapes = infer_shapes(&graph, [2, 3, h, w]).unwrap();
        assert_eq!(shapes[id(&graph, "low")], [2, 6, low_h, low_w]);
        assert_eq!(shapes[id(&graph, "large")], [2, 6, h, w]);
        assert_eq!(shapes[graph.outputs[1].node], [2, 2, h, w]);
    }
    let shapes = infer_shapes(&graph, [1, 3, 8, 9]).unwrap();
    // An even size needs one zero, an odd one needs two.
    assert_eq!(shapes[id(&graph, "padded")], [1, 4, 9, 11]);
    let mut wrong = graph.clone();
    wrong.nodes[id(&graph, "large")].inputs.pop();
    assert!(
        wrong
            .validate()
            .unwrap_err()
            .to_string()
            .contains("`large`")
    );
    wrong = graph.clone();
    let stride = [0, 2];
    let kernel = [3; 2];
    wrong.nodes[id(&graph, "padded")].op = Op::SamePad { kernel, stride };
    assert!(
        wrong
            .validate()
            .unwrap_err()
            .to_string()
            .contains("at least 1")
    );
}

#[test]
fn same_padding_gives_every_result_its_window() {
    for size in 1..40 {
        for kernel in 1..8 {
            for stride in 1..6 {
                let [before, after] = same_padding(size, kernel, stride);
                let padded = size + before + after;
                if padded >= kernel {
                    assert_eq!((padded - kernel) / stride + 1, size.div_ceil(stride));
                }
                assert!(after == before || after == before + 1);
                // No more zeros than the last window needs.
                let last = (size.div_ceil(stride) - 1) * stride + kernel;
                assert_eq!(padded, size.max(last));
            }
        }
    }
}

#[test]
fn auxiliary_heads_end_with_training() {
    let graph = segmenter();
    assert_eq!(graph.loss_weights(), [1.0, 0.4]);
    let main = graph.without_auxiliary();
    assert_eq!(main.loss_weights(), [1.0]);
    let aux = 6 * 5 * 9 + 5 * 2 + 2;
    assert_eq!(parameter_count(&graph) - parameter_count(&main), aux);
    let (folded, weights) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    assert_eq!(folded.outputs.len(), 1);
    assert!(!weights.keys().any(|name| name.starts_with("aux")));
    // Weights of the heads need not be there.
    let mut weights = init_weights(&graph, 1);
    weights.retain(|name, _| !name.starts_with("aux"));
    assert!(fold_batch_norm(&graph, &weights).is_ok());

    let text = graph.to_json().unwrap();
    assert_eq!(Graph::from_json(&text).unwrap(), graph);
    // As files of older versions, the others say nothing of it.
    assert!(!main.to_json().unwrap().contains("auxiliary"));
    let mut none = graph;
    none.outputs.remove(0);
    assert!(
        none.validate().is_err(),
        "an auxiliary output alone is none"
    );
}

#[test]
fn logits_begin_small() {
    let weights = init_weights(&segmenter(), 1);
    let largest = |name: &str| {
        weights[name]
            .data
            .iter()
            .fold(0.0, |a: f32, v| a.max(v.abs()))
    };
    // Heads are uniform in ±1/√fan-in, other convolutions normal with variance 2/fan-out.
    for (name, fan_in) in [("head.weight", 10.0_f32), ("aux.1.weight", 5.0)] {
        let bound = 1.0 / fan_in.sqrt();
        assert!(
            largest(name) <= bound && largest(name) > 0.7 * bound,
            "{name}"
        );
    }
    assert!(largest("aux.0.weight") > 1.5 * (2.0_f32 / 45.0).sqrt());
}

#[test]
fn channels_are_those_of_the_first_input() {
    let graph = segmenter();
    let groups = channel_groups(&graph).unwrap();
    let names: Vec<&str> = groups.groups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["high", "low", "aux.0"]);
    let keep = [
        ("high".to_owned(), vec![0, 2]),
        ("low".to_owned(), vec![1, 2, 5]),
    ];
    let pruned = prune_graph(&graph, &groups, &keep.into_iter().collect()).unwrap();
    let shapes = infer_shapes(&pruned, [1, 3, 8, 8]).unwrap();
    assert_eq!(shapes[id(&graph, "large")], [1, 3, 8, 8]);
    assert_eq!(shapes[id(&graph, "padded")], [1, 2, 9, 9]);
    assert_eq!(pruned.loss_weights(), [1.0, 0.4]);
}

#[test]
fn a_map_of_which_only_the_size_is_read_may_change() {
    let mut b = GraphBuilder::new("net");
    let image = b.input(3);
    let low = b.conv("low", image, Conv::new(4, 3).stride(4));
    let wide = b.conv("wide", image, Conv::new(8, 3));
    let mid = b.conv("mid", wide, Conv::new(8, 3));
    let large = b.op(
        "large",
        Op::Resize {
            align_corners: false,
        },
        &[low, mid],
    );
    let narrow = b.conv("narrow", mid, Conv::new(4, 1));
    let x = b.concat(&[large, narrow]);
    let x = b.conv("last", x, Conv::new(2, 1));
    b.output("out", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let cuts = cut_points(&graph, &groups.groups, [16, 16]).unwrap();
    let wide = cuts.iter().find(|c| c.group == "wide").unwrap();
    // The enlarged map stays the same, though the map that it takes its size from changes; it cannot be made
    // of the smaller one, because that map is not among what is kept.
    assert_eq!(wide.keep, [id(&graph, "wide"), id(&graph, "large")]);
    let macs = cost(&graph, [16, 16]).unwrap().nodes;
    let runs = ["mid", "narrow", "last"].map(|name| macs[id(&graph, name)].macs);
    assert_eq!(wide.macs, runs.iter().sum::<u64>());
}

fn written(graph: &Graph, image_size: Option<[usize; 2]>) -> Result<GraphProto, String> {
    let options = OnnxOptions {
        image_size,
        ..Default::default()
    };
    let bytes =
        onnx::export(graph, &init_weights(graph, 1), &options).map_err(|e| e.to_string())?;
    Ok(ModelProto::decode(&bytes[..]).unwrap().graph.unwrap())
}

fn raw(graph: &GraphProto, name: &str) -> Vec<u8> {
    let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap();
    tensor.raw_data.clone().unwrap()
}

#[test]
fn sizes_become_constants_where_they_are_known() {
    let graph = segmenter();
    let onnx = written(&graph, Some([8, 11])).unwrap();
    let node = |name: &str| onnx.node.iter().find(|n| n.output[0] == name).unwrap();
    let pads = raw(&onnx, &node("padded").input[1]);
    let pads: Vec<i64> = pads
        .chunks(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(node("padded").op_type, "Pad");
    assert_eq!(pads, [0, 0, 0, 1, 0, 0, 1, 1]);
    let large = node("large");
    assert_eq!((large.op_type.as_str(), large.input.len()), ("Resize", 3));
    let scales = raw(&onnx, &large.input[2]);
    let scales: Vec<f32> = scales
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(scales, [1.0, 1.0, 2.0, 11.0 / 6.0]);
    let mode = &large.attribute[1];
    assert_eq!(mode.s.as_deref(), Some(&b"align_corners"[..]));

    let error = written(&graph, None).unwrap_err();
    assert!(error.contains("fixed image size"), "{error}");
}

#[test]
fn a_maps_probabilities_and_ids_are_those_of_its_channels() {
    let options = OnnxOptions {
        image_size: Some([8, 8]),
        softmax: true,
        detections: false,
        ..Default::default()
    };
    let (graph, weights) = fold_batch_norm(&segmenter(), &init_weights(&segmenter(), 1)).unwrap();
    let bytes = onnx::export(&graph, &weights, &options).unwrap();
    let onnx = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    let outputs: Vec<&str> = onnx.output.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["label_map", "score_map"]);
    let last = onnx.node.iter().rev().take(2);
    let last: Vec<_> = last
        .map(|n| (n.op_type.as_str(), n.attribute[0].i))
        .collect();
    assert_eq!(last, [("ArgMax", Some(1)), ("Softmax", Some(1))]);
}

#[test]
fn open_sizes_are_read_at_run_time() {
    let mut b = GraphBuilder::new("net");
    let image = b.input(3);
    let low = b.conv("low", image, Conv::new(4, 3).stride(2));
    let large = b.op(
        "large",
        Op::Resize {
            align_corners: false,
        },
        &[low, image],
    );
    b.output("out", large);
    let onnx = written(&b.finish().unwrap(), None).unwrap();
    let ops: Vec<&str> = onnx.node.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(ops, ["Conv", "Shape", "Shape", "Concat", "Resize"]);
    let shape = |i: usize| {
        let node = &onnx.node[i];
        let ends: Vec<i64> = node.attribute.iter().map(|a| a.i.unwrap()).collect();
        (node.input[0].as_str(), ends)
    };
    // Batch and channels of the one, height and width of the other.
    assert_eq!(shape(1), ("low", vec![0, 2]));
    assert_eq!(shape(2), ("image", vec![2, 4]));
    assert_eq!(
        onnx.node[3].input,
        [&onnx.node[1].output[0][..], &onnx.node[2].output[0]]
    );
    let [_, _, _, sizes] = &onnx.node[4].input[..] else {
        panic!()
    };
    assert_eq!(sizes, &onnx.node[3].output[0]);
}

#[test]
fn padding_keeps_the_steps_of_its_input() {
    let graph = segmenter();
    let (graph, weights) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    let asked = calibration_values(&graph);
    assert!(
        !asked.contains(&"padded") && asked.contains(&"large"),
        "{asked:?}"
    );
    let ranges: IndexMap<String, Range> = (1..)
        .zip(asked)
        .map(|(i, name)| {
            (
                name.to_owned(),
                Range {
                    min: -1.0,
                    max: i as f32,
                },
            )
        })
        .collect();
    let quantization = quantize(&graph, &weights, &ranges).unwrap();
    let [padded, high, head] =
        ["padded", "high", "head"].map(|n| quantization.values[id(&graph, n)]);
    assert_eq!(padded, high);
    assert!(padded.is_some() && head.is_none());
}

#[test]
fn logits_are_enlarged_before_they_are_rounded() {
    let mut b = GraphBuilder::new("net");
    let image = b.input(3);
    let x = b.conv("body", image, Conv::new(4, 3).stride(2));
    let x = b.act(x, Act::Relu);
    let x = b.conv("head", x, Conv::new(2, 1).bias());
    let x = b.resize(x, image, false);
    b.output("logits", x);
    let graph = b.finish().unwrap();
    // Outputs stay floats, and so does what is only enlarged to be one.
    assert!(!calibration_values(&graph).contains(&"head"));
}
