//! The engine for Node: loaded by compute hosts only.

use napi::Result;
use napi::bindgen_prelude::{FnArgs, Function};
use napi_derive::napi;
use oarlock_engine::{CancelToken, run_job as run_engine_job};
use oarlock_jobs::JobEvent;

/// Sets the process-wide sink of job events; it runs on the calling thread's event loop.
#[napi(
    catch_unwind,
    ts_args_type = "callback: (jobId: string, eventJson: string) => void"
)]
pub fn subscribe(callback: Function<'_, FnArgs<(String, String)>, ()>) -> Result<()> {
    oarlock_addon_support::subscribe(&callback)
}

/// Runs a job (`JobSpec` as JSON) to its end on the calling thread and returns a `JobOutcome` as JSON.
#[napi(catch_unwind)]
pub fn run_job(job_id: String, spec_json: String) -> String {
    let cancel = CancelToken::new();
    let stop = cancel.clone();
    oarlock_addon_support::run(
        &job_id,
        &spec_json,
        move || stop.cancel(),
        |spec| {
            let sink = |event: JobEvent| oarlock_addon_support::emit(&job_id, &event);
            run_engine_job(&job_id, spec, &sink, &cancel)
        },
    )
}

/// Asks a running job to stop (`stop`) at its next step; false when there is no such job.
#[napi(catch_unwind)]
pub fn control(job_id: String, command: String) -> bool {
    oarlock_addon_support::control(&job_id, &command)
}

/// Version of this addon.
#[napi(catch_unwind)]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The GPUs of this machine as JSON: `{"gpus": […], "reason": null}`, or why there are none.
///
/// # Errors
/// None in practice: the report is plain data.
#[napi(catch_unwind)]
pub fn devices() -> Result<String> {
    serde_json::to_string(&oarlock_engine::runtime::devices())
        .map_err(|error| napi::Error::from_reason(error.to_string()))
}
