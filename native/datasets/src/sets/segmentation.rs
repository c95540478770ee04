//! Segmentation: a label map of class ids for every picture.

use std::collections::HashMap;
use std::path::Path;

use oarlock_imaging::{
    IGNORE, ImageError, Limits, Pixels, Plane, decode_label_map, decode_raster, read_file,
};
use oarlock_jobs::JobError;

use super::channels::{self, CHANNELS_FILE, Measured};
use super::fault::{Fault, picture_size};
use super::pairs::{self, Kind};
use super::{Set, Work};
use crate::folder::LABELS;
use crate::import::CHECKING;
use crate::scan::{Listing, is_picture_name, is_raster_name};
use crate::{Entry, Problems};

const PICTURES: Kind = Kind {
    suffix: "png",
    is_picture: is_picture_name,
    pictures: ".jpg, .jpeg, .png, .bmp",
    needs_labels: false,
};
const RASTERS: Kind = Kind {
    is_picture: |name| is_picture_name(name) || is_raster_name(name),
    pictures: ".npy, .tif, .tiff, .jpg, .jpeg, .png, .bmp",
    ..PICTURES
};

/// What one picture and its label map hold.
struct Looked {
    /// Whether an id occurs; 255 included.
    ids: [bool; 256],
    /// Width and height.
    size: (usize, usize),
    /// Remote sensing only.
    measured: Option<Measured>,
}

pub fn check(
    root: &Path,
    listing: &Listing,
    remote: bool,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    let kind = if remote { RASTERS } else { PICTURES };
    let (mut index, labels) = pairs::index(root, listing, kind, problems);
    if !remote {
        hint_at_rasters(listing, problems);
    }
    work.stopped()?;
    let total = index.files.len();
    let looked = work.each(CHECKING, total, &|item| {
        Some(look(root, &index.files[item], remote.then_some(total)))
    })?;
    let mut faults = 0;
    let mut pictures: Vec<Option<Looked>> = Vec::with_capacity(total);
    for (_, result) in looked {
        pictures.push(result.map_or_else(
            |fault| {
                faults += 1;
                fault.tell(problems);
                None
            },
            Some,
        ));
    }
    let given = labels.is_some();
    index.labels = labels.unwrap_or_else(|| numbers(&pictures));
    let classes = index.labels.len();
    if given && classes > usize::from(IGNORE) {
        let reason = format!("it names {classes} classes, but label maps can hold 255");
        problems.add(LABELS, None, reason, "name fewer classes");
    }
    for (file, looked) in index.files.iter_mut().zip(&pictures) {
        let Some(looked) = looked else { continue };
        let ids = (0..usize::from(IGNORE)).filter(|id| looked.ids[*id]);
        file.classes = ids.clone().filter(|id| *id < classes).collect();
        let beyond: Vec<String> = ids
            .filter(|id| *id >= classes)
            .map(|id| id.to_string())
            .collect();
        if given && !beyond.is_empty() {
            let many = beyond.len() > 10;
            let shown = beyond[..beyond.len().min(10)].join(", ");
            let more = if many { " …" } else { "" };
            let reason = format!(
                "it holds class ids that labels.txt does not name: {shown}{more}; its {classes} classes are 0–{}",
                classes.saturating_sub(1)
            );
            let remedy = "name every class in labels.txt, or correct the label map (255 = ignored)";
            problems.add(file.annotation.as_str(), None, reason, remedy);
        }
    }
    if faults == 0 && classes > 0 && !pictures.is_empty() {
        few_classes(&index.labels, &index.files, &pictures, given, problems);
    }
    tiny(&index.files, &pictures, problems);
    let mut made = Vec::new();
    if remote {
        made.extend(channel_file(&index.files, pictures, problems));
    }
    Ok(Set {
        index,
        made,
        ..Set::default()
    })
}

/// A set of rasters that was created as one of pictures looks empty otherwise.
fn hint_at_rasters(listing: &Listing, problems: &mut Problems) {
    let found = listing.folders.get(pairs::PICTURES);
    let rasters = found.map_or(0, |all| all.iter().filter(|n| is_raster_name(n)).count());
    if rasters > 0 {
        let text = format!(
            "{rasters} of the files are .npy or .tif; those are read by datasets of the type remote_segmentation"
        );
        if found.is_some_and(|all| all.iter().any(|n| is_picture_name(n))) {
            problems.warn(text);
        } else {
            problems.add(
                pairs::PICTURES,
                None,
                text,
                "create the dataset with this type",
            );
        }
    }
}

fn look(root: &Path, file: &Entry, set: Option<usize>) -> Result<Looked, Fault> {
    let limits = Limits::default();
    let picture = |e: ImageError| Fault::of(&file.picture, &e);
    let (size, measured) = match set {
        Some(total) => {
            let bytes = read_file(&root.join(&file.picture), &limits).map_err(picture)?;
            let raster = decode_raster(&bytes, &limits).map_err(picture)?;
            let measured = Measured::of(&raster, total);
            ((raster.width(), raster.height()), Some(measured))
        }
        None => (picture_size(root, &file.picture)?, None),
    };
    let map = read_map(root, file)?;
    if map.size() != size {
        let ((w, h), (mw, mh)) = (size, map.size());
        return Err(Fault {
            file: file.picture.clone(),
            reason: format!(
                "it is {w}×{h}, but its label map {} is {mw}×{mh}",
                file.annotation
            ),
            remedy: "make both the same size (label maps: nearest neighbour, never blended)".into(),
        });
    }
    let mut ids = [false; 256];
    map.data()
        .iter()
        .for_each(|id| ids[usize::from(*id)] = true);
    Ok(Looked {
        ids,
        size,
        measured,
    })
}

fn read_map(root: &Path, file: &Entry) -> Result<Plane, Fault> {
    let limits = Limits::default();
    let bytes = read_file(&root.join(&file.annotation), &limits);
    bytes
        .and_then(|bytes| decode_label_map(&bytes, &limits))
        .map_err(|error| match &error {
            ImageError::Unsupported { .. } => Fault {
                remedy: "save class ids as an 8-bit grey or palette PNG without alpha".into(),
                ..Fault::of(&file.annotation, &error)
            },
            _ => Fault::of(&file.annotation, &error),
        })
}

/// `"0"` … `"largest id"`, for sets without `labels.txt`.
fn numbers(pictures: &[Option<Looked>]) -> Vec<String> {
    let highest = |p: &Looked| (0..usize::from(IGNORE)).rfind(|id| p.ids[*id]);
    let largest = pictures.iter().flatten().filter_map(highest).max();
    (0..=largest.unwrap_or(0))
        .map(|id| id.to_string())
        .collect()
}

/// Fewer than two classes cannot be told apart.
fn few_classes(
    labels: &[String],
    files: &[Entry],
    pictures: &[Option<Looked>],
    given: bool,
    problems: &mut Problems,
) {
    let ignored = pictures
        .iter()
        .flatten()
        .any(|p| p.ids[usize::from(IGNORE)]);
    let also = if ignored {
        " and 255, which means ignored"
    } else {
        ""
    };
    if labels.len() < 2 {
        let file = if given {
            LABELS.to_owned()
        } else {
            first_map(files)
        };
        let reason = if given {
            format!("it names only one class, {}", labels[0])
        } else {
            format!("this and every other label map holds only class 0{also}")
        };
        let remedy = "at least two classes are needed: give the background 0 and things 1, 2 …";
        problems.add(file, None, reason, remedy);
        return;
    }
    let mut seen = vec![false; labels.len()];
    for class in files.iter().flat_map(|f| &f.classes) {
        seen[*class] = true;
    }
    let missing: Vec<&str> = labels
        .iter()
        .zip(&seen)
        .filter(|(_, seen)| !**seen)
        .map(|(label, _)| label.as_str())
        .collect();
    if labels.len() - missing.len() < 2 {
        let which = seen.iter().position(|s| *s);
        let which = which.map_or("none of the classes".to_owned(), |i| {
            format!("only class {i}")
        });
        let remedy = "give at least two classes their own ids";
        let reason = format!("this and every other label map holds {which}{also}");
        problems.add(first_map(files), None, reason, remedy);
    } else if !missing.is_empty() {
        let shown = missing[..missing.len().min(10)].join(", ");
        problems.warn(format!(
            "{} of {} classes occur in no label map: {shown}",
            missing.len(),
            labels.len()
        ));
    }
}

fn first_map(files: &[Entry]) -> String {
    files
        .first()
        .map_or_else(String::new, |f| f.annotation.clone())
}

fn tiny(files: &[Entry], pictures: &[Option<Looked>], problems: &mut Problems) {
    for (file, looked) in files.iter().zip(pictures) {
        if let Some(Looked { size: (w, h), .. }) = looked
            && (*w == 1 || *h == 1)
        {
            problems.warn(format!("{} is only {w}×{h} pixels large", file.picture));
        }
    }
}

/// The numbers of the channels, when all pictures have equally many.
fn channel_file(
    files: &[Entry],
    pictures: Vec<Option<Looked>>,
    problems: &mut Problems,
) -> Option<(String, Vec<u8>)> {
    let measured: Vec<(usize, Measured)> = pictures
        .into_iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, p?.measured?)))
        .collect();
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for (_, one) in &measured {
        *counts.entry(one.channels()).or_default() += 1;
    }
    // Of equal shares the smaller number, so that the answer is always the same.
    let usual = counts
        .iter()
        .max_by_key(|(n, count)| (**count, usize::MAX - **n));
    let usual = *usual?.0;
    let mut strange = false;
    for (i, one) in &measured {
        let name = files[*i].picture.as_str();
        if one.channels() != usual {
            strange = true;
            let reason = format!(
                "it has {} channels, most pictures have {usual}",
                one.channels()
            );
            problems.add(
                name,
                None,
                reason,
                "all pictures of a set need the same channels",
            );
        }
        if one.not_finite > 0 {
            let count = one.not_finite;
            problems.warn(format!(
                "{name} holds {count} values that are no finite numbers; they count as 0"
            ));
        }
    }
    if strange {
        return None;
    }
    let numbers = channels::together(measured.into_iter().map(|(_, one)| one).collect())?;
    let text = serde_json::to_vec_pretty(&numbers).ok()?;
    Some((CHANNELS_FILE.to_owned(), text))
}
