//! Converted shapes in the format of each type.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use oarlock_imaging::{BBox, Polygon, polygon_area};
use oarlock_jobs::JobError;
use serde_json::{Value, json};

use super::paint::{paint, palette_png};
use super::{Geometry, Picture, Shape};
use crate::coco::{Coco, WHOLE};
use crate::sets::{ANNOTATIONS, Later, PICTURES, Set, Work, whole_coco};
use crate::{Entry, Index, Problems};

fn entry(picture: &Picture, suffix: &str, classes: Vec<usize>) -> Entry {
    let stem = picture
        .name
        .rsplit_once('.')
        .map_or(picture.name.as_str(), |n| n.0);
    Entry {
        picture: format!("{PICTURES}/{}", picture.name),
        annotation: format!("{ANNOTATIONS}/{stem}.{suffix}"),
        classes,
    }
}

fn clipped(shape: &Shape, (width, height): (usize, usize)) -> Option<BBox> {
    let bounds = BBox::new(0.0, 0.0, width as f32, height as f32);
    Some(shape.bbox().clipped(&bounds)).filter(|b| b.area() > 0.0)
}

fn nothing(problems: &mut Problems) {
    let reason = "no annotation has a shape that this type of dataset can use";
    problems.add("", None, reason, "annotate at least one thing");
}

/// Pascal VOC. Boxes, circles and masks give their box; where a source has outlines only, so do these.
pub fn voc(pictures: Vec<Picture>, problems: &mut Problems) -> Set {
    let all = || pictures.iter().flat_map(|p| &p.shapes);
    let boxes = all().any(Shape::is_box);
    let mut skipped = 0;
    let mut outside = 0;
    let mut kept: Vec<(Picture, Vec<(String, BBox)>)> = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let mut list = Vec::new();
        for shape in &picture.shapes {
            if boxes && !shape.is_box() {
                skipped += 1;
            } else if let Some(bbox) = clipped(shape, picture.size) {
                list.push((shape.name.clone(), bbox));
            } else {
                outside += 1;
            }
        }
        kept.push((picture, list));
    }
    if skipped > 0 {
        problems.warn(format!("{skipped} shapes are no boxes and are not used"));
    }
    if outside > 0 {
        problems.warn(format!(
            "{outside} shapes have no area within their picture and are not used"
        ));
    }
    let names: BTreeSet<&String> = kept.iter().flat_map(|(_, l)| l).map(|(n, _)| n).collect();
    let labels: Vec<String> = names.into_iter().cloned().collect();
    if labels.is_empty() && problems.count() == 0 {
        nothing(problems);
    }
    let classes = |list: &[(String, BBox)]| -> Vec<usize> {
        let found = list
            .iter()
            .filter_map(|(name, _)| labels.binary_search(name).ok());
        found.collect::<BTreeSet<usize>>().into_iter().collect()
    };
    let files: Vec<Entry> = kept
        .iter()
        .map(|(p, l)| entry(p, "xml", classes(l)))
        .collect();
    let names: Vec<String> = files.iter().map(|f| f.annotation.clone()).collect();
    let later = Later {
        count: kept.len(),
        make: Box::new(move |item| {
            let (picture, list) = &kept[item];
            (names[item].clone(), voc_xml(picture, list).into_bytes())
        }),
    };
    Set {
        index: Index {
            labels,
            files,
            ..Index::default()
        },
        later: Some(later),
        ..Set::default()
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            // XML 1.0 has no other control characters.
            c if c < ' ' && c != '\t' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn voc_xml(picture: &Picture, list: &[(String, BBox)]) -> String {
    let (w, h) = picture.size;
    let mut out = format!(
        "<annotation>\n\t<filename>{}</filename>\n\t<size>\n\t\t<width>{w}</width>\n\t\t<height>{h}</height>\n\t\t<depth>3</depth>\n\t</size>\n",
        escaped(&picture.name)
    );
    for (name, b) in list {
        let _ = writeln!(
            out,
            "\t<object>\n\t\t<name>{}</name>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{}</xmin>\n\t\t\t<ymin>{}</ymin>\n\t\t\t<xmax>{}</xmax>\n\t\t\t<ymax>{}</ymax>\n\t\t</bndbox>\n\t</object>",
            escaped(name),
            b.x1,
            b.y1,
            b.x2,
            b.y2
        );
    }
    out + "</annotation>\n"
}

/// Class names in the order of the source, else of their first appearance.
fn ordered(pictures: &[Picture], names: Option<Vec<String>>) -> Vec<String> {
    let mut order = names.unwrap_or_default();
    let mut known: BTreeSet<String> = order.iter().cloned().collect();
    for shape in pictures.iter().flat_map(|p| &p.shapes) {
        if known.insert(shape.name.clone()) {
            order.push(shape.name.clone());
        }
    }
    order
}

/// Palette PNG label maps: 0 = `_background_`.
pub fn maps(
    pictures: Vec<Picture>,
    names: Option<Vec<String>>,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    const BACKGROUND: &str = "_background_";
    let mut labels = vec![BACKGROUND.to_owned()];
    labels.extend(
        ordered(&pictures, names)
            .into_iter()
            .filter(|n| n != BACKGROUND),
    );
    if labels.len() < 2 && problems.count() == 0 {
        nothing(problems);
    }
    if labels.len() > 255 {
        let reason = format!(
            "there are {} classes, but label maps can hold 255",
            labels.len()
        );
        problems.add("", None, reason, "use fewer classes");
        return Ok(Set::default());
    }
    let ids: HashMap<String, u8> = labels
        .iter()
        .enumerate()
        .map(|(i, label)| (label.clone(), i as u8))
        .collect();
    let id = |name: &str| ids.get(name).copied();
    let seen = work.quietly(pictures.len(), &|item| {
        let picture = &pictures[item];
        let mut seen = [false; 256];
        for id in paint(picture.size, &picture.shapes, id).data() {
            seen[usize::from(*id)] = true;
        }
        Some(seen)
    })?;
    let classes = |seen: &[bool; 256]| (0..labels.len()).filter(|i| seen[*i]).collect();
    let files: Vec<Entry> = pictures
        .iter()
        .zip(&seen)
        .map(|(picture, (_, seen))| entry(picture, "png", classes(seen)))
        .collect();
    let text: String = labels.iter().map(|l| format!("{l}\n")).collect();
    let paths: Vec<String> = files.iter().map(|f| f.annotation.clone()).collect();
    let later = Later {
        count: pictures.len(),
        make: Box::new(move |item| {
            let picture = &pictures[item];
            let map = paint(picture.size, &picture.shapes, |n| ids.get(n).copied());
            // Into memory nothing can fail but memory itself.
            (paths[item].clone(), palette_png(&map).unwrap_or_default())
        }),
    };
    Ok(Set {
        index: Index {
            labels,
            files,
            ..Index::default()
        },
        made: vec![("labels.txt".to_owned(), text.into_bytes())],
        later: Some(later),
    })
}

/// Pixels, and the `segmentation` of MSCOCO: polygons, of masks with holes run lengths, because there the
/// polygons of one thing are added up.
fn covered(shape: &Shape, outlines: &[Polygon]) -> (f64, Value) {
    if let Geometry::Mask(rle, _) = &shape.geometry {
        let turn = |p: &Polygon| {
            let next = p.iter().cycle().skip(1);
            p.iter()
                .zip(next)
                .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
                .sum::<f32>()
        };
        // Outlines of masks go clockwise, those of holes the other way.
        if outlines.iter().any(|p| turn(p) < 0.0) {
            let text = rle.compressed();
            let size = [rle.height(), rle.width()];
            return (rle.area().into(), json!({"size": size, "counts": text}));
        }
    }
    let area: f64 = outlines.iter().map(|p| f64::from(polygon_area(p))).sum();
    let flat: Vec<Vec<f32>> = outlines.iter().map(|p| p.concat()).collect();
    (area, json!(flat))
}

/// MSCOCO: polygons and boxes; lines, points and circles are left out.
pub fn coco(pictures: Vec<Picture>, names: Option<Vec<String>>, problems: &mut Problems) -> Set {
    let labels = ordered(&pictures, names);
    let ids: HashMap<&str, usize> = labels
        .iter()
        .enumerate()
        .map(|(i, l)| (l.as_str(), i + 1))
        .collect();
    let (mut images, mut annotations) = (Vec::new(), Vec::<Value>::new());
    let mut skipped = 0;
    for (i, picture) in pictures.iter().enumerate() {
        let (w, h) = picture.size;
        images.push(json!({"id": i + 1, "file_name": picture.name, "width": w, "height": h}));
        for shape in &picture.shapes {
            let outlines = shape.outlines().filter(|all| !all.is_empty());
            let (Some(outlines), Some(b)) = (outlines, clipped(shape, picture.size)) else {
                skipped += 1;
                continue;
            };
            let (area, segmentation) = covered(shape, &outlines);
            annotations.push(json!({
                "id": annotations.len() + 1,
                "image_id": i + 1,
                "category_id": ids[shape.name.as_str()],
                "bbox": [b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1],
                "area": area,
                "segmentation": segmentation,
                "iscrowd": 0,
            }));
        }
    }
    if skipped > 0 {
        problems.warn(format!(
            "{skipped} shapes are no outlines or boxes within their picture and are not used"
        ));
    }
    let categories: Vec<Value> = labels
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"id": i + 1, "name": name, "supercategory": "component"}))
        .collect();
    if annotations.is_empty() && problems.count() == 0 {
        nothing(problems);
    }
    let text =
        json!({"images": images, "annotations": annotations, "categories": categories}).to_string();
    match Coco::parse(&text) {
        Ok(coco) => {
            let there = pictures
                .iter()
                .map(|p| format!("{PICTURES}/{}", p.name))
                .collect();
            let mut set = whole_coco(coco, &there, problems);
            set.made.push((WHOLE.to_owned(), text.into_bytes()));
            set
        }
        Err(reason) => {
            problems.add(WHOLE, None, reason, "annotate the pictures again");
            Set::default()
        }
    }
}
