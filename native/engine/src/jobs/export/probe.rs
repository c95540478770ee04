//! A few images and what the engine makes of them, so that another runtime can be compared with the engine.

use std::io::{self, Write};
use std::path::Path;

use oarlock_datasets::Depth;
use oarlock_files as files;
use oarlock_jobs::Probe;
use tch::{Kind, Tensor};

use super::Folded;
use super::images::Images;
use crate::Result;
use crate::exec::{Network, download, network_input};

/// Name of the file.
pub(super) const FILE: &str = "probe.bin";
/// Images at 224 × 224; fewer if they are larger.
const IMAGES: usize = 8;

/// Writes the first validation images that can be read, or noise where there are none, and their probabilities.
///
/// # Errors
/// Out of memory; a file that cannot be written.
pub(super) fn write(network: &Folded, data: Option<&Images>, dir: &Path) -> Result<Probe> {
    let [height, width] = network.how.size().map(|s| s as usize);
    let wanted = (IMAGES * 224 * 224 / (height * width)).clamp(1, IMAGES);
    let input = data.and_then(|data| pictures(data, wanted, network));
    let (n, input) = match input {
        Some(found) => found,
        None => (wanted, noise(network, [wanted, height, width])?),
    };
    let inference = Network::for_inference(network.graph, network.weights, network.placement)?;
    // Over the classes, of every pixel where the answer is a map.
    let scores = inference
        .forward(&input, false)?
        .f_softmax(1, Kind::Float)?;
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

/// The first images; `None` when none can be read.
fn pictures(data: &Images, wanted: usize, network: &Folded) -> Option<(usize, Tensor)> {
    let found = data.first(wanted, network).ok()?.each.next()?.ok()?;
    (found.0 > 0).then_some(found)
}

/// Every value of each channel's range, the same at each call.
fn noise(network: &Folded, [n, h, w]: [usize; 3]) -> Result<Tensor> {
    let how = network.how;
    let channels = how.mean.len();
    let mut state = 1u32;
    let mut samples = Vec::with_capacity(n * h * w * channels * 4);
    for i in 0..n * h * w * channels {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let share = (state >> 24) as f32 / 255.0;
        let range = how.range.get(i % channels);
        let (low, high) = range.copied().unwrap_or((0.0, 255.0));
        samples.extend((low + share * (high - low)).to_ne_bytes());
    }
    let shape = [n, h, w, channels];
    network_input(&samples, Depth::F32, shape, how, network.placement)
}
