//! A running training: epochs, steps, evaluations, checkpoints.

use std::time::{Duration, Instant};

use oarlock_datasets::LoaderStats;
use oarlock_jobs::{ErrorCode, JobEvent, TrainResult};
use tch::Device;

use super::family::{EpochPart, Fed, Validation, Watch};
use super::folder::OutputFolder;
use super::learner::Learner;
use super::plan::Plan;
use super::progress::{At, Clock, Pending};
use super::state::{Best, EpochSums, TrainState};
use crate::exec::Network;
use crate::records::{EventWriter, OutLog, TrainLine};
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result};

/// Steps between two reports.
const LOG_INTERVAL: u32 = 2;
/// Time between two mid-epoch states: what a crash may cost.
const RESUME_INTERVAL: Duration = Duration::from_secs(300);
/// Epochs shorter than this do not each get a state of their own.
const MIN_RESUME_INTERVAL: Duration = Duration::from_secs(30);

/// How a part of the training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Done,
    Stopped,
}

/// Everything a training works with.
pub struct Session<'a> {
    pub(super) context: JobContext<'a>,
    pub(super) heart: &'a Heart,
    pub(super) plan: Plan,
    pub(super) learner: Learner,
    pub(super) state: TrainState,
    pub(super) folder: OutputFolder,
    pub(super) log: OutLog,
    pub(super) events: EventWriter,
    pub(super) pace: Pace,
}

/// What a session keeps between its steps.
pub(super) struct Pace {
    clock: Clock,
    /// When the state was last saved.
    saved: Instant,
    log_failed: bool,
    /// Metrics of a logged step that the device may still be computing.
    pending: Option<(Pending, Timing)>,
}

impl Pace {
    /// At the start of a session.
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::new(),
            saved: Instant::now(),
            log_failed: false,
            pending: None,
        }
    }
}

/// Times of a logged step.
#[derive(Debug, Clone, Copy)]
struct Timing {
    step: f64,
    wait: f64,
    cache_hit_rate: Option<f64>,
}

impl Session<'_> {
    /// Trains to the last epoch, to an early stop or to a stop.
    ///
    /// # Errors
    /// See [`super::run`].
    pub fn run(&mut self) -> Result<TrainResult> {
        while self.state.epoch < self.plan.params.num_epochs {
            if self.epoch()? == Flow::Stopped || self.end_of_epoch()? == Flow::Stopped {
                self.save_resume()?;
                self.note("The training was stopped; it can be resumed.");
                return Ok(self.result(true));
            }
            if self.out_of_patience() {
                let patience = self.plan.params.early_stop_patience;
                self.note(&format!(
                    "Early stop: {patience} evaluations without a better result."
                ));
                break;
            }
        }
        self.folder.clear_resume()?;
        Ok(self.result(false))
    }

    fn result(&self, stopped: bool) -> TrainResult {
        TrainResult {
            stopped,
            completed_epochs: self.state.epoch,
            best_epoch: self.state.best.as_ref().map(|b| b.epoch),
            best_metrics: self
                .state
                .best
                .as_ref()
                .map(|b| b.metrics.clone())
                .unwrap_or_default(),
        }
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.plan.params.early_stop_patience;
        patience > 0 && self.state.evaluations_without_gain >= patience
    }

    /// The steps of the running epoch that are still to do.
    fn epoch(&mut self) -> Result<Flow> {
        if self.state.step >= self.state.steps_per_epoch {
            return Ok(Flow::Done); // stopped during the evaluation
        }
        self.heart.stage("training");
        let part = EpochPart {
            epoch: self.state.epoch + 1,
            start_batch: self.state.step,
        };
        let mut feed = self.plan.family.feed(part, &self.plan.supply)?;
        self.pace.clock.resume();
        while self.state.step < self.state.steps_per_epoch {
            if self.context.cancel.is_cancelled() {
                self.flush()?;
                return Ok(Flow::Stopped);
            }
            if self.pace.saved.elapsed() >= RESUME_INTERVAL {
                self.flush()?;
                self.save_resume()?;
                self.pace.clock.resume();
            }
            // Batches without a single readable image are not delivered: the epoch may end early.
            let Some(batch) = feed.next()? else { break };
            for (path, reason) in &batch.skipped {
                self.warn(&format!("'{}' was skipped: {reason}", path.display()));
            }
            self.step(&batch, &feed.stats())?;
            self.heart.tick();
        }
        self.state.advance_to(self.state.steps_per_epoch);
        self.flush()?;
        self.note(&format!("Data: {}.", feed.stats()));
        if let Some(remark) = feed.remark() {
            self.note(&format!("Data: {remark}."));
        }
        Ok(Flow::Done)
    }

    fn step(&mut self, batch: &Fed, data: &LoaderStats) -> Result<()> {
        self.state
            .advance_to(u32::try_from(batch.index).unwrap_or(u32::MAX));
        let lr = self.plan.schedule.rate(self.state.global_step);
        // Statistics of a single image are no statistics: a batch that lost all but one of its images is left out.
        let usable = batch.images >= self.plan.params.batch_size.min(2) as usize;
        let device = self.learner.network.placement().device;
        let family = &self.plan.family;
        let mut result = None;
        if usable {
            let seed = dropout_seed(self.plan.params.seed, self.state.global_step);
            let forward = |network: &Network| family.learn(network, batch, seed);
            result = Some(self.learner.step_with(&forward, lr, seed)?);
        }
        self.state.advance_to(self.state.step + 1);
        let seconds = self.pace.clock.tick(batch.images);
        let Some(result) = result else {
            return Ok(());
        };

        let at = At {
            epoch: self.state.epoch + 1,
            step: self.state.step,
            global_step: self.state.global_step,
            lr,
        };
        // On the CPU the loss is there already: look at each.
        if device == Device::Cpu && !result.loss.f_double_value(&[])?.is_finite() {
            return Err(self.non_finite(&at));
        }
        if self.state.step.is_multiple_of(LOG_INTERVAL) || self.state.steps_per_epoch < LOG_INTERVAL
        {
            self.flush()?;
            let metrics = self.plan.family.metrics(&result, &batch.targets)?;
            let pending = Pending::new(&result.loss, metrics, at)?;
            self.pace.pending = Some((
                pending,
                Timing {
                    step: seconds,
                    wait: data.last_wait_seconds,
                    cache_hit_rate: data.cache_hit_rate(),
                },
            ));
            // A GPU gets until the next report to compute these: no step waits for them.
            if device == Device::Cpu {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Reports the logged step whose metrics are pending.
    fn flush(&mut self) -> Result<()> {
        let Some((pending, timing)) = self.pace.pending.take() else {
            return Ok(());
        };
        let metrics = pending.read()?;
        let at = pending.at();
        if metrics.get("loss").copied().flatten().is_none() {
            return Err(self.non_finite(&at));
        }
        self.state.sums.add(&metrics);
        let p = &self.plan.params;
        let left = (u64::from(p.num_epochs) * u64::from(self.state.steps_per_epoch))
            .saturating_sub(at.global_step);
        let evaluations = u64::from(p.num_epochs.div_ceil(p.save_interval_epochs))
            .saturating_sub(u64::from(self.state.epoch / p.save_interval_epochs));
        let eta = self.pace.clock.eta(left, evaluations);
        let line = TrainLine {
            epoch: at.epoch,
            num_epochs: p.num_epochs,
            step: at.step,
            steps: self.state.steps_per_epoch,
            metrics: &metrics,
            step_seconds: timing.step,
            data_wait_seconds: timing.wait,
            eta,
        };
        let written = self
            .log
            .train_step(line)
            .and_then(|()| self.events.train(at.global_step, &metrics));
        self.check_log(written);
        self.context.sink.emit(JobEvent::Step {
            epoch: at.epoch,
            num_epochs: self.plan.params.num_epochs,
            step: at.step,
            steps: self.state.steps_per_epoch,
            metrics,
            eta,
            step_seconds: timing.step,
            data_wait_seconds: timing.wait,
            images_per_second: self.pace.clock.throughput(),
            cache_hit_rate: timing.cache_hit_rate,
        });
        Ok(())
    }

    fn non_finite(&self, at: &At) -> EngineError {
        EngineError::new(
            ErrorCode::NonFinite,
            format!(
                "the loss became infinite or NaN in epoch {}, step {} at learning rate {}",
                at.epoch, at.step, at.lr
            ),
        )
        .with("epoch", at.epoch)
        .with("step", at.step)
        .with("lr", at.lr)
        .hint("lower learning_rate or add warmup_steps; checkpoints saved before are kept")
    }

    /// Evaluates and saves where the interval or the end asks for it.
    fn end_of_epoch(&mut self) -> Result<Flow> {
        let epoch = self.state.epoch + 1;
        let p = &self.plan.params;
        let due = epoch.is_multiple_of(p.save_interval_epochs) || epoch == p.num_epochs;
        let started = Instant::now();
        let validation = if due {
            self.heart.stage("evaluating");
            let trained = &self.learner.network;
            let compute = self
                .plan
                .family
                .validation_kind(trained.placement().compute);
            let network = self.learner.inference_copy(compute)?;
            let watch = Watch {
                cancel: self.context.cancel,
                heart: self.heart,
            };
            let family = &self.plan.family;
            match family.validate(&network, &self.plan.supply, watch)? {
                Some(validation) => Some(validation),
                None => return Ok(Flow::Stopped),
            }
        } else {
            None
        };
        let means = self.state.sums.means();
        let written = self.log.epoch_finished(epoch, &means);
        self.check_log(written);
        self.state.epoch = epoch;
        self.state.advance_to(0);
        self.state.sums = EpochSums::default();
        if let Some(validation) = validation {
            self.save_evaluated(epoch, &validation)?;
            self.pace.clock.evaluation = Some(started.elapsed().as_secs_f64());
        } else if self.pace.saved.elapsed() >= MIN_RESUME_INTERVAL {
            self.save_resume()?;
        }
        Ok(
            if self.context.cancel.is_cancelled() && epoch < self.plan.params.num_epochs {
                Flow::Stopped
            } else {
                Flow::Done
            },
        )
    }

    fn save_evaluated(&mut self, epoch: u32, validation: &Validation) -> Result<()> {
        if validation.skipped > 0 {
            self.warn(&format!(
                "{} validation images could not be read and were left out",
                validation.skipped
            ));
        }
        if let Some(remark) = &validation.remark {
            self.note(remark);
        }
        let metrics = &validation.metrics;
        let value = metrics
            .values()
            .next()
            .copied()
            .flatten()
            .unwrap_or(f64::NEG_INFINITY);
        let better = self
            .state
            .best
            .as_ref()
            .is_none_or(|best| value > best.value());
        if better {
            self.state.best = Some(Best {
                epoch,
                metrics: metrics.clone(),
            });
            self.state.evaluations_without_gain = 0;
        } else {
            self.state.evaluations_without_gain += 1;
        }
        let written = self
            .log
            .eval_finished(epoch, metrics, &validation.per_class)
            .and_then(|()| self.events.eval(u64::from(epoch), metrics));
        self.check_log(written);
        self.context.sink.emit(JobEvent::Eval {
            epoch,
            metrics: metrics.clone(),
        });

        self.heart.stage("saving");
        let path =
            self.folder
                .save_epoch(&self.learner, &self.state, &self.plan, validation, better)?;
        self.pace.saved = Instant::now();
        let written = self.log.saved(&path);
        self.check_log(written);
        if let Some(best) = self.state.best.clone() {
            let name = best.metrics.keys().next().cloned().unwrap_or_default();
            let written = self.log.best(best.epoch, &name, best.value());
            self.check_log(written);
        }
        self.context.sink.emit(JobEvent::Saved {
            epoch,
            path: path.display().to_string(),
            best: better,
        });
        Ok(())
    }

    /// Saves where the training stands, for a resume.
    fn save_resume(&mut self) -> Result<()> {
        self.heart.stage("saving");
        self.folder
            .save_resume(&self.learner, &self.state, &self.plan)?;
        self.pace.saved = Instant::now();
        self.heart.stage("training");
        Ok(())
    }

    /// Tells the user something, in the log and live.
    pub fn warn(&mut self, message: &str) {
        let written = self.log.warning(message);
        self.check_log(written);
        self.context.warn(message);
    }

    fn note(&mut self, message: &str) {
        let written = self.log.info(message);
        self.check_log(written);
    }

    /// A log that cannot be written is no reason to lose a training: said once, live.
    fn check_log(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written
            && !std::mem::replace(&mut self.pace.log_failed, true)
        {
            self.context
                .warn(format!("the training log cannot be written: {error}"));
        }
    }
}

/// Dropout masks depend on the seed of the training and the step alone.
fn dropout_seed(seed: u64, step: u64) -> u64 {
    let mut z = seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
