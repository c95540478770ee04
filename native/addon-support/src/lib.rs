//! What both addons need to speak the job protocol with JavaScript: the event sink, the registry of
//! running jobs, and the frame around one job. The addons only add their own exports.

mod events;
mod registry;

pub use events::{Sink, emit, subscribe};
pub use registry::{control, run};
