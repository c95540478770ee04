//! Annotations of other tools, converted to the format of the dataset's type on import (`datasets.md` 8).

mod coco;
mod find;
mod json;
mod paint;
mod shape;
mod write;
mod yolo;

use std::collections::BTreeMap;
use std::path::Path;

use oarlock_jobs::{JobError, SourceFormat, TaskType};

use crate::Problems;
use crate::import::CHECKING;
use crate::sets::{Set, Work, picture_size};

pub(crate) use find::{is_native, recognise};
pub(crate) use shape::{Geometry, Shape};

/// A format's name as its tool writes it.
pub(crate) fn title(format: SourceFormat) -> &'static str {
    match format {
        SourceFormat::Native => "their own format",
        SourceFormat::Labelme => "labelme",
        SourceFormat::Easydata => "EasyData",
        SourceFormat::Jingling => "Jingling",
        SourceFormat::Coco => "MSCOCO",
        SourceFormat::Yolo => "YOLO",
    }
}

/// A picture of the source with what is drawn on it.
pub(crate) struct Picture {
    /// Path relative to the source.
    pub source: String,
    /// Name in `JPEGImages`.
    pub name: String,
    /// Width and height as displayed.
    pub size: (usize, usize),
    /// In order of the annotation file.
    pub shapes: Vec<Shape>,
}

/// What a reader of annotations found.
#[derive(Default)]
pub(crate) struct Source {
    /// Path of the picture and its shapes; boxes and points in pixels, of YOLO in fractions.
    pub pictures: Vec<(String, Vec<Shape>)>,
    /// Class names in order, where the source has an order.
    pub names: Option<Vec<String>>,
    /// Whether coordinates are fractions of the picture's sides.
    pub relative: bool,
}

/// A converted source.
pub(crate) struct Converted {
    /// Files to copy: path in the source, path in the dataset.
    pub copies: Vec<(String, String)>,
    pub set: Set,
}

/// Reads and converts a source of another tool.
pub(crate) fn convert(
    format: SourceFormat,
    task_type: TaskType,
    root: &Path,
    work: &Work,
    problems: &mut Problems,
) -> Result<Converted, JobError> {
    let files = find::walk(root, problems);
    let source = match format {
        SourceFormat::Coco => coco::read(root, &files, problems),
        SourceFormat::Yolo => yolo::read(root, &files, problems),
        _ => json::read(format, root, &files, problems),
    };
    work.stopped()?;
    if source.pictures.is_empty() && problems.count() == 0 {
        let reason = "there are no pictures with annotations of this format";
        problems.add("", None, reason, "check the folder and the format");
    }
    let pictures = opened(source.pictures, source.relative, root, work, problems)?;
    let copies = pictures
        .iter()
        .map(|p| (p.source.clone(), format!("JPEGImages/{}", p.name)))
        .collect();
    let names = source.names;
    let set = match task_type {
        TaskType::Detection => write::voc(pictures, problems),
        TaskType::Segmentation => write::maps(pictures, names, work, problems)?,
        _ => write::coco(pictures, names, problems),
    };
    Ok(Converted { copies, set })
}

/// Reads every picture, turns fractions to pixels and gives each picture its own name.
fn opened(
    pictures: Vec<(String, Vec<Shape>)>,
    relative: bool,
    root: &Path,
    work: &Work,
    problems: &mut Problems,
) -> Result<Vec<Picture>, JobError> {
    let sizes = work.each(CHECKING, pictures.len(), &|item| {
        Some(picture_size(root, &pictures[item].0))
    })?;
    // Names are compared by their stems: annotations are named like them.
    let mut stems: BTreeMap<String, usize> = BTreeMap::new();
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.rsplit_once('.').map_or(name, |(s, _)| s).to_owned()
    };
    for (path, _) in &pictures {
        *stems.entry(stem(path)).or_default() += 1;
    }
    let mut all = Vec::with_capacity(pictures.len());
    for ((source, mut shapes), (_, size)) in pictures.into_iter().zip(sizes) {
        let size = match size {
            Ok(size) => size,
            Err(fault) => {
                fault.tell(problems);
                continue;
            }
        };
        if relative {
            shapes.iter_mut().for_each(|shape| shape.scale(size));
        }
        let unique = stems.get(&stem(&source)).is_some_and(|count| *count == 1);
        let name = if unique {
            source.rsplit('/').next().unwrap_or(&source).to_owned()
        } else {
            source.replace(['/', '.'], "_") + source.rfind('.').map_or("", |at| &source[at..])
        };
        all.push(Picture {
            source,
            name,
            size,
            shapes,
        });
    }
    Ok(all)
}
