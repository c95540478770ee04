//! The operations of detectors in every pass over graphs. That folding and pruning keep the numbers:
//! `native/engine/tests/detector_passes.rs`.

use oarlock_graph::{
    Act, Conv, FixedReason, Graph, GraphBuilder, Keep, NodeId, Op, WeightMap, calibration_values,
    channel_groups, cost, cut_points, fold_batch_norm, init_weights, level_areas, parameter_count,
    prune, pyramid_level,
};

fn deform(b: &mut GraphBuilder, name: &str, x: NodeId, out: usize) -> NodeId {
    let places = b.conv(format!("{name}_places"), x, Conv::new(27, 3).bias());
    let offset = b.slice(places, 0, 18);
    let factor = b.slice(places, 18, 9);
    let factor = b.act(factor, Act::Sigmoid);
    let op = Op::DeformConv2d {
        in_channels: b.channels(x),
        out_channels: out,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        bias: false,
    };
    b.op(name, op, &[x, offset, factor])
}

/// A one-stage detector in small.
fn one_stage() -> Graph {
    let mut b = GraphBuilder::new("one");
    let x = b.input(3);
    let x = b.conv("stem", x, Conv::new(8, 3));
    let x = b.batch_norm("stem_norm", x);
    let x = b.act(x, Act::Relu);
    let x = deform(&mut b, "deform", x, 6);
    let x = b.batch_norm("deform_norm", x);
    let x = b.op("drop", Op::DropBlock { size: 3, keep: 0.9 }, &[x]);
    let x = b.op("places", Op::Coordinates { last: 1.0 }, &[x]);
    let x = b.conv("last", x, Conv::new(5, 1).bias());
    b.output("yolo0", x);
    b.finish().unwrap()
}

/// Convolutions and norms that two levels share, and a pooled stage.
fn two_stage(both_norms: bool) -> Graph {
    let mut b = GraphBuilder::new("two");
    let x = b.input(3);
    let fine = b.conv("fine", x, Conv::new(8, 3));
    let coarse = b.conv("coarse", fine, Conv::new(8, 3).stride(2));
    let c = b.conv("head", fine, Conv::new(8, 3));
    let n = b.batch_norm("head_norm", c);
    b.output("score0", n);
    let c = b.shared("head1", c, &[coarse]);
    let n = match both_norms {
        true => b.shared("head_norm1", n, &[c]),
        false => b.batch_norm("other_norm", c),
    };
    b.output("score1", n);
    let rois = b.op("rois", Op::Rois, &[]);
    let align = Op::RoiAlign {
        size: [7, 7],
        sampling: 0,
        strides: vec![1, 2],
        aligned: true,
    };
    let x = b.op("pool", align, &[rois, fine, coarse]);
    let up = Op::ConvTranspose2d {
        in_channels: 8,
        out_channels: 4,
        kernel: [2, 2],
        stride: [2, 2],
        padding: [0, 0],
        bias: false,
    };
    let x = b.op("up", up, &[x]);
    let x = b.batch_norm("up_norm", x);
    b.output("mask", x);
    b.finish().unwrap()
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.name.as_str()).collect()
}

#[test]
fn norms_fold_into_all_kinds_of_convolutions() {
    let graph = one_stage();
    let (folded, weights) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    folded.validate_weights(&weights).unwrap();
    assert!(
        names(&folded)
            .iter()
            .all(|n| !n.contains("norm") && *n != "drop")
    );
    assert!(weights.contains_key("deform.bias"));

    let graph = two_stage(true);
    let (folded, weights) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    folded.validate_weights(&weights).unwrap();
    assert!(names(&folded).iter().all(|n| !n.contains("norm")));
    let head = names(&folded).iter().position(|n| *n == "head");
    assert_eq!(
        folded
            .nodes
            .iter()
            .find(|n| n.name == "head1")
            .unwrap()
            .shares,
        head
    );
    assert_eq!(weights.keys().filter(|n| n.starts_with("head")).count(), 2);
    assert!(weights.contains_key("up.bias"));
}

#[test]
fn a_shared_convolution_with_a_norm_for_each_use_stays() {
    let graph = two_stage(false);
    let weights = init_weights(&graph, 1);
    let (folded, folded_weights) = fold_batch_norm(&graph, &weights).unwrap();
    for name in ["head_norm", "other_norm"] {
        assert!(names(&folded).contains(&name), "{name}");
    }
    assert_eq!(folded_weights["head.weight"], weights["head.weight"]);
    assert!(!names(&folded).contains(&"up_norm"));
}

#[test]
fn deformable_convolutions_begin_as_plain_ones() {
    let weights = init_weights(&one_stage(), 4);
    assert!(
        weights["deform_places.weight"]
            .data
            .iter()
            .all(|v| *v == 0.0)
    );
    let variance = |name: &str| {
        let data = &weights[name].data;
        data.iter().map(|v| f64::from(v * v)).sum::<f64>() / data.len() as f64
    };
    let wanted = 2.0 / (9.0 * 6.0);
    assert!((variance("deform.weight") / wanted - 1.0).abs() < 0.3);
    let weights = init_weights(&two_stage(true), 4);
    let data = &weights["up.weight"].data;
    let variance = data.iter().map(|v| f64::from(v * v)).sum::<f64>() / data.len() as f64;
    assert!((variance / (2.0 / 8.0) - 1.0).abs() < 0.5, "{variance}");
}

#[test]
fn deformable_convolutions_are_pruned_and_their_places_stay() {
    let graph = one_stage();
    let groups = channel_groups(&graph).unwrap();
    let found: Vec<_> = groups
        .groups
        .iter()
        .map(|g| (g.name.as_str(), g.size()))
        .collect();
    assert_eq!(found, [("stem", 8), ("deform", 6)]);
    let reason = |name: &str| {
        let layer = |id: &NodeId| graph.nodes[*id].name == name;
        groups
            .fixed
            .iter()
            .find(|f| f.layers.iter().any(layer))
            .unwrap()
            .reason
    };
    assert_eq!(reason("deform_places"), FixedReason::Detector);
    assert_eq!(reason("last"), FixedReason::Output);

    let weights: WeightMap = init_weights(&graph, 2);
    let keep = Keep::from([
        ("stem".to_owned(), vec![0, 2, 3, 7]),
        ("deform".to_owned(), vec![1, 4]),
    ]);
    let (pruned, sliced) = prune(&graph, &weights, &groups, &keep).unwrap();
    pruned.validate_weights(&sliced).unwrap();
    assert_eq!(sliced["deform.weight"].shape, [2, 4, 3, 3]);
    assert_eq!(sliced["deform_places.weight"].shape, [27, 4, 3, 3]);
    // Two channels of `deform` and the two coordinates.
    assert_eq!(sliced["last.weight"].shape, [5, 4, 1, 1]);
    let last = |o: usize, i: usize| weights["last.weight"].data[o * 8 + i];
    let row: Vec<f32> = [1, 4, 6, 7].iter().map(|&i| last(3, i)).collect();
    assert_eq!(sliced["last.weight"].data[12..16], row);

    let cuts = cut_points(&graph, &groups.groups, [16, 16]).unwrap();
    let first = |i: usize| graph.nodes[cuts[i].first].name.as_str();
    assert_eq!((first(0), first(1)), ("deform_places", "last"));
}

#[test]
fn what_is_shared_or_pooled_keeps_its_channels() {
    let graph = two_stage(true);
    let groups = channel_groups(&graph).unwrap();
    assert!(groups.groups.is_empty());
    let weights = init_weights(&graph, 2);
    let (pruned, same) = prune(&graph, &weights, &groups, &Keep::new()).unwrap();
    assert_eq!((pruned, same), (graph, weights));
}

#[test]
fn what_runtimes_cannot_compute_in_integers_stays_as_it_is() {
    let graph = one_stage();
    let (folded, _) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    let values = calibration_values(&folded);
    assert!(!values.contains(&"deform"), "{values:?}");
    assert!(values.contains(&"places"), "{values:?}");
    let graph = two_stage(true);
    let (folded, _) = fold_batch_norm(&graph, &init_weights(&graph, 1)).unwrap();
    let values = calibration_values(&folded);
    for name in ["head", "head1", "rois", "pool", "up"] {
        assert!(!values.contains(&name), "{name} of {values:?}");
    }
}

#[test]
fn costs_are_those_of_the_formulas() {
    let graph = one_stage();
    let id = |name: &str| graph.nodes.iter().position(|n| n.name == name).unwrap();
    let all = cost(&graph, [10, 12]).unwrap();
    assert_eq!(all.nodes[id("deform")].macs, 120 * 6 * 8 * 9);
    assert_eq!(all.nodes[id("last")].macs, 120 * 5 * 8);
    let graph = two_stage(true);
    let up = graph.nodes.iter().position(|n| n.name == "up").unwrap();
    let all = cost(&graph, [10, 12]).unwrap();
    assert_eq!(all.nodes[up].macs, 49 * 8 * 4 * 4);
    let sum: u64 = graph
        .params()
        .filter(|(_, p)| !p.kind.is_statistic())
        .map(|(_, p)| p.shape.iter().product::<usize>() as u64)
        .sum();
    assert_eq!(parameter_count(&graph), sum);
}

#[test]
fn regions_go_to_the_levels_of_the_formula() {
    let strides = [4, 8, 16, 32];
    assert_eq!(level_areas(&strides), [12544.0, 50176.0, 200_704.0]);
    for side in (1..2000).map(|s| s as f32 / 2.0) {
        let area = side * side;
        let formula = (4.0 + (f64::from(side) / 224.0 + 1e-8).log2()).floor() - 2.0;
        assert_eq!(
            pyramid_level(area, &strides),
            formula.clamp(0.0, 3.0) as usize,
            "{side}"
        );
    }
    assert_eq!(pyramid_level(1e9, &[16]), 0);
    assert_eq!(pyramid_level(f32::NAN, &strides), 0);
}
