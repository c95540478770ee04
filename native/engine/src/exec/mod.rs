//! The graph executor: runs an [`oarlock_graph::Graph`] forward and backward on libtorch.

#[cfg(test)]
mod conv_tests;
mod deform;
#[cfg(test)]
mod detection_tests;
mod device_augment;
mod device_images;
mod excite;
mod flat;
mod input;
#[cfg(test)]
mod kernel_tests;
mod network;
#[cfg(test)]
mod norm_tests;
mod ops;
mod partial;
mod pass;
mod plan;
mod regions;

pub(crate) use device_images::decoded_input;
pub(crate) use flat::zeros_like;
pub(crate) use input::{batch_input, batch_memory};
pub use input::{network_input, normalized_input};
pub use network::{Network, Parameter};
pub(crate) use network::{download, upload_tensor};
pub use partial::select_channels;
pub use pass::Pass;
