//! Training.
//!
//! | file | does |
//! |---|---|
//! | [`plan`] | checks parameters and data before the first step |
//! | [`family`] | what differs between task families: network, data, loss, validation |
//! | [`classifier`], [`data`], [`validate`] | the family of classifiers, its lists and evaluation |
//! | `class_batches`, `decode_choice` | its validation batches, decoded by the CPU or the GPU |
//! | [`segmenter`], [`pictures`], [`pixels`] | the family of segmenters, what their pictures are like, evaluation |
//! | [`detector`] | the family of detectors, with their data and evaluation |
//! | [`losses`], [`objective`] | losses; those of detectors |
//! | [`session`] | epochs, steps, evaluations |
//! | [`learner`], [`optimizer`], [`average`], [`schedule`] | one step |
//! | [`progress`] | metrics and times that are told |
//! | [`checkpoint`], [`folder`], [`state`] | what is saved and resumed |

pub mod average;
pub mod checkpoint;
mod class_batches;
pub mod classifier;
pub mod data;
mod decode_choice;
pub mod detector;
pub mod family;
pub mod folder;
pub mod learner;
pub mod losses;
pub mod objective;
pub mod optimizer;
pub mod pictures;
pub mod pixels;
pub mod plan;
pub mod progress;
pub mod schedule;
pub mod segmenter;
pub mod session;
pub mod state;
pub mod validate;

use std::path::Path;

use oarlock_graph::{Graph, Op, WeightMap};
use oarlock_jobs::{ErrorCode, JobEvent, PruneSummary, Resume, TrainResult, TrainSpec};

use crate::exec::Network;
use crate::records::{EventWriter, OutLog};
use crate::runtime::heartbeat::Heart;
use crate::runtime::{self, Placement, memory};
use crate::{EngineError, JobContext, Result, ffi, prune};
use checkpoint::Loaded;
use folder::OutputFolder;
use learner::Learner;
use optimizer::Optimizer;
use plan::Plan;
use session::{Pace, Session};
use state::{Compute, TrainState};

/// Trains a model from its spec to its last epoch or to a stop.
///
/// # Errors
/// `InvalidArgument`, `NotReady`, `InvalidData` or `NotFound` for unusable parameters, data or weights; `NonFinite`
/// when the loss explodes; `ResourceExhausted` when memory or disk run out. The last good checkpoint stays, and
/// the reason stands in `err.log`.
pub fn run(spec: &TrainSpec, context: JobContext) -> Result<TrainResult> {
    let task_dir = Path::new(&spec.task_dir);
    let append = spec.resume != Resume::Fresh;
    let mut log = OutLog::open(task_dir, append)
        .map_err(|e| EngineError::from(e).with("path", spec.task_dir.clone()))?;
    let result = Heart::default().beat_during(context.sink, |heart| {
        heart.stage("loading");
        train(spec, context, heart, task_dir)
    });
    result.map_err(|error| {
        let error = with_numbers(error, spec);
        let hint = error
            .0
            .hint
            .as_ref()
            .map(|h| format!(" ({h})"))
            .unwrap_or_default();
        // The error itself is returned; a log that cannot take it must not hide it.
        let _ = log.error(&format!("Training stop with error! {error}{hint}"));
        error
    })
}

fn train(
    spec: &TrainSpec,
    context: JobContext,
    heart: &Heart,
    task_dir: &Path,
) -> Result<TrainResult> {
    let placement = runtime::place(&spec.device)?;
    let mut plan = Plan::new(spec, placement)?;
    if let [first, _, ..] = spec.device.cuda[..] {
        plan.notes.push(format!(
            "training on several GPUs at once is not available yet; GPU {first} is used"
        ));
    }
    let folder = OutputFolder::open(task_dir)?;
    let start = find_start(spec, &folder, &mut plan)?;
    context.cancel.check()?;

    let (learner, state) = begin(spec, &folder, &mut plan, start, placement)?;
    let pruned = state.pruned.clone();
    let purge = (state.global_step > 0).then_some(state.global_step + 1);
    let events = EventWriter::create(&folder.curves(), purge)?;
    let mut log = OutLog::open(task_dir, true)?;
    for note in &plan.notes {
        log.info(note)?;
    }
    context.sink.emit(JobEvent::Started {
        device: placement.device_name(),
        precision: placement.precision_name().to_owned(),
        notes: plan.notes.clone(),
    });
    if let Some(summary) = pruned {
        context.sink.emit(JobEvent::Pruned(summary));
    }
    Session {
        context,
        heart,
        plan,
        learner,
        state,
        folder,
        log,
        events,
        pace: Pace::new(),
    }
    .run()
}

/// The checkpoint to begin from; `None` for a fresh start.
fn find_start(spec: &TrainSpec, folder: &OutputFolder, plan: &mut Plan) -> Result<Option<Loaded>> {
    match spec.resume {
        Resume::Fresh => {
            folder.clear()?;
            Ok(None)
        }
        Resume::Epoch { epoch } => {
            let mut loaded = folder.load_epoch(epoch)?;
            loaded.state.run = folder.next_run()?;
            folder.clear_resume()?;
            Ok(Some(loaded))
        }
        Resume::Latest => folder.load_latest(&mut plan.notes),
    }
}

fn begin(
    spec: &TrainSpec,
    folder: &OutputFolder,
    plan: &mut Plan,
    start: Option<Loaded>,
    placement: Placement,
) -> Result<(Learner, TrainState)> {
    let compute = Compute {
        device: placement.device_name(),
        precision: placement.precision_name().to_owned(),
        threads: ffi::threads(),
    };
    let Some(mut loaded) = start else {
        let (graph, weights, pruned) = fresh_network(spec, plan)?;
        let mut network = Network::new(graph, &weights, placement)?;
        let optimizer = Optimizer::new(plan.rule, plan.params.weight_decay, &mut network)?
            .with_average(plan.ema_decay(), &network)?;
        let fingerprint = plan.family.fingerprint().to_owned();
        let mut state = TrainState::fresh(spec, plan.params.batch_size, plan.steps, fingerprint);
        state.run = folder.next_run()?;
        state.compute = compute;
        state.pruned = pruned;
        if let Some(frozen) = objective::freezes_norms(network.graph(), &weights) {
            state.frozen_norms = frozen;
            plan.notes.push(if frozen && !oarlock_zoo::frozen_layers(network.graph()).is_empty() {
                "batch norms, and the first layers and stage of the backbone, are frozen, as the start weights bring them"
                    .to_owned()
            } else if frozen {
                "batch norms are frozen, as the start weights bring their statistics".to_owned()
            } else {
                "batch norms are trained, as no start weights bring statistics for all of them"
                    .to_owned()
            });
        }
        freeze(&network, state.frozen_norms);
        let learner = Learner { network, optimizer };
        return Ok((learner, state));
    };
    let classes = output_features(&loaded.graph);
    if classes != Some(plan.classes()) {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "the checkpoint was trained for {} classes, the dataset has {}",
                classes.unwrap_or(0),
                plan.classes()
            ),
        )
        .hint("start the training anew"));
    }
    let own = average::take_own(&mut loaded.optimizer);
    let trained = own.as_ref().unwrap_or(&loaded.weights);
    let mut network = Network::new(loaded.graph, trained, placement)?;
    let mut optimizer = Optimizer::new(plan.rule, plan.params.weight_decay, &mut network)?
        .with_average(plan.ema_decay(), &network)?;
    optimizer.load_state(&network, &loaded.optimizer)?;
    if let Some(average) = optimizer.average_mut() {
        average.load(&network, &loaded.weights)?;
    }
    let state = continue_state(loaded.state, plan, compute);
    freeze(&network, state.frozen_norms);
    let learner = Learner { network, optimizer };
    Ok((learner, state))
}

/// Keeps what PaddleX keeps of a pretrained two-stage detector: batch norms, and the first layers of its backbone.
fn freeze(network: &Network, pretrained: bool) {
    network.freeze_norms(pretrained);
    if pretrained {
        network.freeze_layers(oarlock_zoo::frozen_layers(network.graph()));
    }
}

/// Classes: channels or features of the first output, unless a detector says them.
fn output_features(graph: &Graph) -> Option<usize> {
    if let Some(head) = &graph.head {
        return Some(head.classes());
    }
    let mut node = &graph.nodes[graph.outputs.first()?.node];
    loop {
        match node.op {
            Op::Conv2d { out_channels, .. } => return Some(out_channels),
            Op::Linear { out_features, .. } => return Some(out_features),
            _ => node = &graph.nodes[*node.inputs.first()?],
        }
    }
}

/// The network of a fresh start, pruned if that is asked for.
fn fresh_network(
    spec: &TrainSpec,
    plan: &mut Plan,
) -> Result<(Graph, WeightMap, Option<PruneSummary>)> {
    let Some(pruning) = &spec.prune else {
        let (graph, weights) = plan.start_weights(spec.weights.as_deref())?;
        return Ok((graph, weights, None));
    };
    let checkpoint = spec.weights.as_deref().ok_or_else(|| {
        EngineError::new(
            ErrorCode::InvalidArgument,
            "a pruned training needs the model of its parent",
        )
    })?;
    let (whole, _) = plan.family.network(oarlock_zoo::Origin::Torch)?;
    let start = prune::start::start(
        pruning,
        prune::start::Wanted {
            checkpoint,
            whole: &whole,
            labels: plan.family.labels(),
            image_size: plan.family.preprocessing().size().map(|s| s as usize),
            criterion: prune::criterion(spec.params.task_type()),
        },
    )?;
    plan.notes.extend(start.notes);
    Ok((start.graph, start.weights, Some(start.summary)))
}

/// Fits a saved state to what may have changed since; what did is told in the notes.
fn continue_state(mut state: TrainState, plan: &mut Plan, compute: Compute) -> TrainState {
    let same_data = state.dataset == plan.family.fingerprint()
        && state.batch_size == plan.params.batch_size
        && state.steps_per_epoch == plan.steps
        && state.seed == plan.params.seed;
    if !same_data {
        plan.notes.push(format!(
            "the images, the batch size or the seed changed since the checkpoint: epoch {} begins anew",
            state.epoch + 1
        ));
        state.sums = state::EpochSums::default();
        state.steps_per_epoch = plan.steps;
        state.advance_to(0);
        state.batch_size = plan.params.batch_size;
        plan.family.fingerprint().clone_into(&mut state.dataset);
        state.seed = plan.params.seed;
    }
    if state.compute != compute {
        plan.notes.push(format!(
            "resumed on {compute:?} instead of {:?}: results may differ in the last digits",
            state.compute
        ));
    }
    plan.notes.push(format!(
        "resumed after epoch {}, step {}",
        state.epoch, state.step
    ));
    state.compute = compute;
    state
}

/// Adds to an out-of-memory error the numbers that explain it.
fn with_numbers(error: EngineError, spec: &TrainSpec) -> EngineError {
    if error.code() != ErrorCode::ResourceExhausted {
        return error;
    }
    let mut error = error
        .with("batch_size", spec.params.batch_size)
        .with("image_shape", spec.params.image_shape.to_vec());
    if let Some(bytes) = memory::resident() {
        error = error.with("resident_bytes", bytes);
    }
    if let Some(bytes) = memory::available() {
        error = error.with("available_bytes", bytes);
    }
    error
}
