//! Every two-stage detector: sizes, outputs, order, weights' names, folding.
//!
//! What they compute is compared with torchvision's and PaddleX's own networks in
//! `native/engine/tests/two_stage_networks.rs`.

use std::collections::HashSet;

use oarlock_graph::{
    Graph, Head, Op, TwoStageHead, fold_batch_norm, infer_shapes, init_weights, parameter_count,
};
use oarlock_zoo::{Origin, detector_backbones, detector_of};

const ORIGINS: [Origin; 2] = [Origin::Torch, Origin::Paddle];

fn graph(name: &str, backbone: &str, fpn: bool, classes: usize, origin: Origin) -> Graph {
    let built = detector_of(name, Some(backbone), fpn, classes, origin);
    built.unwrap_or_else(|e| panic!("{name} {backbone}: {e}")).0
}

/// Every network with every backbone, with a pyramid and without.
fn all() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    ["FasterRCNN", "MaskRCNN"].into_iter().flat_map(|name| {
        let backbones = detector_backbones(name).iter();
        backbones.flat_map(move |&backbone| [(name, backbone, true), (name, backbone, false)])
    })
}

fn head(graph: &Graph) -> &TwoStageHead {
    match &graph.head {
        Some(Head::TwoStage(head)) => head,
        other => panic!("{}: {other:?}", graph.name),
    }
}

/// torchvision's own counts (its documentation, "Models and pre-trained weights") for 91 classes with background;
/// it counts no batch norm, and has boxes and masks for the background too.
#[test]
fn as_many_parameters_as_published() {
    let norms = 53_120;
    let background_box = 4 * 1025;
    let background_mask = 257;
    let faster = graph("FasterRCNN", "ResNet50", true, 90, Origin::Torch);
    assert_eq!(
        parameter_count(&faster),
        41_755_286 + norms - background_box
    );
    let mask = graph("MaskRCNN", "ResNet50", true, 90, Origin::Torch);
    assert_eq!(
        parameter_count(&mask),
        44_401_393 + norms - background_box - background_mask
    );
}

#[test]
fn outputs_are_those_of_the_head() {
    for (name, backbone, fpn) in all() {
        for origin in ORIGINS {
            let graph = graph(name, backbone, fpn, 5, origin);
            let head = head(&graph);
            assert_eq!(graph.without_dead_nodes(), graph);
            assert_eq!(Graph::from_json(&graph.to_json().unwrap()).unwrap(), graph);
            let masks = name == "MaskRCNN";
            let fpn = fpn || !matches!(backbone, "ResNet50" | "ResNet50_vd");
            assert_eq!(head.levels.len(), if fpn { 5 } else { 1 });
            let side = if fpn { 28 } else { 14 };
            assert_eq!(head.mask_size, masks.then_some(side));

            let (h, w) = (192, 256);
            let shapes = infer_shapes(&graph, [2, 3, h, w]).unwrap();
            let mut outputs = graph.outputs.iter().map(|output| {
                let channels = &shapes[output.node][1..];
                (output.name.clone(), channels.to_vec())
            });
            for (i, level) in head.levels.iter().enumerate() {
                let anchors = level.sizes.len() * level.ratios.len();
                let map = [h / level.stride, w / level.stride];
                for (kind, channels) in [("score", anchors), ("delta", 4 * anchors)] {
                    let (name, shape) = outputs.next().unwrap();
                    assert_eq!(name, format!("rpn_{kind}{i}"));
                    assert_eq!(shape, [channels, map[0], map[1]], "{backbone} {name}");
                }
            }
            let mut rest = vec![("box_score", vec![6]), ("box_delta", vec![20])];
            if masks {
                rest.push(("mask", vec![5, side, side]));
            }
            let rest: Vec<_> = rest
                .iter()
                .map(|(n, s)| (n.to_string(), s.clone()))
                .collect();
            assert_eq!(outputs.collect::<Vec<_>>(), rest, "{name} {backbone}");
        }
    }
}

#[test]
fn nodes_stand_in_the_order_of_the_stages() {
    for (name, backbone, fpn) in all() {
        let graph = graph(name, backbone, fpn, 3, Origin::Torch);
        let place = |wanted: &str| graph.nodes.iter().position(|node| node.name == wanted);
        let output = |wanted: &str| {
            let found = graph.outputs.iter().find(|o| o.name == wanted);
            found.map(|o| o.node)
        };
        let rois = place("rois").unwrap();
        for o in graph.outputs.iter().filter(|o| o.name.starts_with("rpn")) {
            assert!(o.node < rois);
        }
        // Whatever stands behind the regions needs them, and the other way round.
        let mut needs = vec![false; graph.nodes.len()];
        for (id, node) in graph.nodes.iter().enumerate() {
            needs[id] = matches!(node.op, Op::Rois) || node.inputs.iter().any(|&i| needs[i]);
            assert_eq!(needs[id], id >= rois, "{}", node.name);
        }
        if let Some(masks) = place("mask_rois") {
            for name in ["box_score", "box_delta"] {
                assert!(output(name).unwrap() < masks);
            }
        }
    }
}

#[test]
fn each_parameter_has_one_name_in_paddlex() {
    for (name, backbone, fpn) in all() {
        let (graph, weights) = detector_of(name, Some(backbone), fpn, 3, Origin::Paddle).unwrap();
        let ours: HashSet<_> = weights.iter().map(|w| w.name.clone()).collect();
        let theirs: HashSet<_> = weights.iter().map(|w| &w.paddle_name).collect();
        assert_eq!((ours.len(), theirs.len()), (weights.len(), weights.len()));
        let params: HashSet<_> = graph.params().map(|p| p.0).collect();
        assert_eq!(params, ours, "{name} {backbone}");
    }
}

#[test]
fn every_batch_norm_folds_also_where_it_is_shared() {
    for (name, backbone, fpn) in all().filter(|(_, b, _)| !b.contains("101")) {
        let graph = graph(name, backbone, fpn, 2, Origin::Torch);
        let weights = init_weights(&graph, 1);
        let (folded, weights) = fold_batch_norm(&graph, &weights).unwrap();
        let norm = |op: &Op| matches!(op, Op::BatchNorm { .. });
        assert!(
            !folded.nodes.iter().any(|n| norm(&n.op)),
            "{name} {backbone}"
        );
        folded.validate().unwrap();
        folded.validate_weights(&weights).unwrap();
        assert_eq!(folded.head, graph.head);
    }
}
