//! Safe doors to the C++ shim (`shim/`).

use std::ffi::{CStr, c_char, c_void};

use oarlock_graph::Act;
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use crate::runtime::memory;
use crate::{EngineError, Result};

mod kernels;
mod optim;

pub use kernels::{excite, global_pool, gradients, kernel_set, use_kernels};
pub use optim::{Adam, StepTensors, adam_step, sgd_step};

#[repr(C)]
struct Status {
    code: i32,
    message: *mut c_char,
}

type Ptr = *mut c_void;

unsafe extern "C" {
    fn ok_init(threads: i32) -> Status;
    fn ok_threads() -> i32;
    fn ok_libtorch_address() -> *const c_void;
    fn ok_cuda_devices(count: *mut u64) -> Status;
    fn ok_cuda_settings() -> Status;
    fn ok_pinned_bytes(count: i64, output: *mut Ptr) -> Status;
    fn ok_cuda_enter(ordinal: i32, previous: *mut i32, stream: *mut Ptr) -> Status;
    fn ok_cuda_leave(previous: i32) -> Status;
    fn ok_cuda_wait(ordinal: i32) -> Status;
    fn ok_memory_init(available: extern "C" fn() -> u64) -> Status;
    fn ok_memory_limit(bytes: u64);
    fn ok_memory_trim();
    fn ok_memory_stats(used: *mut u64, peak: *mut u64, kept: *mut u64);
    fn ok_to_channels_last(input: Ptr, output: *mut Ptr) -> Status;
    fn ok_select_channels(input: Ptr, channels: *const i64, count: i64, output: *mut Ptr)
    -> Status;
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
    fn ok_roi_align(
        rois: Ptr,
        levels: *const Ptr,
        strides: *const i64,
        areas: *const f32,
        count: i64,
        height: i64,
        width: i64,
        sampling: i64,
        aligned: i32,
        output: *mut Ptr,
    ) -> Status;
    fn ok_deform_conv(
        input: Ptr,
        offset: Ptr,
        factor: Ptr,
        weight: Ptr,
        bias: Ptr,
        conv: *const i64,
        output: *mut Ptr,
    ) -> Status;
    fn ok_drop_block(input: Ptr, size: i64, keep: f64, seed: u64, output: *mut Ptr) -> Status;
    fn ok_activation(
        input: Ptr,
        act: i32,
        a: f64,
        b: f64,
        in_place: i32,
        output: *mut Ptr,
    ) -> Status;
    fn ok_norm_act(
        input: Ptr,
        gamma: Ptr,
        beta: Ptr,
        running_mean: Ptr,
        running_var: Ptr,
        residual: Ptr,
        train: i32,
        momentum: f64,
        eps: f64,
        act: i32,
        slope: f64,
        output: *mut Ptr,
    ) -> Status;
    fn ok_conv(input: Ptr, weight: Ptr, bias: Ptr, conv: *const i64, output: *mut Ptr) -> Status;
    fn ok_conv_pack(input: Ptr, weight: Ptr, conv: *const i64, output: *mut Ptr) -> Status;
    fn ok_conv_act(
        input: Ptr,
        weight: Ptr,
        bias: Ptr,
        conv: *const i64,
        other: Ptr,
        act: i32,
        slope: f64,
        output: *mut Ptr,
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

/// Process and thread settings: threads of one operation, flushed denormals, the tensors' allocator.
pub fn init(threads: u32) -> Result<()> {
    extern "C" fn available() -> u64 {
        memory::available().unwrap_or(u64::MAX)
    }
    // SAFETY: `available` is a plain function that lives for ever and does not unwind.
    unsafe { ok_memory_init(available) }.check()?;
    // SAFETY: no pointers.
    unsafe { ok_init(i32::try_from(threads).unwrap_or(0)) }.check()
}

/// Address of a function of libtorch, to find its folder.
pub fn libtorch_address() -> *const c_void {
    // SAFETY: no arguments.
    unsafe { ok_libtorch_address() }
}

/// GPUs that libtorch can use; its CUDA part must be loaded.
pub fn cuda_devices() -> Result<u64> {
    let mut count = 0;
    // SAFETY: a valid place for the number.
    unsafe { ok_cuda_devices(&mut count) }.check()?;
    Ok(count)
}

/// Fast settings of cuDNN and cuBLAS.
pub fn cuda_settings() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { ok_cuda_settings() }.check()
}

/// `count` page-locked bytes of any content, for copies to a GPU that nobody waits for. Errors: no GPU.
pub fn pinned_bytes(count: usize) -> Result<Tensor> {
    // SAFETY: no pointers but the result's.
    tensor_of(|out| unsafe { ok_pinned_bytes(count as i64, out) })
}

/// Runs `work` with GPU `ordinal` as the thread's current one and libtorch's current stream on it (a `cudaStream_t`).
/// Errors: no GPU; those of `work`.
pub fn on_cuda_stream<T>(ordinal: usize, work: impl FnOnce(*mut c_void) -> Result<T>) -> Result<T> {
    let (mut previous, mut stream) = (0, std::ptr::null_mut());
    // SAFETY: valid places for both results.
    unsafe { ok_cuda_enter(ordinal as i32, &mut previous, &mut stream) }.check()?;
    let result = work(stream);
    // SAFETY: no pointers.
    unsafe { ok_cuda_leave(previous) }.check()?;
    result
}

/// Waits until libtorch's current stream on GPU `ordinal` has done all it was given; also tells its failures.
pub fn cuda_wait(ordinal: usize) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { ok_cuda_wait(ordinal as i32) }.check()
}

/// Most bytes that tensors on the CPU may take; 0 = what the machine has.
pub fn memory_limit(bytes: u64) {
    // SAFETY: no pointers.
    unsafe { ok_memory_limit(bytes) }
}

/// Gives memory that is kept for later tensors back to the system.
pub fn memory_trim() {
    // SAFETY: only blocks that no tensor uses are unmapped.
    unsafe { ok_memory_trim() }
}

/// Bytes of tensors on the CPU: in use, most in use since the last call, kept for later.
pub fn memory_stats() -> [u64; 3] {
    let [mut used, mut peak, mut kept] = [0; 3];
    // SAFETY: three valid places for numbers.
    unsafe { ok_memory_stats(&mut used, &mut peak, &mut kept) };
    [used, peak, kept]
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

/// The channels (second axis) `channels` of a tensor, in that order.
pub fn select_channels(input: &Tensor, channels: &[i64]) -> Result<Tensor> {
    let (first, count) = (channels.as_ptr(), channels.len() as i64);
    // SAFETY: `input` and `channels` outlive the call, which reads `count` numbers.
    tensor_of(|out| unsafe { ok_select_channels(ptr(input), first, count, out) })
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

/// DropBlock whose mask depends on `seed` alone: squares of `size` pixels become 0, about 1 − `keep` of all values.
pub fn drop_block(input: &Tensor, size: i64, keep: f64, seed: u64) -> Result<Tensor> {
    // SAFETY: `input` outlives the call.
    tensor_of(|out| unsafe { ok_drop_block(ptr(input), size, keep, seed, out) })
}

/// Parameters of a batch norm.
pub struct Norm<'a> {
    /// Scale.
    pub gamma: &'a Tensor,
    /// Shift.
    pub beta: &'a Tensor,
    /// Running mean; updated in training.
    pub running_mean: &'a Tensor,
    /// Running variance; updated in training.
    pub running_var: &'a Tensor,
    /// Statistics of the batch instead of the running ones.
    pub train: bool,
    /// Weight of the new statistics in the running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

/// Batch norm, plus `residual` if given, then `act`, in one operation.
pub fn norm_act(
    input: &Tensor,
    norm: &Norm,
    residual: Option<&Tensor>,
    act: Option<Act>,
) -> Result<Tensor> {
    // The codes are those of `NormAct` in kernels.h.
    let (code, slope) = match act {
        None => (0, 0.0),
        Some(Act::Relu) => (1, 0.0),
        Some(Act::Relu6) => (2, 0.0),
        Some(Act::LeakyRelu { slope }) => (3, slope),
        Some(Act::HardSwish) => (4, 0.0),
        Some(other) => {
            return Err(EngineError::internal(format!(
                "a batch norm cannot apply {other:?}"
            )));
        }
    };
    // SAFETY: all tensors outlive the call; a null residual means none.
    tensor_of(|out| unsafe {
        ok_norm_act(
            ptr(input),
            ptr(norm.gamma),
            ptr(norm.beta),
            ptr(norm.running_mean),
            ptr(norm.running_var),
            residual.map_or(std::ptr::null_mut(), ptr),
            i32::from(norm.train),
            norm.momentum,
            norm.eps,
            code,
            f64::from(slope),
            out,
        )
    })
}

/// Hyper-parameters of a convolution, by height and width.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    /// Step of the window.
    pub stride: [i64; 2],
    /// Zeros around the map.
    pub padding: [i64; 2],
    /// Distance of the window's points.
    pub dilation: [i64; 2],
    /// Groups of channels.
    pub groups: i64,
}

impl Conv {
    fn flat(&self) -> [i64; 7] {
        let (s, p, d) = (self.stride, self.padding, self.dilation);
        [s[0], s[1], p[0], p[1], d[0], d[1], self.groups]
    }
}

/// Convolution, with its gradients where they are recorded.
pub fn conv(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv) -> Result<Tensor> {
    let flat = conv.flat();
    // SAFETY: all outlive the call; `flat` has the seven numbers the shim reads; a null bias means none.
    tensor_of(|out| unsafe {
        ok_conv(
            ptr(input),
            ptr(weight),
            bias.map_or(std::ptr::null_mut(), ptr),
            flat.as_ptr(),
            out,
        )
    })
}

/// Deformable convolution of maps on a CPU, fp32 or bf16, with its gradients: `places` are the map, the offsets and
/// the factors.
pub fn deform_conv(
    places: [&Tensor; 3],
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Conv,
) -> Result<Tensor> {
    let (flat, [x, offset, factor]) = (conv.flat(), places);
    // SAFETY: all outlive the call; `flat` has the six numbers the shim reads; a null bias means none.
    tensor_of(|out| unsafe {
        ok_deform_conv(
            ptr(x),
            ptr(offset),
            ptr(factor),
            ptr(weight),
            bias.map_or(std::ptr::null_mut(), ptr),
            flat.as_ptr(),
            out,
        )
    })
}

/// How [`roi_align`] pools.
#[derive(Debug, Clone, Copy)]
pub struct Pooling<'a> {
    /// Height and width of the result.
    pub size: [i64; 2],
    /// Samples along each side of a cell; 0 = ⌈cell size⌉.
    pub sampling: i64,
    /// Pixels of the input for one of each level's map.
    pub strides: &'a [usize],
    /// Whether coordinates are shifted by half a pixel.
    pub aligned: bool,
}

/// Pools the regions `rois` (K×5) from `levels` on a CPU, fp32 or bf16, with gradients for the maps.
pub fn roi_align(rois: &Tensor, levels: &[&Tensor], pooling: &Pooling) -> Result<Tensor> {
    if levels.len() != pooling.strides.len() {
        return Err(EngineError::internal("each level needs its stride"));
    }
    let maps: Vec<Ptr> = levels.iter().map(|map| ptr(map)).collect();
    let strides: Vec<i64> = pooling.strides.iter().map(|&s| s as i64).collect();
    let areas = oarlock_graph::level_areas(pooling.strides);
    let [height, width] = pooling.size;
    // SAFETY: all outlive the call; there are as many strides as maps, and one area less, which is what the shim reads.
    tensor_of(|out| unsafe {
        ok_roi_align(
            ptr(rois),
            maps.as_ptr(),
            strides.as_ptr(),
            areas.as_ptr(),
            maps.len() as i64,
            height,
            width,
            pooling.sampling,
            i32::from(pooling.aligned),
            out,
        )
    })
}

/// The weight in the order that the convolution kernel for maps like `input` wants.
pub fn conv_pack(input: &Tensor, weight: &Tensor, conv: &Conv) -> Result<Tensor> {
    let flat = conv.flat();
    // SAFETY: all outlive the call; `flat` has the seven numbers the shim reads.
    tensor_of(|out| unsafe { ok_conv_pack(ptr(input), ptr(weight), flat.as_ptr(), out) })
}

/// Convolution with a packed weight, plus `other` if given, then `act`, in one operation; no gradient.
pub fn conv_act(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Conv,
    other: Option<&Tensor>,
    act: Option<Act>,
) -> Result<Tensor> {
    let (code, slope) = match act {
        None => (-1, 0.0),
        Some(act) => act_code(act),
    };
    let flat = conv.flat();
    let null = std::ptr::null_mut();
    // SAFETY: all outlive the call; `flat` has the seven numbers the shim reads; null means none.
    tensor_of(|out| unsafe {
        ok_conv_act(
            ptr(input),
            ptr(weight),
            bias.map_or(null, ptr),
            flat.as_ptr(),
            other.map_or(null, ptr),
            code,
            slope,
            out,
        )
    })
}

/// `ok_act` and its slope.
fn act_code(act: Act) -> (i32, f64) {
    match act {
        Act::Relu => (0, 0.0),
        Act::Relu6 => (1, 0.0),
        Act::HardSwish => (2, 0.0),
        Act::HardSigmoid { slope, .. } => (3, f64::from(slope)),
        Act::Swish => (4, 0.0),
        Act::Sigmoid => (5, 0.0),
        Act::LeakyRelu { slope } => (6, f64::from(slope)),
        Act::Mish => (7, 0.0),
    }
}

/// An element-wise function; with `in_place` the input may be overwritten.
pub fn activation(input: &Tensor, act: Act, in_place: bool) -> Result<Tensor> {
    let (code, a) = act_code(act);
    let b = if let Act::HardSigmoid { offset, .. } = act {
        f64::from(offset)
    } else {
        0.0
    };
    // SAFETY: `input` outlives the call; the codes are those of `ok_act`.
    tensor_of(|out| unsafe { ok_activation(ptr(input), code, a, b, i32::from(in_place), out) })
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn ok_fail(kind: i32) -> Status;
    }

    #[test]
    fn promise_28_whatever_the_shim_throws_becomes_an_error_with_its_code() {
        for (kind, code, part) in [
            (0, ErrorCode::Internal, "unknown type"),
            (1, ErrorCode::ResourceExhausted, "out of memory"),
            (2, ErrorCode::ResourceExhausted, "CUDA out of memory"),
            (3, ErrorCode::Internal, "a runtime error"),
            (4, ErrorCode::Internal, "a failed check"),
            (5, ErrorCode::Internal, "must match the size"),
        ] {
            // SAFETY: takes a number; its exceptions stay inside.
            let error = unsafe { ok_fail(kind) }.check().unwrap_err();
            assert_eq!(error.code(), code, "{kind}: {error}");
            assert!(error.to_string().contains(part), "{kind}: {error}");
        }
        // SAFETY: as above; this number throws nothing.
        unsafe { ok_fail(99) }.check().unwrap();
    }
}
