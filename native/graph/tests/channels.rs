//! Channel groups on small graphs, by hand. All networks of the zoo: `native/zoo/tests/pruning.rs`.

use oarlock_graph::{
    Act, ChannelGroups, Conv, FixedReason, Graph, GraphBuilder, NodeId, Op, channel_groups,
};

/// A network whose result is four classes behind `body`.
fn classifier(body: impl FnOnce(&mut GraphBuilder, NodeId) -> NodeId) -> (Graph, ChannelGroups) {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = body(&mut b, x);
    let x = b.global_avg_pool(x);
    let x = b.flatten(x);
    let x = b.linear("head", x, 4);
    b.output("logits", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    (graph, groups)
}

/// Names of the groups' layers and their sizes.
fn summary(graph: &Graph, groups: &ChannelGroups) -> Vec<(String, Vec<String>, usize)> {
    let names = |ids: &[NodeId]| ids.iter().map(|&id| graph.nodes[id].name.clone()).collect();
    let groups = groups.groups.iter();
    groups
        .map(|g| (g.name.clone(), names(&g.layers), g.size()))
        .collect()
}

fn fixed(graph: &Graph, groups: &ChannelGroups) -> Vec<(String, FixedReason)> {
    let all = groups.fixed.iter();
    all.flat_map(|f| {
        f.layers
            .iter()
            .map(|&id| (graph.nodes[id].name.clone(), f.reason))
    })
    .collect()
}

fn entry(name: &str, layers: &[&str], size: usize) -> (String, Vec<String>, usize) {
    let layers = layers.iter().map(|&s| s.to_owned()).collect();
    (name.to_owned(), layers, size)
}

#[test]
fn chains_sums_and_the_head() {
    let (graph, groups) = classifier(|b, x| {
        let stem = b.conv("stem", x, Conv::new(8, 3));
        let stem = b.batch_norm("norm", stem);
        let y = b.conv("inner", stem, Conv::new(6, 3));
        let y = b.act(y, Act::Relu);
        let y = b.conv("outer", y, Conv::new(8, 3));
        b.add(stem, y)
    });
    let wanted = [
        entry("stem", &["stem", "outer"], 8),
        entry("inner", &["inner"], 6),
    ];
    assert_eq!(summary(&graph, &groups), wanted);
    assert_eq!(
        fixed(&graph, &groups),
        [("head".to_owned(), FixedReason::Output)]
    );
    let stem = groups.get("stem").unwrap();
    assert_eq!(groups.channels(stem.layers[1], stem, 5), [5]);
    assert!(groups.channels(stem.layers[1], stem, 8).is_empty());
    assert!(groups.get("outer").is_none());
}

#[test]
fn a_sum_with_the_image_fixes_a_layer() {
    let (graph, groups) = classifier(|b, x| {
        let y = b.conv("same", x, Conv::new(3, 3));
        b.add(y, x)
    });
    assert!(groups.groups.is_empty());
    let wanted = [
        ("same".to_owned(), FixedReason::Input),
        ("head".to_owned(), FixedReason::Output),
    ];
    assert_eq!(fixed(&graph, &groups), wanted);
}

#[test]
fn depthwise_layers_follow_and_gates_are_tied() {
    let (graph, groups) = classifier(|b, x| {
        let x = b.conv("expand", x, Conv::new(8, 1));
        let x = b.conv("depthwise", x, Conv::depthwise(8, 3));
        let gate = b.global_avg_pool(x);
        let gate = b.conv("squeeze", gate, Conv::new(2, 1).bias());
        let gate = b.conv("excite", gate, Conv::new(8, 1).bias());
        let gate = b.act(gate, Act::Sigmoid);
        b.mul(x, gate)
    });
    let wanted = [
        entry("expand", &["expand", "depthwise", "excite"], 8),
        entry("squeeze", &["squeeze"], 2),
    ];
    assert_eq!(summary(&graph, &groups), wanted);
}

#[test]
fn a_depthwise_layer_may_multiply_channels() {
    let (graph, groups) = classifier(|b, x| {
        let x = b.conv("first", x, Conv::new(4, 1));
        b.conv("twice", x, Conv::new(8, 3).groups(4))
    });
    assert_eq!(
        summary(&graph, &groups),
        [entry("first", &["first", "twice"], 4)]
    );
    let group = &groups.groups[0];
    assert_eq!(groups.channels(group.layers[1], group, 1), [2, 3]);
    assert_eq!(groups.channels(group.layers[0], group, 1), [1]);
}

#[test]
fn grouped_convolutions_lose_the_same_place_in_each_group() {
    let (graph, groups) = classifier(|b, x| {
        let x = b.conv("before", x, Conv::new(6, 1));
        b.conv("grouped", x, Conv::new(4, 3).groups(2))
    });
    let wanted = [
        entry("before", &["before"], 3),
        entry("grouped", &["grouped"], 2),
    ];
    assert_eq!(summary(&graph, &groups), wanted);
    let [before, grouped] = [0, 1].map(|i| &groups.groups[i]);
    assert_eq!(groups.channels(before.representative, before, 1), [1, 4]);
    assert_eq!(groups.channels(grouped.representative, grouped, 0), [0, 2]);
}

#[test]
fn concatenation_keeps_offsets_and_sums_behind_it_split_groups() {
    let (graph, groups) = classifier(|b, x| {
        let a = b.conv("a", x, Conv::new(4, 1));
        let c = b.conv("c", x, Conv::new(6, 1));
        let both = b.concat(&[a, c]);
        let sum = b.conv("sum", both, Conv::new(10, 1));
        b.add(both, sum)
    });
    // `sum` loses its first four outputs with `a`, the others with `c`.
    let wanted = [entry("a", &["a", "sum"], 4), entry("c", &["c", "sum"], 6)];
    assert_eq!(summary(&graph, &groups), wanted);
    let group = groups.get("c").unwrap();
    assert_eq!(groups.channels(group.layers[1], group, 0), [4]);
}

#[test]
fn slices_split_the_channels_of_one_layer() {
    let (graph, groups) = classifier(|b, x| {
        let x = b.conv("both", x, Conv::new(10, 1));
        let left = b.slice(x, 0, 4);
        let right = b.slice(x, 4, 6);
        let right = b.conv("right", right, Conv::new(6, 1));
        b.concat(&[left, right])
    });
    let wanted = [
        entry("both", &["both"], 4),
        entry("both#2", &["both"], 6),
        entry("right", &["right"], 6),
    ];
    assert_eq!(summary(&graph, &groups), wanted);
}

#[test]
fn shuffles_tie_halves_and_uneven_ties_are_refused() {
    let shuffle = |b: &mut GraphBuilder, x| b.plain(Op::ChannelShuffle { groups: 2 }, &[x]);
    let (graph, groups) = classifier(|b, x| {
        let x = b.conv("halves", x, Conv::new(8, 1));
        shuffle(b, x)
    });
    assert_eq!(summary(&graph, &groups), [entry("halves", &["halves"], 4)]);
    let group = &groups.groups[0];
    assert_eq!(groups.channels(group.representative, group, 1), [1, 5]);

    // Two units of ShuffleNetV2: of three pairs in the first half one and a half go on to the second.
    let (graph, groups) = classifier(|b, x| {
        let mut x = b.conv("stem", x, Conv::new(6, 1));
        for name in ["one", "two"] {
            x = shuffle(b, x);
            let left = b.slice(x, 0, 3);
            let right = b.slice(x, 3, 3);
            let right = b.conv(format!("{name}.inner"), right, Conv::new(5, 1));
            let right = b.conv(format!("{name}.outer"), right, Conv::new(3, 1));
            x = b.concat(&[left, right]);
        }
        shuffle(b, x)
    });
    let wanted = [
        entry("one.inner", &["one.inner"], 5),
        entry("two.inner", &["two.inner"], 5),
    ];
    assert_eq!(summary(&graph, &groups), wanted);
    for layer in ["stem", "one.outer", "two.outer"] {
        let found = fixed(&graph, &groups);
        assert!(
            found.contains(&(layer.to_owned(), FixedReason::Uneven)),
            "{layer}: {found:?}"
        );
    }
}

#[test]
fn flattened_maps_and_hidden_linear_layers() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("conv", x, Conv::new(5, 3));
    let x = b.plain(Op::AdaptiveAvgPool { size: [2, 3] }, &[x]);
    let x = b.flatten(x);
    let x = b.linear("hidden", x, 7);
    let x = b.linear("head", x, 2);
    let x = b.plain(Op::Softmax, &[x]);
    b.output("probabilities", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let wanted = [entry("conv", &["conv"], 5), entry("hidden", &["hidden"], 7)];
    assert_eq!(summary(&graph, &groups), wanted);
    assert_eq!(
        fixed(&graph, &groups),
        [("head".to_owned(), FixedReason::Softmax)]
    );
    let flatten = 3;
    assert_eq!(
        groups.channels(flatten, &groups.groups[0], 1),
        [6, 7, 8, 9, 10, 11]
    );
}

#[test]
fn a_single_channel_cannot_go() {
    let (graph, groups) = classifier(|b, x| b.conv("one", x, Conv::new(1, 3)));
    assert!(groups.groups.is_empty());
    assert!(fixed(&graph, &groups).contains(&("one".to_owned(), FixedReason::Single)));
}
