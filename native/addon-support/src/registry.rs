//! Running jobs by id, so that any thread can ask one to stop.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use oarlock_jobs::{ErrorCode, JobError, JobOutcome, JobSpec};

type Stop = Box<dyn Fn() + Send>;

static JOBS: LazyLock<Mutex<HashMap<String, Stop>>> = LazyLock::new(Mutex::default);

fn jobs() -> MutexGuard<'static, HashMap<String, Stop>> {
    JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the job out of the registry however its run ends.
struct Entry<'a>(&'a str);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        jobs().remove(self.0);
    }
}

/// Asks a running job to stop at its next step; false when no such job runs or the command is unknown.
pub fn control(job_id: &str, command: &str) -> bool {
    match (command, jobs().get(job_id)) {
        ("stop", Some(stop)) => {
            stop();
            true
        }
        _ => false,
    }
}

/// Parses `spec_json`, runs `body` on this thread with `stop` registered under `job_id`, and returns the outcome as JSON.
/// A panic becomes a failed outcome.
pub fn run(
    job_id: &str,
    spec_json: &str,
    stop: impl Fn() + Send + 'static,
    body: impl FnOnce(JobSpec) -> JobOutcome,
) -> String {
    let outcome = match serde_json::from_str::<JobSpec>(spec_json) {
        Err(error) => JobOutcome::Failed(JobError::new(
            ErrorCode::InvalidArgument,
            format!("the job specification cannot be read: {error}"),
        )),
        Ok(spec) => {
            if jobs().contains_key(job_id) {
                let error = JobError::new(
                    ErrorCode::InvalidArgument,
                    format!("job {job_id} runs already"),
                );
                return text(&JobOutcome::Failed(error));
            }
            jobs().insert(job_id.to_owned(), Box::new(stop));
            let _entry = Entry(job_id);
            catch_unwind(AssertUnwindSafe(|| body(spec))).unwrap_or_else(|payload| {
                let why = payload
                    .downcast_ref::<&str>()
                    .map(ToString::to_string)
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned());
                JobOutcome::Failed(JobError::new(
                    ErrorCode::Internal,
                    format!("native code panicked: {why}"),
                ))
            })
        }
    };
    text(&outcome)
}

fn text(outcome: &JobOutcome) -> String {
    serde_json::to_string(outcome).unwrap_or_else(|error| {
        format!(r#"{{"type":"failed","code":"internal","message":"the outcome cannot be written: {error}"}}"#)
    })
}
