//! Parts of a network, and networks that share parts with another: what a sensitivity analysis runs.

use std::cell::{Cell, RefCell};

use oarlock_graph::{Graph, NodeId, WeightMap};
use tch::Tensor;

use super::network::{Network, check_shape, upload};
use super::{ops, plan};
use crate::{EngineError, Result, ffi};

impl Network {
    /// A network of the same nodes with other sizes, as pruning makes it: `weights` takes the place of this one's
    /// where it names them, all else is shared, packed weights included.
    ///
    /// # Errors
    /// `InvalidData` when a weight that `graph` needs in another shape is not among `weights`; out of memory.
    pub fn variant(&self, graph: Graph, weights: &WeightMap) -> Result<Self> {
        if graph.nodes.len() != self.graph.nodes.len() {
            return Err(EngineError::internal(
                "a variant has the nodes of its network",
            ));
        }
        let mut parameters = Vec::with_capacity(self.parameters.len());
        let mut packed = Vec::with_capacity(graph.nodes.len());
        for (id, node) in graph.nodes.iter().enumerate() {
            let mut same = true;
            for (own, param) in self.params_of(id).iter().zip(node.params()) {
                let name = &own.name;
                let host = weights.get(name);
                same &= host.is_none();
                parameters.push(match host {
                    Some(host) => {
                        check_shape(name, &host.shape, &param.shape)?;
                        upload(name.clone(), own.kind, host, &node.op, self.placement)?
                    }
                    None => {
                        let shape: Vec<usize> =
                            own.master.size().iter().map(|&d| d as usize).collect();
                        check_shape(name, &shape, &param.shape)?;
                        own.share()
                    }
                });
            }
            let mut of_owner = self.params_of(graph.owner(id)).iter();
            same &= node.shares.is_none() || of_owner.all(|p| !weights.contains_key(&p.name));
            let own = self.packed.borrow();
            packed.push(own[id].as_ref().filter(|_| same).map(Tensor::shallow_clone));
        }
        Ok(Self {
            steps: plan::steps(&graph, self.fusion),
            graph,
            placement: self.placement,
            parameters,
            offsets: self.offsets.clone(),
            fusion: self.fusion,
            packed: RefCell::new(packed),
            seed: Cell::new(0),
            frozen_norms: Cell::new(false),
            frozen_layers: Cell::new(&[]),
        })
    }

    /// Runs for inference what is needed to get the values `wanted`, beginning from values that are there already
    /// (`kept`, by node) and the image (as in [`Self::forward`]; only needed where they do not suffice). Values
    /// come and go in the compute type; none that is passed in is written to.
    ///
    /// Only values that inference makes can be named: what a fused step computes on its way is not lost, it is
    /// made a step of its own.
    ///
    /// # Errors
    /// Out of memory; shapes that do not fit the network; an image that is needed and not given.
    pub fn forward_from(
        &self,
        kept: &[(NodeId, Tensor)],
        image: Option<&Tensor>,
        wanted: &[NodeId],
    ) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        let mut values = self.no_values();
        for (id, value) in kept {
            values[*id] = Some(value.shallow_clone());
        }
        let available: Vec<NodeId> = kept.iter().map(|(id, _)| *id).collect();
        let run = oarlock_graph::nodes_to_run(&self.graph, &available, wanted);
        let steps = plan::section(&self.graph, self.fusion, &run, wanted);
        let image = image
            .map(|image| ops::prepare_input(image, self.placement))
            .transpose()?;
        self.execute(&steps, &mut values, image.as_ref(), false)?;
        wanted.iter().map(|&id| self.value(&values, id)).collect()
    }
}

/// The channels (second axis) `channels` of a value, in that order; maps keep the channels innermost in memory.
///
/// # Errors
/// A channel that is not there; out of memory.
pub fn select_channels(value: &Tensor, channels: &[usize]) -> Result<Tensor> {
    let channels: Vec<i64> = channels.iter().map(|&c| c as i64).collect();
    ffi::select_channels(value, &channels)
}
