//! Every network as a quantized file: structure. Numbers: `native/graph/tests/quantize.rs`.

use std::collections::HashSet;

use oarlock_graph::onnx::{self, OnnxOptions, proto::ModelProto};
use oarlock_graph::{
    Op, Range, calibration_values, fold_batch_norm, init_weights, parameter_count, quantize,
};
use oarlock_zoo::{
    Origin, classifier, classifier_names, detector_of, segmenter_backbones, segmenter_names,
    segmenter_of,
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
    let detectors = [
        ("YOLOv3", "MobileNetV1"),
        ("PPYOLO", "ResNet18_vd"),
        ("PPYOLOTiny", "MobileNetV3"),
        ("PicoDet", "ESNet_s"),
        ("PicoDet", "LCNet"),
        ("MaskRCNN", "ResNet18"),
    ];
    let detectors = detectors.map(|(n, backbone)| {
        let built = detector_of(n, Some(backbone), true, 4, Origin::Paddle);
        (n, built.unwrap().0)
    });
    let without_pyramid = detector_of("FasterRCNN", Some("ResNet50"), false, 4, Origin::Torch);
    let detectors = detectors
        .into_iter()
        .chain([("FasterRCNN", without_pyramid.unwrap().0)]);
    for (name, graph) in classifiers.chain(segmenters).chain(detectors) {
        let detects = graph.head.is_some();
        if parameter_count(&graph) > 30_000_000 && name != "AlexNet" && !detects {
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
            // Those who use the weight of another have a bias in steps of their own input.
            let suffix = if layer.shares.is_some() {
                "bias"
            } else {
                "weight"
            };
            let param = format!("{}.{suffix}", layer.name);
            assert!(quantization.params.contains_key(&param), "{name}: {param}");
        }
        for output in &graph.outputs {
            assert!(
                quantization.values[output.node].is_none(),
                "{name}: {}",
                output.name
            );
        }
        let options = OnnxOptions {
            image_size: Some([64, 64]),
            batch: detects.then_some(1),
            detections: detects,
            ..OnnxOptions::default()
        };
        let mut bytes = Vec::new();
        onnx::write_quantized(&graph, &weights, &quantization, &options, &mut bytes).unwrap();
        let fp32 = onnx::export(&graph, &weights, &options).unwrap().len();
        // The boxes of a detector are made in fp32, with as many nodes for a small one as for a large one.
        let most = if detects { fp32 * 2 / 5 } else { fp32 / 3 };
        assert!(bytes.len() < most, "{name}: {} of {fp32}", bytes.len());
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
            for output in &node.output {
                assert!(known.insert(output), "{name}: {} twice", node.name);
            }
        }
        match detects {
            false => assert!(known.contains("logits")),
            true => assert!(
                ["boxes", "scores", "labels"]
                    .iter()
                    .all(|n| known.contains(n))
            ),
        }
    }
}
