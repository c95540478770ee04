//! Our side of `npm run bench -- det`: `detection_rate --task coco|nms --folder FOLDER [--threads N]`.
//! Answers every line `run N` on stdin with a line of JSON: images (or boxes) a second by the clock, peak
//! memory, and the result, so that the peers' can be compared.
//!
//! The folder holds `truths.txt` (image, class, x, y, width, height a line), `detections.txt` (image, class,
//! score, x, y, width, height) and `boxes.txt` (score, x1, y1, x2, y2).

mod turns;

use std::path::{Path, PathBuf};

use oarlock_imaging::nms;
use oarlock_metrics::{CocoParameters, Detection, ImageResult, Region, Truth, coco_evaluate};
use turns::{Failure, turns};

/// The numbers of every line.
fn table<const N: usize>(file: PathBuf) -> Result<Vec<[f64; N]>, Failure> {
    let row = |line: &str| -> Result<[f64; N], Failure> {
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        let wrong = |_| format!("{}: a line without {N} numbers", file.display());
        Ok(numbers?.try_into().map_err(wrong)?)
    };
    std::fs::read_to_string(&file)?.lines().map(row).collect()
}

fn results(folder: &Path) -> Result<(Vec<ImageResult>, usize), Failure> {
    let mut images: Vec<ImageResult> = Vec::new();
    let mut classes = 0;
    let mut place = |images: &mut Vec<ImageResult>, image: f64, class: f64| {
        let (image, class) = (image as usize, class as usize);
        classes = classes.max(class + 1);
        if images.len() <= image {
            images.resize(image + 1, ImageResult::default());
        }
        (image, class)
    };
    for [image, class, x, y, w, h] in table(folder.join("truths.txt"))? {
        let (image, class) = place(&mut images, image, class);
        images[image].truths.push(Truth {
            class,
            bbox: [x, y, w, h],
            area: w * h,
            crowd: false,
            difficult: false,
            mask: None,
        });
    }
    for [image, class, score, x, y, w, h] in table(folder.join("detections.txt"))? {
        let (image, class) = place(&mut images, image, class);
        images[image].detections.push(Detection {
            class,
            score,
            bbox: [x, y, w, h],
            mask: None,
        });
    }
    Ok((images, classes))
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let place = args.iter().position(|a| a == name)?;
        args.get(place + 1).cloned()
    };
    let folder = PathBuf::from(option("--folder").ok_or("--folder?")?);
    let threads = option("--threads").map_or(Ok(1), |t| t.parse())?;
    match option("--task").as_deref() {
        Some("coco") => {
            let (images, classes) = results(&folder)?;
            turns(images.len(), || {
                let parameters = CocoParameters::default();
                let result = coco_evaluate(&images, classes, Region::Box, parameters, threads)?;
                Ok(result.summary().ap.unwrap_or(-1.0))
            })
        }
        Some("nms") => {
            let rows = table::<5>(folder.join("boxes.txt"))?;
            let scores: Vec<f32> = rows.iter().map(|r| r[0] as f32).collect();
            let boxes: Vec<[f32; 4]> = rows
                .iter()
                .map(|r| [1, 2, 3, 4].map(|i| r[i] as f32))
                .collect();
            turns(boxes.len(), || Ok(nms(&boxes, &scores, 0.7).len() as f64))
        }
        _ => Err("--task coco or --task nms?".into()),
    }
}
