//! Folding batch norm into the convolution before it (inference graphs).

use crate::{Graph, GraphError, HostTensor, Node, NodeId, Op, WeightMap};

/// The inference graph and its weights, without auxiliary heads: each batch norm whose input is a convolution used by nothing
/// else becomes part of that convolution (scale γ/√(σ²+ε), bias β + (b − μ)·scale). Batch norms after
/// a concatenation or a convolution that others read too stay as they are; so do those that share parameters, unless
/// the same two nodes are a pair everywhere. Dropout is removed.
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
    let uses = graph.uses();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut folded = WeightMap::new();
    let mut new_id: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());

    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::Dropout { .. } = node.op {
            new_id.push(new_id[node.inputs[0]]);
            continue;
        }
        if let Op::BatchNorm { eps, .. } = node.op
            && folds(graph, &uses, id)
        {
            let source = node.inputs[0];
            let target = new_id[source];
            let conv = &graph.nodes[source].name;
            if node.shares.is_none() {
                fold_into(conv, &node.name, eps, weights, &mut folded);
            }
            if let Op::Conv2d { bias, .. } = &mut nodes[target].op {
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

/// Whether a node is a batch norm whose input is a convolution that nothing else reads, wherever the parameters of
/// the two are used.
fn folds(graph: &Graph, uses: &[usize], id: NodeId) -> bool {
    let source = |id: NodeId| {
        let node = &graph.nodes[id];
        let conv = matches!(node.op, Op::BatchNorm { .. }).then(|| node.inputs[0])?;
        let alone = uses[conv] == 1 && matches!(graph.nodes[conv].op, Op::Conv2d { .. });
        alone.then(|| graph.owner(conv))
    };
    let Some(conv) = source(id) else {
        return false;
    };
    let all = 0..graph.nodes.len();
    let mut norms = all
        .clone()
        .filter(|&other| graph.owner(other) == graph.owner(id));
    let paired = norms.clone().count();
    norms.all(|norm| source(norm) == Some(conv))
        && all.filter(|&other| graph.owner(other) == conv).count() == paired
}

/// Batch norms that [`fold_batch_norm`] would remove.
pub(crate) fn foldable(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let uses = graph.uses();
    (0..graph.nodes.len()).filter(move |&id| folds(graph, &uses, id))
}

/// Scales the filters of `conv` in `folded` and writes its new bias.
fn fold_into(conv: &str, norm: &str, eps: f64, weights: &WeightMap, folded: &mut WeightMap) {
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
        let filter = (weight.data.len() / scale.len().max(1)).max(1);
        for (values, scale) in weight.data.chunks_exact_mut(filter).zip(&scale) {
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
