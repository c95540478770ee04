//! Learning rate by step.

use oarlock_jobs::{CommonParams, LrPolicy};

/// Factor of each decay of [`LrPolicy::Piecewise`].
const GAMMA: f64 = 0.1;
/// Exponent of [`LrPolicy::Polynomial`].
const POWER: f64 = 0.9;

/// Learning rate of a whole training.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: LrPolicy,
    peak: f64,
    warmup_start: f64,
    warmup_steps: u64,
    /// Global steps at which the rate is multiplied by [`GAMMA`].
    boundaries: Vec<u64>,
    total_steps: u64,
}

impl Schedule {
    /// The schedule of these parameters for epochs of `steps_per_epoch` steps.
    pub fn new(params: &CommonParams, steps_per_epoch: u64) -> Self {
        let total_steps = u64::from(params.num_epochs) * steps_per_epoch;
        Self {
            policy: params.lr_policy,
            peak: params.learning_rate,
            warmup_start: params.warmup_start_lr,
            // A warm-up longer than the training would never reach the peak; it then ends with the training.
            warmup_steps: u64::from(params.warmup_steps).min(total_steps),
            boundaries: params
                .lr_decay_epochs
                .iter()
                .map(|&e| u64::from(e) * steps_per_epoch)
                .collect(),
            total_steps,
        }
    }

    /// Rate of the step `global_step`, from 0.
    ///
    /// Warm-up rises linearly from its start to the peak. Then, with t running from 0 to 1 between the end of the
    /// warm-up and the end of the training: linear `1 − t`, cosine `(1 + cos πt) / 2`, polynomial `(1 − t)^0.9`;
    /// piecewise counts the decay epochs from the start of the training.
    pub fn rate(&self, global_step: u64) -> f64 {
        if global_step < self.warmup_steps {
            let t = global_step as f64 / self.warmup_steps as f64;
            return self.warmup_start + (self.peak - self.warmup_start) * t;
        }
        let span = (self.total_steps - self.warmup_steps).max(1) as f64;
        let t = ((global_step - self.warmup_steps) as f64 / span).min(1.0);
        self.peak
            * match self.policy {
                LrPolicy::Piecewise => {
                    let passed = self
                        .boundaries
                        .iter()
                        .filter(|&&b| global_step >= b)
                        .count();
                    GAMMA.powi(i32::try_from(passed).unwrap_or(i32::MAX))
                }
                LrPolicy::Linear => 1.0 - t,
                LrPolicy::Cosine => (1.0 + (std::f64::consts::PI * t).cos()) / 2.0,
                LrPolicy::Polynomial => (1.0 - t).powf(POWER),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(policy: LrPolicy, warmup_steps: u64, warmup_start: f64) -> Schedule {
        Schedule {
            policy,
            peak: 0.4,
            warmup_start,
            warmup_steps,
            boundaries: vec![30, 60],
            total_steps: 100,
        }
    }

    #[test]
    fn rates_follow_their_closed_forms() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
        let piecewise = schedule(LrPolicy::Piecewise, 0, 0.0);
        for (step, rate) in [
            (0, 0.4),
            (29, 0.4),
            (30, 0.04),
            (59, 0.04),
            (60, 0.004),
            (99, 0.004),
        ] {
            near(piecewise.rate(step), rate);
        }
        for step in 0..100 {
            let t = step as f64 / 100.0;
            near(
                schedule(LrPolicy::Linear, 0, 0.0).rate(step),
                0.4 * (1.0 - t),
            );
            near(
                schedule(LrPolicy::Cosine, 0, 0.0).rate(step),
                0.4 * (t * std::f64::consts::FRAC_PI_2).cos().powi(2),
            );
            near(
                schedule(LrPolicy::Polynomial, 0, 0.0).rate(step),
                0.4 * ((1.0 - t).ln() * 0.9).exp(),
            );
        }
        // Past the end the rate stays at its last value.
        near(schedule(LrPolicy::Linear, 0, 0.0).rate(1000), 0.0);
    }

    #[test]
    fn warm_up_rises_in_a_line_and_the_policy_takes_over_at_the_peak() {
        for policy in [
            LrPolicy::Linear,
            LrPolicy::Cosine,
            LrPolicy::Polynomial,
            LrPolicy::Piecewise,
        ] {
            let s = schedule(policy, 20, 0.1);
            for step in 0..20 {
                let expected = 0.1 + 0.3 * step as f64 / 20.0;
                assert!((s.rate(step) - expected).abs() < 1e-12);
            }
            assert_eq!(s.rate(20), 0.4, "{policy:?}");
        }
        // Decay epochs count from the start of the training, warm-up included.
        assert!((schedule(LrPolicy::Piecewise, 20, 0.1).rate(30) - 0.04).abs() < 1e-12);
        let half = schedule(LrPolicy::Linear, 20, 0.1).rate(60);
        assert!((half - 0.2).abs() < 1e-12, "{half}");
    }
}
