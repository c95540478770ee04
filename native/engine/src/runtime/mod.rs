//! Devices, threads, memory and number formats.

mod cuda;
mod device;
mod dl;
pub mod heartbeat;
pub mod memory;
pub(crate) mod nvjpeg;

pub use cuda::{DeviceReport, Gpu, devices};
pub use device::{Placement, cpu_has_fast_bf16, place};
