//! Doors to the optimizer steps.

use tch::Tensor;

use super::{Ptr, Status, ptr};
use crate::{EngineError, Result};

#[repr(C)]
struct Step {
    master: Ptr,
    compute: Ptr,
    grad: Ptr,
    state: [Ptr; 2],
}

unsafe extern "C" {
    fn ok_sgd_step(
        params: *const Step,
        count: i64,
        lr: f64,
        momentum_factor: f64,
        weight_decay: f64,
    ) -> Status;
    fn ok_adam_step(
        params: *const Step,
        count: i64,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        number: i64,
    ) -> Status;
}

/// The tensors of one parameter that an optimizer step touches.
pub struct StepTensors<'a> {
    /// fp32 weights.
    pub master: &'a Tensor,
    /// What the forward pass reads; may be `master` itself.
    pub compute: &'a Tensor,
    /// Gradient, in the type of `compute`; undefined where the loss does not depend on the parameter.
    pub grad: &'a Tensor,
    /// fp32 state: the momentum, or the means of gradients and of their squares.
    pub state: &'a [Tensor],
}

fn steps(params: &[StepTensors], slots: usize) -> Result<Vec<Step>> {
    params
        .iter()
        .map(|p| {
            if p.state.len() != slots {
                return Err(EngineError::internal(
                    "the optimizer state does not fit its rule",
                ));
            }
            let mut state = [std::ptr::null_mut(); 2];
            state
                .iter_mut()
                .zip(p.state)
                .for_each(|(to, t)| *to = ptr(t));
            Ok(Step {
                master: ptr(p.master),
                compute: ptr(p.compute),
                grad: ptr(p.grad),
                state,
            })
        })
        .collect()
}

/// SGD with momentum as PyTorch defines it, on all parameters: `v = mu*v + (g + wd*w)`, `w -= lr*v`; `v` begins as 0.
pub fn sgd_step(
    params: &[StepTensors],
    lr: f64,
    momentum_factor: f64,
    weight_decay: f64,
) -> Result<()> {
    let steps = steps(params, 1)?;
    let count = steps.len() as i64;
    // SAFETY: all tensors outlive the call; the list has `count` entries with one state each.
    unsafe { ok_sgd_step(steps.as_ptr(), count, lr, momentum_factor, weight_decay) }.check()
}

/// Rates of [`adam_step`].
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// L2 factor, added to the gradient.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: i64,
}

/// Adam (Kingma and Ba 2015) with L2 added to the gradient, as PyTorch defines it, on all parameters.
pub fn adam_step(params: &[StepTensors], adam: &Adam) -> Result<()> {
    let steps = steps(params, 2)?;
    let count = steps.len() as i64;
    // SAFETY: all tensors outlive the call; the list has `count` entries with two states each.
    unsafe {
        ok_adam_step(
            steps.as_ptr(),
            count,
            adam.lr,
            adam.beta1,
            adam.beta2,
            adam.eps,
            adam.weight_decay,
            adam.step,
        )
    }
    .check()
}
