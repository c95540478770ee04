//! Every segmenter: names, sizes, outputs, weights' names, export.
//!
//! What they compute is compared with PaddleX's own networks in `native/engine/tests/segmenters.rs`, what the
//! exported files compute with the engine in `test/parity.test.ts`.

use std::collections::HashSet;

use oarlock_graph::{
    Graph, HostTensor, Op, WeightMap, fold_batch_norm, infer_shapes, onnx, parameter_count,
};
use oarlock_zoo::{
    Origin, ZooError, canonical_backbone, canonical_segmenter, input_size, segmenter,
    segmenter_backbones, segmenter_names, segmenter_of,
};
use prost::Message;

const ORIGINS: [Origin; 2] = [Origin::Torch, Origin::Paddle];

/// Every segmenter with every backbone.
fn all() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    segmenter_names()
        .iter()
        .flat_map(|&name| match segmenter_backbones(name) {
            [] => vec![(name, None)],
            backbones => backbones.iter().map(|&b| (name, Some(b))).collect(),
        })
}

#[test]
fn the_names_of_the_paddlex_api_are_all_there() {
    let wanted = [
        "DeepLabV3P",
        "BiSeNetV2",
        "UNet",
        "HRNet_W18",
        "FastSCNN",
        "HRNet_W48",
    ];
    assert_eq!(segmenter_names(), wanted);
    for (alias, name) in [
        ("U-Net", "UNet"),
        ("DeepLabv3+", "DeepLabV3P"),
        ("DeepLabv3p", "DeepLabV3P"),
        ("DeepLabV3+", "DeepLabV3P"),
        ("hrnet", "HRNet_W18"),
        (" fastscnn ", "FastSCNN"),
    ] {
        assert_eq!(canonical_segmenter(alias), Some(name), "{alias}");
    }
    assert_eq!(canonical_segmenter("PSPNet"), None);
    let backbones = segmenter_backbones("DeepLabV3P");
    assert_eq!(backbones[..2], ["ResNet50_vd", "ResNet101_vd"]);
    for older in [
        "Xception41",
        "Xception65",
        "MobileNetV2_x0.25",
        "MobileNetV2_x0.5",
        "MobileNetV2_x1.0",
        "MobileNetV2_x1.5",
        "MobileNetV2_x2.0",
        "MobileNetV3_large_x1_0_ssld",
    ] {
        assert_eq!(canonical_backbone("deeplabv3+", older), Some(older));
    }
    assert_eq!(
        canonical_backbone("DeepLabV3P", "MobileNetV2_x0_25"),
        Some("MobileNetV2_x0.25")
    );
    assert_eq!(canonical_backbone("UNet", "ResNet50_vd"), None);
}

#[test]
fn what_cannot_be_built_is_refused_with_what_can() {
    let text = |error: ZooError| error.to_string();
    let error = text(segmenter("PSPNet", None, 2, 3).unwrap_err());
    assert!(
        error.contains("`PSPNet`") && error.contains("HRNet_W18"),
        "{error}"
    );
    let error = text(segmenter("DeepLabV3P", Some("VGG16"), 2, 3).unwrap_err());
    assert!(
        error.contains("`VGG16`") && error.contains("Xception65"),
        "{error}"
    );
    assert_eq!(segmenter("UNet", None, 0, 3), Err(ZooError::NoClasses));
    assert_eq!(segmenter("UNet", None, 2, 0), Err(ZooError::NoChannels));
    // As the page sends it for networks without a choice.
    assert!(segmenter("UNet", Some("NA"), 2, 3).is_ok());
    let default = segmenter("DeepLabV3P", Some(""), 2, 3).unwrap();
    assert_eq!(default.name, "DeepLabV3P_ResNet50_vd");
}

#[test]
fn logits_have_the_size_of_the_image() {
    for (name, backbone) in all() {
        for origin in ORIGINS {
            let (graph, _) = segmenter_of(name, backbone, 5, 3, origin).unwrap();
            assert_eq!(graph.outputs[0].name, "logits");
            assert_eq!(graph.without_dead_nodes(), graph, "{name} has dead nodes");
            for [h, w] in [[32, 32], [64, 96], [512, 512], [33, 47], [129, 65]] {
                assert_eq!(input_size(name).unwrap().objection(h, w), None);
                let shapes = infer_shapes(&graph, [2, 3, h, w])
                    .unwrap_or_else(|e| panic!("{name} {backbone:?} {h}×{w}: {e}"));
                for output in &graph.outputs {
                    assert_eq!(shapes[output.node], [2, 5, h, w], "{name}: {}", output.name);
                }
            }
        }
    }
}

#[test]
fn auxiliary_heads_are_there_for_training_only() {
    for (name, backbone) in all() {
        let graph = segmenter(name, backbone, 5, 3).unwrap();
        // PaddleX's `default_loss`.
        let wanted: &[f32] = match name {
            "FastSCNN" => &[1.0, 0.4],
            "BiSeNetV2" => &[1.0; 5],
            _ => &[1.0],
        };
        assert_eq!(graph.loss_weights(), wanted, "{name}");
        let main = graph.without_auxiliary();
        assert_eq!(main.outputs.len(), 1);
        assert_eq!(
            parameter_count(&main) < parameter_count(&graph),
            wanted.len() > 1,
            "{name}"
        );
        assert_eq!(Graph::from_json(&graph.to_json().unwrap()).unwrap(), graph);
    }
}

#[test]
fn any_number_of_channels() {
    for (name, backbone) in all() {
        let three = segmenter(name, backbone, 2, 3).unwrap();
        for channels in [1, 6, 13] {
            let graph = segmenter(name, backbone, 2, channels).unwrap();
            assert!(infer_shapes(&graph, [1, channels, 64, 64]).is_ok());
            assert!(infer_shapes(&graph, [1, 2, 64, 64]).is_err(), "{name}");
            // Only the layers that read the image differ.
            let differ = graph
                .nodes
                .iter()
                .zip(&three.nodes)
                .filter(|(a, b)| a.op != b.op);
            for (node, _) in differ {
                let image = node
                    .inputs
                    .iter()
                    .all(|&i| i == 0 || graph.nodes[i].inputs == [0]);
                assert!(image, "{name}: {}", node.name);
            }
        }
    }
}

#[test]
fn paddle_names_cover_paddles_version_exactly() {
    for (name, backbone) in all() {
        for origin in ORIGINS {
            let (graph, map) = segmenter_of(name, backbone, 5, 3, origin).unwrap();
            let ours: HashSet<String> = map.iter().map(|w| w.name.clone()).collect();
            let theirs: HashSet<&str> = map.iter().map(|w| w.paddle_name.as_str()).collect();
            assert_eq!(ours.len(), map.len(), "{name}: a parameter is mapped twice");
            assert_eq!(
                theirs.len(),
                map.len(),
                "{name}: a Paddle name is used twice"
            );
            let params: HashSet<String> = graph.params().map(|(name, _)| name).collect();
            assert_eq!(ours, params, "{name}");
        }
    }
}

#[test]
fn versions_share_the_names_of_what_they_share() {
    for (name, backbone) in all() {
        let params = |origin| -> Vec<(String, Vec<usize>)> {
            let (graph, _) = segmenter_of(name, backbone, 5, 3, origin).unwrap();
            let params = graph.params().map(|(name, param)| (name, param.shape));
            params.collect()
        };
        let paddle: std::collections::HashMap<_, _> = params(Origin::Paddle).into_iter().collect();
        for (param, shape) in params(Origin::Torch) {
            let other = paddle
                .get(&param)
                .unwrap_or_else(|| panic!("{name} {param}"));
            // MobileNets round their channels in another way.
            let mobile = backbone.is_some_and(|b| b.starts_with("MobileNet"));
            assert!(*other == shape || mobile, "{name} {backbone:?} {param}");
        }
    }
}

fn zeros(graph: &Graph) -> WeightMap {
    let zero = |shape: Vec<usize>| {
        let data = vec![0.0; shape.iter().product()];
        HostTensor { shape, data }
    };
    graph
        .params()
        .map(|(name, param)| (name, zero(param.shape)))
        .collect()
}

#[test]
fn every_segmenter_folds_and_exports() {
    for (name, backbone) in all() {
        for origin in ORIGINS {
            let (graph, _) = segmenter_of(name, backbone, 5, 3, origin).unwrap();
            if parameter_count(&graph) > 45_000_000 {
                continue; // the same structure as its smaller relatives, at several times the time
            }
            let (graph, weights) = fold_batch_norm(&graph, &zeros(&graph)).unwrap();
            let norms = graph.nodes.iter();
            let norms = norms
                .filter(|n| matches!(n.op, Op::BatchNorm { .. }))
                .count();
            // The one that follows a pooling in BiSeNetV2.
            assert_eq!(norms, usize::from(name == "BiSeNetV2"), "{name}");
            let options = onnx::OnnxOptions {
                image_size: Some([64, 96]),
                ..Default::default()
            };
            let bytes = onnx::export(&graph, &weights, &options).unwrap();
            let model = onnx::proto::ModelProto::decode(&bytes[..]).unwrap();
            let onnx = model.graph.unwrap();
            let mut defined: HashSet<String> = onnx.input.iter().map(|v| v.name.clone()).collect();
            defined.extend(onnx.initializer.iter().map(|t| t.name.clone()));
            for node in &onnx.node {
                let known = |input: &String| input.is_empty() || defined.contains(input);
                assert!(
                    node.input.iter().all(known),
                    "{name}: {} comes too early",
                    node.name
                );
                assert!(
                    defined.insert(node.output[0].clone()),
                    "{name}: {} twice",
                    node.name
                );
            }
            assert_eq!(onnx.output.len(), 1);
            assert_eq!(onnx.output[0].name, "logits");
            assert!(defined.contains("logits"));
        }
    }
}
