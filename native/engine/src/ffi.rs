//! Safe doors to the C++ shim (`shim/`).

use std::ffi::{CStr, c_char, c_void};

use oarlock_graph::Act;
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use crate::{EngineError, Result};

#[repr(C)]
struct Status {
    code: i32,
    message: *mut c_char,
}

type Ptr = *mut c_void;

unsafe extern "C" {
    fn ok_init(threads: i32) -> Status;
    fn ok_threads() -> i32;
    fn ok_to_channels_last(input: Ptr, output: *mut Ptr) -> Status;
    fn ok_normalize(
        pixels: *const u8,
        n: i64,
        h: i64,
        w: i64,
        mean: *const f32,
        std: *const f32,
        bf16: i32,
        output: *mut Ptr,
    ) -> Status;
    fn ok_dropout(input: Ptr, p: f64, seed: u64, output: *mut Ptr) -> Status;
    fn ok_activation(
        input: Ptr,
        act: i32,
        a: f64,
        b: f64,
        in_place: i32,
        output: *mut Ptr,
    ) -> Status;
    fn ok_sgd_step(
        master: Ptr,
        compute: Ptr,
        grad: Ptr,
        momentum: Ptr,
        lr: f64,
        momentum_factor: f64,
        weight_decay: f64,
    ) -> Status;
    fn ok_adam_step(
        master: Ptr,
        compute: Ptr,
        grad: Ptr,
        exp_avg: Ptr,
        exp_avg_sq: Ptr,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        step: i64,
    ) -> Status;
    fn free(p: Ptr);
}

impl Status {
    fn check(self) -> Result<()> {
        if self.code == 0 {
            return Ok(());
        }
        let text = if self.message.is_null() {
            "no message".to_owned()
        } else {
            // SAFETY: the shim hands over a NUL-terminated string from malloc; it is copied, then freed once.
            unsafe {
                let text = CStr::from_ptr(self.message).to_string_lossy().into_owned();
                free(self.message.cast());
                text
            }
        };
        Err(match self.code {
            1 => EngineError::new(
                ErrorCode::ResourceExhausted,
                format!("out of memory: {text}"),
            )
            .hint("use a smaller batch_size or image_shape"),
            2 => EngineError::new(ErrorCode::DeviceFault, format!("the GPU failed: {text}")),
            _ => EngineError::from_libtorch(&text),
        })
    }
}

fn ptr(tensor: &Tensor) -> Ptr {
    tensor.as_ptr().cast_mut().cast()
}

/// Wraps the tensor that a shim call has given away.
///
/// # Safety
/// `raw` must be an `at::Tensor*` made with `new` that nobody else owns.
unsafe fn take(raw: Ptr) -> Tensor {
    // SAFETY: tch frees the pointer with `delete`, which fits the shim's `new`.
    unsafe { Tensor::from_ptr(raw.cast()) }
}

/// Runs a shim call that gives a tensor away.
fn tensor_of(call: impl FnOnce(*mut Ptr) -> Status) -> Result<Tensor> {
    let mut out: Ptr = std::ptr::null_mut();
    call(&mut out).check()?;
    // SAFETY: a call that succeeded has stored a fresh tensor.
    Ok(unsafe { take(out) })
}

/// Process and thread settings; `threads` 0 keeps the number of threads.
pub fn init(threads: u32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { ok_init(i32::try_from(threads).unwrap_or(0)) }.check()
}

/// Threads of one operation.
pub fn threads() -> u32 {
    // SAFETY: no pointers.
    u32::try_from(unsafe { ok_threads() }).unwrap_or(1)
}

/// N×C×H×W with the channels innermost in memory; no copy if they are.
pub fn to_channels_last(input: &Tensor) -> Result<Tensor> {
    // SAFETY: `input` outlives the call.
    tensor_of(|out| unsafe { ok_to_channels_last(ptr(input), out) })
}

/// Images (N×H×W×3 bytes) to a channels-last N×3×H×W tensor of `(x/255 − mean) / std`.
pub fn normalize(
    pixels: &[u8],
    nhw: [usize; 3],
    mean: [f32; 3],
    std: [f32; 3],
    bf16: bool,
) -> Result<Tensor> {
    let [n, h, w] = nhw;
    if pixels.len() != n * h * w * 3 {
        return Err(EngineError::internal(format!(
            "a batch of {n} images of {h}x{w} has {} bytes instead of {}",
            pixels.len(),
            n * h * w * 3
        )));
    }
    // SAFETY: `pixels` has n·h·w·3 bytes, `mean` and `std` 3 values; all outlive the call.
    tensor_of(|out| unsafe {
        ok_normalize(
            pixels.as_ptr(),
            n as i64,
            h as i64,
            w as i64,
            mean.as_ptr(),
            std.as_ptr(),
            i32::from(bf16),
            out,
        )
    })
}

/// Dropout whose mask depends on `seed` alone.
pub fn dropout(input: &Tensor, p: f64, seed: u64) -> Result<Tensor> {
    // SAFETY: `input` outlives the call.
    tensor_of(|out| unsafe { ok_dropout(ptr(input), p, seed, out) })
}

/// An element-wise function; with `in_place` the input may be overwritten.
pub fn activation(input: &Tensor, act: Act, in_place: bool) -> Result<Tensor> {
    let (code, a, b) = match act {
        Act::Relu => (0, 0.0, 0.0),
        Act::Relu6 => (1, 0.0, 0.0),
        Act::HardSwish => (2, 0.0, 0.0),
        Act::HardSigmoid { slope, offset } => (3, slope, offset),
        Act::Swish => (4, 0.0, 0.0),
        Act::Sigmoid => (5, 0.0, 0.0),
        Act::LeakyRelu { slope } => (6, slope, 0.0),
        Act::Mish => (7, 0.0, 0.0),
    };
    // SAFETY: `input` outlives the call; the codes are those of `ok_act`.
    tensor_of(|out| unsafe {
        ok_activation(
            ptr(input),
            code,
            f64::from(a),
            f64::from(b),
            i32::from(in_place),
            out,
        )
    })
}

/// The tensors of one parameter that an optimizer step touches.
pub struct StepTensors<'a> {
    /// fp32 weights.
    pub master: &'a Tensor,
    /// What the forward pass reads; may be `master` itself.
    pub compute: &'a Tensor,
    /// Gradient, in the type of `compute`.
    pub grad: &'a Tensor,
}

/// SGD with momentum as PyTorch defines it: `v = mu*v + (g + wd*w)`, `w -= lr*v`;
/// `v` begins as 0.
pub fn sgd_step(
    t: &StepTensors,
    momentum: &Tensor,
    lr: f64,
    momentum_factor: f64,
    weight_decay: f64,
) -> Result<()> {
    // SAFETY: all tensors outlive the call.
    unsafe {
        ok_sgd_step(
            ptr(t.master),
            ptr(t.compute),
            ptr(t.grad),
            ptr(momentum),
            lr,
            momentum_factor,
            weight_decay,
        )
    }
    .check()
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

/// Adam (Kingma and Ba 2015) with L2 added to the gradient, as PyTorch defines it.
pub fn adam_step(
    t: &StepTensors,
    exp_avg: &Tensor,
    exp_avg_sq: &Tensor,
    adam: &Adam,
) -> Result<()> {
    // SAFETY: all tensors outlive the call.
    unsafe {
        ok_adam_step(
            ptr(t.master),
            ptr(t.compute),
            ptr(t.grad),
            ptr(exp_avg),
            ptr(exp_avg_sq),
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
