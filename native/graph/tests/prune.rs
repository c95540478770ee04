//! Pruning on small graphs, by hand. All networks of the zoo: `native/zoo/tests/pruning.rs`.

use std::collections::BTreeMap;

use oarlock_graph::{
    Act, Conv, Criterion, Graph, GraphBuilder, HostTensor, Judges, Keep, Op, Sensitivities,
    WeightMap, channel_groups, cost, fold_batch_norm, init_weights, keep_by_ratios, keep_for_ratio,
    kept_count, mask, parameter_count, plan_for_flops, plan_for_loss, prune, prune_graph,
    ratios_for_loss, removed_share, tolerance_curve, unit_scores,
};

/// Two convolutions with batch norm, flattened at 2×1, a linear head.
fn chain() -> Graph {
    let mut b = GraphBuilder::new("chain");
    let x = b.input(2);
    let x = b.conv("a", x, Conv::new(4, 1).bias());
    let x = b.batch_norm("an", x);
    let x = b.act(x, Act::Relu);
    let x = b.conv("b", x, Conv::new(3, 1));
    let x = b.plain(Op::AdaptiveAvgPool { size: [2, 1] }, &[x]);
    let x = b.flatten(x);
    let x = b.linear("head", x, 2);
    b.output("logits", x);
    b.finish().unwrap()
}

/// Every parameter holds its own positions: 0, 1, 2 …
fn counted(graph: &Graph) -> WeightMap {
    let tensor = |shape: Vec<usize>| {
        let data = (0..shape.iter().product())
            .map(|i: usize| i as f32)
            .collect();
        HostTensor { shape, data }
    };
    graph
        .params()
        .map(|(name, param)| (name, tensor(param.shape)))
        .collect()
}

fn keep(pairs: &[(&str, &[usize])]) -> Keep {
    pairs
        .iter()
        .map(|(name, units)| ((*name).to_owned(), units.to_vec()))
        .collect()
}

#[test]
fn weights_are_sliced_on_the_right_axes() {
    let graph = chain();
    let groups = channel_groups(&graph).unwrap();
    let keep = keep(&[("a", &[1, 3]), ("b", &[0, 2])]);
    let (pruned, weights) = prune(&graph, &counted(&graph), &groups, &keep).unwrap();
    let values = |name: &str| &weights[name].data[..];
    assert_eq!(values("a.weight"), [2.0, 3.0, 6.0, 7.0]);
    for name in [
        "a.bias",
        "an.weight",
        "an.bias",
        "an.running_mean",
        "an.running_var",
    ] {
        assert_eq!(values(name), [1.0, 3.0], "{name}");
    }
    assert_eq!(weights["b.weight"].shape, [2, 2, 1, 1]);
    assert_eq!(values("b.weight"), [1.0, 3.0, 9.0, 11.0]);
    // Channels 0 and 2 of `b` are features 0, 1 and 4, 5: flattening goes by channel first.
    assert_eq!(
        values("head.weight"),
        [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0]
    );
    assert_eq!(values("head.bias"), [0.0, 1.0]);
    assert_eq!(pruned.outputs, graph.outputs);
    assert_eq!(cost(&pruned, [4, 4]).unwrap().total.macs, 16 * (4 + 4) + 8);
    assert!(parameter_count(&pruned) < parameter_count(&graph));
}

#[test]
fn masked_channels_are_dead_and_statistics_stay() {
    let graph = chain();
    let groups = channel_groups(&graph).unwrap();
    let weights = counted(&graph);
    let masked = mask(&graph, &weights, &groups, &keep(&[("a", &[1, 3])])).unwrap();
    assert_eq!(
        masked["a.weight"].data,
        [0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 6.0, 7.0]
    );
    for name in ["a.bias", "an.weight", "an.bias"] {
        assert_eq!(masked[name].data, [0.0, 1.0, 0.0, 3.0], "{name}");
    }
    for name in [
        "an.running_mean",
        "an.running_var",
        "b.weight",
        "head.weight",
        "head.bias",
    ] {
        assert_eq!(masked[name], weights[name], "{name}");
    }
}

#[test]
fn grouped_depthwise_shuffled_and_sliced() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("first", x, Conv::new(8, 1));
    let x = b.conv("grouped", x, Conv::new(12, 3).groups(2));
    let x = b.plain(Op::ChannelShuffle { groups: 2 }, &[x]);
    let x = b.conv("depthwise", x, Conv::depthwise(12, 3));
    let left = b.slice(x, 0, 4);
    let right = b.slice(x, 4, 8);
    let x = b.concat(&[right, left]);
    let x = b.conv("last", x, Conv::new(2, 1));
    b.output("out", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let found: Vec<(&str, usize)> = groups
        .groups
        .iter()
        .map(|g| (g.name.as_str(), g.size()))
        .collect();
    // Shuffled pairs 0 and 1 are in the left slice, 2 … 5 in the right one.
    assert_eq!(found, [("first", 4), ("grouped", 2), ("grouped#2", 4)]);
    let keep = keep(&[
        ("first", &[1, 2]),
        ("grouped", &[1]),
        ("grouped#2", &[0, 2, 3]),
    ]);
    let (pruned, weights) = prune(&graph, &counted(&graph), &groups, &keep).unwrap();
    assert_eq!(weights["first.weight"].data[..3], [3.0, 4.0, 5.0]);
    assert_eq!(weights["first.weight"].data[6..9], [15.0, 16.0, 17.0]);
    // Outputs 1, 2, 4, 5 of each half; inputs 1, 2 of the four of each group.
    assert_eq!(weights["grouped.weight"].shape, [8, 2, 3, 3]);
    let filter = |o: usize, i: usize| ((o * 4 + i) * 9) as f32;
    let firsts: Vec<f32> = weights["grouped.weight"]
        .data
        .iter()
        .step_by(9)
        .copied()
        .collect();
    let wanted: Vec<f32> = [1, 2, 4, 5, 7, 8, 10, 11]
        .into_iter()
        .flat_map(|o| [filter(o, 1), filter(o, 2)])
        .collect();
    assert_eq!(firsts, wanted);
    // Shuffled order is 0 6 1 7 2 8 3 9 4 10 5 11; kept are places 2 3 | 4 5 8 9 10 11.
    let firsts: Vec<f32> = weights["depthwise.weight"]
        .data
        .iter()
        .step_by(9)
        .copied()
        .collect();
    let places = [2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0];
    assert_eq!(firsts, places.map(|place| place * 9.0));
    // `last` sees the right slice first: its places 4 … 11 are inputs 0 … 7, the left slice inputs 8 … 11.
    assert_eq!(
        weights["last.weight"].data[..8],
        [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0]
    );
    let slices: Vec<&Op> = pruned
        .nodes
        .iter()
        .map(|n| &n.op)
        .filter(|op| matches!(op, Op::Slice { .. }))
        .collect();
    assert_eq!(
        slices,
        [
            &Op::Slice { start: 0, len: 2 },
            &Op::Slice { start: 2, len: 6 }
        ]
    );
    assert!(
        pruned
            .nodes
            .iter()
            .any(|n| matches!(n.op, Op::Conv2d { groups: 8, .. }))
    );
}

#[test]
fn pruning_and_folding_commute() {
    let graph = chain();
    let weights = init_weights(&graph, 3);
    let keep = keep(&[("a", &[0, 3]), ("b", &[1])]);
    let groups = channel_groups(&graph).unwrap();
    let (a, a_weights) = prune(&graph, &weights, &groups, &keep).unwrap();
    let (a, a_weights) = fold_batch_norm(&a, &a_weights).unwrap();
    let (b, b_weights) = fold_batch_norm(&graph, &weights).unwrap();
    let groups = channel_groups(&b).unwrap();
    let (b, b_weights) = prune(&b, &b_weights, &groups, &keep).unwrap();
    assert_eq!((a, a_weights), (b, b_weights));
}

#[test]
fn wrong_requests_are_refused() {
    let graph = chain();
    let groups = channel_groups(&graph).unwrap();
    let error = |k: Keep| prune_graph(&graph, &groups, &k).unwrap_err().to_string();
    assert!(error(keep(&[("head", &[0])])).contains("no channel group `head`"));
    for bad in [&[][..], &[4], &[1, 1], &[2, 1]] {
        let text = error(keep(&[("a", bad)]));
        assert!(text.contains("at least one of its 4 units"), "{text}");
    }
    let other = channel_groups(&small()).unwrap();
    let error = prune_graph(&graph, &other, &Keep::new()).unwrap_err();
    assert!(error.to_string().contains("another graph"));
    let mut missing = counted(&graph);
    missing.shift_remove("an.bias");
    assert!(prune(&graph, &missing, &groups, &Keep::new()).is_err());
    assert_eq!(prune_graph(&graph, &groups, &Keep::new()).unwrap(), graph);
}

fn small() -> Graph {
    let mut b = GraphBuilder::new("small");
    let x = b.input(1);
    let x = b.conv("c", x, Conv::new(3, 1));
    let x = b.conv("d", x, Conv::new(3, 1));
    let x = b.conv("e", x, Conv::new(1, 1));
    b.output("out", x);
    b.finish().unwrap()
}

#[test]
fn importance_of_filters() {
    let graph = small();
    let groups = channel_groups(&graph).unwrap();
    let mut weights = counted(&graph);
    // Filters of `d`: (0, -3, 0), (4, 0, 0), (0, 0, 0).
    weights["d.weight"].data = vec![0.0, -3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let group = groups.get("d").unwrap();
    let scores = |criterion| {
        unit_scores(
            &graph,
            &weights,
            &groups,
            group,
            criterion,
            Judges::Representative,
        )
        .unwrap()
    };
    assert_eq!(scores(Criterion::L1Norm), [1.0, 4.0 / 3.0, 0.0]);
    assert_eq!(scores(Criterion::GeometricMedian), [8.0, 9.0, 7.0]);
    weights.shift_remove("d.weight");
    let criterion = Criterion::L1Norm;
    assert!(unit_scores(&graph, &weights, &groups, group, criterion, Judges::All).is_err());
}

#[test]
fn all_layers_of_a_group_may_judge() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(1);
    let y = b.conv("y", x, Conv::new(2, 1));
    let z = b.conv("z", x, Conv::new(2, 1));
    let x = b.add(y, z);
    let x = b.conv("out", x, Conv::new(1, 1));
    b.output("out", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let mut weights = counted(&graph);
    weights["y.weight"].data = vec![1.0, -2.0];
    weights["z.weight"].data = vec![-7.0, 0.5];
    let ratios = BTreeMap::from([("y".to_owned(), 0.5)]);
    let kept = |judges| {
        let criterion = Criterion::L1Norm;
        keep_by_ratios(&graph, &weights, &groups, &ratios, criterion, judges, None).unwrap()
    };
    assert_eq!(kept(Judges::Representative), keep(&[("y", &[1])]));
    assert_eq!(kept(Judges::All), keep(&[("y", &[0])]));
}

#[test]
fn how_many_stay() {
    // Python: round(29 · 0.5) is 14, round(5 · 0.1) is 0, round(15 · 0.9) is 14.
    for (size, ratio, kept) in [
        (29, 0.5, 15),
        (5, 0.1, 5),
        (15, 0.9, 1),
        (2, 0.9, 1),
        (8, 0.0, 8),
    ] {
        assert_eq!(kept_count(size, ratio, None), kept, "{size} {ratio}");
    }
    for (size, ratio, kept) in [
        (64, 0.3, 48),
        (64, 0.9, 8),
        (64, 0.45, 40),
        (80, 0.1, 72),
        (60, 0.1, 56),
        (6, 0.5, 6),
        (58, 0.0, 58),
    ] {
        assert_eq!(kept_count(size, ratio, Some(8)), kept, "{size} {ratio}");
    }
    assert_eq!(kept_count(10, 7.0, None), 1);
    assert_eq!(keep_for_ratio(&[3.0, 1.0, 2.0, 1.0], 0.5, None), [0, 2]);
    assert_eq!(keep_for_ratio(&[1.0, 1.0, 1.0, 1.0], 0.25, None), [1, 2, 3]);
}

fn table(rows: &[(&str, &[(f64, f64)])]) -> Sensitivities {
    rows.iter()
        .map(|(name, points)| ((*name).to_owned(), points.to_vec()))
        .collect()
}

/// PaddleSlim 2.6.0's `get_ratios_by_loss` gives the same ratios (`broken` was not asked there).
#[test]
fn ratios_within_a_loss() {
    let nan = f64::NAN;
    let table = table(&[
        ("between", &[(0.1, 0.0), (0.2, 0.04), (0.3, 0.08)]),
        ("all", &[(0.1, -0.1), (0.9, 0.01)]),
        ("none", &[(0.1, 0.2), (0.2, 0.3)]),
        ("dips", &[(0.1, 0.2), (0.2, 0.02), (0.3, 0.3)]),
        ("unsorted", &[(0.3, 0.07), (0.1, 0.0), (0.2, 0.05)]),
        ("broken", &[(0.1, 0.0), (0.2, nan)]),
    ]);
    let ratios = ratios_for_loss(&table, 0.05);
    let wanted = [
        ("between", 0.225),
        ("all", 0.9),
        ("none", 0.0),
        ("dips", 0.2 + 0.1 * 0.03 / 0.28),
        ("unsorted", 0.2),
        ("broken", 0.1),
    ];
    assert_eq!(ratios.len(), wanted.len());
    for (name, ratio) in wanted {
        assert!(
            (ratios[name] - ratio).abs() < 1e-12,
            "{name}: {}",
            ratios[name]
        );
    }
}

/// Wide enough for shares to be fine.
fn wide() -> Graph {
    let mut b = GraphBuilder::new("wide");
    let x = b.input(3);
    let x = b.conv("a", x, Conv::new(200, 3));
    let x = b.conv("b", x, Conv::new(300, 3));
    let x = b.conv("c", x, Conv::new(100, 1));
    let x = b.global_avg_pool(x);
    let x = b.flatten(x);
    let x = b.linear("head", x, 10);
    b.output("logits", x);
    b.finish().unwrap()
}

#[test]
fn a_target_of_flops_is_found() {
    let graph = wide();
    let groups = channel_groups(&graph).unwrap();
    let line = |slope: f64| -> Vec<(f64, f64)> {
        (0..10)
            .map(|i| f64::from(i) / 10.0)
            .map(|r| (r, r * slope))
            .collect()
    };
    let table = table(&[("a", &line(0.2)), ("b", &line(0.5)), ("c", &line(0.05))]);
    for target in [0.1, 0.4, 0.75] {
        let plan = plan_for_flops(&graph, &groups, &table, target, [16, 16], None).unwrap();
        assert!(
            (plan.removed_flops - target).abs() < 0.01,
            "{target}: {plan:?}"
        );
        // The shares are those of the graph that really results.
        let weights = init_weights(&graph, 1);
        let keep = keep_by_ratios(
            &graph,
            &weights,
            &groups,
            &plan.ratios,
            Criterion::L1Norm,
            Judges::Representative,
            None,
        );
        let keep = keep.unwrap();
        let (pruned, _) = prune(&graph, &weights, &groups, &keep).unwrap();
        let macs = |g: &Graph| cost(g, [16, 16]).unwrap().total.macs as f64;
        assert_eq!(plan.removed_flops, 1.0 - macs(&pruned) / macs(&graph));
        let (flops, params) = removed_share(&graph, &groups, &keep, [16, 16]).unwrap();
        assert_eq!((flops, params), (plan.removed_flops, plan.removed_params));
    }
    // More than the table allows: all that it allows, and the plan says how much that is.
    let plan = plan_for_flops(&graph, &groups, &table, 0.9999, [16, 16], None).unwrap();
    assert_eq!(plan.ratios["b"], 0.9);
    assert!(plan.removed_flops < 0.9999);
    // Where even no loss at all allows more than is wanted, no more than that goes.
    let free = self::table(&[("a", &[(0.9, 0.0)]), ("b", &[(0.9, -0.1)])]);
    for target in [0.1, 0.4] {
        let plan = plan_for_flops(&graph, &groups, &free, target, [16, 16], None).unwrap();
        let reached = plan.removed_flops;
        assert!((reached - target).abs() < 0.01, "{target}: {plan:?}");
        assert_eq!(plan.tolerance, 0.0);
    }
    // Rounded to multiples of 8.
    let plan = plan_for_flops(&graph, &groups, &table, 0.5, [16, 16], Some(8)).unwrap();
    assert!((plan.removed_flops - 0.5).abs() < 0.05, "{plan:?}");
    let unknown = self::table(&[("nowhere", &[(0.1, 0.0)])]);
    assert!(plan_for_loss(&graph, &groups, &unknown, 0.1, [16, 16], None).is_err());
}

#[test]
fn the_curve_has_nineteen_points_and_grows() {
    let graph = wide();
    let groups = channel_groups(&graph).unwrap();
    let table = table(&[("b", &[(0.5, 0.25), (0.9, 0.6)])]);
    let curve = tolerance_curve(&graph, &groups, &table).unwrap();
    assert_eq!(curve.len(), 19);
    assert!(
        curve
            .windows(2)
            .all(|p| p[0].0 <= p[1].0 && p[0].1 < p[1].1)
    );
    assert_eq!(curve[0], (0.0, 0.05));
    // At 0.25 half of `b` goes: 150 filters of 200·9 + 1 and as many inputs of `c`.
    let removed = (150 * 200 * 9 + 150 * 100) as f64 / parameter_count(&graph) as f64;
    assert!((curve[4].0 - removed).abs() < 1e-12);
    assert_eq!(curve[18].0, curve[12].0);
}
