//! Every network as a quantized file: structure. Numbers: `native/graph/tests/quantize.rs`.

use std::collections::HashSet;

use oarlock_graph::onnx::{self, OnnxOptions, proto::ModelProto};
use oarlock_graph::{
    Op, Range, calibration_values, fold_batch_norm, init_weights, parameter_count, quantize,
};
use oarlock_zoo::{
    Origin, classifier, classifier_names, segmenter_backbones, segmenter_names, segmenter_of,
};
use prost::Message;

#[test]
fn every_network_is_written_quantized() {
    let classifiers = classifier_names()
        .iter()
        .map(|&n| (n, classifier(n, 10).unwrap()));
    let segmenters = segmenter_names().iter().flat_map(|&n| {
        // The kinds of backbones; `None` is the default.
        let backbones = [None, Some("Xception41"), Some("MobileNetV2_x0.25")];
        let count = segmenter_backbones(n).len().clamp(1, 3);
        backbones
            .map(|b| (n, segmenter_of(n, b, 10, 3, Origin::Paddle).unwrap().0))
            .into_iter()
            .take(count)
    });
    for (name, graph) in classifiers.chain(segmenters) {
        if parameter_count(&graph) > 30_000_000 && name != "AlexNet" {
            continue; // the same structure as its smaller relatives, at ten times the time
        }
        let weights = init_weights(&graph, 1);
        let (graph, weights) = fold_batch_norm(&graph, &weights).unwrap();
        let range = Range { min: 0.0, max: 3.0 };
        let ranges = calibration_values(&graph)
            .iter()
            .map(|&value| (value.to_owned(), range))
            .collect();
        let quantization = quantize(&graph, &weights, &ranges).unwrap();
        let layers = graph
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::Conv2d { .. } | Op::Linear { .. }));
        for layer in layers {
            let weight = format!("{}.weight", layer.name);
            assert!(
                quantization.params.contains_key(&weight),
                "{name}: {weight}"
            );
        }
        let options = OnnxOptions {
            image_size: Some([64, 64]),
            ..OnnxOptions::default()
        };
        let mut bytes = Vec::new();
        onnx::write_quantized(&graph, &weights, &quantization, &options, &mut bytes).unwrap();
        let fp32 = onnx::export(&graph, &weights, &options).unwrap().len();
        assert!(bytes.len() < fp32 / 3, "{name}: {} of {fp32}", bytes.len());
        let onnx = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
        let inputs = onnx.input.iter().map(|v| v.name.as_str());
        let mut known: HashSet<&str> = inputs
            .chain(onnx.initializer.iter().map(|t| t.name.as_str()))
            .collect();
        for node in &onnx.node {
            let defined = |input: &String| input.is_empty() || known.contains(input.as_str());
            assert!(
                node.input.iter().all(defined),
                "{name}: {} comes too early",
                node.name
            );
            assert!(known.insert(&node.output[0]), "{name}: {} twice", node.name);
        }
        assert!(known.contains("logits"));
    }
}
