//! Cut points on small graphs, by hand. All networks of the zoo: `native/zoo/tests/pruning.rs`.

use oarlock_graph::{
    Act, Conv, Graph, GraphBuilder, NodeId, Op, channel_groups, cost, cut_points, nodes_to_run,
    plan_cuts,
};

fn named(graph: &Graph, ids: &[NodeId]) -> Vec<String> {
    ids.iter().map(|&id| graph.nodes[id].name.clone()).collect()
}

/// Four convolutions in a row, the last with a shortcut from the first, on 8×8.
fn row() -> Graph {
    let mut b = GraphBuilder::new("row");
    let x = b.input(3);
    let first = b.conv("first", x, Conv::new(4, 3));
    let x = b.op("first.act", Op::Activation(Act::Relu), &[first]);
    let y = b.conv("second", x, Conv::new(8, 3).stride(2));
    let y = b.conv("third", y, Conv::new(4, 3));
    let y = b.op(
        "enlarged",
        Op::Upsample {
            scale: 2,
            bilinear: false,
        },
        &[y],
    );
    let x = b.add(x, y);
    let x = b.conv("fourth", x, Conv::new(5, 1));
    let x = b.conv("last", x, Conv::new(2, 1));
    b.output("out", x);
    b.finish().unwrap()
}

#[test]
fn a_cut_keeps_what_the_changed_nodes_read() {
    let graph = row();
    let groups = channel_groups(&graph).unwrap();
    let cuts = cut_points(&graph, &groups.groups, [8, 8]).unwrap();
    let cost = cost(&graph, [8, 8]).unwrap();
    let macs = |names: &[&str]| -> u64 {
        let nodes = graph.nodes.iter().zip(&cost.nodes);
        nodes
            .filter(|(node, _)| names.contains(&node.name.as_str()))
            .map(|(_, cost)| cost.macs)
            .sum()
    };
    let by_name = |name: &str| cuts.iter().find(|c| c.group == name).unwrap();

    // Its group holds `third` too, for the sum, and that reads what changes: all but `first` itself,
    // which only loses filters, must run.
    let first = by_name("first");
    assert_eq!(graph.nodes[first.first].name, "second");
    assert_eq!(named(&graph, &first.keep), ["first.act"]);
    assert_eq!(first.bytes, 4 * 64 * 4);
    assert_eq!(first.macs, macs(&["second", "third", "fourth", "last"]));

    let second = by_name("second");
    assert_eq!(named(&graph, &second.keep), ["first.act", "second"]);
    assert_eq!(second.bytes, 4 * 64 * 4 + 8 * 16 * 4);
    assert_eq!(second.macs, macs(&["third", "fourth", "last"]));

    // Its own output, 5×8×8, is all that `last` reads.
    let fourth = by_name("fourth");
    assert_eq!(named(&graph, &fourth.keep), ["fourth"]);
    assert_eq!(fourth.macs, macs(&["last"]));
}

#[test]
fn enlarged_maps_are_kept_small() {
    let mut b = GraphBuilder::new("net");
    let x = b.input(3);
    let x = b.conv("a", x, Conv::new(4, 3).stride(4));
    let enlarge = Op::Upsample {
        scale: 4,
        bilinear: true,
    };
    let x = b.op("big", enlarge, &[x]);
    let x = b.act(x, Act::Relu);
    let x = b.conv("b", x, Conv::new(4, 3));
    let x = b.conv("c", x, Conv::new(2, 3));
    b.output("out", x);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let cuts = cut_points(&graph, &groups.groups, [16, 16]).unwrap();
    // `b` reads all of `a`, enlarged; what `a` loses it loses before that.
    assert_eq!(named(&graph, &cuts[0].keep), ["a"]);
    assert_eq!(cuts[0].bytes, 4 * 16 * 4);
    assert_eq!(named(&graph, &cuts[1].keep), ["b"]);
    assert_eq!(cuts[1].bytes, 4 * 256 * 4);
}

#[test]
fn what_must_run() {
    let graph = row();
    let id = |name: &str| graph.nodes.iter().position(|n| n.name == name).unwrap();
    let last = id("last");
    assert_eq!(
        nodes_to_run(&graph, &[], &[last]),
        (0..graph.nodes.len()).collect::<Vec<_>>()
    );
    let run = nodes_to_run(&graph, &[id("first.act"), id("third")], &[last]);
    assert_eq!(named(&graph, &run), ["enlarged", "add_6", "fourth", "last"]);
    assert!(nodes_to_run(&graph, &[last], &[last]).is_empty());
}

#[test]
fn a_plan_moves_along_within_its_budget() {
    let graph = row();
    let groups = channel_groups(&graph).unwrap();
    let total = cost(&graph, [8, 8]).unwrap().total.macs;
    let plan = |budget| plan_cuts(&graph, &groups.groups, [8, 8], budget, 9).unwrap();

    let free = plan(u64::MAX);
    let order: Vec<&str> = free.steps.iter().map(|s| s.group.as_str()).collect();
    assert_eq!(order, ["first", "second", "fourth"]);
    let cuts = cut_points(&graph, &groups.groups, [8, 8]).unwrap();
    for step in &free.steps {
        let cut = cuts.iter().find(|c| c.group == step.group).unwrap();
        assert_eq!(
            (&step.keep, &step.usable, step.macs),
            (&cut.keep, &cut.keep, cut.macs)
        );
    }
    // Each value is made once: moving to the sum goes on from the kept activation.
    let id = |name: &str| graph.nodes.iter().position(|n| n.name == name).unwrap();
    let nodes = cost(&graph, [8, 8]).unwrap().nodes;
    let prepared: Vec<u64> = free.steps.iter().map(|s| s.prepare_macs).collect();
    let [first, second, third, fourth] =
        ["first", "second", "third", "fourth"].map(|name| nodes[id(name)].macs);
    assert_eq!(prepared, [first, second, third + fourth]);
    assert_eq!(free.brute_force_macs, 3 * 9 * total);
    assert_eq!(
        free.macs,
        free.steps
            .iter()
            .map(|s| s.prepare_macs + 9 * s.macs)
            .sum::<u64>()
    );

    let none = plan(0);
    assert_eq!(none.macs, none.brute_force_macs);
    assert!(none.steps.iter().all(|s| s.keep.is_empty()));
    // One byte less than the activation takes: nothing fits, the image is all there is.
    assert_eq!(plan(4 * 64 * 4 - 1).macs, none.macs);
    let least = free.steps.iter().map(|s| s.bytes).max().unwrap();
    assert_eq!(plan(least).macs, free.macs);
    assert!(plan(least - 1).macs > free.macs && plan(least - 1).macs < none.macs);
}
