//! Detection: boxes in Pascal VOC files.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use oarlock_jobs::JobError;

use super::fault::{Fault, picture_size};
use super::pairs::{self, Kind};
use super::{Set, Work};
use crate::import::CHECKING;
use crate::scan::{Listing, is_picture_name};
use crate::voc::{VocAnnotation, VocError};
use crate::{Entry, Problems};

const VOC: Kind = Kind {
    suffix: "xml",
    is_picture: is_picture_name,
    pictures: ".jpg, .jpeg, .png, .bmp",
    needs_labels: true,
};

/// What one picture and its annotation hold.
struct Looked {
    /// Class names, each once.
    names: BTreeSet<String>,
    /// First object of each name, for messages.
    first: HashMap<String, usize>,
    remarks: Vec<String>,
}

pub fn check(
    root: &Path,
    listing: &Listing,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    let (mut index, labels) = pairs::index(root, listing, VOC, problems);
    work.stopped()?;
    let looked = work.each(CHECKING, index.files.len(), &|item| {
        Some(look(root, &index.files[item]))
    })?;
    let mut pictures = Vec::with_capacity(looked.len());
    let mut empty = 0;
    for (_, (looked, faults)) in looked {
        faults.into_iter().for_each(|fault| fault.tell(problems));
        if let Some(looked) = &looked {
            empty += usize::from(looked.names.is_empty());
            looked
                .remarks
                .iter()
                .for_each(|remark| problems.warn(remark));
        }
        pictures.push(looked);
    }
    // Only lists have ids, and so an order of labels to keep.
    let given = labels.filter(|_| index.split);
    let fixed = given.is_some();
    index.labels = given.unwrap_or_else(|| {
        let names = pictures.iter().flatten().flat_map(|p| &p.names);
        let sorted: BTreeSet<&String> = names.collect();
        sorted.into_iter().cloned().collect()
    });
    let places: HashMap<&str, usize> = index
        .labels
        .iter()
        .enumerate()
        .map(|(i, l)| (l.as_str(), i))
        .collect();
    for (file, looked) in index.files.iter_mut().zip(&pictures) {
        for name in looked.iter().flat_map(|l| &l.names) {
            match places.get(name.as_str()) {
                Some(place) => file.classes.push(*place),
                None if places.is_empty() => {}
                None => {
                    let number = looked.as_ref().and_then(|l| l.first.get(name)).copied();
                    let reason = format!(
                        "object {}: its class {name} is not in labels.txt",
                        number.unwrap_or(0)
                    );
                    let remedy = "add the class to labels.txt or correct the name";
                    problems.add(file.annotation.as_str(), None, reason, remedy);
                }
            }
        }
        file.classes.sort_unstable();
    }
    if empty > 0 {
        problems.warn(format!("{empty} pictures have no objects"));
    }
    if !fixed && index.labels.is_empty() && !index.files.is_empty() && problems.count() == 0 {
        let remedy = "annotate at least one object";
        problems.add(
            pairs::ANNOTATIONS,
            None,
            "no annotation has an object",
            remedy,
        );
    }
    Ok(Set {
        index,
        ..Set::default()
    })
}

fn look(root: &Path, file: &Entry) -> (Option<Looked>, Vec<Fault>) {
    let mut faults = Vec::new();
    let size = picture_size(root, &file.picture).map_err(|fault| faults.push(fault));
    let xml = file.annotation.as_str();
    let read = match VocAnnotation::read(&root.join(xml)) {
        Ok(read) => read,
        Err(error) => {
            let remedy = match error {
                VocError::Xml(_) => "save it again with the tool that made it",
                VocError::Objects(_) => "correct the object or remove it",
                VocError::File(_) => "replace the file",
            };
            faults.push(Fault::new(xml, error.to_string(), remedy));
            return (None, faults);
        }
    };
    let mut remarks: Vec<String> = read
        .dropped
        .iter()
        .map(|dropped| format!("{xml}: {dropped}; the object is left out"))
        .collect();
    if let (Ok((w, h)), Some((width, height))) = (size, read.size)
        && (width as usize, height as usize) != (w, h)
    {
        remarks.push(format!(
            "{xml} says that the picture is {width}×{height}, but {} is {w}×{h}",
            file.picture
        ));
    }
    if read.size.is_none()
        && let Ok((w, h)) = size
    {
        let outside = |o: &&crate::voc::VocObject| o.bbox.x1 >= w as f32 || o.bbox.y1 >= h as f32;
        remarks.extend(read.objects.iter().find(outside).map(|o| {
            format!(
                "{xml}: object {} ({}) lies outside the picture of {w}×{h}",
                o.number, o.name
            )
        }));
    }
    let mut first = HashMap::new();
    for object in &read.objects {
        first.entry(object.name.clone()).or_insert(object.number);
    }
    let names = read.objects.into_iter().map(|o| o.name).collect();
    let looked = Looked {
        names,
        first,
        remarks,
    };
    (Some(looked), faults)
}
