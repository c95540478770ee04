//! Products with a gate as one step: squeeze-and-excitation (Hu et al. 2018).

use oarlock_graph::{Act, Graph, NodeId, Op};

use super::plan::{Fusion, Kernel, Step};

/// Longest way from a mean to the gate computed from it: pool, convolution, norm, activation, convolution, norm.
const MOST_LAYERS: usize = 8;

/// A product that runs as one step, with the nodes that lose their own.
pub(super) struct Excite {
    pub step: Step,
    pub merged: Vec<NodeId>,
}

/// The products of two values in `run`. `alone` says whether a node is a step of its own so far.
pub(super) fn steps(
    graph: &Graph,
    users: &[Vec<NodeId>],
    run: &[NodeId],
    fusion: Fusion,
    alone: impl Fn(NodeId) -> bool,
) -> Vec<Excite> {
    let mut linked = Vec::new();
    let mut found = Vec::new();
    for &node in run {
        let (Op::Mul, &[map, mut gate]) = (&graph.nodes[node].op, &graph.nodes[node].inputs[..])
        else {
            continue;
        };
        let mut merged = Vec::new();
        let act = gate_act(graph, gate).filter(|_| users[gate][..] == [node] && alone(gate));
        if act.is_some() && run.contains(&gate) {
            merged.push(gate);
            gate = graph.nodes[gate].inputs[0];
        }
        let mut inputs = vec![map, gate];
        // Only gradients want the mean.
        if fusion == Fusion::Norm
            && let Some(pool) = mean_behind(graph, gate, map)
            && run.contains(&pool)
            && !linked.contains(&pool)
        {
            linked.push(pool);
            inputs.push(pool);
        }
        found.push(Excite {
            step: Step {
                node,
                kernel: Kernel::Excite {
                    act: act.filter(|_| !merged.is_empty()),
                },
                inputs,
                in_place: false,
                dead: Vec::new(),
            },
            merged,
        });
    }
    found
}

fn gate_act(graph: &Graph, gate: NodeId) -> Option<Act> {
    match graph.nodes[gate].op {
        Op::Activation(act @ (Act::HardSigmoid { .. } | Act::Sigmoid)) => Some(act),
        _ => None,
    }
}

/// The global mean of `map` from which `gate` is computed by a chain of layers.
fn mean_behind(graph: &Graph, gate: NodeId, map: NodeId) -> Option<NodeId> {
    let mut at = gate;
    for _ in 0..MOST_LAYERS {
        let node = &graph.nodes[at];
        let &[input] = &node.inputs[..] else {
            return None;
        };
        if node.op == Op::GlobalAvgPool {
            return (input == map).then_some(at);
        }
        at = input;
    }
    None
}

#[cfg(test)]
mod tests {
    use oarlock_graph::{Conv, GraphBuilder};

    use super::super::plan::steps;
    use super::*;

    #[test]
    fn a_squeeze_excite_block_becomes_a_pool_and_a_product() {
        let mut g = GraphBuilder::new("block");
        let x = g.input(3);
        let map = g.conv("map", x, Conv::new(8, 3));
        let pool = g.global_avg_pool(map);
        let squeezed = g.conv("squeeze", pool, Conv::new(4, 1).bias());
        let relu = g.act(squeezed, Act::Relu);
        let z = g.conv("excite", relu, Conv::new(8, 1).bias());
        let act = Act::HardSigmoid {
            slope: 0.2,
            offset: 0.5,
        };
        let gate = g.act(z, act);
        let out = g.mul(map, gate);
        g.output("y", out);
        let graph = g.finish().unwrap();
        for (fusion, inputs) in [
            (Fusion::Norm, vec![map, z, pool]),
            (Fusion::Conv, vec![map, z]),
        ] {
            let steps = steps(&graph, fusion);
            let last = steps.last().unwrap();
            assert_eq!(last.kernel, Kernel::Excite { act: Some(act) });
            assert_eq!(last.inputs, inputs);
            assert!(steps.iter().all(|s| s.node != gate));
        }
    }

    #[test]
    fn a_product_of_two_maps_keeps_what_others_read() {
        let mut g = GraphBuilder::new("two");
        let x = g.input(3);
        let a = g.conv("a", x, Conv::new(8, 3));
        let b = g.conv("b", x, Conv::new(8, 3));
        let gate = g.act(b, Act::Sigmoid);
        let product = g.mul(a, gate);
        let sum = g.add(product, gate);
        g.output("y", sum);
        let graph = g.finish().unwrap();
        let steps = steps(&graph, Fusion::Norm);
        let step = steps.iter().find(|s| s.node == product).unwrap();
        assert_eq!(step.kernel, Kernel::Excite { act: None });
        assert_eq!(step.inputs, [a, gate]);
        assert!(steps.iter().any(|s| s.node == gate));
    }
}
