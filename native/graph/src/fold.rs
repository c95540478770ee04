//! Folding batch norm into the convolution before it (inference graphs).

use crate::{Graph, GraphError, HostTensor, Node, NodeId, Op, WeightMap};

/// The inference graph and its weights, without auxiliary heads: each batch norm whose input is a convolution (a
/// deformable or transposed one too) used by nothing else becomes part of that convolution (scale γ/√(σ²+ε), bias
/// β + (b − μ)·scale). Batch norms after a concatenation or a convolution that others read stay as they are; dropout
/// and DropBlock are removed. Nodes that share parameters fold together where each has its norm and all these
/// share theirs.
///
/// Computed in f64 and rounded once. Weights that the graph does not name are left out.
///
/// # Errors
/// An invalid graph, or weights that are missing or misshapen.
pub fn fold_batch_norm(
    graph: &Graph,
    weights: &WeightMap,
) -> Result<(Graph, WeightMap), GraphError> {
    graph.validate()?;
    let main;
    let graph = if graph.outputs.iter().any(|o| o.auxiliary.is_some()) {
        main = graph.without_auxiliary();
        &main
    } else {
        graph
    };
    graph.validate_weights(weights)?;
    let folds = folds(graph);
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut folded = WeightMap::new();
    let mut new_id: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());

    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::Dropout { .. } | Op::DropBlock { .. } = node.op {
            new_id.push(new_id[node.inputs[0]]);
            continue;
        }
        if let Op::BatchNorm { eps, .. } = node.op
            && folds[id]
        {
            let source = node.inputs[0];
            let target = new_id[source];
            let conv = &graph.nodes[source];
            if conv.shares.is_none() {
                let norm = &graph.nodes[graph.owner(id)].name;
                fold_into(conv, norm, eps, weights, &mut folded);
            }
            if let Op::Conv2d { bias, .. }
            | Op::DeformConv2d { bias, .. }
            | Op::ConvTranspose2d { bias, .. } = &mut nodes[target].op
            {
                *bias = true;
            }
            new_id.push(target);
            continue;
        }
        for param in node.params() {
            let name = format!("{}.{}", node.name, param.suffix);
            folded.insert(name.clone(), weights[&name].clone());
        }
        let inputs = node.inputs.iter().map(|&id| new_id[id]).collect();
        new_id.push(nodes.len());
        let shares = node.shares.map(|id| new_id[id]);
        nodes.push(Node {
            inputs,
            shares,
            ..node.clone()
        });
    }

    let mut outputs = graph.outputs.clone();
    outputs
        .iter_mut()
        .for_each(|output| output.node = new_id[output.node]);
    let folded_graph = Graph {
        name: graph.name.clone(),
        nodes,
        outputs,
        head: graph.head.clone(),
    }
    .without_dead_nodes();
    // Names in graph order again (a new bias was appended at the end of the map).
    let mut ordered = WeightMap::with_capacity(folded.len());
    for (name, _) in folded_graph.params() {
        if let Some(tensor) = folded.swap_remove(&name) {
            ordered.insert(name, tensor);
        }
    }
    Ok((folded_graph, ordered))
}

/// For each node whether it is a batch norm that becomes part of the convolution before it: nothing else reads that,
/// and all that shares parameters with either of them folds in the same way.
fn folds(graph: &Graph) -> Vec<bool> {
    let uses = graph.uses();
    let mut folds: Vec<bool> = graph
        .nodes
        .iter()
        .map(|node| {
            let conv = |id: NodeId| uses[id] == 1 && is_convolution(&graph.nodes[id].op);
            matches!(node.op, Op::BatchNorm { .. }) && conv(node.inputs[0])
        })
        .collect();
    // By convolution: the norm that takes it in.
    let mut taken: Vec<Option<NodeId>> = vec![None; graph.nodes.len()];
    for id in (0..folds.len()).filter(|&id| folds[id]) {
        taken[graph.nodes[id].inputs[0]] = Some(id);
    }
    let owner = |id: NodeId| graph.owner(id);
    let norm_of = |folds: &[bool], conv: NodeId| taken[conv].filter(|&norm| folds[norm]);
    // One that stays keeps those that share with it.
    loop {
        let stays: Vec<NodeId> = (0..graph.nodes.len())
            .filter(|&id| {
                let other = owner(id);
                other != id
                    && match graph.nodes[id].op {
                        Op::BatchNorm { .. } => folds[id] != folds[other],
                        ref op if is_convolution(op) => {
                            norm_of(&folds, id).map(owner) != norm_of(&folds, other).map(owner)
                        }
                        _ => false,
                    }
            })
            .collect();
        if stays.is_empty() {
            return folds;
        }
        for id in stays {
            for member in (0..graph.nodes.len()).filter(|&m| owner(m) == owner(id)) {
                folds[member] = false;
                if let Some(norm) = taken[member] {
                    folds[norm] = false;
                }
            }
        }
    }
}

fn is_convolution(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv2d { .. } | Op::DeformConv2d { .. } | Op::ConvTranspose2d { .. }
    )
}

/// Batch norms that [`fold_batch_norm`] would remove.
pub(crate) fn foldable(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let folds = folds(graph).into_iter().enumerate();
    folds.filter(|(_, folds)| *folds).map(|(id, _)| id)
}

/// Scales the filters of `conv` in `folded` and writes its new bias.
fn fold_into(node: &Node, norm: &str, eps: f64, weights: &WeightMap, folded: &mut WeightMap) {
    let conv = &node.name;
    let get = |name: &str, suffix: &str| &weights[&format!("{name}.{suffix}")].data;
    let scale: Vec<f64> = get(norm, "weight")
        .iter()
        .zip(get(norm, "running_var"))
        .map(|(&gamma, &var)| f64::from(gamma) / (f64::from(var) + eps).sqrt())
        .collect();
    let old_bias = weights.get(&format!("{conv}.bias"));
    let shift = get(norm, "bias")
        .iter()
        .zip(get(norm, "running_mean"))
        .enumerate();
    let bias: Vec<f32> = shift
        .map(|(i, (&beta, &mean))| {
            let before = old_bias.map_or(0.0, |b| f64::from(b.data[i]));
            (f64::from(beta) + (before - f64::from(mean)) * scale[i]) as f32
        })
        .collect();
    if let Some(weight) = folded.get_mut(&format!("{conv}.weight")) {
        // Values of one output channel that lie side by side.
        let axis = usize::from(matches!(node.op, Op::ConvTranspose2d { .. }));
        let run: usize = weight.shape[axis + 1..].iter().product();
        let runs = weight.data.chunks_exact_mut(run.max(1));
        for (values, scale) in runs.zip(scale.iter().cycle()) {
            values
                .iter_mut()
                .for_each(|v| *v = (f64::from(*v) * scale) as f32);
        }
    }
    folded.insert(
        format!("{conv}.bias"),
        HostTensor {
            shape: vec![bias.len()],
            data: bias,
        },
    );
}
