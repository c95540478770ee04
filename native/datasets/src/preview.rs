//! Pictures of an imported dataset with their annotations drawn in (`GET /file?did=`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use oarlock_imaging::{
    BBox, DrawnObject, Image, ImageError, LABEL_PICTURE_SIDE, Limits, Polygon, Raster,
    channel_statistics, decode, decode_label_map, decode_raster, draw_label_map, draw_objects,
    encode_png, fit_within, plan, read_file, with_legend,
};
use oarlock_jobs::{ErrorCode, JobError, TaskType};
use serde::Deserialize;

use crate::instances::Instances;
use crate::scan::is_raster_name;
use crate::sets::Channels;
use crate::voc::VocAnnotation;

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
        TaskType::Detection => sources.detection()?,
        _ => sources.instances()?,
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
    fn bytes(&self, name: &str) -> Result<Vec<u8>, JobError> {
        read_file(&self.inside(name)?, &Limits::default()).map_err(|e| named(name, e))
    }

    /// The real path of a file of the dataset; links out of it are not followed.
    fn inside(&self, name: &str) -> Result<PathBuf, JobError> {
        let path = self.root.join(name);
        let real = path.canonicalize().map_err(|e| named(name, e.into()))?;
        if !real.starts_with(self.root) {
            let text = format!("{name} leads out of the dataset");
            return Err(JobError::new(ErrorCode::ForbiddenPath, text));
        }
        Ok(real)
    }

    /// The picture and its size, decoded no larger than the preview needs.
    fn picture(&self) -> Result<(Image, (usize, usize)), JobError> {
        let limits = Limits::default();
        let bytes = self.bytes(self.name)?;
        let full = plan(&bytes, &limits, None).map_err(|e| named(self.name, e))?;
        let full = full.info.display_size();
        let (w, h) = fit_within(full.0, full.1, LABEL_PICTURE_SIDE);
        let image = decode(&bytes, &limits, Some((w, h))).map_err(|e| named(self.name, e))?;
        Ok((image, full))
    }

    /// Boxes of the full picture drawn into it; things whose class is no label are left out.
    fn draw(
        &self,
        things: impl Iterator<Item = (String, BBox, Vec<Polygon>)>,
    ) -> Result<Image, JobError> {
        let (image, full) = self.picture()?;
        let mut sorted: Vec<&String> = self.known.labels.iter().collect();
        sorted.sort_unstable();
        let (sx, sy) = (
            image.width() as f32 / full.0.max(1) as f32,
            image.height() as f32 / full.1.max(1) as f32,
        );
        let objects: Vec<DrawnObject> = things
            .filter_map(|(name, b, polygons)| {
                let place = sorted.binary_search(&&name).ok()?;
                let scaled = |p: Polygon| p.into_iter().map(|[x, y]| [x * sx, y * sy]).collect();
                Some(DrawnObject {
                    bbox: BBox::new(b.x1 * sx, b.y1 * sy, b.x2 * sx, b.y2 * sy),
                    polygons: polygons.into_iter().map(scaled).collect(),
                    name,
                    colour: place + 1,
                    ..DrawnObject::default()
                })
            })
            .collect();
        draw_objects(&image, &objects, Some(LABEL_PICTURE_SIDE)).map_err(|e| named(self.name, e))
    }

    fn detection(&self) -> Result<Image, JobError> {
        let path = self.inside(self.annotation)?;
        let read = VocAnnotation::read(&path).map_err(|error| {
            let text = format!("{}: {error}", self.annotation);
            JobError::new(ErrorCode::InvalidData, text)
        })?;
        self.draw(
            read.objects
                .into_iter()
                .map(|o| (o.name, o.bbox, Vec::new())),
        )
    }

    fn instances(&self) -> Result<Image, JobError> {
        let read = Instances::read(&self.inside(self.annotation)?)?;
        let things = (0..read.gt_class.len().min(read.gt_bbox.len())).map(|i| {
            let [x1, y1, x2, y2] = read.gt_bbox[i];
            (
                read.gt_class[i].clone(),
                BBox::new(x1, y1, x2, y2),
                read.polygons(i),
            )
        });
        self.draw(things)
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
