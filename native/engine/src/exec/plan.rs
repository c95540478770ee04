//! In which steps a graph is executed: what runs as one operation, what may be overwritten, what is freed when.

use oarlock_graph::{Act, Graph, NodeId, Op};

use super::excite;

/// What a step runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kernel {
    /// The node as it is.
    Node,
    /// The batch norm `norm`, plus the second input if there is one, then the activation.
    Norm { norm: NodeId, act: Option<Act> },
    /// The convolution `conv`, plus the second input if there is one, then the activation (inference only).
    Conv { conv: NodeId, act: Option<Act> },
    /// The first input times the activation of the second; the third, if there is one, is the first one's mean from
    /// which the second was computed.
    Excite { act: Option<Act> },
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Whose value it computes.
    pub node: NodeId,
    pub kernel: Kernel,
    /// Values it reads.
    pub inputs: Vec<NodeId>,
    /// Whether it may overwrite its first input.
    pub in_place: bool,
    /// Values nobody reads after it.
    pub dead: Vec<NodeId>,
}

/// Which operations begin a fused step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fusion {
    /// Batch norms (training and its evaluation).
    Norm,
    /// Convolutions (inference with folded batch norms on a CPU).
    Conv,
}

/// The steps of `graph` in order.
pub(super) fn steps(graph: &Graph, fusion: Fusion) -> Vec<Step> {
    let outputs: Vec<NodeId> = graph.outputs.iter().map(|o| o.node).collect();
    section(
        graph,
        fusion,
        &(0..graph.nodes.len()).collect::<Vec<_>>(),
        &outputs,
    )
}

/// The steps that compute the nodes `run` (ascending). The values `pinned` are there afterwards, as they were made.
pub(super) fn section(
    graph: &Graph,
    fusion: Fusion,
    run: &[NodeId],
    pinned: &[NodeId],
) -> Vec<Step> {
    let users = users(graph, run, pinned);
    // What each node has become: part of the step that ends at another node, or a step of its own.
    let mut merged = vec![false; graph.nodes.len()];
    let mut fused: Vec<Option<Step>> = vec![None; graph.nodes.len()];
    for &i in run {
        let node = &graph.nodes[i];
        let starts = match fusion {
            Fusion::Norm => matches!(node.op, Op::BatchNorm { .. }),
            Fusion::Conv => matches!(node.op, Op::Conv2d { .. }),
        };
        if starts {
            let chain = chain(graph, &users, &merged, i, fusion);
            chain.merged.iter().for_each(|&id| merged[id] = true);
            let kernel = match fusion {
                Fusion::Norm => Kernel::Norm {
                    norm: i,
                    act: chain.act,
                },
                Fusion::Conv => Kernel::Conv {
                    conv: i,
                    act: chain.act,
                },
            };
            let inputs = node.inputs.iter().copied().chain(chain.residual).collect();
            fused[chain.end] = Some(Step {
                node: chain.end,
                kernel,
                inputs,
                in_place: false,
                dead: Vec::new(),
            });
        }
    }
    for found in excite::steps(graph, &users, run, fusion, |id| fused[id].is_none()) {
        found.merged.iter().for_each(|&id| merged[id] = true);
        let node = found.step.node;
        fused[node] = Some(found.step);
    }
    let mut steps: Vec<Step> = run
        .iter()
        .filter(|&&i| !merged[i])
        .map(|&i| {
            fused[i].take().unwrap_or_else(|| Step {
                node: i,
                kernel: Kernel::Node,
                inputs: graph.nodes[i].inputs.clone(),
                in_place: false,
                dead: Vec::new(),
            })
        })
        .collect();
    mark_overwrites(graph, &mut steps, pinned);
    mark_dead(graph, &mut steps, pinned);
    steps
}

/// Readers of each value among `run`; whoever wants a value of `pinned` counts as `usize::MAX`.
fn users(graph: &Graph, run: &[NodeId], pinned: &[NodeId]) -> Vec<Vec<NodeId>> {
    let mut users = vec![Vec::new(); graph.nodes.len()];
    for &i in run {
        graph.nodes[i]
            .inputs
            .iter()
            .for_each(|&id| users[id].push(i));
    }
    pinned.iter().for_each(|&id| users[id].push(usize::MAX));
    users
}

struct Chain {
    /// Nodes that lose their own step.
    merged: Vec<NodeId>,
    /// Last node.
    end: NodeId,
    residual: Option<NodeId>,
    act: Option<Act>,
}

/// How far the step that begins at `start` reaches: `start [→ add] [→ activation]`, as long as nobody else reads
/// the values between.
fn chain(
    graph: &Graph,
    users: &[Vec<NodeId>],
    merged: &[bool],
    start: NodeId,
    fusion: Fusion,
) -> Chain {
    let mut chain = Chain {
        merged: Vec::new(),
        end: start,
        residual: None,
        act: None,
    };
    let only_user = |id: NodeId| match users[id][..] {
        [user] if user != usize::MAX => Some(user),
        _ => None,
    };
    if let Some(add) = only_user(start)
        && graph.nodes[add].op == Op::Add
        && let [a, b] = graph.nodes[add].inputs[..]
    {
        let other = if a == start { b } else { a };
        // If the other term has taken the sum into its own step, this one stays alone.
        if other != start && !merged[other] {
            chain.merged.push(start);
            chain.end = add;
            chain.residual = Some(other);
        }
    }
    if let Some(next) = only_user(chain.end)
        && let Op::Activation(act) = graph.nodes[next].op
        && fits(act, chain.residual.is_some(), fusion)
    {
        chain.merged.push(chain.end);
        chain.end = next;
        chain.act = Some(act);
    }
    chain
}

/// Whether a kernel can apply `act` in the same pass.
fn fits(act: Act, after_sum: bool, fusion: Fusion) -> bool {
    match (fusion, act) {
        (_, Act::Relu) => true,
        (Fusion::Norm, Act::Relu6 | Act::LeakyRelu { .. }) => true,
        // Its backward pass computes its input anew from the normalised map, without the sum's other term.
        (Fusion::Norm, Act::HardSwish) => !after_sum,
        (
            Fusion::Conv,
            Act::Relu6 | Act::LeakyRelu { .. } | Act::HardSwish | Act::Swish | Act::Sigmoid,
        ) => !after_sum,
        _ => false,
    }
}

/// A step may overwrite its first input when nobody else reads it, and neither the step that made it nor its own
/// backward pass needs the old values.
fn mark_overwrites(graph: &Graph, steps: &mut [Step], pinned: &[NodeId]) {
    let mut reads = vec![0; graph.nodes.len()];
    steps
        .iter()
        .flat_map(|s| &s.inputs)
        .for_each(|&id| reads[id] += 1);
    pinned.iter().for_each(|&id| reads[id] += 1);
    // Values whose makers never look at them again. Those that no step makes belong to somebody else.
    let mut free = vec![false; graph.nodes.len()];
    for step in steps.iter_mut() {
        let op = &graph.nodes[step.node].op;
        let overwrites = match step.kernel {
            Kernel::Node => match op {
                Op::Activation(Act::Relu | Act::Relu6 | Act::LeakyRelu { .. }) => true,
                Op::Add => {
                    step.inputs
                        .iter()
                        .filter(|&&id| id == step.inputs[0])
                        .count()
                        == 1
                }
                _ => false,
            },
            _ => false,
        };
        step.in_place = overwrites
            && step
                .inputs
                .first()
                .is_some_and(|&id| reads[id] == 1 && free[id]);
        free[step.node] = match step.kernel {
            Kernel::Norm { act, .. } => act.is_none(),
            Kernel::Conv { .. } | Kernel::Excite { .. } => true,
            Kernel::Node => matches!(op, Op::Conv2d { .. } | Op::Linear { .. } | Op::Add),
        };
    }
}

fn mark_dead(graph: &Graph, steps: &mut [Step], pinned: &[NodeId]) {
    let mut last = vec![None; graph.nodes.len()];
    for (s, step) in steps.iter().enumerate() {
        last[step.node] = Some(s); // a value nobody reads dies at once
        step.inputs.iter().for_each(|&id| last[id] = Some(s));
    }
    pinned.iter().for_each(|&id| last[id] = None);
    for (id, at) in last.into_iter().enumerate() {
        if let Some(s) = at {
            steps[s].dead.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oarlock_graph::{Conv, GraphBuilder};

    /// A residual block with a projection: two batch norms meet in one sum.
    fn block() -> Graph {
        let mut g = GraphBuilder::new("block");
        let x = g.input(3);
        let c1 = g.conv("c1", x, Conv::new(8, 3));
        let n1 = g.batch_norm("n1", c1);
        let r1 = g.act(n1, Act::Relu);
        let c2 = g.conv("c2", r1, Conv::new(8, 3));
        let n2 = g.batch_norm("n2", c2);
        let cd = g.conv("cd", x, Conv::new(8, 1));
        let nd = g.batch_norm("nd", cd);
        let sum = g.add(n2, nd);
        let out = g.act(sum, Act::Relu);
        g.output("y", out);
        g.finish().unwrap()
    }

    #[test]
    fn a_residual_block_takes_its_sum_and_activation_into_one_norm() {
        let graph = block();
        let id = |name: &str| graph.nodes.iter().position(|n| n.name == name).unwrap();
        let steps = steps(&graph, Fusion::Norm);
        let kernels: Vec<_> = steps.iter().map(|s| (s.kernel, s.inputs.clone())).collect();
        let last = steps.last().unwrap();
        assert_eq!(
            last.kernel,
            Kernel::Norm {
                norm: id("n2"),
                act: Some(Act::Relu)
            }
        );
        assert_eq!(last.inputs, [id("c2"), id("nd")]);
        assert!(kernels.contains(&(
            Kernel::Norm {
                norm: id("nd"),
                act: None
            },
            vec![id("cd")]
        )));
        assert!(kernels.contains(&(
            Kernel::Norm {
                norm: id("n1"),
                act: Some(Act::Relu)
            },
            vec![id("c1")]
        )));
        // input, c1, n1+relu, c2, cd, nd, n2+sum+relu
        assert_eq!(steps.len(), 7);
        for step in &steps {
            for id in &step.inputs {
                assert!(
                    steps.iter().any(|s| s.node == *id),
                    "{id} is read but never computed"
                );
            }
        }
    }

    #[test]
    fn every_value_is_freed_after_its_last_reader_only() {
        for graph in oarlock_zoo::classifier_names()
            .iter()
            .map(|n| oarlock_zoo::classifier(n, 10).unwrap())
            .chain(
                oarlock_zoo::segmenter_names()
                    .iter()
                    .map(|n| oarlock_zoo::segmenter(n, None, 10, 4).unwrap()),
            )
        {
            for fusion in [Fusion::Norm, Fusion::Conv] {
                let mut live = vec![false; graph.nodes.len()];
                for step in steps(&graph, fusion) {
                    assert!(
                        step.inputs.iter().all(|&id| live[id]),
                        "{} reads what is gone",
                        graph.name
                    );
                    live[step.node] = true;
                    step.dead.iter().for_each(|&id| live[id] = false);
                }
                let left = live.iter().filter(|l| **l).count();
                assert_eq!(left, graph.outputs.len(), "{}", graph.name);
            }
        }
    }
}
