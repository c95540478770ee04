//! Doors to kernels of the shim that stand for a pattern of operations, and their switches.

use std::ffi::{CStr, c_char};

use oarlock_graph::Act;
use tch::Tensor;

use super::{Ptr, Status, act_code, ptr, take, tensor_of};
use crate::{EngineError, Result};

unsafe extern "C" {
    fn ok_kernels_use(families: u32, before: *mut u32) -> Status;
    fn ok_kernels_name() -> *const c_char;
    fn ok_gradients(
        output: Ptr,
        grad: Ptr,
        inputs: *const Ptr,
        count: i64,
        grads: *mut Ptr,
    ) -> Status;
    fn ok_global_pool(input: Ptr, output: *mut Ptr) -> Status;
    fn ok_excite(
        input: Ptr,
        gate: Ptr,
        pooled: Ptr,
        act: i32,
        a: f64,
        b: f64,
        output: *mut Ptr,
    ) -> Status;
}

/// Which families of kernels are in use: bits of `Family` in kernels.h. Returns those used before. For benchmarks;
/// users set `OARLOCK_DISABLE_KERNELS`.
///
/// # Errors
/// `OARLOCK_DISABLE_KERNELS` names a kernel that does not exist.
pub fn use_kernels(families: u32) -> Result<u32> {
    let mut before = 0;
    // SAFETY: a valid place for the number.
    unsafe { ok_kernels_use(families, &mut before) }.check()?;
    Ok(before)
}

/// The instruction set of the kernels.
pub fn kernel_set() -> &'static str {
    // SAFETY: a constant NUL-terminated string.
    unsafe { CStr::from_ptr(ok_kernels_name()) }
        .to_str()
        .unwrap_or("unknown")
}

/// Gradients of `inputs` for the gradient `grad` of `output`; the graph stays. Errors: `output` does not depend on one.
pub fn gradients(output: &Tensor, grad: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let wanted: Vec<Ptr> = inputs.iter().map(|t| ptr(t)).collect();
    let mut grads: Vec<Ptr> = vec![std::ptr::null_mut(); wanted.len()];
    let count = wanted.len() as i64;
    // SAFETY: all tensors outlive the call; both lists have `count` places.
    unsafe {
        ok_gradients(
            ptr(output),
            ptr(grad),
            wanted.as_ptr(),
            count,
            grads.as_mut_ptr(),
        )
    }
    .check()?;
    // SAFETY: a call that succeeded has stored fresh tensors.
    Ok(grads.into_iter().map(|raw| unsafe { take(raw) }).collect())
}

/// Mean over all pixels: N×C×H×W to N×C×1×1.
pub fn global_pool(input: &Tensor) -> Result<Tensor> {
    // SAFETY: `input` outlives the call.
    tensor_of(|out| unsafe { ok_global_pool(ptr(input), out) })
}

/// `input` · `act`(`gate`). `pooled` is what [`global_pool`] made of the same input if the gate was computed from it:
/// the input's gradient is then written in one pass. Errors: an activation that is neither hard-sigmoid nor sigmoid.
pub fn excite(
    input: &Tensor,
    gate: &Tensor,
    pooled: Option<&Tensor>,
    act: Option<Act>,
) -> Result<Tensor> {
    let (code, a) = act.map_or((-1, 0.0), act_code);
    let b = match act {
        None | Some(Act::Sigmoid) => 0.0,
        Some(Act::HardSigmoid { offset, .. }) => f64::from(offset),
        Some(other) => {
            return Err(EngineError::internal(format!(
                "a gate cannot apply {other:?}"
            )));
        }
    };
    // SAFETY: all tensors outlive the call; null means none.
    tensor_of(|out| unsafe {
        ok_excite(
            ptr(input),
            ptr(gate),
            pooled.map_or(std::ptr::null_mut(), ptr),
            code,
            a,
            b,
            out,
        )
    })
}
