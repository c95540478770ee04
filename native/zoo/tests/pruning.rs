//! Every network: channel groups, pruning at random ratios, cut points.
//!
//! Numbers were checked by hand: `examples/slimmed.rs` wrote all 40 networks pruned (random units, up to
//! half of every group) and masked, onnxruntime 1.32.0 ran both without its own optimisations on three
//! random images of 64×64. Largest difference relative to the largest logit: 9.3e-6 (MobileNetV3_large),
//! 2.4e-6 for all others; logits differ between the images by 2 % and more, so that the signal is alive.
//! `onnx.checker` accepts all pruned files with full shape inference.

use std::collections::HashSet;

use oarlock_graph::{
    ChannelGroup, ChannelGroups, FixedReason, Graph, HostTensor, Keep, NodeId, Op, WeightMap,
    channel_groups, cost, cut_points, fold_batch_norm, infer_shapes, kept_count, mask,
    nodes_to_run, parameter_count, plan_cuts, prune, prune_graph,
};
use oarlock_zoo::{
    Origin, classifier, classifier_names, classifier_of, input_size, segmenter_names, segmenter_of,
};

/// Numbers from a seed, by SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn both() -> impl Iterator<Item = (&'static str, Graph)> {
    let classifiers = classifier_names().iter().flat_map(|&name| {
        [Origin::Torch, Origin::Paddle].map(|o| (name, classifier_of(name, 7, o).unwrap().0))
    });
    classifiers.chain(segmenters(Origin::Paddle))
}

/// Segmenters with every kind of backbone.
fn segmenters(origin: Origin) -> impl Iterator<Item = (&'static str, Graph)> {
    let backbones = [
        "Xception41",
        "MobileNetV2_x0.25",
        "MobileNetV3_large_x1_0_ssld",
    ];
    let deeplabs = backbones.map(|b| ("DeepLabV3P", Some(b)));
    let names = segmenter_names().iter().map(|&name| (name, None));
    let all: Vec<_> = names.chain(deeplabs).collect();
    let build = move |(n, b)| (n, segmenter_of(n, b, 7, 3, origin).unwrap().0);
    all.into_iter().map(build)
}

/// The layers that make the outputs, which segmenters enlarge.
fn heads(graph: &Graph) -> Vec<NodeId> {
    let layer = |mut id: NodeId| {
        while let Op::Resize { .. } = graph.nodes[id].op {
            id = graph.nodes[id].inputs[0];
        }
        id
    };
    graph.outputs.iter().map(|o| layer(o.node)).collect()
}

/// Random units of every group at a random ratio of up to 90 %, in one of four groups all of them.
fn random_keep(groups: &ChannelGroups, random: &mut Random) -> Keep {
    let mut keep = Keep::new();
    for group in &groups.groups {
        let ratio = (random.unit() * 1.2 - 0.3).max(0.0);
        let mut units: Vec<usize> = (0..group.size()).collect();
        for i in (1..units.len()).rev() {
            units.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        units.truncate(kept_count(group.size(), ratio, None));
        units.sort_unstable();
        keep.insert(group.name.clone(), units);
    }
    keep
}

fn name(graph: &Graph, id: NodeId) -> &str {
    &graph.nodes[id].name
}

fn is_layer(op: &Op) -> bool {
    matches!(op, Op::Conv2d { .. } | Op::Linear { .. })
}

fn is_depthwise(op: &Op) -> bool {
    matches!(op, Op::Conv2d { in_channels, groups, .. } if in_channels == groups)
}

#[test]
fn every_layer_is_in_a_group_or_fixed_for_a_reason() {
    for (model, graph) in both() {
        let groups = channel_groups(&graph).unwrap();
        let mut in_group = vec![0; graph.nodes.len()];
        for group in &groups.groups {
            assert!(group.layers.contains(&group.representative), "{model}");
            assert!(group.size() > 1);
            group.layers.iter().for_each(|&id| in_group[id] += 1);
        }
        let mut fixed = vec![None; graph.nodes.len()];
        for f in &groups.fixed {
            f.layers.iter().for_each(|&id| fixed[id] = Some(f.reason));
        }
        let heads = heads(&graph);
        for (id, node) in graph.nodes.iter().enumerate() {
            let reason = match (is_layer(&node.op), in_group[id]) {
                (false, _) => continue,
                (true, 1) => None,
                // Where halves can be halved again evenly, each quarter is a group.
                (true, 2..) if model.starts_with("ShuffleNet") => None,
                // After a concatenation each part has its own.
                (true, 2..) if is_depthwise(&node.op) => None,
                (true, 0) if heads.contains(&id) => Some(FixedReason::Output),
                // The halves that pass from unit to unit; all else can be pruned.
                (true, 0) if model.starts_with("ShuffleNet") => Some(FixedReason::Uneven),
                _ => panic!("{model}: {} is in {} groups", node.name, in_group[id]),
            };
            assert_eq!(fixed[id], reason, "{model}: {}", node.name);
        }
    }
}

#[test]
fn the_groups_are_those_that_the_papers_figures_show() {
    let find = |model: &str, group: &str| -> Vec<String> {
        let graph = classifier(model, 7).unwrap();
        let groups = channel_groups(&graph).unwrap();
        let group = groups
            .get(group)
            .unwrap_or_else(|| panic!("{model}: {group}"));
        group
            .layers
            .iter()
            .map(|&id| name(&graph, id).to_owned())
            .collect()
    };
    assert_eq!(
        find("ResNet18", "conv1"),
        ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    );
    assert_eq!(find("ResNet18", "layer1.0.conv1"), ["layer1.0.conv1"]);
    let stage = ["layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2"];
    assert_eq!(find("ResNet18", "layer2.0.conv2"), stage);
    let expansion = [
        "features.4.block.0.0",
        "features.4.block.1.0",
        "features.4.block.2.fc2",
    ];
    assert_eq!(find("MobileNetV3_large", "features.4.block.0.0"), expansion);
    let squeeze = "features.4.block.2.fc1";
    assert_eq!(find("MobileNetV3_large", squeeze), [squeeze]);
    let growth = "features.denseblock2.denselayer3.conv2";
    assert_eq!(find("DenseNet121", growth), [growth]);
    assert_eq!(find("AlexNet", "classifier.1"), ["classifier.1"]);
    let inner = ["stage2.1.branch2.0", "stage2.1.branch2.3"];
    assert_eq!(find("ShuffleNetV2", "stage2.1.branch2.0"), inner);
    // A branch of HRNet: sums of its blocks and of all that comes from the other branches.
    let branch = find("HRNet_W18_C", "transition1.0.0");
    for layer in ["stage2.0.branches.0.3.conv2", "stage2.0.fuse_layers.0.1.0"] {
        assert!(branch.iter().any(|l| l == layer), "{layer}: {branch:?}");
    }
}

#[test]
fn pruned_networks_are_consistent() {
    for (model, graph) in both() {
        let groups = channel_groups(&graph).unwrap();
        let size = input_size(model).unwrap();
        let side = size.min.max(64);
        for seed in 0..4 {
            let keep = random_keep(&groups, &mut Random(seed));
            let pruned = prune_graph(&graph, &groups, &keep).unwrap();
            let shapes = infer_shapes(&pruned, [2, 3, side, side]).unwrap();
            let before = infer_shapes(&graph, [2, 3, side, side]).unwrap();
            let output = graph.outputs[0].node;
            assert_eq!(pruned.outputs, graph.outputs);
            assert_eq!(shapes[output], before[output]);
            // Only channels change: maps keep their sizes.
            for (after, before) in shapes.iter().zip(&before) {
                assert_eq!(after[2..], before[2..]);
            }
            let mut gone = vec![0; graph.nodes.len()];
            for group in &groups.groups {
                for i in (0..group.size()).filter(|i| !keep[&group.name].contains(i)) {
                    for &id in &group.layers {
                        gone[id] += groups.channels(id, group, i).len();
                    }
                }
            }
            for (id, node) in graph.nodes.iter().enumerate() {
                if is_layer(&node.op) {
                    assert_eq!(
                        gone[id],
                        before[id][1] - shapes[id][1],
                        "{model}: {}",
                        node.name
                    );
                }
            }
            let [less, all] = [&pruned, &graph].map(|g| cost(g, [side, side]).unwrap().total);
            assert!(less.macs < all.macs && less.params < all.params, "{model}");
            // What is left has the same groups, smaller (unless halves are no longer even).
            if model.starts_with("ShuffleNet") {
                continue;
            }
            let left = channel_groups(&pruned).unwrap();
            for group in &left.groups {
                let before = groups.get(&group.name);
                let before = before.unwrap_or_else(|| panic!("{model}: {}", group.name));
                assert_eq!(group.size(), keep[&group.name].len());
                assert_eq!(group.layers, before.layers, "{model}: {}", group.name);
            }
        }
    }
}

/// Weights that tell which channels they come from: filter number · 10000 + input number.
fn labelled(graph: &Graph) -> WeightMap {
    let tensor = |shape: Vec<usize>| {
        let row: usize = shape[1..].iter().product();
        let kernel: usize = shape.iter().skip(2).product();
        let value = |i: usize| (i / row) as f32 * 10_000.0 + (i % row / kernel) as f32;
        let data = (0..shape.iter().product()).map(value).collect();
        HostTensor { shape, data }
    };
    graph
        .params()
        .map(|(name, p)| (name, tensor(p.shape)))
        .collect()
}

#[test]
fn pruned_weights_fit_and_masks_are_dead() {
    let classifiers = classifier_names()
        .iter()
        .map(|&n| (n, classifier(n, 7).unwrap()));
    for (model, graph) in classifiers.chain(segmenters(Origin::Torch)) {
        if parameter_count(&graph) > 30_000_000 && model != "AlexNet" {
            continue; // the same structure as its smaller relatives, at ten times the time
        }
        let groups = channel_groups(&graph).unwrap();
        let weights = labelled(&graph);
        let keep = random_keep(&groups, &mut Random(7));
        let (pruned, sliced) = prune(&graph, &weights, &groups, &keep).unwrap();
        assert!(
            sliced.keys().eq(pruned
                .params()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .iter())
        );
        pruned.validate_weights(&sliced).unwrap();
        let masked = mask(&graph, &weights, &groups, &keep).unwrap();
        graph.validate_weights(&masked).unwrap();
        for (id, node) in graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, n)| is_layer(&n.op))
        {
            let dead = |group: &ChannelGroup| {
                let gone = (0..group.size()).filter(|i| !keep[&group.name].contains(i));
                gone.flat_map(|i| groups.channels(id, group, i))
                    .collect::<Vec<_>>()
            };
            let dead: HashSet<usize> = groups.groups.iter().flat_map(dead).collect();
            let weight = format!("{}.weight", node.name);
            let filter = weights[&weight].shape[1..].iter().product();
            let smaller = sliced[&weight].shape[1..].iter().product();
            let mut kept = sliced[&weight].data.chunks_exact(smaller);
            let pairs = masked[&weight].data.chunks_exact(filter);
            let pairs = pairs.zip(weights[&weight].data.chunks_exact(filter));
            for (channel, (masked, before)) in pairs.enumerate() {
                if dead.contains(&channel) {
                    assert!(masked.iter().all(|&v| v == 0.0));
                } else {
                    assert_eq!(masked, before);
                    let label = (kept.next().unwrap()[0] / 10_000.0) as usize;
                    assert_eq!(label, channel, "{model}: {weight}");
                }
            }
            assert!(kept.next().is_none());
        }
    }
}

#[test]
fn folding_leaves_the_groups_alone() {
    // An analysis judges filters before folding and runs the folded network: units must mean the same.
    for (model, graph) in both() {
        if parameter_count(&graph) > 30_000_000 && model != "AlexNet" {
            continue;
        }
        let (folded, _) = fold_batch_norm(&graph, &labelled(&graph)).unwrap();
        let names = |graph: &Graph| -> Vec<(String, Vec<String>, usize)> {
            let groups = channel_groups(graph).unwrap().groups;
            let layers =
                |ids: &[NodeId]| ids.iter().map(|&id| name(graph, id).to_owned()).collect();
            let all = groups.iter();
            all.map(|g| (g.name.clone(), layers(&g.layers), g.size()))
                .collect()
        };
        assert_eq!(names(&folded), names(&graph.without_auxiliary()), "{model}");
        // Auxiliary heads have groups of their own and change no others.
        let all = names(&graph);
        assert!(names(&folded).iter().all(|g| all.contains(g)), "{model}");
    }
}

#[test]
fn cut_points_suffice_and_plans_hold_their_budget() {
    for (model, graph) in both() {
        let groups = channel_groups(&graph).unwrap();
        let side = input_size(model).unwrap().min.max(64);
        let outputs: Vec<NodeId> = graph.outputs.iter().map(|o| o.node).collect();
        let macs = cost(&graph, [side, side]).unwrap().nodes;
        let cuts = cut_points(&graph, &groups.groups, [side, side]).unwrap();
        for (cut, group) in cuts.iter().zip(&groups.groups) {
            // The first layer only loses filters.
            assert!(cut.first > group.layers[0]);
            let run = nodes_to_run(&graph, &cut.keep, &outputs);
            // From the kept values all mixing layers run that read what lost channels, and what does not
            // change only where it is cheap.
            assert!(run.contains(&cut.first), "{model}");
            let behind = group.layers.iter().filter(|&&layer| layer > cut.first);
            let depends = |layer: NodeId| nodes_to_run(&graph, &[], &[layer]).contains(&cut.first);
            for &layer in behind {
                assert_eq!(run.contains(&layer), depends(layer), "{model}");
            }
            assert_eq!(
                cut.macs,
                run.iter().map(|&id| macs[id].macs).sum::<u64>(),
                "{model}"
            );
            let shapes = infer_shapes(&graph, [1, 3, side, side]).unwrap();
            let values: usize = cut
                .keep
                .iter()
                .map(|&k| shapes[k].iter().product::<usize>())
                .sum();
            assert_eq!(cut.bytes, 4 * values as u64);
        }
        let most = cuts.iter().map(|c| c.bytes).max().unwrap();
        let mut before = u64::MAX;
        for budget in [0, most / 4, most / 2, most] {
            let plan = plan_cuts(&graph, &groups.groups, [side, side], budget, 9).unwrap();
            assert_eq!(plan.steps.len(), groups.groups.len());
            assert!(plan.steps.iter().all(|s| s.bytes <= budget), "{model}");
            assert!(
                plan.macs <= plan.brute_force_macs && plan.macs <= before,
                "{model} {budget}: {} after {before}",
                plan.macs
            );
            // Each step is chosen for itself alone: a larger budget may lose a little in the end.
            before = plan.macs + plan.macs / 100;
            if budget == most {
                // Preparing costs less than one run of one group in addition.
                let least = 9 * cuts.iter().map(|c| c.macs).sum::<u64>();
                assert!(plan.macs >= least, "{model}");
                let spare = plan.macs as f64 / least as f64;
                assert!(spare < 1.15, "{model}: {spare}");
            }
        }
    }
}
