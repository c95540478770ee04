//! The predict job: what is in images, and a picture of each.
//!
//! Inference is fp32 with folded batch norms, the same arithmetic as the exported model; images go
//! through the validation transforms of the checkpoint.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oarlock_datasets::ClassifyPipeline;
use oarlock_files as files;
use oarlock_imaging::{
    ClassScore, Image, ImageError, Limits, Rng, classification_picture, decode, encode_png,
    fit_within, plan, read_file, resize_smooth,
};
use oarlock_jobs::{
    DeviceSpec, ErrorCode, JobEvent, Precision, PredictImage, PredictItem, PredictResult,
    PredictSpec, TaskType,
};
use serde_json::{Value, json};
use tch::Kind;

use super::model::{self, Ready};
use super::{detect_picture, segment_picture};
use crate::exec::{download, normalized_input};
use crate::records::Resize;
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result, runtime};

/// Pixels of one batch: sixteen images of 224 × 224.
const BATCH_PIXELS: usize = 16 * 224 * 224;

/// Classes that are listed, best first; a model with fewer lists all.
const LISTED: usize = 10;

/// Classes on the picture.
const DRAWN: usize = 5;

/// Long side of the image on the picture; larger ones are shrunk at once to spare memory.
const VIEW: usize = 640;

/// Images beyond this many pixels are decoded one at a time, whatever the number of threads.
const HUGE: u64 = 24_000_000;

/// Runs the job.
///
/// # Errors
/// What opening the checkpoint says; `InvalidData` when none of the images can be read (single
/// unreadable images are errors of their items); `NonFinite` when the model gives NaN; a full disk;
/// `Cancelled`.
pub fn run(spec: &PredictSpec, context: JobContext) -> Result<PredictResult> {
    if spec.images.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            "there are no images to predict",
        ));
    }
    Heart::default().beat_during(context.sink, |heart| predict(spec, context, heart))
}

fn predict(spec: &PredictSpec, context: JobContext, heart: &Heart) -> Result<PredictResult> {
    heart.stage("loading");
    let device = DeviceSpec {
        precision: Precision::Fp32,
        ..spec.device.clone()
    };
    let placement = runtime::place(&device)?;
    let model = model::ready(&spec.source, placement)?;
    model::of_type(&model.yml, spec.task_type)?;
    context.sink.emit(JobEvent::Started {
        device: placement.device_name(),
        precision: placement.precision_name().to_owned(),
        notes: Vec::new(),
    });
    heart.stage("predicting");
    let total = spec.images.len() as u64;
    let progress = |done: usize| {
        let stage = "predicting".to_owned();
        context.sink.emit(JobEvent::Progress {
            done: done as u64,
            total,
            stage,
            eta: None,
        });
    };
    progress(0);
    let [height, width] = model.yml.preprocessing.size().map(|s| s as usize);
    let batch = match spec.task_type {
        TaskType::Classification => (BATCH_PIXELS / (height * width)).clamp(1, 32),
        _ => 1,
    };
    let threads = match spec.device.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    };
    let mut items = Vec::with_capacity(spec.images.len());
    for images in spec.images.chunks(batch) {
        context.cancel.check()?;
        let out_dir = Path::new(&spec.out_dir);
        match spec.task_type {
            TaskType::Classification => {
                items.extend(predict_batch(images, &model, out_dir, threads)?);
            }
            TaskType::Segmentation => {
                let tick = || -> Result<()> {
                    heart.tick();
                    context.cancel.check()
                };
                for image in images {
                    items.push(segment_picture::predict(image, &model, out_dir, &tick)?);
                }
            }
            TaskType::Detection | TaskType::InstanceSegmentation => {
                let least = spec.score_threshold;
                for image in images {
                    items.push(detect_picture::predict(image, &model, out_dir, least)?);
                }
            }
        }
        heart.tick();
        progress(items.len());
    }
    if let Some(first) = items
        .first()
        .filter(|_| items.iter().all(|i| i.picture.is_none()))
    {
        let reason = first.error.as_deref().unwrap_or("unreadable");
        let what = match items.len() {
            1 => format!("the image cannot be used: {reason}"),
            n => format!("none of the {n} images can be used; the first: {reason}"),
        };
        return Err(
            EngineError::new(ErrorCode::InvalidData, what).with("path", first.source.clone())
        );
    }
    Ok(PredictResult { items })
}

/// An image ready for the network and for the picture.
struct Prepared {
    /// crop × crop × 3 bytes.
    input: Vec<u8>,
    view: Image,
}

fn predict_batch(
    images: &[PredictImage],
    model: &Ready,
    out_dir: &Path,
    threads: usize,
) -> Result<Vec<PredictItem>> {
    let Resize::ShortCrop { short, crop } = model.yml.preprocessing.resize else {
        return Err(EngineError::internal("a classifier crops squares"));
    };
    let (short, crop) = (short as usize, crop as usize);
    let prepared = parallel(images, threads, |PredictImage::File { path, .. }| {
        prepare(Path::new(path), crop, short)
    });
    let mut pixels = Vec::new();
    for image in prepared.iter().flatten() {
        pixels.extend_from_slice(&image.input);
    }
    let n = prepared.iter().flatten().count();
    let classes = model.yml.labels.len();
    let scores = if n == 0 {
        Vec::new()
    } else {
        infer(model, &pixels, [n, crop, crop])?
    };
    drop(pixels);

    // One row of scores for each image that could be read.
    let mut rows = scores.chunks_exact(classes);
    let with_scores: Vec<_> = images
        .iter()
        .zip(prepared)
        .map(|(image, prepared)| {
            let scores = if prepared.is_ok() {
                rows.next().unwrap_or_default()
            } else {
                &[]
            };
            (image, prepared, scores)
        })
        .collect();
    parallel(
        &with_scores,
        threads,
        |(PredictImage::File { path, output, .. }, prepared, scores)| {
            let mut item = PredictItem {
                source: path.clone(),
                picture: None,
                result: Value::Null,
                error: None,
            };
            match prepared {
                Err(error) => item.error = Some(error.to_string()),
                Ok(prepared) => {
                    let ranked = rank(scores);
                    let picture = place_picture(out_dir, output)?;
                    draw(&prepared.view, &ranked, &model.yml.labels, &picture)?;
                    item.result = listing(&ranked, &model.yml.labels);
                    item.picture = Some(picture);
                }
            }
            Ok(item)
        },
    )
    .into_iter()
    .collect()
}

/// Reads an image once: as network input and as a view of bounded size.
fn prepare(
    path: &Path,
    crop: usize,
    resize_short: usize,
) -> std::result::Result<Prepared, ImageError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let limits = Limits::default();
    let bytes = read_file(path, &limits)?;
    let plan = plan(&bytes, &limits, Some((VIEW, VIEW)))?;
    let huge = plan.info.width as u64 * plan.info.height as u64 > HUGE;
    let _turn = huge.then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
    let pipeline = ClassifyPipeline::Eval {
        crop: (crop, crop),
        resize_short,
    };
    let mut input = vec![0; crop * crop * 3];
    // Nothing of this pipeline is random.
    pipeline.run_bytes(&bytes, &mut Rng::of(&[]), &mut input)?;
    let view = decode(&bytes, &limits, Some((VIEW, VIEW)))?;
    let (width, height) = fit_within(view.width(), view.height(), VIEW);
    let view = if (width, height) == (view.width(), view.height()) {
        view
    } else {
        resize_smooth(&view, width, height)?
    };
    Ok(Prepared { input, view })
}

/// Probabilities, images × classes.
fn infer(model: &Ready, pixels: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
    let (mean, std) =
        model.yml.preprocessing.rgb().ok_or_else(|| {
            EngineError::new(ErrorCode::Unsupported, "classifiers take RGB images")
        })?;
    let network = model.network();
    let input = normalized_input(pixels, shape, mean, std, network.placement())?;
    let scores = network.forward(&input, false)?.f_softmax(-1, Kind::Float)?;
    let scores = download(&scores)?;
    if scores.shape != [shape[0], model.yml.labels.len()] {
        return Err(EngineError::internal(format!(
            "the network gives {:?} for {} images of {} classes",
            scores.shape,
            shape[0],
            model.yml.labels.len()
        )));
    }
    if scores.data.iter().any(|s| !s.is_finite()) {
        return Err(
            EngineError::new(ErrorCode::NonFinite, "the model gives NaN for an image")
                .hint("choose a checkpoint from before the loss became NaN"),
        );
    }
    Ok(scores.data)
}

/// Classes and probabilities, best first; among equals the lower class id.
fn rank(scores: &[f32]) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(LISTED);
    ranked
}

fn listing(ranked: &[(usize, f32)], labels: &[String]) -> Value {
    let entry = |&(id, score): &(usize, f32)| {
        // Seven digits are all a float has; more would only look exact.
        let score = (f64::from(score) * 1e7).round() / 1e7;
        json!({ "category": labels[id], "category_id": id, "score": score })
    };
    ranked.iter().map(entry).collect()
}

/// Where a picture goes; its name must not lead out of the folder.
pub(super) fn place_picture(out_dir: &Path, output: &str) -> Result<String> {
    if output.is_empty() || output.contains(['/', '\\', '\0']) || output == ".." || output == "." {
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            format!("`{output}` is no file name for a picture"),
        ));
    }
    let path = out_dir.join(output);
    path.to_str().map(str::to_owned).ok_or_else(|| {
        EngineError::new(
            ErrorCode::InvalidArgument,
            "the result folder's name is not UTF-8",
        )
    })
}

/// Draws, encodes and writes one picture; it appears under its name only when complete.
fn draw(view: &Image, ranked: &[(usize, f32)], labels: &[String], path: &str) -> Result<()> {
    let rows: Vec<ClassScore> = ranked
        .iter()
        .take(DRAWN)
        .map(|&(id, score)| ClassScore {
            name: labels[id].clone(),
            score,
        })
        .collect();
    let failed = |e: ImageError| EngineError::internal(format!("drawing `{path}`: {e}"));
    let picture = classification_picture(view, &rows).map_err(failed)?;
    let png = encode_png(&picture).map_err(failed)?;
    write_whole(path, &png)
}

/// Writes a file that appears under its name only when complete.
pub(super) fn write_whole(path: &str, bytes: &[u8]) -> Result<()> {
    let path = Path::new(path);
    let temp = files::temp_beside(path);
    // Not synced to disk: after a power cut the prediction is simply run again.
    fs::write(&temp, bytes)
        .and_then(|()| fs::rename(&temp, path))
        .map_err(|e| {
            // Best effort: the error that matters is already in hand.
            let _ = fs::remove_file(&temp);
            EngineError::from(e).with("path", path.display().to_string())
        })
}

/// Maps in order, on up to `threads` threads.
fn parallel<T: Sync, R: Send>(items: &[T], threads: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads < 2 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    let result = f(item);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, r)| r).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_best_first_and_lists_a_few() {
        let labels: Vec<String> = (0..12).map(|i| format!("c{i}")).collect();
        let mut scores = vec![0.01; 12];
        scores[7] = 0.6;
        scores[3] = 0.29;
        let ranked = rank(&scores);
        assert_eq!(ranked.len(), LISTED);
        assert_eq!(
            ranked.iter().map(|r| r.0).take(4).collect::<Vec<_>>(),
            [7, 3, 0, 1]
        );
        let list = listing(&ranked, &labels);
        assert_eq!(
            list[0],
            json!({ "category": "c7", "category_id": 7, "score": 0.6 })
        );
    }

    #[test]
    fn keeps_pictures_inside_their_folder() {
        let dir = Path::new("/w/out");
        assert_eq!(
            place_picture(dir, "a b.png").ok().as_deref(),
            Some("/w/out/a b.png")
        );
        for name in [
            "",
            ".",
            "..",
            "../x.png",
            "/etc/x.png",
            "a\\b.png",
            "a\0.png",
        ] {
            assert!(place_picture(dir, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn maps_in_order_on_any_number_of_threads() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [1, 2, 7, 200] {
            assert_eq!(
                parallel(&items, threads, |i| i * 2),
                items.iter().map(|i| i * 2).collect::<Vec<_>>()
            );
        }
        assert!(parallel(&[] as &[u8], 4, |b| *b).is_empty());
    }
}
