//! The process-wide event sink: events of all jobs, whatever thread they run on, reach one callback.

use std::sync::{Mutex, PoisonError};

use napi::bindgen_prelude::{FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Result, Status};
use oarlock_jobs::JobEvent;

/// Events waiting for the event loop; beyond it steps are dropped (the next one replaces them) and others wait.
const QUEUE: usize = 1024;

type Arguments = FnArgs<(String, String)>;

/// The callback `(jobId, eventJson)`. Weak: it does not keep the process alive.
pub type Sink = ThreadsafeFunction<Arguments, (), Arguments, Status, false, true, QUEUE>;

static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Sets the sink; the callback runs on the thread that calls this.
///
/// # Errors
/// When Node refuses the function.
pub fn subscribe(callback: &Function<'_, Arguments, ()>) -> Result<()> {
    let sink = callback
        .build_threadsafe_function::<Arguments>()
        .callee_handled::<false>()
        .weak::<true>()
        .max_queue_size::<QUEUE>()
        .build()?;
    *SINK.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    Ok(())
}

/// Hands an event to the sink. Drops it when nobody subscribed or the process is ending.
pub fn emit(job_id: &str, event: &JobEvent) {
    let Ok(json) = serde_json::to_string(event) else {
        return;
    };
    // Only the newest step counts, so a full queue loses steps rather than slowing the training down.
    let mode = if matches!(event, JobEvent::Step { .. } | JobEvent::Heartbeat { .. }) {
        ThreadsafeFunctionCallMode::NonBlocking
    } else {
        ThreadsafeFunctionCallMode::Blocking
    };
    if let Some(sink) = SINK.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        sink.call((job_id.to_owned(), json).into(), mode);
    }
}
