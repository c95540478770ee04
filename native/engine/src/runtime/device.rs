//! Choice of the device and the number format of the compute.

use oarlock_jobs::{DeviceSpec, ErrorCode, Precision};
use tch::{Device, Kind};

use crate::{EngineError, Result, ffi};

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
    ffi::init(spec.threads)?;
    let Some(&ordinal) = spec.cuda.first() else {
        let bf16 = match spec.precision {
            Precision::Auto => cpu_has_fast_bf16(),
            Precision::Bf16 => true,
            Precision::Fp32 => false,
        };
        return Ok(Placement {
            device: Device::Cpu,
            compute: if bf16 { Kind::BFloat16 } else { Kind::Float },
        });
    };
    Err(EngineError::new(
        ErrorCode::Unsupported,
        format!("GPU {ordinal} is not available"),
    ))
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
