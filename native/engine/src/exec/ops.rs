//! One libtorch call per operation, and what the executor must know about it.

use oarlock_graph::{Act, Graph, NodeId, Op};
use tch::Tensor;

use super::network::Parameter;
use crate::runtime::Placement;
use crate::{EngineError, Result, ffi};

/// What an operation gets beside its inputs.
pub(super) struct Call<'a> {
    pub params: &'a [Parameter],
    pub train: bool,
    /// The first input may be overwritten.
    pub in_place: bool,
    pub seed: u64,
}

impl Call<'_> {
    fn param(&self, index: usize) -> Result<&Tensor> {
        self.params
            .get(index)
            .map(|p| &p.compute)
            .ok_or_else(|| EngineError::internal("an operation lacks a parameter"))
    }
}

/// Moves images to the device, the compute type and the channels-last order; no copy where they are.
pub(super) fn prepare_input(input: &Tensor, placement: Placement) -> Result<Tensor> {
    ffi::to_channels_last(
        &input
            .f_to_device(placement.device)?
            .f_to_kind(placement.compute)?,
    )
}

/// How many nodes and outputs read each value.
pub(super) fn consumers(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes.len()];
    let reads = graph.nodes.iter().flat_map(|n| n.inputs.iter().copied());
    for id in reads.chain(graph.outputs.iter().map(|o| o.node)) {
        uses[id] += 1;
    }
    uses
}

/// For each node the values that nobody reads after it.
pub(super) fn last_uses(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut last: Vec<NodeId> = (0..graph.nodes.len()).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        for &id in &node.inputs {
            last[id] = i;
        }
    }
    for output in &graph.outputs {
        last[output.node] = usize::MAX;
    }
    let mut dead = vec![Vec::new(); graph.nodes.len()];
    for (id, &at) in last.iter().enumerate() {
        if at < dead.len() {
            dead[at].push(id);
        }
    }
    dead
}

/// Whether node `i` may overwrite its first input: nobody else reads it, and neither its producer's backward
/// pass nor the node's own needs the old values.
pub(super) fn may_overwrite(graph: &Graph, uses: &[usize], i: NodeId) -> bool {
    let node = &graph.nodes[i];
    let Some(&first) = node.inputs.first() else {
        return false;
    };
    let overwrites = match node.op {
        Op::Activation(Act::Relu | Act::Relu6 | Act::LeakyRelu { .. }) => true,
        Op::Add => node.inputs.iter().filter(|&&id| id == first).count() == 1,
        _ => false,
    };
    // Producers whose backward pass reads their inputs only, never their result.
    let producer = matches!(
        graph.nodes[first].op,
        Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Add | Op::Linear { .. }
    );
    overwrites && producer && uses[first] == 1
}

fn pair(v: [usize; 2]) -> [i64; 2] {
    [v[0] as i64, v[1] as i64]
}

fn none() -> Option<&'static Tensor> {
    None
}

/// Computes one node.
pub(super) fn run(op: &Op, inputs: &[&Tensor], call: &Call) -> Result<Tensor> {
    let x = *inputs
        .first()
        .ok_or_else(|| EngineError::internal("an operation lacks its input"))?;
    Ok(match *op {
        Op::Input { .. } => x.shallow_clone(),
        Op::Conv2d {
            stride,
            padding,
            dilation,
            groups,
            bias,
            ..
        } => {
            let b = if bias { Some(call.param(1)?) } else { none() };
            x.f_conv2d(
                call.param(0)?,
                b,
                pair(stride),
                pair(padding),
                pair(dilation),
                groups as i64,
            )?
        }
        Op::BatchNorm { eps, momentum, .. } => x.f_batch_norm(
            Some(call.param(0)?),
            Some(call.param(1)?),
            Some(call.param(2)?),
            Some(call.param(3)?),
            call.train,
            momentum,
            eps,
            true,
        )?,
        Op::Activation(act) => ffi::activation(x, act, call.in_place)?,
        Op::MaxPool {
            kernel,
            stride,
            padding,
            ceil,
        } => x.f_max_pool2d(pair(kernel), pair(stride), pair(padding), [1, 1], ceil)?,
        Op::AvgPool {
            kernel,
            stride,
            padding,
            ceil,
            count_include_pad,
        } => x.f_avg_pool2d(
            pair(kernel),
            pair(stride),
            pair(padding),
            ceil,
            count_include_pad,
            None,
        )?,
        Op::GlobalAvgPool => x.f_adaptive_avg_pool2d([1, 1])?,
        Op::AdaptiveAvgPool { size } => x.f_adaptive_avg_pool2d(pair(size))?,
        Op::Add => sum(inputs, call.in_place)?,
        Op::Mul => x.f_mul(
            inputs
                .get(1)
                .ok_or_else(|| EngineError::internal("a product lacks a factor"))?,
        )?,
        Op::Concat => Tensor::f_cat(inputs, 1)?,
        Op::Slice { start, len } => x.f_narrow(1, start as i64, len as i64)?,
        Op::ChannelShuffle { groups } => shuffle(x, groups as i64)?,
        Op::Upsample { scale, bilinear } => {
            let (_, _, h, w) = x.size4()?;
            let s = scale as i64;
            if bilinear {
                x.f_upsample_bilinear2d([h * s, w * s], false, None, None)?
            } else {
                x.f_upsample_nearest2d([h * s, w * s], None, None)?
            }
        }
        Op::Flatten => x.f_flatten(1, -1)?,
        Op::Linear { bias, .. } => x.f_linear(
            call.param(0)?,
            if bias { Some(call.param(1)?) } else { none() },
        )?,
        Op::Dropout { p } if call.train && p > 0.0 => ffi::dropout(x, p, call.seed)?,
        Op::Dropout { .. } => x.shallow_clone(),
        Op::Softmax => x.f_softmax(-1, None)?,
    })
}

fn sum(inputs: &[&Tensor], in_place: bool) -> Result<Tensor> {
    let [first, second, rest @ ..] = inputs else {
        return Err(EngineError::internal("a sum lacks a term"));
    };
    let mut total = if in_place {
        first.shallow_clone().f_add_(second)?
    } else {
        first.f_add(second)?
    };
    for term in rest {
        total = total.f_add_(term)?;
    }
    Ok(total)
}

/// ShuffleNet's channel shuffle, in the memory order the maps have: channels innermost.
fn shuffle(x: &Tensor, groups: i64) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    Ok(x.f_permute([0, 2, 3, 1])?
        .f_reshape([n, h, w, groups, c / groups])?
        .f_transpose(3, 4)?
        .f_reshape([n, h, w, c])?
        .f_permute([0, 3, 1, 2])?)
}
