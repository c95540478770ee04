//! Instance segmentation: pictures and MSCOCO files.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use oarlock_jobs::JobError;

use super::fault::{Fault, picture_size};
use super::pairs::ANNOTATIONS;
use super::{Later, Set, Work};
use crate::coco::{Coco, PARTS, PICTURES, WHOLE, merged, read_json};
use crate::folder::warn_of_shared;
use crate::import::CHECKING;
use crate::instances::annotation_json;
use crate::scan::{Listing, is_picture_name, join};
use crate::{Entry, Index, Problems};

pub fn check(
    root: &Path,
    listing: &Listing,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    let split = listing.contains(PARTS[0]);
    let whole = listing.contains(WHOLE);
    if !listing.folders.contains_key(PICTURES) {
        let remedy = "put the pictures into a folder of this name";
        problems.add(PICTURES, None, "there is no such folder", remedy);
    }
    if !split && !whole {
        let remedy = "add the MSCOCO annotations of the pictures, or train.json and val.json";
        problems.add(WHOLE, None, "it is missing", remedy);
    }
    if split && !listing.contains(PARTS[1]) {
        let remedy = "a dataset with train.json also needs val.json";
        problems.add(PARTS[1], None, "it is missing", remedy);
    }
    if problems.count() > 0 {
        return Ok(Set::default());
    }
    let parts: Vec<(&str, Option<String>)> = PARTS
        .into_iter()
        .filter(|part| split && listing.contains(part))
        .map(|part| (part, text_of(root, part, problems)))
        .collect();
    let mut names: Vec<(usize, Vec<String>)> = Vec::new();
    for (number, (part, text)) in parts.iter().enumerate() {
        let Some(text) = text else { continue };
        if let Some(coco) = parse(part, text, whole, problems) {
            let list = coco.images.iter().map(|i| i.name().to_owned()).collect();
            names.push((number, list));
        }
    }
    let mut set = Set::default();
    let text = if whole {
        text_of(root, WHOLE, problems)
    } else {
        let texts: Option<Vec<(&str, String)>> = parts
            .into_iter()
            .map(|(part, text)| Some((part, text?)))
            .collect();
        texts.and_then(|texts| {
            let text = merged(&texts).map_err(|reason| {
                let remedy = "give all parts the same categories";
                problems.add(PARTS[0], None, reason, remedy);
            });
            let text = text.ok()?;
            set.made.push((WHOLE.to_owned(), text.clone().into_bytes()));
            Some(text)
        })
    };
    work.stopped()?;
    let name = if whole { WHOLE } else { PARTS[0] };
    let Some(coco) = text.and_then(|text| parse(name, &text, true, problems)) else {
        return Ok(set);
    };
    let there = |picture: &str| listing.contains(picture);
    let (mut index, images) = index(&coco, &there, problems);
    let found = listing.folders.get(PICTURES);
    let pictures = found.map_or(0, |all| all.iter().filter(|n| is_picture_name(n)).count());
    if pictures > index.files.len() {
        let extra = pictures - index.files.len();
        problems.warn(format!(
            "{extra} pictures are not in the annotation file and are not used"
        ));
    }
    if split {
        take_parts(&mut index, &names, problems);
    }
    sizes(root, &index, &coco, &images, work, problems)?;
    set.later = Some(later(&index, coco, images));
    set.index = index;
    Ok(set)
}

/// The set of an annotation file whose pictures have been read already; `there` are their paths in the
/// dataset.
pub fn whole(coco: Coco, there: &HashSet<String>, problems: &mut Problems) -> Set {
    let (index, images) = index(&coco, &|picture| there.contains(picture), problems);
    Set {
        later: Some(later(&index, coco, images)),
        index,
        ..Set::default()
    }
}

/// The annotations of the pictures, a file each.
fn later(index: &Index, coco: Coco, images: Vec<usize>) -> Later {
    let lists = coco.by_image();
    let annotations = index.files.iter().map(|file| file.annotation.clone());
    let files: Vec<(String, usize)> = annotations.zip(images).collect();
    Later {
        count: files.len(),
        make: Box::new(move |item| {
            let (name, image) = &files[item];
            let text = annotation_json(&coco, *image, &lists[*image]);
            (name.clone(), text.into_bytes())
        }),
    }
}

fn text_of(root: &Path, file: &str, problems: &mut Problems) -> Option<String> {
    read_json(&root.join(file))
        .map_err(|error| problems.add(file, None, error.to_string(), "save it as UTF-8 JSON"))
        .ok()
}

/// The content of a file whose faults and, with `tell`, remarks are told.
fn parse(file: &str, text: &str, tell: bool, problems: &mut Problems) -> Option<Coco> {
    let coco = match Coco::parse(text) {
        Ok(coco) => coco,
        Err(reason) => {
            problems.add(file, None, reason, "export the annotations again");
            return None;
        }
    };
    let told = coco.faults.len();
    for fault in &coco.faults {
        let reason = format!("{}: {}", fault.entry, fault.reason);
        problems.add(file, None, reason, "correct or remove the entry");
    }
    for _ in told..coco.fault_count {
        problems.add(file, None, "another faulty entry", "correct the first ones");
    }
    if tell {
        coco.remarks
            .iter()
            .for_each(|remark| problems.warn(format!("{file}: {remark}")));
    }
    Some(coco)
}

/// The pictures in order of the file, and for each the place of its entry in `images`.
fn index(
    coco: &Coco,
    there: &dyn Fn(&str) -> bool,
    problems: &mut Problems,
) -> (Index, Vec<usize>) {
    let used = coco
        .annotations
        .iter()
        .map(|(_, class, _)| coco.categories[*class].name.as_str());
    let sorted: BTreeSet<&str> = used.collect();
    let labels: Vec<String> = sorted.into_iter().map(str::to_owned).collect();
    let lists = coco.by_image();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut stems: HashMap<&str, &str> = HashMap::new();
    let (mut files, mut images) = (Vec::new(), Vec::new());
    let mut empty = 0;
    for (image, entry) in coco.images.iter().enumerate() {
        let name = entry.name();
        let picture = join(PICTURES, name);
        if !is_picture_name(name) || name.starts_with('.') {
            let reason = format!("image {}: {} is no picture name", entry.id, entry.file_name);
            problems.add(
                WHOLE,
                None,
                reason,
                "name .jpg, .jpeg, .png and .bmp files only",
            );
            continue;
        }
        if !there(&picture) {
            let reason = format!("image {}: {picture} is not there", entry.id);
            problems.add(WHOLE, None, reason, "add the picture or remove the entry");
            continue;
        }
        let mut classes: Vec<usize> = lists[image]
            .iter()
            .map(|&a| coco.categories[coco.annotations[a].1].name.as_str())
            .filter_map(|name| labels.binary_search_by(|l| l.as_str().cmp(name)).ok())
            .collect();
        classes.sort_unstable();
        classes.dedup();
        empty += usize::from(classes.is_empty());
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        // Two pictures may differ in their suffix only.
        let owner = *stems.entry(stem).or_insert(name);
        let own = if owner == name { stem } else { name };
        let file = Entry {
            picture,
            annotation: format!("{ANNOTATIONS}/{own}.npy"),
            classes,
        };
        if let Some(&place) = places.get(name) {
            problems.warn(format!(
                "{name} has several entries in images; the last one, image {}, counts",
                entry.id
            ));
            files[place] = file;
            images[place] = image;
        } else {
            places.insert(name, files.len());
            files.push(file);
            images.push(image);
        }
    }
    if empty > 0 {
        problems.warn(format!("{empty} pictures have no objects"));
    }
    if problems.count() == 0 && (files.is_empty() || labels.is_empty()) {
        let reason = if files.is_empty() {
            "it names no picture"
        } else {
            "it has no annotation that could be used"
        };
        problems.add(WHOLE, None, reason, "annotate at least one object");
    }
    let index = Index {
        labels,
        files,
        ..Index::default()
    };
    (index, images)
}

/// The split of `train.json`, `val.json` and `test.json`.
fn take_parts(index: &mut Index, names: &[(usize, Vec<String>)], problems: &mut Problems) {
    index.split = true;
    let places: HashMap<String, usize> = index
        .files
        .iter()
        .enumerate()
        .map(|(i, f)| (f.picture.clone(), i))
        .collect();
    for (number, list) in names {
        let part = PARTS[*number];
        let mut inside = BTreeSet::new();
        let mut order = Vec::new();
        for name in list {
            match places.get(&join(PICTURES, name)) {
                Some(&place) if inside.insert(place) => order.push(place),
                Some(_) => {}
                None if problems.count() > 0 => {} // told already
                None => {
                    let reason = format!("{name} is in {part}, but not in {WHOLE}");
                    problems.add(
                        part,
                        None,
                        reason,
                        "remove annotations.json or add the picture to it",
                    );
                }
            }
        }
        if order.is_empty() && *number < 2 && problems.count() == 0 {
            problems.add(
                part,
                None,
                "it names no picture",
                "move some pictures into it",
            );
        }
        match number {
            0 => index.train = order,
            1 => index.val = order,
            _ => index.test = order,
        }
    }
    warn_of_shared(index, problems);
}

/// Reads every picture and compares its size with the annotation file's.
fn sizes(
    root: &Path,
    index: &Index,
    coco: &Coco,
    images: &[usize],
    work: &Work,
    problems: &mut Problems,
) -> Result<(), JobError> {
    let looked = work.each(CHECKING, index.files.len(), &|item| {
        Some(picture_size(root, &index.files[item].picture))
    })?;
    for (item, result) in looked {
        let entry = &coco.images[images[item]];
        match result {
            Err(fault) => fault.tell(problems),
            Ok((w, h)) if (entry.width as usize, entry.height as usize) != (w, h) => {
                let reason = format!(
                    "it is {w}×{h}, but image {} says {}×{}",
                    entry.id, entry.width, entry.height
                );
                let remedy = "correct the entry, or save the picture as it is displayed";
                Fault::new(&index.files[item].picture, reason, remedy).tell(problems);
            }
            Ok(_) => {}
        }
    }
    Ok(())
}
