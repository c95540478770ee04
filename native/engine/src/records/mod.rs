//! What a training leaves behind for people: `out.log`, TensorBoard events, `model.yml`, `eval_details.json`.
//!
//! Nothing here knows libtorch, and nothing of it is ever read back as the truth about a task.

pub mod box_details;
pub mod eval_details;
mod head_settings;
pub mod model_yml;
pub mod outlog;
pub mod tensorboard;
mod yaml;

pub use box_details::BoxDetails;
pub use eval_details::{Details, EvalDetails, PixelDetails};
pub use head_settings::head_settings;
pub use model_yml::{ModelYml, Preprocessing, Resize};
pub use outlog::{OutLog, TrainLine};
pub use tensorboard::EventWriter;
