//! Images and datasets for Node, without libtorch: loaded by the API process's own thread pool.

use napi::Result;
use napi::bindgen_prelude::{FnArgs, Function};
use napi_derive::napi;

/// Sets the process-wide sink of job events; it runs on the calling thread's event loop.
#[napi(
    catch_unwind,
    ts_args_type = "callback: (jobId: string, eventJson: string) => void"
)]
pub fn subscribe(callback: Function<'_, FnArgs<(String, String)>, ()>) -> Result<()> {
    oarlock_addon_support::subscribe(&callback)
}

/// Asks a running job to stop (`stop`); false when there is no such job.
#[napi(catch_unwind)]
pub fn control(job_id: String, command: String) -> bool {
    oarlock_addon_support::control(&job_id, &command)
}
