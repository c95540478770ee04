//! Choice of the device and the number format of the compute.

use oarlock_jobs::{DeviceSpec, Precision};
use tch::{Device, Kind};

use super::cuda;
use crate::{Result, ffi};

/// Where and in which number format a network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// libtorch's device.
    pub device: Device,
    /// `Kind::Float` or `Kind::BFloat16`: activations and gradients; master weights are always fp32.
    pub compute: Kind,
}

impl Placement {
    /// fp32 on the CPU.
    pub const CPU_FP32: Self = Self {
        device: Device::Cpu,
        compute: Kind::Float,
    };

    /// `cpu` or `cuda:0`.
    pub fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(ordinal) => format!("cuda:{ordinal}"),
            _ => "cpu".to_owned(),
        }
    }

    /// `fp32` or `bf16`.
    pub fn precision_name(&self) -> &'static str {
        if self.compute == Kind::BFloat16 {
            "bf16"
        } else {
            "fp32"
        }
    }
}

/// Prepares the process for `spec` (threads, memory, GPU libraries) and says where to compute.
///
/// # Errors
/// `Unsupported` when a GPU is asked for and there is none, with the reason.
pub fn place(spec: &DeviceSpec) -> Result<Placement> {
    ffi::init(if spec.threads == 0 {
        cores()
    } else {
        spec.threads
    })?;
    let Some(&ordinal) = spec.cuda.first() else {
        let bf16 = match spec.precision {
            Precision::Auto => cpu_has_fast_bf16(),
            Precision::Bf16 => true,
            Precision::Fp32 => false,
        };
        return Ok(Placement {
            device: Device::Cpu,
            compute: kind(bf16),
        });
    };
    let gpu = cuda::load(ordinal)?;
    ffi::cuda_settings()?;
    let bf16 = match spec.precision {
        // bf16 came with compute capability 8.0.
        Precision::Auto => {
            gpu.compute_capability
                .split('.')
                .next()
                .and_then(|m| m.parse::<u32>().ok())
                >= Some(8)
        }
        Precision::Bf16 => true,
        Precision::Fp32 => false,
    };
    Ok(Placement {
        device: Device::Cuda(ordinal as usize),
        compute: kind(bf16),
    })
}

fn kind(bf16: bool) -> Kind {
    if bf16 { Kind::BFloat16 } else { Kind::Float }
}

/// Physical cores this process may use: two threads of one core share its arithmetic units.
fn cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = std::collections::HashSet::new();
    for cpu in 0..4096 {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let Ok(siblings) = std::fs::read_to_string(path) else {
            break;
        };
        cores.insert(siblings.trim().to_owned());
    }
    let physical = if cores.is_empty() {
        allowed
    } else {
        cores.len()
    };
    u32::try_from(allowed.min(physical)).unwrap_or(1)
}

/// Whether the processor multiplies bf16 in hardware (AVX512-BF16; every processor with AMX has it too).
pub fn cpu_has_fast_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
