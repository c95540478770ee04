//! Calibration, integers and the quantized file's structure.
//!
//! What the files compute was checked by hand: `zoo/examples/slimmed.rs` wrote networks with random weights,
//! onnxruntime 1.32.0 measured the ranges on 8 smooth random images of 64×64 and ran fp32 and int8 on 16.
//! Signal to noise of the logits, beside that of onnxruntime's own `quantize_static` (QDQ, min–max, uint8
//! activations, int8 weights per channel) of the same network:
//!
//! | network | here | onnxruntime | | network | here | onnxruntime |
//! |---|---|---|---|---|---|---|
//! | AlexNet | 42.8 dB | 42.5 dB | | ShuffleNetV2 | 23.8 dB | 23.8 dB |
//! | ResNet18 | 34.4 dB | 34.0 dB | | MobileNetV2 | 14.8 dB | 14.8 dB |
//! | HRNet_W18_C | 32.7 dB | 30.8 dB | | MobileNetV3_small | 14.6 dB | 12.9 dB |
//! | MobileNetV1 | 27.9 dB | 25.9 dB | | PPLCNet | 10.1 dB | 10.4 dB |
//!
//! (Random weights amplify errors more than trained ones.) All convolutions, sums, linear layers and global
//! pools become integer kernels there; `onnx.checker` accepts the files with full shape inference.

use indexmap::IndexMap;
use oarlock_graph::onnx::proto::{GraphProto, ModelProto};
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{
    Act, Affine, Calibration, Conv, Graph, GraphBuilder, Histogram, QuantizedData, Range,
    WeightMap, calibration_values, fold_batch_norm, init_weights, quantize,
};
use prost::Message;

fn range(min: f32, max: f32) -> Range {
    Range { min, max }
}

#[test]
fn zero_is_exact_in_every_range() {
    let affine = |min, max| range(min, max).affine();
    let step = |scale, zero_point| Affine { scale, zero_point };
    assert_eq!(affine(0.0, 255.0), step(1.0, 0));
    assert_eq!(affine(-127.5, 127.5), step(1.0, 128));
    assert_eq!(affine(-255.0, -5.0), step(1.0, 255));
    assert_eq!(affine(10.0, 510.0), step(2.0, 0));
    assert_eq!(affine(0.0, 0.0), step(1.0, 0));
}

/// Signed values with heavy tails, their quantiles in order.
fn heavy(n: usize) -> Vec<f32> {
    let value = |i: usize| {
        let u = (i as f64 + 0.5) / n as f64;
        (u - 0.5).signum() * (-(1.0 - (2.0 * u - 1.0).abs()).ln()).powi(2)
    };
    (0..n).map(|i| value(i) as f32).collect()
}

/// Values of one sign, a third of them zero.
fn skewed(n: usize) -> Vec<f32> {
    let value = |i: usize| (-(1.0 - (i as f64 + 0.5) / n as f64).ln()).powf(1.5) as f32;
    (0..n)
        .map(|i| if i % 3 == 0 { 0.0 } else { value(i) })
        .collect()
}

fn histogram(values: &[f32]) -> Histogram {
    let mut histogram = Histogram::new();
    values
        .chunks(999)
        .for_each(|chunk| histogram.observe(chunk));
    histogram
}

#[test]
fn histograms_grow_merge_and_leave_out_what_is_not_finite() {
    let values = heavy(20_000);
    let whole = histogram(&values);
    assert_eq!(whole.count(), 20_000);
    let observed = whole.observed().unwrap();
    assert_eq!((observed.min, observed.max), (values[0], values[19_999]));
    let (small, large) = (histogram(&values[5_000..15_000]), {
        let mut ends = values[..5_000].to_vec();
        ends.extend(&values[15_000..]);
        histogram(&ends)
    });
    for (mut a, b) in [(small.clone(), large.clone()), (large, small)] {
        a.merge(&b);
        assert_eq!(a, whole);
    }
    let mut odd = Histogram::new();
    odd.observe(&[f32::NAN, f32::INFINITY]);
    assert_eq!((odd.count(), odd.observed()), (0, None));
    odd.observe(&[0.0, f32::NAN, f32::MAX, 1e-44]);
    assert_eq!(odd.count(), 3);
    odd.merge(&Histogram::new());
    assert_eq!(odd.count(), 3);
    assert_eq!(
        Calibration::Entropy.range(&Histogram::new()),
        range(0.0, 0.0)
    );
}

/// numpy: `percentile` of the same values; the published pseudo-code on `numpy.bincount` of their bins, over the
/// thresholds that clip one in a thousand at most.
#[test]
fn ranges_are_those_of_numpy() {
    let near = |found: Range, min: f32, max: f32, bin: f32| {
        let close = |a: f32, b: f32| (a - b).abs() <= bin;
        assert!(close(found.min, min) && close(found.max, max), "{found:?}");
    };
    let values = heavy(20_000);
    let signed = histogram(&values);
    let all = Calibration::MinMax.range(&signed);
    assert_eq!((all.min, all.max), (values[0], values[19_999]));
    near(
        Calibration::Percentile(99.0).range(&signed),
        -21.16214,
        21.16214,
        0.06,
    );
    near(
        Calibration::Entropy.range(&signed),
        -47.078_125,
        47.078_125,
        1e-4,
    );
    let positive = histogram(&skewed(20_000));
    near(
        Calibration::Percentile(99.0).range(&positive),
        0.0,
        10.811_959,
        0.04,
    );
    near(Calibration::Entropy.range(&positive), 0.0, 19.460_937, 1e-4);
    // Everything, or nothing but zeros.
    assert_eq!(
        Calibration::Percentile(100.0).range(&positive),
        Calibration::MinMax.range(&positive)
    );
    let zeros = histogram(&[0.0; 10]);
    for calibration in [
        Calibration::MinMax,
        Calibration::Percentile(99.0),
        Calibration::Entropy,
    ] {
        assert_eq!(calibration.range(&zeros), range(0.0, 0.0));
    }
}

/// conv–norm–relu, conv–norm, sum, relu, pool, dropout, linear; and a hard swish.
fn network() -> (Graph, WeightMap) {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("a", x, Conv::new(4, 3));
    let x = b.batch_norm("an", x);
    let x = b.act(x, Act::Relu);
    let y = b.conv("b", x, Conv::new(4, 3));
    let y = b.batch_norm("bn", y);
    let x = b.add(x, y);
    let x = b.act(x, Act::Relu);
    let x = b.max_pool(x, 2, 2, 0);
    let x = b.conv("c", x, Conv::new(5, 1));
    let x = b.act(x, Act::HardSwish);
    let x = b.global_avg_pool(x);
    let x = b.flatten(x);
    let x = b.dropout(x, 0.5);
    let x = b.linear("fc", x, 2);
    b.output("logits", x);
    let graph = b.finish().unwrap();
    let weights = init_weights(&graph, 1);
    fold_batch_norm(&graph, &weights).unwrap()
}

fn ranges(graph: &Graph) -> IndexMap<String, Range> {
    let values = calibration_values(graph);
    values
        .iter()
        .map(|&name| (name.to_owned(), range(0.0, 51.0)))
        .collect()
}

#[test]
fn what_needs_a_range() {
    let (graph, weights) = network();
    // Neither the sums before a ReLU, nor what pooling and flattening hand on, nor the logits.
    let wanted = [
        "input",
        "activation_3",
        "b",
        "activation_7",
        "c",
        "activation_10",
        "globalavgpool_11",
    ];
    assert_eq!(calibration_values(&graph), wanted);
    let quantization = quantize(&graph, &weights, &ranges(&graph)).unwrap();
    let of = |name: &str| graph.nodes.iter().position(|n| n.name == name).unwrap();
    assert_eq!(
        quantization.values[of("maxpool_8")],
        quantization.values[of("activation_7")]
    );
    assert_eq!(quantization.values[of("fc")], None);
    assert_eq!(quantization.values[of("a")], None);
    assert!(
        quantization.absorbed[of("activation_3")] && !quantization.absorbed[of("activation_10")]
    );

    let mut missing = ranges(&graph);
    missing.shift_remove("b");
    let error = quantize(&graph, &weights, &missing)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`b`") && error.contains("no valid range"),
        "{error}"
    );
    missing.insert("b".to_owned(), range(0.0, f32::NAN));
    assert!(quantize(&graph, &weights, &missing).is_err());
    // A range below zero is not what a ReLU gives: then it must stay.
    missing.insert("b".to_owned(), range(-1.0, 1.0));
    missing.insert("activation_3".to_owned(), range(-1.0, 1.0));
    let quantization = quantize(&graph, &weights, &missing).unwrap();
    assert!(!quantization.absorbed[of("activation_3")]);
}

#[test]
fn batch_norms_come_first() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("a", x, Conv::new(4, 3));
    let x = b.batch_norm("an", x);
    b.output("out", x);
    let graph = b.finish().unwrap();
    let error = quantize(&graph, &init_weights(&graph, 1), &IndexMap::new()).unwrap_err();
    assert!(
        error.to_string().contains("`an`") && error.to_string().contains("fold"),
        "{error}"
    );
}

#[test]
fn weights_and_biases_as_integers() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(1);
    let x = b.conv("a", x, Conv::new(4, 1).bias());
    let x = b.conv("b", x, Conv::new(1, 1));
    b.output("out", x);
    let graph = b.finish().unwrap();
    let mut weights = init_weights(&graph, 1);
    weights["a.weight"].data = vec![127.0, -0.5, 0.0, 1e-12];
    weights["a.bias"].data = vec![8.0, -1.0, 0.0, 4.0];
    let mut ranges = ranges(&graph);
    ranges.insert("input".to_owned(), range(0.0, 255.0 / 4.0)); // steps of 1/4
    let quantization = quantize(&graph, &weights, &ranges).unwrap();
    let weight = &quantization.params["a.weight"];
    assert_eq!(weight.shape, [4, 1, 1, 1]);
    assert_eq!(weight.data, QuantizedData::Int8(vec![127, -127, 0, 0]));
    assert_eq!(weight.scales[..3], [1.0, 0.5 / 127.0, 1.0]);
    let bias = &quantization.params["a.bias"];
    let QuantizedData::Int32(stored) = &bias.data else {
        panic!()
    };
    assert_eq!(stored[..3], [32, -1016, 0]);
    // A tiny filter with a large bias: its scale is such that the bias fits.
    assert!(stored[3].abs() <= 1 << 30);
    for (i, &wanted) in weights["a.bias"].data.iter().enumerate() {
        let value = f64::from(stored[i]) * f64::from(bias.scales[i]);
        assert!((value - f64::from(wanted)).abs() < 1e-5, "{i}: {value}");
    }
    assert!(!quantization.params.contains_key("b.bias"));
}

fn written(graph: &Graph, weights: &WeightMap) -> ModelProto {
    let quantization = quantize(graph, weights, &ranges(graph)).unwrap();
    let mut bytes = Vec::new();
    onnx::write_quantized(
        graph,
        weights,
        &quantization,
        &OnnxOptions::default(),
        &mut bytes,
    )
    .unwrap();
    ModelProto::decode(&bytes[..]).unwrap()
}

fn raw<'a>(graph: &'a GraphProto, name: &str) -> (i32, Vec<i64>, &'a [u8]) {
    let tensor = graph.initializer.iter().find(|t| t.name == name);
    let tensor = tensor.unwrap_or_else(|| panic!("no {name}"));
    (
        tensor.data_type,
        tensor.dims.clone(),
        tensor.raw_data.as_deref().unwrap(),
    )
}

#[test]
fn the_file_has_pairs_and_integer_weights() {
    let (graph, weights) = network();
    let model = written(&graph, &weights);
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    let onnx = model.graph.unwrap();
    let node = |output: &str| onnx.node.iter().find(|n| n.output[0] == output).unwrap();

    // The ReLU is gone: its range begins at 0.
    let conv = node("activation_3");
    assert_eq!(conv.op_type, "Conv");
    assert_eq!(conv.input, ["image.dequantized", "a.weight", "a.bias"]);
    assert_eq!(node("activation_7").op_type, "Add");
    assert_eq!(
        node("activation_7").input,
        ["activation_3.dequantized", "b.dequantized"]
    );
    assert!(onnx.node.iter().all(|n| n.op_type != "Relu"));
    let pair = [
        node("activation_3.quantized"),
        node("activation_3.dequantized"),
    ];
    assert_eq!(
        pair.map(|n| n.op_type.as_str()),
        ["QuantizeLinear", "DequantizeLinear"]
    );
    assert_eq!(
        pair[0].input,
        [
            "activation_3",
            "activation_3.scale",
            "activation_3.zero_point"
        ]
    );
    assert_eq!(
        raw(&onnx, "activation_3.zero_point"),
        (2, vec![], &[0u8][..])
    );
    assert_eq!(raw(&onnx, "activation_3.scale").2, 0.2f32.to_le_bytes());

    let weight = node("a.weight");
    assert_eq!(weight.op_type, "DequantizeLinear");
    assert_eq!(
        weight.input,
        [
            "a.weight.quantized",
            "a.weight.scale",
            "a.weight.zero_point"
        ]
    );
    assert_eq!(
        (weight.attribute[0].name.as_str(), weight.attribute[0].i),
        ("axis", Some(0))
    );
    let (kind, dims, data) = raw(&onnx, "a.weight.quantized");
    assert_eq!((kind, dims, data.len()), (3, vec![4, 3, 3, 3], 108));
    assert_eq!(raw(&onnx, "a.weight.scale").1, [4]);
    assert_eq!(raw(&onnx, "a.bias.quantized").0, 6);
    assert!(
        onnx.initializer
            .iter()
            .all(|t| t.name != "a.weight" && t.name != "a.bias")
    );

    // Dropout is its input, the logits stay fp32.
    assert_eq!(node("logits").op_type, "Gemm");
    assert_eq!(node("logits").input[0], "flatten_12.dequantized");
    let outputs: Vec<&str> = onnx.output.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["logits"]);
    let mut known: std::collections::HashSet<&str> =
        onnx.initializer.iter().map(|t| t.name.as_str()).collect();
    known.insert("image");
    for node in &onnx.node {
        assert!(
            node.input.iter().all(|i| known.contains(i.as_str())),
            "{}",
            node.name
        );
        assert!(known.insert(&node.output[0]), "{} twice", node.name);
    }
}

#[test]
fn a_quantization_of_another_graph_is_refused() {
    let (graph, weights) = network();
    let mut quantization = quantize(&graph, &weights, &ranges(&graph)).unwrap();
    quantization.values.pop();
    let options = OnnxOptions::default();
    let error = onnx::write_quantized(&graph, &weights, &quantization, &options, &mut Vec::new());
    assert!(error.unwrap_err().to_string().contains("another graph"));
}

/// A convolution over two maps, whose results are cut into outputs.
fn shared_head() -> Graph {
    let mut b = GraphBuilder::new("shared");
    let x = b.input(3);
    let fine = b.conv("fine", x, Conv::new(4, 3).bias());
    let coarse = b.conv("coarse", fine, Conv::new(4, 3).stride(2).bias());
    let first = b.conv("head", fine, Conv::new(5, 1).bias());
    let second = b.shared("head1", first, &[coarse]);
    for (i, map) in [first, second].into_iter().enumerate() {
        let score = b.slice(map, 0, 1);
        b.output(&format!("score{i}"), score);
        let sides = b.slice(map, 1, 4);
        b.output(&format!("sides{i}"), sides);
    }
    b.finish().unwrap()
}

#[test]
fn layers_of_one_weight_have_a_bias_in_steps_of_each_input_and_cut_outputs_stay_fp32() {
    let graph = shared_head();
    let mut weights = init_weights(&graph, 3);
    weights.get_mut("head.bias").unwrap().data = vec![0.5, -0.25, 1.0, 2.0, -3.0];
    let names = calibration_values(&graph);
    assert_eq!(names, ["input", "fine", "coarse"]);
    let ranges = [range(-1.0, 1.0), range(-2.55, 2.55), range(-25.5, 25.5)];
    let ranges: IndexMap<String, Range> =
        names.iter().map(|n| (*n).to_owned()).zip(ranges).collect();
    let quantization = quantize(&graph, &weights, &ranges).unwrap();
    assert!(!quantization.params.contains_key("head1.weight"));
    let step = &quantization.params["head.weight"].scales;
    for (name, input) in [("head.bias", 0.02), ("head1.bias", 0.2)] {
        let bias = &quantization.params[name];
        let QuantizedData::Int32(values) = &bias.data else {
            panic!("{name} is no bias");
        };
        for (i, expected) in weights["head.bias"].data.iter().enumerate() {
            assert!(
                (bias.scales[i] / (step[i] * input) - 1.0).abs() < 1e-4,
                "{name}"
            );
            let found = values[i] as f32 * bias.scales[i];
            assert!(
                (found - expected).abs() <= bias.scales[i],
                "{name}: {found} {expected}"
            );
        }
    }
    let mut bytes = Vec::new();
    let options = OnnxOptions::default();
    onnx::write_quantized(&graph, &weights, &quantization, &options, &mut bytes).unwrap();
    let onnx = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    let conv = |name: &str| onnx.node.iter().find(|n| n.output[0] == name).unwrap();
    assert_eq!(conv("head").input[1..], ["head.weight", "head.bias"]);
    assert_eq!(conv("head1").input[1..], ["head.weight", "head1.bias"]);
    let made = |name: &str| onnx.node.iter().filter(|n| n.output[0] == name).count();
    assert_eq!(
        ["head.weight", "head.bias", "head1.bias"].map(made),
        [1, 1, 1]
    );
    assert!(
        onnx.node
            .iter()
            .all(|n| n.op_type != "QuantizeLinear" || !n.input[0].starts_with("head"))
    );
}
