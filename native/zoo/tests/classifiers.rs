//! Every classifier: names, sizes, weights' names, export.
//!
//! Checked by hand against other implementations with random weights (the same weights on both sides,
//! batch norms with random statistics, exported through `oarlock_graph::onnx` with batch norms as they
//! are and folded, run by onnxruntime 1.32.0 on the CPU; largest difference relative to the largest output):
//!
//! | reference | networks | image sides | difference |
//! |---|---|---|---|
//! | torchvision 0.26, weights found by name | ResNet, DenseNet, ShuffleNetV2, AlexNet | 32, 97, 224 | ≤ 1.7e-6 |
//! | torchvision 0.26, weights found by name | MobileNetV2, MobileNetV3 | 32, 97, 224 | ≤ 1.6e-5 |
//! | timm 1.0, weights found by name | ResNet18…152 vd, HRNet W18…W64 | 32, 64, 97, 224 | ≤ 1.6e-6 |
//! | PaddleX 2.1 on Paddle 2.6.2, weights mapped by `PaddleWeight` | all 35 | 32, 64, 75, 96, 224 | ≤ 1e-5 (*) |
//!
//! (*) 4e-4 for MobileNetV3_large at 75, where random weights amplify a relative change of 2e-7 of the
//! input to 1e-3. In each case every parameter was found and none was left over. All exported files
//! pass `onnx.checker` with full shape inference.

use std::collections::HashSet;

use oarlock_graph::{
    Graph, HostTensor, Op, WeightMap, fold_batch_norm, infer_shapes, init_weights, onnx,
    parameter_count,
};
use oarlock_zoo::{
    Origin, ZooError, canonical_name, classifier, classifier_names, classifier_of, input_size,
    rename_torch,
};
use prost::Message;

fn both() -> impl Iterator<Item = (&'static str, Origin)> {
    classifier_names()
        .iter()
        .flat_map(|&name| [(name, Origin::Torch), (name, Origin::Paddle)])
}

#[test]
fn the_names_of_the_paddlex_api_are_all_there() {
    // The page's list and what the library trains beyond it.
    let page = "MobileNetV2 ResNet18 ResNet34 ResNet50 ResNet101 ResNet50_vd ResNet101_vd \
        ResNet50_vd_ssld ResNet101_vd_ssld DarkNet53 MobileNetV1 MobileNetV3_small \
        MobileNetV3_large MobileNetV3_small_ssld MobileNetV3_large_ssld Xception41 Xception65 \
        DenseNet121 DenseNet161 DenseNet201 ShuffleNetV2";
    let library = "ResNet152 ResNet18_vd ResNet34_vd ResNet152_vd ResNet200_vd AlexNet \
        DenseNet169 DenseNet264 HRNet_W18_C HRNet_W30_C HRNet_W32_C HRNet_W40_C HRNet_W44_C \
        HRNet_W48_C HRNet_W64_C Xception71 ShuffleNetV2_swish PPLCNet PPLCNet_ssld";
    let wanted: HashSet<&str> = page
        .split_whitespace()
        .chain(library.split_whitespace())
        .collect();
    let known: HashSet<&str> = classifier_names().iter().copied().collect();
    assert_eq!(known, wanted);
    for name in known {
        assert_eq!(classifier(name, 3).unwrap().name, name);
    }
}

#[test]
fn aliases_and_letter_case() {
    assert_eq!(
        canonical_name("mobilenetv3_SMALL_x1_0"),
        Some("MobileNetV3_small")
    );
    assert_eq!(canonical_name("ShuffleNetV2_x1_0"), Some("ShuffleNetV2"));
    assert_eq!(canonical_name("resnet50"), Some("ResNet50"));
    assert_eq!(canonical_name("ResNet51"), None);
    assert_eq!(canonical_name(""), None);
}

#[test]
fn unknown_names_and_no_classes_are_refused() {
    let error = classifier("ResNet51", 10).unwrap_err();
    assert!(error.to_string().contains("`ResNet51`") && error.to_string().contains("ResNet50"));
    assert_eq!(classifier("ResNet50", 0), Err(ZooError::NoClasses));
}

#[test]
fn logits_at_usual_and_odd_sizes() {
    for (name, origin) in both() {
        let (graph, _) = classifier_of(name, 7, origin).unwrap();
        let size = input_size(name).unwrap();
        for [h, w] in [
            [32, 32],
            [64, 64],
            [224, 224],
            [299, 299],
            [96, 160],
            [63, 65],
        ] {
            let shapes = infer_shapes(&graph, [2, 3, h, w]);
            if let Some(reason) = size.objection(h, w) {
                assert!(
                    !reason.is_empty() && shapes.is_err(),
                    "{name} takes {h}×{w} after all"
                );
            } else {
                let shapes = shapes.unwrap_or_else(|e| panic!("{name} {h}×{w}: {e}"));
                assert_eq!(shapes[graph.outputs[0].node], [2, 7], "{name} {h}×{w}");
            }
        }
        assert_eq!(graph.outputs.len(), 1);
        assert_eq!(graph.outputs[0].name, "logits");
        assert_eq!(graph.without_dead_nodes(), graph, "{name} has dead nodes");
        assert!(
            infer_shapes(&graph, [1, 1, 224, 224]).is_err(),
            "{name} takes grey images"
        );
    }
}

#[test]
fn minimum_sizes_are_what_they_say() {
    let alexnet = classifier("AlexNet", 2).unwrap();
    assert!(infer_shapes(&alexnet, [1, 3, 63, 63]).is_ok());
    let error = infer_shapes(&alexnet, [1, 3, 62, 200])
        .unwrap_err()
        .to_string();
    assert!(error.contains("larger image"), "{error}");
    assert_eq!(input_size("AlexNet").unwrap().objection(63, 63), None);
    assert!(
        input_size("HRNet_W18_C")
            .unwrap()
            .objection(224, 230)
            .unwrap()
            .contains("32")
    );
    assert_eq!(input_size("nothing"), None);
}

#[test]
fn paddle_names_cover_paddles_version_exactly() {
    for (name, origin) in both() {
        let (graph, map) = classifier_of(name, 5, origin).unwrap();
        let ours: HashSet<String> = map.iter().map(|w| w.name.clone()).collect();
        let theirs: HashSet<&str> = map.iter().map(|w| w.paddle_name.as_str()).collect();
        assert_eq!(ours.len(), map.len(), "{name}: a parameter is mapped twice");
        assert_eq!(
            theirs.len(),
            map.len(),
            "{name}: a Paddle name is used twice"
        );
        let params: HashSet<String> = graph.params().map(|(name, _)| name).collect();
        assert!(ours.is_subset(&params));
        if origin == Origin::Paddle {
            assert_eq!(ours, params, "{name}");
        }
        let linear: HashSet<String> = graph
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::Linear { .. }))
            .map(|n| format!("{}.weight", n.name))
            .collect();
        assert!(
            map.iter().all(|w| w.transposed == linear.contains(&w.name)),
            "{name}"
        );
    }
}

#[test]
fn versions_share_the_names_of_what_they_share() {
    // A checkpoint of one version must find its layers in the other, so what has the same name and
    // only that may differ in shape where the networks really differ (MobileNetV3's squeeze layers).
    for name in classifier_names() {
        let shapes = |origin| -> Vec<(String, Vec<usize>)> {
            let (graph, _) = classifier_of(name, 5, origin).unwrap();
            graph
                .params()
                .map(|(name, param)| (name, param.shape))
                .collect()
        };
        let torch = shapes(Origin::Torch);
        let paddle: std::collections::HashMap<_, _> = shapes(Origin::Paddle).into_iter().collect();
        for (param, shape) in torch {
            match paddle.get(&param) {
                Some(other) if *other == shape => {}
                Some(_) => assert!(name.starts_with("MobileNetV3"), "{name} {param}"),
                // the biases that PaddleClas leaves out
                None => assert!(param.ends_with(".bias"), "{name} {param}"),
            }
        }
    }
}

#[test]
fn torchvisions_old_densenet_names() {
    let new = |name| rename_torch(name);
    let (old, here) = (
        "features.denseblock1.denselayer6.norm.1.running_mean",
        "features.denseblock1.denselayer6.norm1.running_mean",
    );
    assert_eq!(new(old).as_deref(), Some(here));
    assert_eq!(
        new("features.denseblock3.denselayer12.conv.2.weight").as_deref(),
        Some("features.denseblock3.denselayer12.conv2.weight")
    );
    assert_eq!(new(here), None);
    assert_eq!(new("features.transition1.norm.weight"), None);
    assert_eq!(new("layer1.0.conv1.weight"), None);
}

#[test]
fn json_round_trip() {
    for name in [
        "ResNet50_vd",
        "HRNet_W18_C",
        "MobileNetV3_large",
        "ShuffleNetV2",
        "AlexNet",
    ] {
        let graph = classifier(name, 10).unwrap();
        assert_eq!(Graph::from_json(&graph.to_json().unwrap()).unwrap(), graph);
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
fn every_classifier_folds_and_exports() {
    for name in classifier_names() {
        let graph = classifier(name, 10).unwrap();
        if parameter_count(&graph) > 30_000_000 && *name != "AlexNet" {
            continue; // the same structure as its smaller relatives, at ten times the time
        }
        let (graph, weights) = fold_batch_norm(&graph, &zeros(&graph)).unwrap();
        let norms = graph
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::BatchNorm { .. }))
            .count();
        let dense = name.starts_with("DenseNet");
        assert_eq!(
            norms > 0,
            dense,
            "{name}: only norms after a concatenation stay"
        );

        let options = onnx::OnnxOptions {
            image_size: Some([64, 64]),
            ..Default::default()
        };
        let bytes = onnx::export(&graph, &weights, &options).unwrap();
        let model = onnx::proto::ModelProto::decode(&bytes[..]).unwrap();
        let onnx = model.graph.unwrap();
        let mut defined: HashSet<String> = onnx.input.iter().map(|v| v.name.clone()).collect();
        for tensor in &onnx.initializer {
            let values: i64 = tensor.dims.iter().product();
            let size = if tensor.data_type == 1 { 4 } else { 8 };
            assert_eq!(
                tensor.raw_data.as_ref().unwrap().len() as i64,
                size * values
            );
            assert!(
                defined.insert(tensor.name.clone()),
                "{name}: {} twice",
                tensor.name
            );
        }
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
        assert_eq!(onnx.output[0].name, "logits");
        assert!(defined.contains("logits"));
    }
}

#[test]
fn initial_weights_fit() {
    for name in ["MobileNetV3_small", "DenseNet121", "AlexNet"] {
        let graph = classifier(name, 10).unwrap();
        let weights = init_weights(&graph, 1);
        graph.validate_weights(&weights).unwrap();
        assert_eq!(weights.len(), graph.params().count());
    }
}
