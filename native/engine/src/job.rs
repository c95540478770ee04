//! The door into the engine: one blocking call per job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oarlock_jobs::{JobError, JobEvent, JobOutcome, JobSpec};

use crate::runtime::memory;
use crate::{Result, jobs};

/// Receives what a running job reports. Must return quickly: it is called between training steps.
pub trait EventSink: Send + Sync {
    /// Takes one report.
    fn emit(&self, event: JobEvent);
}

impl<F: Fn(JobEvent) + Send + Sync> EventSink for F {
    fn emit(&self, event: JobEvent) {
        self(event);
    }
}

/// Asks a running job to stop; clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token nobody has used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to stop at its next step.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An error of code `Cancelled` if a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(JobError::cancelled().into())
        } else {
            Ok(())
        }
    }
}

/// What every job gets beside its spec.
#[derive(Clone, Copy)]
pub struct JobContext<'a> {
    /// Job id, for logs.
    pub job_id: &'a str,
    /// Where reports go.
    pub sink: &'a dyn EventSink,
    /// Whether to stop.
    pub cancel: &'a CancelToken,
}

impl JobContext<'_> {
    /// Tells the user something that does not end the job.
    pub fn warn(&self, message: impl Into<String>) {
        self.sink.emit(JobEvent::Warning {
            message: message.into(),
        });
    }
}

/// Runs one job to its end on the calling thread; a failure is an outcome.
///
/// A panic unwinds to the caller; it leaves no shared state half-changed: tensors are dropped, files were temporary.
pub fn run_job(
    job_id: &str,
    spec: JobSpec,
    sink: &dyn EventSink,
    cancel: &CancelToken,
) -> JobOutcome {
    let context = JobContext {
        job_id,
        sink,
        cancel,
    };
    let _trim = TrimAtEnd;
    jobs::dispatch(spec, context).unwrap_or_else(|error| JobOutcome::Failed(error.into()))
}

/// Gives memory kept for tensors back however the job ends.
struct TrimAtEnd;

impl Drop for TrimAtEnd {
    fn drop(&mut self) {
        memory::trim();
    }
}
