//! MSCOCO folders: pictures anywhere, the lists in one or several JSON files.

use std::collections::HashMap;
use std::path::Path;

use oarlock_imaging::BBox;

use super::find::{is_coco, suffix};
use super::{Geometry, Shape, Source};
use crate::Problems;
use crate::coco::{Coco, Segmentation};
use crate::scan::is_picture_name;

pub fn read(root: &Path, files: &[String], problems: &mut Problems) -> Source {
    let mut by_name: HashMap<&str, Vec<&String>> = HashMap::new();
    for path in files.iter().filter(|f| is_picture_name(f)) {
        by_name
            .entry(path.rsplit('/').next().unwrap_or(path))
            .or_default()
            .push(path);
    }
    let lists: Vec<&String> = files
        .iter()
        .filter(|f| suffix(f) == "json" && is_coco(root, f))
        .collect();
    // A set that was split once has its whole beside the parts.
    let whole = lists
        .iter()
        .find(|f| f.rsplit('/').next() == Some(crate::coco::WHOLE))
        .copied();
    let lists = whole.map_or(lists, |file| vec![file]);
    let mut source = Source::default();
    let mut names: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for file in lists {
        let coco = match Coco::read(&root.join(file)) {
            Ok(coco) => coco,
            Err(reason) => {
                problems.add(file.as_str(), None, reason, "export the annotations again");
                continue;
            }
        };
        for fault in &coco.faults {
            let reason = format!("{}: {}", fault.entry, fault.reason);
            problems.add(file.as_str(), None, reason, "correct or remove the entry");
        }
        coco.remarks
            .iter()
            .for_each(|r| problems.warn(format!("{file}: {r}")));
        for name in coco.labels() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for (image, list) in coco.images.iter().zip(coco.by_image()) {
            let found = by_name.get(image.name()).map_or(&[][..], Vec::as_slice);
            let wanted = image.file_name.replace('\\', "/");
            let path = found
                .iter()
                .find(|p| p.ends_with(&wanted))
                .or(found.first());
            let Some(path) = path else {
                let reason = format!(
                    "image {}: there is no picture {}",
                    image.id, image.file_name
                );
                problems.add(
                    file.as_str(),
                    None,
                    reason,
                    "add the picture or remove the entry",
                );
                continue;
            };
            let shapes = list.into_iter().map(|place| shape(&coco, place)).collect();
            match places.get(*path) {
                Some(&place) => source.pictures[place] = ((*path).clone(), shapes),
                None => {
                    places.insert((*path).clone(), source.pictures.len());
                    source.pictures.push(((*path).clone(), shapes));
                }
            }
        }
    }
    source.pictures.sort_by(|a, b| a.0.cmp(&b.0));
    source.names = (!names.is_empty()).then_some(names);
    source
}

fn shape(coco: &Coco, place: usize) -> Shape {
    let (_, class, annotation) = &coco.annotations[place];
    let [x, y, w, h] = annotation.bbox.unwrap_or_default();
    let bbox = BBox::new(x, y, x + w, y + h);
    let geometry = match &annotation.segmentation {
        Segmentation::None => Geometry::Box(bbox),
        Segmentation::Polygons(polygons) => Geometry::Polygons(polygons.clone()),
        Segmentation::Rle(rle) => Geometry::Mask(rle.clone(), bbox),
    };
    Shape {
        name: coco.categories[*class].name.clone(),
        geometry,
    }
}
