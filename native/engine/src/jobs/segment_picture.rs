//! What the prediction of a segmenter leaves: label map, picture, numbers.

use std::path::Path;

use oarlock_imaging::{
    Change, Colour, Format, Image, ImageError, Interpolation, Limits, Pixels, Plane, Raster,
    channel_statistics, class_colour, decode, decode_label_map, decode_raster, draw_label_map,
    draw_text, encode_label_map, encode_png, fit_within, read_file, sniff, with_legend,
};
use oarlock_jobs::{PredictImage, PredictItem};
use serde_json::{Value, json};

use super::model::Ready;
use super::predict::{place_picture, write_whole};
use super::segment::label_map;
use crate::{EngineError, Result};

/// Long side of one panel.
const VIEW: usize = 900;
/// Folder of the label maps beside the pictures.
const MAPS: &str = "label_maps";
/// Percentiles that a raster's channels are stretched by to be shown.
const SHOWN: (f64, f64) = (2.0, 98.0);

/// Predicts one picture. What is wrong with the picture is an error of its item.
///
/// # Errors
/// A full disk; a stop; a network that gives NaN.
pub(super) fn predict(
    image: &PredictImage,
    model: &Ready,
    out_dir: &Path,
    tick: &dyn Fn() -> Result<()>,
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
    let picture = match read(Path::new(path), model.yml.preprocessing.mean.len()) {
        Ok(picture) => picture,
        Err(e) => {
            item.error = Some(e.to_string());
            return Ok(item);
        }
    };
    let map = match label_map(model, &picture, tick) {
        Ok(map) => map,
        Err(e) if e.code() == oarlock_jobs::ErrorCode::InvalidData => {
            item.error = Some(e.to_string());
            return Ok(item);
        }
        Err(e) => return Err(e),
    };
    let failed = |e: ImageError| EngineError::internal(format!("drawing `{place}`: {e}"));
    let truth = truth.as_ref().map(|t| {
        read_file(Path::new(t), &Limits::default())
            .and_then(|bytes| decode_label_map(&bytes, &Limits::default()))
    });
    if let Some(Err(e)) = &truth {
        item.error = Some(format!("its true label map cannot be read: {e}"));
    }
    let drawn = draw(
        &picture,
        &map,
        truth.and_then(|t| t.ok()),
        &model.yml.labels,
    )
    .map_err(failed)?;
    write_whole(&place, &encode_png(&drawn).map_err(failed)?)?;
    let maps = out_dir.join(MAPS);
    std::fs::create_dir_all(&maps)?;
    let map_place = place_picture(&maps, output)?;
    write_whole(&map_place, &encode_label_map(&map).map_err(failed)?)?;
    item.result = numbers(&map, &model.yml.labels, &map_place);
    item.picture = Some(place);
    Ok(item)
}

/// The picture with the channels that the network takes.
fn read(path: &Path, channels: usize) -> std::result::Result<Raster, ImageError> {
    let limits = Limits::default();
    let bytes = read_file(path, &limits)?;
    // A TIFF is a photograph to a network of photographs.
    let photograph = channels == 3 && sniff(&bytes) != Some(Format::Npy);
    if photograph && let Ok(image) = decode(&bytes, &limits, None) {
        return Ok(image.into());
    }
    decode_raster(&bytes, &limits)
}

fn numbers(map: &Plane, labels: &[String], path: &str) -> Value {
    let mut counts = [0u64; 256];
    map.data()
        .iter()
        .for_each(|id| counts[usize::from(*id)] += 1);
    let total = map.data().len() as f64;
    let classes: Vec<Value> = labels
        .iter()
        .zip(counts)
        .enumerate()
        .map(|(id, (name, pixels))| {
            json!({ "category": name, "category_id": id, "pixels": pixels, "share": pixels as f64 / total })
        })
        .collect();
    json!({ "label_map": path, "width": map.width(), "height": map.height(), "classes": classes })
}

/// Panels side by side: the picture blended with its label map, the label map alone, the true one; and a legend.
fn draw(
    picture: &Raster,
    map: &Plane,
    truth: Option<Plane>,
    labels: &[String],
) -> std::result::Result<Image, ImageError> {
    let (width, height) = fit_within(map.width(), map.height(), VIEW);
    let resized = |from| Change::Resize {
        from,
        to: (width, height),
        interpolation: Interpolation::Linear,
    };
    let view = shown(&picture.changed(&resized(picture.whole()))?)?;
    let small = map.changed(&resized(map.whole()))?;
    let mut panels = vec![
        (draw_label_map(&view, &small)?, "prediction on the picture"),
        (coloured(&small), "prediction"),
    ];
    let mut used: Vec<bool> = vec![false; 256];
    let mut note = |plane: &Plane| {
        plane
            .data()
            .iter()
            .for_each(|id| used[usize::from(*id)] = true)
    };
    note(map);
    if let Some(truth) = truth {
        note(&truth);
        let truth = truth.changed(&resized(truth.whole()))?;
        panels.push((coloured(&truth), "truth"));
    }
    let ids: Vec<u8> = (0..=255).filter(|id| used[usize::from(*id)]).collect();
    Ok(with_legend(&beside(&panels), &ids, labels))
}

/// Three channels as a picture: RGB of 8 bits as it is, others stretched to their percentiles.
fn shown(raster: &Raster) -> std::result::Result<Image, ImageError> {
    let channels = raster.channels();
    let pick = if channels >= 3 { [0, 1, 2] } else { [0; 3] };
    if channels == 3 && raster.samples().kind() == "uint8" {
        return raster.to_image(pick, [(0.0, 255.0); 3]);
    }
    let numbers = channel_statistics(raster, SHOWN);
    raster.to_image(pick, pick.map(|c| numbers[c].percentiles))
}

fn coloured(map: &Plane) -> Image {
    let mut image = Image::filled(map.width(), map.height(), [0; 3]);
    let colours: [Colour; 256] = std::array::from_fn(class_colour);
    for (pixel, id) in image.data_mut().chunks_exact_mut(3).zip(map.data()) {
        pixel.copy_from_slice(&colours[usize::from(*id)]);
    }
    image
}

/// Panels of one size in a row, each with its title above.
pub(super) fn beside(panels: &[(Image, &str)]) -> Image {
    let (width, height) = panels
        .first()
        .map_or((1, 1), |(p, _)| (p.width(), p.height()));
    let size = (width.max(height) as f32 / 36.0).clamp(11.0, 22.0);
    let (gap, title) = ((size * 0.5) as usize, (size * 1.6) as usize);
    let mut out = Image::filled(
        panels.len() * width + (panels.len() - 1) * gap,
        height + title,
        [255; 3],
    );
    for (i, (panel, name)) in panels.iter().enumerate() {
        let x = i * (width + gap);
        out.paste(panel, x, title);
        // Too narrow a panel has no room for words.
        if oarlock_imaging::text_width(name, size) <= width as f32 {
            draw_text(&mut out, name, x as f32, size * 0.15, size, [32, 33, 36]);
        }
    }
    out
}
