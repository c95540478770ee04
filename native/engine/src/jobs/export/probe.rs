//! A few images and the engine's scores for them, so that another runtime can be compared with the engine.

use std::io::{self, Write};
use std::path::Path;

use oarlock_datasets::{ClassifyPipeline, Loader, LoaderConfig, Sample};
use oarlock_files as files;
use oarlock_jobs::Probe;
use tch::Kind;

use super::{Folded, Input};
use crate::Result;
use crate::exec::{Network, download, normalized_input};
use crate::train::data::DataSplit;

/// Name of the file.
pub(super) const FILE: &str = "probe.bin";
/// Images at 224 × 224; fewer if they are larger.
const IMAGES: usize = 8;

/// Writes the first validation images that can be read, or noise where there are none, and their probabilities.
///
/// # Errors
/// Out of memory; a file that cannot be written.
pub(super) fn write(
    network: &Folded,
    data: Option<&DataSplit<Sample>>,
    dir: &Path,
) -> Result<Probe> {
    let p = network.input()?;
    let side = p.crop as usize;
    let wanted = (IMAGES * 224 * 224 / (side * side)).clamp(1, IMAGES);
    let pixels = data
        .and_then(|data| pictures(&data.val, wanted, p, network.threads))
        .unwrap_or_else(|| noise(wanted * side * side * 3));
    let n = pixels.len() / (side * side * 3);
    let input = normalized_input(&pixels, [n, side, side], p.mean, p.std, network.placement)?;
    let inference = Network::for_inference(network.graph, network.weights, network.placement)?;
    let scores = inference
        .forward(&input, false)?
        .f_softmax(-1, Kind::Float)?;
    let path = dir.join(FILE);
    let parts = [download(&input)?.data, download(&scores)?.data];
    files::write(&path, |file| -> io::Result<()> {
        for value in parts.iter().flatten() {
            file.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    })?;
    Ok(Probe {
        path: path.display().to_string(),
        images: n as u32,
    })
}

/// Pixels of the first images; `None` when none can be read.
fn pictures(samples: &[Sample], wanted: usize, p: &Input, threads: usize) -> Option<Vec<u8>> {
    let first = samples.iter().take(wanted).cloned().collect();
    let batch = Loader::new(eval_loader(first, wanted, p, threads))
        .ok()?
        .next()?
        .ok()?;
    (batch.n > 0).then(|| batch.images[..batch.n * batch.h * batch.w * 3].to_vec())
}

/// Images in their order, with the validation transforms; unreadable ones are left out.
pub(super) fn eval_loader(
    samples: Vec<Sample>,
    batch_size: usize,
    p: &Input,
    threads: usize,
) -> LoaderConfig<ClassifyPipeline> {
    LoaderConfig {
        samples: samples.into(),
        batch_size,
        pipeline: ClassifyPipeline::Eval {
            crop: (p.crop as usize, p.crop as usize),
            resize_short: p.short as usize,
        },
        shuffle_seed: None,
        epoch: 0,
        start_batch: 0,
        drop_last: false,
        threads,
        prefetch: 2,
        cache: None,
        memory: None,
        max_corrupt_fraction: 1.0,
    }
}

/// Bytes of every value, the same at each call.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}
