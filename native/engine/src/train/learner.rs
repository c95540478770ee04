//! One training step: forward, loss, backward, optimizer.

use tch::{Kind, Reduction, Tensor};

use super::optimizer::Optimizer;
use crate::Result;
use crate::exec::Network;

/// A network with its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// The network.
    pub network: Network,
    /// Its optimizer.
    pub optimizer: Optimizer,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
}

/// What a step computed; still on the device.
#[derive(Debug)]
pub struct StepResult {
    /// Mean loss, fp32 scalar.
    pub loss: Tensor,
    /// N×classes, fp32, detached.
    pub logits: Tensor,
}

impl Learner {
    /// Loss and gradients of one batch, then one optimizer step at rate `lr`.
    ///
    /// `input` as made by [`crate::exec::normalized_input`], `labels` N class ids on the same device, `seed`
    /// chooses the dropout masks.
    ///
    /// # Errors
    /// Out of memory, device failures.
    pub fn step(
        &mut self,
        input: &Tensor,
        labels: &Tensor,
        lr: f64,
        seed: u64,
    ) -> Result<StepResult> {
        self.network.set_seed(seed);
        let logits = self.network.forward(input, true)?.f_to_kind(Kind::Float)?;
        let loss = logits.f_cross_entropy_loss::<&Tensor>(
            labels,
            None,
            Reduction::Mean,
            -100,
            self.label_smoothing,
        )?;
        // The gradients come as fresh tensors instead of being added to zeroed ones: two passes over memory less.
        let wanted = self.optimizer.wanted(&self.network);
        let grads = Tensor::f_run_backward(&[&loss], &wanted, false, false)?;
        self.optimizer.step(&self.network, grads, lr)?;
        Ok(StepResult {
            loss: loss.f_detach()?,
            logits: logits.f_detach()?,
        })
    }
}
