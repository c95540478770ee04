//! Devices, threads, memory and number formats.

mod device;

pub use device::{Placement, cpu_has_fast_bf16, place};
