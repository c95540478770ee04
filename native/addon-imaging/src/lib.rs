//! Images and datasets for Node, without libtorch: loaded by the API process's own thread pool.
//!
//! A failing call throws an `Error` whose message is a `JobError` as JSON; jobs return a failed
//! outcome instead. Structured answers are JSON texts.

mod box_pictures;
mod label_maps;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use napi::bindgen_prelude::{Buffer, Either, FnArgs, Function};
use napi::{Error, Result};
use napi_derive::napi;
use oarlock_datasets::{
    ClassifyPipeline, Index, Loader, LoaderConfig, PreviewOptions, Sample, SplitOptions,
};
use oarlock_imaging::{
    Limits, decode_file, encode_jpeg, fit_within, inspect, read_file, resize_smooth,
};
use oarlock_jobs::{ErrorCode, JobError, JobEvent, JobOutcome, JobSpec, TaskType};
use oarlock_weights::pickle::{self, Profile};
use serde_json::{Value, json};

/// Pickles of a workspace are small; anything larger is refused before it is read.
const PICKLE_BYTES: u64 = 512 << 20;

fn thrown(error: &JobError) -> Error {
    Error::from_reason(serde_json::to_string(error).unwrap_or_else(|_| error.message.clone()))
}

fn failure(error: impl Into<JobError>) -> Error {
    thrown(&error.into())
}

/// Sets the process-wide sink of job events; it runs on the calling thread's event loop.
#[napi(
    catch_unwind,
    ts_args_type = "callback: (jobId: string, eventJson: string) => void"
)]
pub fn subscribe(callback: Function<'_, FnArgs<(String, String)>, ()>) -> Result<()> {
    oarlock_addon_support::subscribe(&callback)
}

/// Runs an import (`JobSpec` as JSON) to its end on the calling thread and returns a `JobOutcome` as JSON.
#[napi(catch_unwind)]
pub fn run_job(job_id: String, spec_json: String) -> String {
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&cancel);
    let body = |spec: JobSpec| match spec {
        JobSpec::Import(spec) => {
            let events = |event: JobEvent| oarlock_addon_support::emit(&job_id, &event);
            match oarlock_datasets::import(&spec, &events, &cancel) {
                Ok(mut result) => {
                    result.details = summary(&result.details);
                    JobOutcome::Import(result)
                }
                Err(error) => JobOutcome::Failed(error),
            }
        }
        _ => JobOutcome::Failed(JobError::new(
            ErrorCode::Unsupported,
            "jobs of this kind run in a compute host",
        )),
    };
    oarlock_addon_support::run(
        &job_id,
        &spec_json,
        move || stop.store(true, Ordering::Release),
        body,
    )
}

/// What crosses to the server's own thread: the labels, and the file lists as counts. The whole object
/// is in `statis.json`; parsing megabytes of it there would hold up requests.
fn summary(details: &Value) -> Value {
    let count = |name: &str| details[name].as_array().map_or(0, Vec::len);
    json!({
        "labels": details["labels"],
        "train_files": count("train_files"),
        "val_files": count("val_files"),
        "test_files": count("test_files"),
    })
}

/// Asks a running job to stop (`stop`); false when there is no such job.
#[napi(catch_unwind)]
pub fn control(job_id: String, command: String) -> bool {
    oarlock_addon_support::control(&job_id, &command)
}

/// Header of an image by path or content: `{format, width, height, channels, depth}`. The whole
/// image is not decoded, but its size is checked against the limits.
#[napi(catch_unwind)]
pub fn inspect_image(image: Either<String, Buffer>) -> Result<String> {
    let limits = Limits::default();
    let header = match &image {
        Either::A(path) => {
            let bytes = read_file(Path::new(path), &limits).map_err(failure)?;
            inspect(&bytes)
        }
        Either::B(bytes) => inspect(bytes),
    };
    let info = header.map_err(failure)?;
    limits.check(&info).map_err(failure)?;
    let (width, height) = info.display_size();
    Ok(json!({
        "format": info.format.name(),
        "width": width,
        "height": height,
        "channels": info.channels,
        "depth": info.depth,
    })
    .to_string())
}

/// A JPEG of the image, at most `max_side` on its longer side and never enlarged.
#[napi(catch_unwind)]
pub fn thumbnail(path: String, max_side: u32) -> Result<Buffer> {
    let side = (max_side as usize).clamp(1, 4096);
    let image =
        decode_file(Path::new(&path), &Limits::default(), Some((side, side))).map_err(failure)?;
    let (width, height) = fit_within(image.width(), image.height(), side);
    let small = resize_smooth(&image, width, height).map_err(failure)?;
    Ok(encode_jpeg(&small, 85).map_err(failure)?.into())
}

/// A PNG of a picture of an imported dataset with its labels drawn in. `options` is a `PreviewOptions`
/// as JSON.
#[napi(catch_unwind)]
pub fn draw_labels(
    root: String,
    task_type: String,
    picture: String,
    options: String,
) -> Result<Buffer> {
    let task_type = read_type(&task_type)?;
    let options: PreviewOptions = serde_json::from_str(&options).map_err(|e| {
        let message = format!("the options cannot be read: {e}");
        thrown(&JobError::new(ErrorCode::InvalidArgument, message))
    })?;
    oarlock_datasets::draw_labels(Path::new(&root), task_type, &picture, &options)
        .map(Buffer::from)
        .map_err(|e| thrown(&e))
}

/// Splits an imported dataset by fractions, writes its list files and `statis.json`, and returns
/// `{labels, train, val, test}` (counts). Without a seed every call gives another order.
#[napi(catch_unwind)]
pub fn split_dataset(
    root: String,
    task_type: String,
    remote: bool,
    val_split: f64,
    test_split: f64,
    seed: Option<f64>,
    stratify: Option<bool>,
) -> Result<String> {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64)
    };
    let options = SplitOptions {
        val_split,
        test_split,
        seed: seed.map_or_else(now, |s| s as u64),
        stratify: stratify.unwrap_or(false),
    };
    let root = Path::new(&root);
    let task_type = read_type(&task_type)?;
    let (index, _) =
        oarlock_datasets::read_index(root, task_type, remote).map_err(|e| thrown(&e))?;
    let index = oarlock_datasets::split(&index, options).map_err(|e| thrown(&e))?;
    oarlock_datasets::write_split(root, task_type, &index).map_err(|e| thrown(&e))?;
    Ok(counts(&index))
}

/// The `details` object of a dataset folder: of a classification set derived from its folders and list
/// files, of others as stored, or read anew.
#[napi(catch_unwind)]
pub fn dataset_details(root: String, task_type: String, remote: bool) -> Result<String> {
    let task_type = read_type(&task_type)?;
    let (index, _) = oarlock_datasets::read_index(Path::new(&root), task_type, remote)
        .map_err(|e| thrown(&e))?;
    Ok(index.details().to_string())
}

/// An instance segmentation annotation, `Annotations/<stem>.npy` of a dataset, as JSON: `h`, `w`,
/// `gt_class`, `gt_bbox` (x1, y1, x2, y2), `gt_poly`.
#[napi(catch_unwind)]
pub fn read_annotation(path: String) -> Result<String> {
    oarlock_datasets::read_annotation(Path::new(&path)).map_err(|e| thrown(&e))
}

/// A task family by its name on the wire.
fn read_type(name: &str) -> Result<TaskType> {
    serde_json::from_value(Value::from(name)).map_err(|_| {
        let message = format!("there is no type {name}");
        thrown(&JobError::new(ErrorCode::InvalidArgument, message))
    })
}

fn counts(index: &Index) -> String {
    json!({
        "labels": index.labels.len(),
        "train": index.train.len(),
        "val": index.val.len(),
        "test": index.test.len(),
    })
    .to_string()
}

/// Validation images of a dataset as a network's input, in the order of their list; for measuring exported models.
#[napi]
pub struct ValidationBatches {
    loader: Loader<ClassifyPipeline>,
}

/// Images of one size and their classes.
#[napi(object)]
pub struct ImageBatch {
    /// count·crop·crop·3 bytes, RGB.
    pub pixels: Buffer,
    /// Class ids.
    pub labels: Vec<u32>,
    /// Images.
    pub count: u32,
}

#[napi]
impl ValidationBatches {
    /// Reads the lists of the dataset in `root`. `threads` 0 = all cores.
    ///
    /// # Errors
    /// `not_ready` when the dataset has no validation images.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        root: String,
        resize_short: u32,
        crop: u32,
        batch_size: u32,
        threads: u32,
    ) -> Result<Self> {
        let root = Path::new(&root);
        let (index, _) = oarlock_datasets::read_index(root, TaskType::Classification, false)
            .map_err(|e| thrown(&e))?;
        let sample = |&place: &usize| {
            let entry = &index.files[place];
            let label = *entry.classes.first()? as i64;
            let path = root.join(&entry.picture);
            Some(Sample { path, label })
        };
        let samples: Vec<Sample> = index.val.iter().filter_map(sample).collect();
        if samples.is_empty() {
            let what = "the dataset has no validation images";
            return Err(thrown(&JobError::new(ErrorCode::NotReady, what)));
        }
        let loader = Loader::new(LoaderConfig {
            threads: threads as usize,
            ..LoaderConfig::in_order(
                Arc::new(samples),
                batch_size as usize,
                ClassifyPipeline::Eval {
                    crop: (crop as usize, crop as usize),
                    resize_short: resize_short as usize,
                },
            )
        });
        let loader = loader.map_err(|e| failure(JobError::from(e)))?;
        Ok(Self { loader })
    }

    /// Number of batches.
    #[napi(getter, catch_unwind)]
    pub fn batches(&self) -> u32 {
        self.loader.batches() as u32
    }

    /// The next batch, waiting for it; null after the last. Images that cannot be read are left out.
    ///
    /// # Errors
    /// `invalid_data` when no image can be read.
    #[napi(catch_unwind, js_name = "next")]
    pub fn next_batch(&mut self) -> Result<Option<ImageBatch>> {
        let Some(batch) = self.loader.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(|e| failure(JobError::from(e)))?;
        let len = batch.n * batch.h * batch.w * 3;
        Ok(Some(ImageBatch {
            pixels: batch.images[..len].into(),
            labels: batch.targets.iter().map(|&l| l as u32).collect(),
            count: batch.n as u32,
        }))
    }
}

/// Content of a pickle of a PaddleX workspace as plain JSON; `profile` is `statis`, `params`,
/// `eval_res`, `sensitivities_xy` or `sensi_data`. Nothing in the file is executed.
#[napi(catch_unwind)]
pub fn read_pickle(path: String, profile: String) -> Result<String> {
    let Some(profile) = Profile::of_file(&profile) else {
        let message = format!("there is no pickle profile {profile}");
        return Err(thrown(&JobError::new(ErrorCode::InvalidArgument, message)));
    };
    let size = std::fs::metadata(&path).map_err(failure)?.len();
    if size > PICKLE_BYTES {
        let message =
            format!("{size} bytes are more than a pickle of a workspace may have ({PICKLE_BYTES})");
        return Err(thrown(&JobError::new(
            ErrorCode::ResourceExhausted,
            message,
        )));
    }
    let bytes = std::fs::read(&path).map_err(failure)?;
    let value = pickle::read(&bytes, profile)
        .map_err(|error| thrown(&JobError::new(ErrorCode::InvalidData, error.to_string())))?;
    Ok(value.to_string())
}
