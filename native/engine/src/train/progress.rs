//! What is told of a training while it runs.

use std::time::{Duration, Instant};

use oarlock_jobs::Metrics;
use tch::Tensor;

use super::state::EpochSums;
use crate::Result;

/// Metrics of one logged step, on the device until they are read.
#[derive(Debug)]
pub struct Pending {
    names: Vec<String>,
    values: Tensor,
    at: At,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Step within the epoch, from 1.
    pub step: u32,
    /// Step in all, from 1.
    pub global_step: u64,
    /// Learning rate of the step.
    pub lr: f64,
}

impl Pending {
    /// Gathers loss and metrics on the device without waiting for them.
    ///
    /// # Errors
    /// Device failures.
    pub fn new(loss: &Tensor, metrics: Vec<(String, Tensor)>, at: At) -> Result<Self> {
        let (mut names, mut values) = (vec!["loss".to_owned()], vec![loss.shallow_clone()]);
        for (name, value) in metrics {
            names.push(name);
            values.push(value);
        }
        let values = Tensor::f_stack(&values, 0)?;
        Ok(Self { names, values, at })
    }

    /// The step they belong to.
    pub fn at(&self) -> At {
        self.at
    }

    /// Waits for the values: `loss`, the family's own, `lr`.
    ///
    /// # Errors
    /// Device failures.
    pub fn read(&self) -> Result<Metrics> {
        let values = crate::exec::download(&self.values)?.data;
        let finite = |x: f32| x.is_finite().then_some(f64::from(x));
        let mut metrics: Metrics = self
            .names
            .iter()
            .cloned()
            .zip(values.into_iter().map(finite))
            .collect();
        metrics.insert("lr".to_owned(), Some(self.at.lr));
        Ok(metrics)
    }
}

impl EpochSums {
    /// Adds a logged step.
    pub fn add(&mut self, metrics: &Metrics) {
        self.count += 1;
        for (key, value) in metrics {
            if let (Some(sum), Some(v)) = (self.sums.entry(key.clone()).or_insert(Some(0.0)), value)
            {
                *sum += v;
            }
        }
    }

    /// Means since the epoch began.
    pub fn means(&self) -> Metrics {
        self.sums
            .iter()
            .map(|(k, v)| (k.clone(), v.map(|v| v / f64::from(self.count.max(1)))))
            .collect()
    }
}

/// Times steps and foretells the end.
#[derive(Debug)]
pub struct Clock {
    last: Instant,
    /// Seconds of a step, running mean.
    step: Option<f64>,
    /// Seconds of the last evaluation with its saving.
    pub evaluation: Option<f64>,
    images: u64,
    since: Instant,
}

impl Clock {
    /// Starts now.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            last: now,
            step: None,
            evaluation: None,
            images: 0,
            since: now,
        }
    }

    /// Restarts the time of the next step (after something that is no step).
    pub fn resume(&mut self) {
        self.last = Instant::now();
        self.since = self.last;
        self.images = 0;
    }

    /// A step of `images` images has ended; returns its seconds.
    pub fn tick(&mut self, images: usize) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        self.images += images as u64;
        // The first step also builds kernels and buffers: it is forgotten quickly.
        self.step = Some(
            self.step
                .map_or(seconds, |mean| mean + 0.1 * (seconds - mean)),
        );
        seconds
    }

    /// Images per second since the last call.
    pub fn throughput(&mut self) -> f64 {
        let now = Instant::now();
        let rate = self.images as f64
            / (now - self.since)
                .max(Duration::from_micros(1))
                .as_secs_f64();
        self.since = now;
        self.images = 0;
        rate
    }

    /// Seconds until the end, for so many steps and evaluations.
    pub fn eta(&self, steps: u64, evaluations: u64) -> Option<f64> {
        let step = self.step?;
        Some(steps as f64 * step + evaluations as f64 * self.evaluation.unwrap_or(0.0))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
