//! A few images and what the engine makes of them, so that another runtime can be compared with the engine.

use std::io::{self, Write};
use std::path::Path;

use oarlock_datasets::{Depth, DetectSample};
use oarlock_files as files;
use oarlock_imaging::{Limits, read_file};
use oarlock_jobs::Probe;
use tch::{Kind, Tensor};

use super::Folded;
use super::images::Images;
use crate::Result;
use crate::detect::{Frame, detect};
use crate::exec::{Network, download, network_input};
use crate::train::detector::params::eval_pipeline;
use crate::train::detector::score::frame;

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
    let inference = Network::for_inference(network.graph, network.weights, network.placement)?;
    let (n, parts) = if network.graph.head.is_some() {
        let found = match data {
            Some(Images::Boxes(data)) => framed(network, &data.split.val, wanted)?,
            _ => None,
        };
        let whole = Frame {
            full: (width, height),
            shown: (width, height),
        };
        let (input, frames) = match found {
            Some(found) => found,
            None => (
                noise(network, [wanted, height, width])?,
                vec![whole; wanted],
            ),
        };
        let scores = detections(&inference, &input, &frames)?;
        (frames.len(), [download(&input)?.data, scores])
    } else {
        let (n, input) = match data.and_then(|data| pictures(data, wanted, network)) {
            Some(found) => found,
            None => (wanted, noise(network, [wanted, height, width])?),
        };
        // Over the classes, of every pixel where the answer is a map.
        let scores = inference.forward(&input, false)?;
        let scores = scores.f_softmax(1, Kind::Float)?;
        (n, [download(&input)?.data, download(&scores)?.data])
    };
    let path = dir.join(FILE);
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
    (found.images > 0).then_some((found.images, found.values))
}

/// The first pictures in inputs of the exported size, padded with zeros; `None` when none can be read.
fn framed(
    network: &Folded,
    samples: &[DetectSample],
    wanted: usize,
) -> Result<Option<(Tensor, Vec<Frame>)>> {
    let [height, width] = network.how.size().map(|s| s as usize);
    let pipeline = eval_pipeline(network.how)?;
    let (mut inputs, mut frames) = (Vec::new(), Vec::new());
    for sample in samples {
        let read = read_file(&sample.path, &Limits::default())
            .and_then(|bytes| pipeline.eval_within(&bytes, (height, width)));
        let Ok((image, target)) = read else { continue };
        let (w, h) = target.shown;
        let input = network_input(
            image.data(),
            Depth::U8,
            [1, h, w, 3],
            network.how,
            network.placement,
        )?;
        let missing = [0, (width - w) as i64, 0, (height - h) as i64];
        inputs.push(input.f_constant_pad_nd(missing)?);
        frames.push(frame(&target));
        if inputs.len() == wanted {
            break;
        }
    }
    if inputs.is_empty() {
        return Ok(None);
    }
    Ok(Some((Tensor::f_cat(&inputs, 0)?, frames)))
}

/// Of each image, which are seen alone: height and width of the picture and of what is shown of it, the number of
/// detections, their scores.
fn detections(network: &Network, input: &Tensor, frames: &[Frame]) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for (at, frame) in (0..).zip(frames) {
        let found = detect(network, &input.f_narrow(0, at, 1)?, &[*frame])?;
        let found: Vec<f32> = found.iter().flatten().map(|one| one.score).collect();
        let (full, shown) = (frame.full, frame.shown);
        let sizes = [full.1, full.0, shown.1, shown.0, found.len()];
        values.extend(sizes.map(|v| v as f32));
        values.extend(found);
    }
    Ok(values)
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
