//! Pictures of an imported dataset with their annotations drawn in (`GET /file?did=`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use oarlock_imaging::{
    Image, ImageError, Limits, Raster, channel_statistics, decode, decode_label_map, decode_raster,
    draw_label_map, encode_png, read_file, with_legend,
};
use oarlock_jobs::{ErrorCode, JobError, TaskType};
use serde::Deserialize;

use crate::scan::is_raster_name;
use crate::sets::Channels;

/// How a preview is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PreviewOptions {
    /// Which channels of a remote sensing picture are shown as red, green and blue, from 0.
    pub channels: Option<[usize; 3]>,
    /// Adds the names of the classes at the right (segmentation).
    pub legend: bool,
}

/// The PNG of a picture with its labels, in the colours and sizes of `datasets.md` 7. `picture` is a path
/// relative to the dataset, an absolute path in it, or the name of a file of `JPEGImages`. Errors: a
/// classification set, a picture that the dataset does not have, damaged files.
pub fn draw_labels(
    root: &Path,
    task_type: TaskType,
    picture: &str,
    options: &PreviewOptions,
) -> Result<Vec<u8>, JobError> {
    if task_type == TaskType::Classification {
        let text = "the pictures of a classification dataset carry no labels to draw";
        return Err(JobError::new(ErrorCode::Unsupported, text));
    }
    let root = root.canonicalize()?;
    let known = known(&root)?;
    let (name, annotation) = known.find(&root, picture).ok_or_else(|| {
        let text = format!("the dataset has no annotated picture {picture}");
        JobError::new(ErrorCode::NotFound, text)
            .hint("give a path as in file_info of the dataset's details")
    })?;
    let sources = Sources {
        root: &root,
        name,
        annotation,
        known: &known,
    };
    let drawn = match task_type {
        TaskType::Segmentation => sources.segmentation(options)?,
        _ => {
            return Err(JobError::new(ErrorCode::Unsupported, "not available yet"));
        }
    };
    Ok(encode_png(&drawn)?)
}

/// One picture and what belongs to it.
struct Sources<'a> {
    root: &'a Path,
    name: &'a str,
    annotation: &'a str,
    known: &'a Known,
}

impl Sources<'_> {
    /// The content of a file of the dataset; links out of it are not followed.
    fn bytes(&self, name: &str) -> Result<Vec<u8>, JobError> {
        let path = self.root.join(name);
        let real = path.canonicalize().map_err(|e| named(name, e.into()))?;
        if !real.starts_with(self.root) {
            let text = format!("{name} leads out of the dataset");
            return Err(JobError::new(ErrorCode::ForbiddenPath, text));
        }
        read_file(&real, &Limits::default()).map_err(|e| named(name, e))
    }

    fn segmentation(&self, options: &PreviewOptions) -> Result<Image, JobError> {
        let limits = Limits::default();
        let bytes = self.bytes(self.name)?;
        let image = if is_raster_name(self.name) {
            let raster = decode_raster(&bytes, &limits).map_err(|e| named(self.name, e))?;
            stretched(&raster, Channels::read(self.root).ok(), options.channels)
        } else {
            decode(&bytes, &limits, None)
        };
        drop(bytes);
        let image = image.map_err(|e| named(self.name, e))?;
        let map = decode_label_map(&self.bytes(self.annotation)?, &limits)
            .map_err(|e| named(self.annotation, e))?;
        let drawn = draw_label_map(&image, &map).map_err(|e| named(self.annotation, e))?;
        if !options.legend {
            return Ok(drawn);
        }
        let mut seen = [false; 256];
        map.data()
            .iter()
            .for_each(|id| seen[usize::from(*id)] = true);
        let ids: Vec<u8> = (0..=255).filter(|id| seen[usize::from(*id)]).collect();
        Ok(with_legend(&drawn, &ids, &self.known.labels))
    }
}

fn named(name: &str, error: ImageError) -> JobError {
    let mut job = JobError::from(error);
    job.message = format!("{name}: {}", job.message);
    job.with("path", name)
}

/// Three channels between the low and high percentiles of the set, or of the picture itself.
fn stretched(
    raster: &Raster,
    set: Option<Channels>,
    channels: Option<[usize; 3]>,
) -> Result<Image, ImageError> {
    let count = raster.channels();
    let channels = channels.unwrap_or(match count {
        1 | 2 => [0; 3],
        _ => [0, 1, 2],
    });
    let set = set.filter(|set| set.channels == count);
    let limits: Vec<(f32, f32)> = match set {
        Some(set) => set.clip_min.into_iter().zip(set.clip_max).collect(),
        None => channel_statistics(raster, (2.0, 98.0))
            .into_iter()
            .map(|one| one.percentiles)
            .collect(),
    };
    let limits = channels.map(|c| limits.get(c).copied().unwrap_or((0.0, 1.0)));
    raster.to_image(channels, limits)
}

/// What of `statis.json` a preview needs.
#[derive(Deserialize)]
struct Known {
    labels: Vec<String>,
    file_info: HashMap<String, String>,
}

impl Known {
    /// The picture as the dataset names it, and its annotation.
    fn find(&self, root: &Path, picture: &str) -> Option<(&str, &str)> {
        let picture = picture.replace('\\', "/");
        let inside = Path::new(&picture).strip_prefix(root).ok();
        let relative = inside.and_then(Path::to_str).unwrap_or(&picture);
        let name = picture.rsplit('/').next().unwrap_or(&picture);
        [relative, &format!("JPEGImages/{name}")]
            .into_iter()
            .find_map(|path| self.file_info.get_key_value(path))
            .map(|(name, annotation)| (name.as_str(), annotation.as_str()))
    }
}

/// Statistics read lately, by file, size and time of change: pages show one picture after the other.
type Cached = (PathBuf, u64, Option<SystemTime>, Arc<Known>);
static CACHE: Mutex<Vec<Cached>> = Mutex::new(Vec::new());
const CACHED: usize = 4;

fn known(root: &Path) -> Result<Arc<Known>, JobError> {
    let path = root.join("statis.json");
    let missing = |reason: String| {
        JobError::new(
            ErrorCode::NotReady,
            format!("the statistics of the dataset cannot be read ({reason})"),
        )
        .hint("import the dataset again")
    };
    let meta = std::fs::metadata(&path).map_err(|e| missing(e.to_string()))?;
    let (size, time) = (meta.len(), meta.modified().ok());
    let lock = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hit) = lock()
        .iter()
        .find(|(p, s, t, _)| (p, *s, *t) == (&path, size, time))
    {
        return Ok(Arc::clone(&hit.3));
    }
    let text = std::fs::read(&path).map_err(|e| missing(e.to_string()))?;
    let known: Known = serde_json::from_slice(&text).map_err(|e| missing(e.to_string()))?;
    let known = Arc::new(known);
    let mut cache = lock();
    cache.retain(|(p, ..)| *p != path);
    if cache.len() >= CACHED {
        cache.remove(0);
    }
    cache.push((path, size, time, Arc::clone(&known)));
    Ok(known)
}
