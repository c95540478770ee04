//! What the prediction of a detector leaves: a picture with boxes and masks, and a list.

use std::path::Path;

use oarlock_datasets::voc::VocAnnotation;
use oarlock_datasets::{Depth, read_annotation};
use oarlock_imaging::{
    BBox, Change, DrawnObject, Image, ImageError, Interpolation, Limits, Pixels, Plane, Rle,
    decode, draw_objects, encode_png, fit_within, read_file,
};
use oarlock_jobs::{ErrorCode, PredictImage, PredictItem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::model::Ready;
use super::predict::{place_picture, write_whole};
use super::segment_picture::beside;
use crate::detect::{Detected, detect};
use crate::exec::network_input;
use crate::train::detector::params::eval_pipeline;
use crate::train::detector::score::frame;
use crate::{EngineError, Result};

/// Long side of one panel.
const VIEW: usize = 1280;

/// Predicts one picture; boxes less sure than `least` are neither drawn nor listed. What is wrong with the picture is
/// an error of its item.
///
/// # Errors
/// A full disk; a network that gives NaN.
pub(super) fn predict(
    image: &PredictImage,
    model: &Ready,
    out_dir: &Path,
    least: f32,
) -> Result<PredictItem> {
    let PredictImage::File {
        path,
        output,
        truth,
    } = image;
    let mut item = PredictItem {
        source: path.clone(),
        picture: None,
        result: Value::Null,
        error: None,
    };
    let place = place_picture(out_dir, output)?;
    let read = read_file(Path::new(path), &Limits::default())
        .and_then(|bytes| Ok((eval_view(&bytes)?, bytes)));
    let (view, bytes) = match read {
        Ok(read) => read,
        Err(e) => {
            item.error = Some(e.to_string());
            return Ok(item);
        }
    };
    let (mut found, full) = match run(model, &bytes) {
        Ok(found) => found,
        Err(e) if e.code() == ErrorCode::InvalidData => {
            item.error = Some(e.to_string());
            return Ok(item);
        }
        Err(e) => return Err(e),
    };
    found.retain(|one| one.score >= least);
    let labels = &model.yml.labels;
    let failed = |e: ImageError| EngineError::internal(format!("drawing `{place}`: {e}"));
    let drawn = drawn(&found, full, &view, labels).map_err(failed)?;
    let mut picture = draw_objects(&view, &drawn, None).map_err(failed)?;
    if let Some(truth) = truth {
        match annotated(Path::new(truth), full, &view, labels) {
            Ok(objects) => {
                let truth = draw_objects(&view, &objects, None).map_err(failed)?;
                picture = beside(&[(picture, "prediction"), (truth, "truth")]);
            }
            Err(reason) => item.error = Some(format!("its annotation cannot be read: {reason}")),
        }
    }
    write_whole(&place, &encode_png(&picture).map_err(failed)?)?;
    item.result = found.iter().map(|one| listed(one, labels)).collect();
    item.picture = Some(place);
    Ok(item)
}

/// The picture no larger than it is shown.
fn eval_view(bytes: &[u8]) -> std::result::Result<Image, ImageError> {
    let view = decode(bytes, &Limits::default(), Some((VIEW, VIEW)))?;
    let (width, height) = fit_within(view.width(), view.height(), VIEW);
    if (width, height) == (view.width(), view.height()) {
        return Ok(view);
    }
    oarlock_imaging::resize_smooth(&view, width, height)
}

/// What is in the picture, and its width and height.
fn run(model: &Ready, bytes: &[u8]) -> Result<(Vec<Detected>, (usize, usize))> {
    let how = &model.yml.preprocessing;
    let (input, target) = eval_pipeline(how)?
        .eval_bytes(bytes)
        .map_err(|e| EngineError::new(ErrorCode::InvalidData, e.to_string()))?;
    let shape = [1, input.height(), input.width(), 3];
    let network = model.network();
    let input = network_input(input.data(), Depth::U8, shape, how, network.placement())?;
    let mut found = detect(&network, &input, &[frame(&target)])?;
    let found = found
        .pop()
        .ok_or_else(|| EngineError::internal("no answer for a picture"))?;
    Ok((found, target.full))
}

/// Number in the colour table: previews of datasets give each class the same.
fn colour(name: &str, labels: &[String]) -> usize {
    1 + labels.iter().filter(|l| l.as_str() < name).count()
}

fn drawn(
    found: &[Detected],
    full: (usize, usize),
    view: &Image,
    labels: &[String],
) -> std::result::Result<Vec<DrawnObject>, ImageError> {
    found
        .iter()
        .map(|one| {
            let name = labels.get(one.class).cloned().unwrap_or_default();
            let mask = one.mask.as_ref().map(|mask| shrunk(mask, view));
            Ok(DrawnObject {
                bbox: scaled(one.bbox, full, view),
                mask: mask.transpose()?,
                colour: colour(&name, labels),
                name,
                score: Some(one.score),
                polygons: Vec::new(),
            })
        })
        .collect()
}

fn scaled([x1, y1, x2, y2]: [f32; 4], full: (usize, usize), view: &Image) -> BBox {
    let sx = view.width() as f32 / full.0.max(1) as f32;
    let sy = view.height() as f32 / full.1.max(1) as f32;
    BBox::new(x1 * sx, y1 * sy, x2 * sx, y2 * sy)
}

/// At the size of the view: a hundred masks of a large picture would fill the memory.
fn shrunk(mask: &Rle, view: &Image) -> std::result::Result<Plane, ImageError> {
    let plane = mask.to_plane()?;
    plane.changed(&Change::Resize {
        from: plane.whole(),
        to: (view.width(), view.height()),
        interpolation: Interpolation::Nearest,
    })
}

/// An entry of the result: the box as x, y, width, height in pixels of the picture.
fn listed(one: &Detected, labels: &[String]) -> Value {
    // More digits than a hundredth of a pixel would only look exact.
    let round = |v: f32, digits: f64| (f64::from(v) * digits).round() / digits;
    let [x1, y1, x2, y2] = one.bbox;
    let bbox = [x1, y1, x2 - x1, y2 - y1].map(|v| round(v, 100.0));
    let mut entry = json!({
        "category": labels.get(one.class),
        "category_id": one.class,
        "bbox": bbox,
        "score": round(one.score, 1e7),
    });
    if let Some(mask) = &one.mask {
        entry["mask"] =
            json!({ "size": [mask.height(), mask.width()], "counts": mask.compressed() });
    }
    entry
}

/// The annotation of an instance segmentation set, as far as it is drawn.
#[derive(Deserialize)]
struct Instances {
    gt_class: Vec<String>,
    gt_bbox: Vec<[f32; 4]>,
    gt_poly: Vec<Option<Vec<Vec<f32>>>>,
}

/// What the dataset says is in the picture.
fn annotated(
    path: &Path,
    full: (usize, usize),
    view: &Image,
    labels: &[String],
) -> std::result::Result<Vec<DrawnObject>, String> {
    let object = |name: &str, bbox: [f32; 4], polygons: Vec<Vec<[f32; 2]>>| DrawnObject {
        bbox: scaled(bbox, full, view),
        polygons,
        name: name.to_owned(),
        colour: colour(name, labels),
        ..DrawnObject::default()
    };
    if path
        .extension()
        .is_some_and(|x| x.eq_ignore_ascii_case("xml"))
    {
        let read = VocAnnotation::read(path).map_err(|e| e.to_string())?;
        let objects = read.objects.iter();
        let bbox = |b: &BBox| [b.x1, b.y1, b.x2, b.y2];
        return Ok(objects
            .map(|o| object(&o.name, bbox(&o.bbox), Vec::new()))
            .collect());
    }
    let text = read_annotation(path).map_err(|e| e.message)?;
    let read: Instances = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let point = |p: &[f32]| {
        let corner = scaled([p[0], p[1], 0.0, 0.0], full, view);
        [corner.x1, corner.y1]
    };
    let polygons = |flat: &Option<Vec<Vec<f32>>>| -> Vec<Vec<[f32; 2]>> {
        let flat = flat.as_deref().unwrap_or_default().iter();
        flat.map(|p| p.chunks_exact(2).map(point).collect())
            .collect()
    };
    let parts = read.gt_class.iter().zip(&read.gt_bbox).zip(&read.gt_poly);
    Ok(parts
        .map(|((name, bbox), poly)| object(name, *bbox, polygons(poly)))
        .collect())
}
