//! The graph executor: runs an [`oarlock_graph::Graph`] forward and backward on libtorch.

#[cfg(test)]
mod conv_tests;
mod device_augment;
mod device_images;
mod input;
mod network;
mod ops;
mod partial;
mod plan;

pub(crate) use device_images::decoded_input;
pub(crate) use input::{batch_input, batch_memory};
pub use input::{network_input, normalized_input};
pub use network::{Network, Parameter};
pub(crate) use network::{download, upload_tensor};
pub use partial::select_channels;
