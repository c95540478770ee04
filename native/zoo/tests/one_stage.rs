//! Every one-stage detector: sizes, outputs, weights' names, folding, pruning.
//!
//! What they compute is compared with PaddleX's own networks in `native/engine/tests/one_stage_networks.rs`.

use std::collections::HashSet;

use oarlock_graph::{
    Graph, Head, Keep, Op, Suppression, channel_groups, fold_batch_norm, infer_shapes,
    init_weights, parameter_count, prune,
};
use oarlock_zoo::{Origin, detector_backbones, detector_of};

const ORIGINS: [Origin; 2] = [Origin::Torch, Origin::Paddle];

/// Trained parameters with 3 classes: `parameters()` of PaddleX 2.1's own networks.
const EXACT: &[(&str, &str, u64)] = &[
    ("YOLOv3", "MobileNetV1", 24_156_552),
    ("YOLOv3", "MobileNetV3", 23_192_046),
    ("YOLOv3", "ResNet34", 41_894_408),
    ("PPYOLO", "ResNet18_vd", 14_024_470),
    ("PPYOLO", "MobileNetV3_small", 2_544_068),
    ("PPYOLOTiny", "MobileNetV3", 996_750),
    ("PPYOLOv2", "ResNet50_vd_dcn", 54_164_738),
    ("PicoDet", "ESNet_s", 962_839),
    ("PicoDet", "LCNet", 3_067_932),
    ("YOLOv3", "MobileNetV1_ssld", 24_156_552),
    ("YOLOv3", "MobileNetV3_ssld", 23_192_046),
    ("YOLOv3", "DarkNet53", 61_534_504),
    ("YOLOv3", "ResNet50_vd_dcn", 45_538_297),
    ("PPYOLO", "ResNet50_vd_dcn", 46_630_914),
    ("PPYOLO", "MobileNetV3_large", 4_583_964),
    ("PPYOLOv2", "ResNet101_vd_dcn", 73_156_866),
    ("PicoDet", "ESNet_m", 2_112_822),
    ("PicoDet", "ESNet_l", 3_255_421),
    ("PicoDet", "MobileNetV3", 3_514_930),
    ("PicoDet", "ResNet18_vd", 11_974_764),
];

fn graph(name: &str, backbone: &str, classes: usize, origin: Origin) -> Graph {
    let built = detector_of(name, Some(backbone), true, classes, origin);
    built.unwrap_or_else(|e| panic!("{name} {backbone}: {e}")).0
}

/// Every network with every backbone.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["YOLOv3", "PPYOLO", "PPYOLOTiny", "PPYOLOv2", "PicoDet"]
        .into_iter()
        .flat_map(|name| detector_backbones(name).iter().map(move |&b| (name, b)))
}

#[test]
fn as_many_parameters_as_paddlexs_networks() {
    for &(name, backbone, parameters) in EXACT {
        let graph = graph(name, backbone, 3, Origin::Paddle);
        assert_eq!(parameter_count(&graph), parameters, "{name} {backbone}");
    }
    let listed: Vec<_> = EXACT.iter().map(|row| (row.0, row.1)).collect();
    assert!(all().all(|one| listed.contains(&one)));
}

#[test]
fn outputs_are_those_of_the_head() {
    let (h, w) = (192, 256);
    for (name, backbone) in all() {
        for origin in ORIGINS {
            let graph = graph(name, backbone, 4, origin);
            assert_eq!(graph.without_dead_nodes(), graph);
            assert_eq!(Graph::from_json(&graph.to_json().unwrap()).unwrap(), graph);
            let shapes = infer_shapes(&graph, [2, 3, h, w]).unwrap();
            let outputs = graph.outputs.iter();
            let outputs: Vec<_> = outputs
                .map(|o| (o.name.clone(), shapes[o.node][1..].to_vec()))
                .collect();
            let mut wanted = Vec::new();
            match graph.head.as_ref().unwrap() {
                Head::Yolo(head) => {
                    let values = 9 + usize::from(head.iou_aware.is_some());
                    for (i, level) in head.levels.iter().enumerate() {
                        let map = [h / level.stride, w / level.stride];
                        wanted.push((format!("yolo{i}"), vec![3 * values, map[0], map[1]]));
                        let rising = level.anchors.windows(2);
                        assert!(
                            rising
                                .into_iter()
                                .all(|a| a[0][0] * a[0][1] <= a[1][0] * a[1][1])
                        );
                    }
                }
                Head::Pico(head) => {
                    for (i, stride) in head.strides.iter().enumerate() {
                        let map = [h / stride, w / stride];
                        wanted.push((format!("score{i}"), vec![4, map[0], map[1]]));
                        wanted.push((format!("sides{i}"), vec![32, map[0], map[1]]));
                    }
                }
                Head::TwoStage(_) => panic!("{name} has one stage"),
            }
            assert_eq!(outputs, wanted, "{name} {backbone}");
        }
    }
}

/// PaddleX 2.1's settings (`cv/models/detector.py`).
#[test]
fn heads_choose_as_paddlexs_do() {
    let nms = |score, overlap| Suppression::Nms {
        score,
        overlap,
        candidates: Some(1000),
        detections: 100,
    };
    let matrix = |post| Suppression::Matrix {
        score: 0.01,
        post,
        sigma: None,
        candidates: None,
        detections: 100,
    };
    for (name, backbone) in all() {
        let graph = graph(name, backbone, 4, Origin::Torch);
        let head = graph.head.unwrap();
        let mobile = backbone.starts_with("MobileNetV3");
        let (suppression, objectness, scale, aware) = match name {
            "YOLOv3" => (nms(0.01, 0.45), 0.005, 1.0, None),
            "PPYOLO" if mobile => (matrix(0.05), 0.005, 1.05, Some(0.4)),
            "PPYOLO" => (matrix(0.01), 0.01, 1.05, Some(0.4)),
            "PPYOLOTiny" => (nms(0.005, 0.45), 0.005, 1.05, None),
            "PPYOLOv2" => (matrix(0.01), 0.01, 1.05, Some(0.5)),
            _ => (nms(0.025, 0.6), 0.0, 0.0, None),
        };
        assert_eq!(head.suppression(), &suppression, "{name} {backbone}");
        if let Head::Yolo(head) = head {
            let given = (head.objectness, head.scale_xy, head.iou_aware);
            assert_eq!(given, (objectness, scale, aware), "{name} {backbone}");
            let small = name == "PPYOLO" && backbone != "ResNet50_vd_dcn";
            assert_eq!(head.levels.len(), if small { 2 } else { 3 });
        }
    }
}

#[test]
fn each_parameter_has_one_name_in_paddlex() {
    for (name, backbone) in all() {
        let (graph, weights) = detector_of(name, Some(backbone), true, 3, Origin::Paddle).unwrap();
        let ours: HashSet<_> = weights.iter().map(|w| w.name.clone()).collect();
        let theirs: HashSet<_> = weights.iter().map(|w| &w.paddle_name).collect();
        assert_eq!((ours.len(), theirs.len()), (weights.len(), weights.len()));
        let params: HashSet<_> = graph.params().map(|p| p.0).collect();
        assert_eq!(params, ours, "{name} {backbone}");
    }
}

#[test]
fn every_batch_norm_folds_and_filters_are_pruned() {
    for (name, backbone) in all().filter(|(_, b)| !b.contains("101") && !b.ends_with("_ssld")) {
        let graph = graph(name, backbone, 2, Origin::Torch);
        let weights = init_weights(&graph, 1);
        let (folded, folded_weights) = fold_batch_norm(&graph, &weights).unwrap();
        let norms = folded.nodes.iter();
        let norms = norms
            .filter(|n| matches!(n.op, Op::BatchNorm { .. }))
            .count();
        // Those behind deformable convolutions may stay.
        assert!(norms <= 3, "{name} {backbone}: {norms}");
        folded.validate_weights(&folded_weights).unwrap();
        assert_eq!(folded.head, graph.head);

        let groups = channel_groups(&graph).unwrap();
        let half = |size: usize| (0..size).step_by(2).collect();
        let keep: Keep = groups
            .groups
            .iter()
            .map(|g| (g.name.clone(), half(g.size())))
            .collect();
        let (pruned, pruned_weights) = prune(&graph, &weights, &groups, &keep).unwrap();
        pruned.validate_weights(&pruned_weights).unwrap();
        assert!(
            parameter_count(&pruned) < parameter_count(&graph) * 7 / 10,
            "{name} {backbone}"
        );
        assert_eq!(pruned.head, graph.head);
        let shapes = |graph: &Graph| -> Vec<_> {
            let shapes = infer_shapes(graph, [1, 3, 128, 192]).unwrap();
            graph
                .outputs
                .iter()
                .map(|o| shapes[o.node].clone())
                .collect()
        };
        assert_eq!(shapes(&pruned), shapes(&graph));
    }
}

/// Focal prior: before any training each class has a chance of 1 % everywhere, give or take what the small weights do.
#[test]
fn picodets_classes_begin_rare() {
    let graph = graph("PicoDet", "ESNet_s", 3, Origin::Torch);
    let weights = init_weights(&graph, 7);
    for level in 0..4 {
        let bias = &weights[&format!("head.head_cls{level}.bias")];
        let chance = |v: &f32| 1.0 / (1.0 + (-f64::from(*v)).exp());
        assert!(bias.data.iter().all(|v| (chance(v) - 0.01).abs() < 1e-6));
        let weight = &weights[&format!("head.head_cls{level}.weight")].data;
        let squares: f64 = weight.iter().map(|v| f64::from(*v).powi(2)).sum();
        let deviation = (squares / weight.len() as f64).sqrt();
        assert!((deviation - 0.01).abs() < 1e-3, "{deviation}");
    }
}
