//! Measures what each group of layers costs at each ratio, and runs only what changes.
//!
//! Batch norms are folded once. The values at a cut through the network ([`plan_cuts`]) are kept for all images, as far
//! as memory allows, and move along from the front of the network to its end. For each ratio the filters that go are cut
//! out of the layers of the group and of their readers; all other weights, packed for the convolution kernels, are shared
//! with the unpruned network.

use std::path::Path;
use std::time::Instant;

use oarlock_graph::{
    CutStep, Graph, Keep, NodeId, keep_for_ratio, kept_channels, plan_cuts, prune_changes,
};
use tch::Device;

use super::evaluation::Evaluation;
use super::held::Held;
use super::subject::Subject;
use super::table::Table;
use super::{RATIOS, relative_loss, unusable};
use crate::exec::select_channels;
use crate::runtime::{self, Placement, memory};
use crate::{EngineError, Result};

/// How far an analysis has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Evaluations done, those of an earlier run included.
    pub done: u64,
    /// Evaluations in all.
    pub total: u64,
    /// Seconds left, by the multiply–accumulates that are still to run.
    pub eta: Option<f64>,
}

/// What an analysis tells and asks while it runs.
pub trait Watcher {
    /// Called before each batch; an error ends the analysis.
    ///
    /// # Errors
    /// `Cancelled` when it shall stop.
    fn tick(&self) -> Result<()>;

    /// Called after each evaluation.
    fn progress(&mut self, progress: Progress);
}

/// Bytes that kept values may take in all: half of what is free.
pub fn memory_budget(placement: Placement) -> u64 {
    let free = match placement.device {
        Device::Cuda(ordinal) => {
            let gpus = runtime::devices().gpus;
            let own = gpus.iter().find(|gpu| gpu.index as usize == ordinal);
            own.map_or(0, |gpu| gpu.memory_free_mb << 20)
        }
        _ => memory::available().unwrap_or(0),
    };
    free / 2
}

/// Measures all groups that `table` does not have yet, and writes it to `path` after each. `budget` is the number of bytes
/// that kept values may take in all.
///
/// # Errors
/// What `watcher` says; unreadable data; out of memory; a table that cannot be written. The groups that are done are on
/// disk then.
pub fn analyse(
    subject: &Subject,
    evaluation: &mut dyn Evaluation,
    table: &mut Table,
    path: &Path,
    budget: u64,
    watcher: &mut dyn Watcher,
) -> Result<()> {
    let mut analysis = Analysis {
        subject,
        evaluation,
        watcher,
        outputs: subject.outputs(),
        held: Held::default(),
        pace: Pace::new(0, 0, 0),
    };
    // Also packs the weights, which the pruned networks share.
    let base = analysis.base()?;
    if table.sensitivities.is_empty() {
        (table.base, table.images) = (base, analysis.evaluation.set().count());
    }
    let all = &subject.groups.groups;
    let open: Vec<_> = all
        .iter()
        .filter(|g| !table.sensitivities.contains_key(&g.name))
        .cloned()
        .collect();
    let runs = RATIOS.len() as u64;
    let plan = plan_cuts(
        &subject.graph,
        &open,
        analysis.evaluation.image_size(),
        budget / analysis.evaluation.set().count().max(1) as u64,
        runs as u32,
    )
    .map_err(unusable)?;
    let done = (all.len() - open.len()) as u64 * runs;
    analysis.pace = Pace::new(done, all.len() as u64 * runs, plan.macs);
    analysis.tell();
    for step in &plan.steps {
        let losses = analysis.group(step, table.base)?;
        table.sensitivities.insert(step.group.clone(), losses);
        let place = |name: &str| all.iter().position(|g| g.name == name);
        table
            .sensitivities
            .sort_by(|a, _, b, _| place(a).cmp(&place(b)));
        table.write(path)?;
    }
    Ok(())
}

struct Analysis<'a> {
    subject: &'a Subject,
    evaluation: &'a mut dyn Evaluation,
    watcher: &'a mut dyn Watcher,
    outputs: Vec<NodeId>,
    held: Held,
    pace: Pace,
}

impl Analysis<'_> {
    /// The metric of the unpruned network.
    fn base(&mut self) -> Result<f64> {
        let (network, watcher) = (&self.subject.network, &*self.watcher);
        self.evaluation.measure(&mut |batch| {
            watcher.tick()?;
            network.forward_from(&[], Some(&(batch.input)()?), &self.outputs)
        })
    }

    fn tell(&mut self) {
        self.watcher.progress(self.pace.progress());
    }

    /// (ratio, loss) of one group.
    fn group(&mut self, step: &CutStep, base: f64) -> Result<Vec<(f64, f64)>> {
        self.hold(&step.keep)?;
        self.pace.ran(step.prepare_macs);
        let all = &self.subject.groups.groups;
        let at = all.iter().position(|g| g.name == step.group);
        let at = at.ok_or_else(|| EngineError::internal("a plan with an unknown group"))?;
        let scores = &self.subject.scores[at];
        // Small groups keep the same units at several ratios.
        let mut last = ((0..all[at].size()).collect::<Vec<_>>(), base);
        let mut losses = Vec::with_capacity(RATIOS.len());
        for ratio in RATIOS {
            let units = keep_for_ratio(scores, ratio, None);
            if units != last.0 {
                let keep = Keep::from([(step.group.clone(), units.clone())]);
                last = (units, self.evaluate(step, &keep)?);
            }
            losses.push((ratio, relative_loss(base, last.1)));
            self.pace.ran(step.macs);
            self.pace.done += 1;
            self.tell();
        }
        Ok(losses)
    }

    /// Makes the kept values those of `nodes`, batch by batch.
    fn hold(&mut self, nodes: &[NodeId]) -> Result<()> {
        if self.held.nodes == nodes {
            return Ok(());
        }
        let (subject, watcher, held) = (self.subject, &*self.watcher, &mut self.held);
        let needs_image = needs_image(&subject.graph, &held.nodes, nodes);
        let known = held.nodes.clone();
        self.evaluation.set().visit(&mut |batch| {
            watcher.tick()?;
            let image = needs_image.then(|| (batch.input)()).transpose()?;
            let values = held.of(batch, &known)?;
            let values = subject
                .network
                .forward_from(&values, image.as_ref(), nodes)?;
            if batch.number == held.batches.len() {
                held.batches.push(values);
            } else {
                held.batches[batch.number] = values;
            }
            Ok(())
        })?;
        held.nodes = nodes.to_vec();
        Ok(())
    }

    /// The metric with the units of `keep`.
    fn evaluate(&mut self, step: &CutStep, keep: &Keep) -> Result<f64> {
        let Subject {
            graph,
            weights,
            groups,
            network,
            ..
        } = self.subject;
        let (pruned, changes) = prune_changes(graph, weights, groups, keep).map_err(unusable)?;
        let needs_image = needs_image(graph, &step.usable, &self.outputs);
        let kept = kept_channels(graph, groups, keep, &step.usable).map_err(unusable)?;
        let network = network.variant(pruned, &changes)?;
        let (watcher, held) = (&*self.watcher, &self.held);
        self.evaluation.measure(&mut |batch| {
            watcher.tick()?;
            let mut values = held.of(batch, &step.usable)?;
            for (id, value) in &mut values {
                let at = step.usable.iter().position(|node| node == id);
                if let Some(channels) = at.map(|at| &kept[at])
                    && value.size().get(1).copied() != i64::try_from(channels.len()).ok()
                {
                    *value = select_channels(value, channels)?;
                }
            }
            let image = needs_image.then(|| (batch.input)()).transpose()?;
            network.forward_from(&values, image.as_ref(), &self.outputs)
        })
    }
}

/// Whether making `wanted` from the values `kept` takes the image.
fn needs_image(graph: &Graph, kept: &[NodeId], wanted: &[NodeId]) -> bool {
    let run = oarlock_graph::nodes_to_run(graph, kept, wanted);
    run.iter()
        .any(|&id| matches!(graph.nodes[id].op, oarlock_graph::Op::Input { .. }))
}

/// Evaluations and multiply–accumulates done, and the time they took.
struct Pace {
    started: Instant,
    done: u64,
    total: u64,
    macs: u64,
    total_macs: u64,
}

impl Pace {
    fn new(done: u64, total: u64, total_macs: u64) -> Self {
        Self {
            started: Instant::now(),
            done,
            total,
            macs: 0,
            total_macs,
        }
    }

    fn ran(&mut self, macs: u64) {
        self.macs += macs;
    }

    fn progress(&self) -> Progress {
        let left = self.total_macs.saturating_sub(self.macs) as f64;
        let seconds = self.started.elapsed().as_secs_f64();
        let known = self.macs > 0 || self.total_macs == 0;
        Progress {
            done: self.done,
            total: self.total,
            eta: known.then(|| left * seconds / self.macs.max(1) as f64),
        }
    }
}
