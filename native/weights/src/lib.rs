//! Model weights from every file a user is likely to have, and a way to fit them to a network.
//!
//! [`load`] reads safetensors, PyTorch state dicts (`.pth`, `.pt`: the zip form and the older
//! stream form), Paddle parameters (`.pdparams`) and checkpoint folders into one form: fp32 tensors
//! in PyTorch's layout. [`fit`] matches them with the parameters of a network and says
//! what is missing, of another shape or unused. [`save_safetensors`] writes them atomically.
//!
//! Pickled files are read by a restricted machine ([`pickle`]) that builds plain data and refuses
//! every name outside a short allow-list: nothing in a file is ever executed or imported.

mod dtype;
mod error;
mod fit;
mod load;
mod paddle;
pub mod pickle;
mod safetensors_io;
mod torch;

pub use dtype::Dtype;
pub use error::WeightError;
pub use fit::{Fit, FitMethod, FitReport, Mismatch, Rename, fit};
pub use load::load;
pub use safetensors_io::save_safetensors;
