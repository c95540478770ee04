//! Long work over many files: threads, progress, a way to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oarlock_jobs::{JobError, JobEvent};

use crate::check::parallel;

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Who listens to the work and may stop it.
pub(crate) struct Work<'a> {
    pub events: &'a (dyn Fn(JobEvent) + Sync),
    pub cancel: &'a AtomicBool,
    /// 0 = all cores but one.
    pub threads: usize,
}

impl Work<'_> {
    fn threads(&self) -> usize {
        match self.threads {
            0 => {
                std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1))
            }
            n => n,
        }
    }

    pub fn stopped(&self) -> Result<(), JobError> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(JobError::cancelled())
        } else {
            Ok(())
        }
    }

    fn tell(&self, stage: &str, done: usize, total: usize) {
        let (done, total) = (done as u64, total as u64);
        (self.events)(JobEvent::Progress {
            done,
            total,
            stage: stage.to_owned(),
            eta: None,
        });
    }

    /// Runs `work` over all items with progress; results that are `Some` come back with their number, in
    /// order.
    pub fn each<T: Send>(
        &self,
        stage: &str,
        total: usize,
        work: &(dyn Fn(usize) -> Option<T> + Sync),
    ) -> Result<Vec<(usize, T)>, JobError> {
        self.tell(stage, 0, total);
        let last = Mutex::new(Instant::now());
        let done = |so_far: usize| {
            if let Ok(mut last) = last.try_lock()
                && last.elapsed() >= TELL_EVERY
            {
                *last = Instant::now();
                self.tell(stage, so_far, total);
            }
        };
        let results = parallel(total, self.threads(), self.cancel, &done, work);
        self.stopped()?;
        self.tell(stage, total, total);
        Ok(results)
    }

    /// [`Work::each`] without progress.
    pub fn quietly<T: Send>(
        &self,
        total: usize,
        work: &(dyn Fn(usize) -> Option<T> + Sync),
    ) -> Result<Vec<(usize, T)>, JobError> {
        let results = parallel(total, self.threads(), self.cancel, &|_| {}, work);
        self.stopped()?;
        Ok(results)
    }
}
