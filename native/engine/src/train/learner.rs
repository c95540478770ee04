//! One training step: forward, loss, backward, optimizer.

use tch::{Kind, Tensor};

use super::optimizer::Optimizer;
use crate::exec::Network;
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
    /// The network's first output, fp32, detached.
    pub output: Tensor,
}

impl Learner {
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
        self.network.set_seed(seed);
        let outputs = self
            .network
            .forward_all(input, true)?
            .iter()
            .map(|o| Ok(o.f_to_kind(Kind::Float)?))
            .collect::<Result<Vec<_>>>()?;
        let loss = loss(&self.network, &outputs)?;
        // The gradients come as fresh tensors instead of being added to zeroed ones: two passes over memory less.
        let wanted = self.optimizer.wanted(&self.network);
        let grads = Tensor::f_run_backward(&[&loss], &wanted, false, false)?;
        self.optimizer.step(&self.network, grads, lr)?;
        let output = outputs
            .first()
            .ok_or_else(|| EngineError::internal("the network has no output"))?;
        Ok(StepResult {
            loss: loss.f_detach()?,
            output: output.f_detach()?,
        })
    }
}
