//! Proof of life while a job has nothing else to tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use oarlock_jobs::JobEvent;

use crate::EventSink;

const INTERVAL: Duration = Duration::from_secs(2);
/// Processor time within [`INTERVAL`] that counts as work.
const WORKING: Duration = Duration::from_millis(100);

/// Knows what a job is doing and whether it moves.
#[derive(Debug, Default)]
pub struct Heart {
    ticks: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stage: &'static str,
    over: bool,
}

impl Heart {
    /// Names what begins now (`loading`, `evaluating` …).
    pub fn stage(&self, stage: &'static str) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stage = stage;
        self.tick();
    }

    /// Something was done.
    pub fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs `body` while a second thread reports a heartbeat every 2 s, as long as the job ticks or its process
    /// computes: one long operation (a step of a large network on a CPU) is life, a deadlock is not.
    pub fn beat_during<T>(&self, sink: &dyn EventSink, body: impl FnOnce(&Heart) -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| self.watch(sink));
            let _end = End(self);
            body(self)
        })
    }

    fn watch(&self, sink: &dyn EventSink) {
        let (mut ticks, mut cpu) = (0, process_time());
        loop {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (state, _) = self
                .changed
                .wait_timeout_while(state, INTERVAL, |s| !s.over)
                .unwrap_or_else(PoisonError::into_inner);
            if state.over {
                return;
            }
            let stage = state.stage;
            drop(state);
            let (new_ticks, new_cpu) = (self.ticks.load(Ordering::Relaxed), process_time());
            if new_ticks != ticks || new_cpu.saturating_sub(cpu) >= WORKING {
                sink.emit(JobEvent::Heartbeat {
                    stage: stage.to_owned(),
                });
            }
            (ticks, cpu) = (new_ticks, new_cpu);
        }
    }
}

/// Ends the watching thread, also when the job panics.
struct End<'a>(&'a Heart);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over = true;
        self.0.changed.notify_all();
    }
}

/// Processor time of all threads of this process.
pub fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the result.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0 {
        return Duration::ZERO;
    }
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
