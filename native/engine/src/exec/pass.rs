//! Forward passes in stages: networks that pool regions which are chosen from their own outputs.

use oarlock_graph::{NodeId, Op};
use oarlock_jobs::ErrorCode;
use tch::{Kind, Tensor};

use super::network::Network;
use super::ops;
use crate::{EngineError, Result};

/// A forward pass that stops before each [`Op::Rois`] node until its regions are given.
///
/// Nodes run in the graph's order. Builders of two-stage networks therefore place all nodes of the first stage, those
/// of its outputs included, before the `rois` node, and all of the second before the next one.
#[derive(Debug)]
pub struct Pass<'n> {
    network: &'n Network,
    values: Vec<Option<Tensor>>,
    image: Tensor,
    /// First step that has not run.
    next: usize,
    train: bool,
}

impl Network {
    /// Begins a forward pass and runs it up to the first node that needs regions, or to the end. Like [`Self::forward`]
    /// in all else.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn begin(&self, input: &Tensor, train: bool) -> Result<Pass<'_>> {
        let mut pass = Pass {
            network: self,
            values: self.no_values(),
            image: ops::prepare_input(input, self.placement)?,
            next: 0,
            train,
        };
        pass.advance()?;
        Ok(pass)
    }
}

impl Pass<'_> {
    /// The output `name`, fp32, with its gradient graph in training.
    ///
    /// # Errors
    /// An output that the network does not have, or that is not computed yet.
    pub fn output(&self, name: &str) -> Result<Tensor> {
        let outputs = &self.network.graph.outputs;
        let Some(output) = outputs.iter().find(|o| o.name == name) else {
            return Err(EngineError::internal(format!(
                "the network has no output `{name}`"
            )));
        };
        let value = self.network.value(&self.values, output.node);
        let value = value.map_err(|e| match self.waits_for() {
            Some(node) => EngineError::internal(format!(
                "the output `{name}` is not computed before the regions of `{node}` are given"
            )),
            None => e,
        })?;
        Ok(value.f_to_kind(Kind::Float)?)
    }

    /// Gives the node `rois_node` its regions and runs on, to the next one or the end. `rois` is K×5 (index of the
    /// image, then left, top, right and bottom in pixels of the network's input) and stays fp32 in networks that
    /// compute in bf16. Without any region, outputs have no rows and gradients are zero.
    ///
    /// # Errors
    /// A node that does not wait for regions; regions of another shape or of images that are not there (checked on a
    /// CPU only); out of memory.
    pub fn give(&mut self, rois_node: &str, rois: &Tensor) -> Result<()> {
        let waiting = self.waits_for();
        if waiting != Some(rois_node) {
            let what = match waiting {
                Some(node) => {
                    format!("the pass waits for the regions of `{node}`, not `{rois_node}`")
                }
                None => format!("the pass waits for no regions, but got those of `{rois_node}`"),
            };
            return Err(EngineError::internal(what));
        }
        check(rois, self.image.size()[0])?;
        let rois = rois.f_to_device(self.image.device())?;
        let node = self.network.steps[self.next].node;
        self.values[node] = Some(rois.f_to_kind(Kind::Float)?.f_detach()?);
        self.advance()
    }

    /// The node whose regions must be given next; `None` when all is computed.
    pub fn waits_for(&self) -> Option<&str> {
        let step = self.network.steps.get(self.next)?;
        Some(&self.network.graph.nodes[step.node].name)
    }

    fn advance(&mut self) -> Result<()> {
        let _guard = (!self.train).then(tch::no_grad_guard);
        let steps = &self.network.steps;
        let waits = |node: NodeId| {
            matches!(self.network.graph.nodes[node].op, Op::Rois) && self.values[node].is_none()
        };
        let end = steps[self.next..].iter().position(|s| waits(s.node));
        let end = end.map_or(steps.len(), |n| self.next + n);
        let run = &steps[self.next..end];
        let network = self.network;
        network.execute(run, &mut self.values, Some(&self.image), self.train)?;
        self.next = end;
        Ok(())
    }
}

fn check(rois: &Tensor, images: i64) -> Result<()> {
    let size = rois.size();
    let wrong = |what: String| EngineError::new(ErrorCode::Internal, what);
    if size.len() != 2 || size[1] != 5 {
        return Err(wrong(format!("regions must be K×5, not {size:?}")));
    }
    if rois.device() != tch::Device::Cpu || size[0] == 0 {
        return Ok(());
    }
    let index = rois.f_select(1, 0)?;
    let low = index.f_min()?.f_double_value(&[])?;
    let high = index.f_max()?.f_double_value(&[])?;
    if low >= 0.0 && high < images as f64 {
        return Ok(());
    }
    Err(wrong(format!(
        "a region belongs to image {} of a batch of {images}",
        if low < 0.0 { low } else { high }
    )))
}
