//! One training step: forward, loss, backward, optimizer.

use oarlock_graph::WeightMap;
use tch::{Kind, Tensor};

use super::optimizer::Optimizer;
use crate::exec::Network;
use crate::runtime::Placement;
use crate::{EngineError, Result};

/// A network with its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// The network.
    pub network: Network,
    /// Its optimizer.
    pub optimizer: Optimizer,
}

/// What a step computed; still on the device.
#[derive(Debug)]
pub struct StepResult {
    /// Mean loss, fp32 scalar.
    pub loss: Tensor,
    /// What it is the sum of, for the log; detached.
    pub parts: Vec<(String, Tensor)>,
    /// The network's first output, fp32, detached.
    pub output: Tensor,
}

/// What a forward pass in training made, with its gradient graph.
#[derive(Debug)]
pub struct Learned {
    /// Mean loss, fp32 scalar.
    pub loss: Tensor,
    /// What it is the sum of, for the log.
    pub parts: Vec<(String, Tensor)>,
    /// The network's first output, fp32.
    pub output: Tensor,
}

impl Learned {
    /// Runs the whole network and makes a loss of its outputs, which `loss` gets as fp32.
    ///
    /// # Errors
    /// Out of memory, device failures.
    pub fn of_outputs(
        network: &Network,
        input: &Tensor,
        loss: impl FnOnce(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Self> {
        Self::new(network, input, |outputs| Ok((loss(outputs)?, Vec::new())))
    }

    /// The same with a loss that is the sum of named parts.
    ///
    /// # Errors
    /// Out of memory, device failures.
    pub fn of_parts(
        network: &Network,
        input: &Tensor,
        losses: impl FnOnce(&[Tensor]) -> Result<Vec<(String, Tensor)>>,
    ) -> Result<Self> {
        Self::new(network, input, |outputs| {
            let parts = losses(outputs)?;
            Ok((total(&parts)?, parts))
        })
    }

    fn new(
        network: &Network,
        input: &Tensor,
        losses: impl FnOnce(&[Tensor]) -> Result<(Tensor, Vec<(String, Tensor)>)>,
    ) -> Result<Self> {
        let mut outputs = network
            .forward_all(input, true)?
            .iter()
            .map(|o| Ok(o.f_to_kind(Kind::Float)?))
            .collect::<Result<Vec<_>>>()?;
        let (loss, parts) = losses(&outputs)?;
        if outputs.is_empty() {
            return Err(EngineError::internal("the network has no output"));
        }
        Ok(Self {
            loss,
            parts,
            output: outputs.swap_remove(0),
        })
    }
}

/// Sum of losses.
///
/// # Errors
/// No losses; out of memory.
pub fn total(parts: &[(String, Tensor)]) -> Result<Tensor> {
    let all: Vec<&Tensor> = parts.iter().map(|(_, part)| part).collect();
    Ok(Tensor::f_stack(&all, 0)?.f_sum(None)?)
}

impl Learner {
    /// Host copy of the weights that count: the averaged ones where an average is kept.
    ///
    /// # Errors
    /// A failed device copy.
    pub fn weights(&self) -> Result<WeightMap> {
        match self.optimizer.average() {
            Some(average) => average.to_weights(&self.network),
            None => self.network.to_weights(),
        }
    }

    /// The inference network of [`Self::weights`], on the same device, in the number format `compute`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn inference_copy(&self, compute: Kind) -> Result<Network> {
        let placement = Placement {
            compute,
            ..self.network.placement()
        };
        Network::for_inference(self.network.graph(), &self.weights()?, placement)
    }

    /// Loss and gradients of one batch, then one optimizer step at rate `lr`.
    ///
    /// `input` as made by [`crate::exec::normalized_input`]; `loss` makes a scalar of the network's outputs, which it
    /// gets as fp32; `seed` chooses the dropout masks.
    ///
    /// # Errors
    /// Out of memory, device failures.
    pub fn step(
        &mut self,
        input: &Tensor,
        loss: &dyn Fn(&Network, &[Tensor]) -> Result<Tensor>,
        lr: f64,
        seed: u64,
    ) -> Result<StepResult> {
        self.step_with(
            &|network| Learned::of_outputs(network, input, |outputs| loss(network, outputs)),
            lr,
            seed,
        )
    }

    /// The same with a forward pass of one's own.
    ///
    /// # Errors
    /// Out of memory, device failures.
    pub fn step_with(
        &mut self,
        forward: &dyn Fn(&Network) -> Result<Learned>,
        lr: f64,
        seed: u64,
    ) -> Result<StepResult> {
        self.network.set_seed(seed);
        let learned = forward(&self.network)?;
        // The gradients come as fresh tensors instead of being added to zeroed ones: two passes over memory less.
        let wanted = self.optimizer.wanted(&self.network);
        let grads = Tensor::f_run_backward(&[&learned.loss], &wanted, false, false)?;
        self.optimizer.step(&self.network, grads, lr)?;
        let parts = learned.parts.iter();
        Ok(StepResult {
            loss: learned.loss.f_detach()?,
            parts: parts
                .map(|(name, value)| Ok((name.clone(), value.f_detach()?)))
                .collect::<Result<_>>()?,
            output: learned.output.f_detach()?,
        })
    }
}
