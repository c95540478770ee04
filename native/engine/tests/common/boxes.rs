//! A small detection set, and the parameters of a training on it.
#![allow(dead_code)] // each test binary uses its part

use std::fs;
use std::path::Path;

use oarlock_imaging::{Image, encode_png};
use oarlock_jobs::{DatasetFormat, DatasetRef, DetectionParams};

use crate::common::{augment, common as parameters};

/// One box: class name, left, top, right, bottom.
pub type Thing<'a> = (&'a str, [i32; 4]);

fn picture(root: &Path, name: &str, (width, height): (usize, usize)) {
    fs::create_dir_all(root.join("JPEGImages")).unwrap();
    let image = Image::filled(width, height, [90, 120, 60]);
    fs::write(
        root.join("JPEGImages").join(name),
        encode_png(&image).unwrap(),
    )
    .unwrap();
}

pub fn voc(root: &Path, sets: [&[&[Thing]]; 2], labels: &str) -> DatasetRef {
    fs::create_dir_all(root.join("Annotations")).unwrap();
    let mut number = 0;
    for (list, set) in ["train_list.txt", "val_list.txt"].iter().zip(sets) {
        let mut lines = String::new();
        for things in set {
            picture(root, &format!("{number}.png"), (80, 60));
            let mut xml =
                "<annotation><size><width>80</width><height>60</height></size>".to_owned();
            for (name, [x1, y1, x2, y2]) in *things {
                xml += &format!(
                    "<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                );
            }
            fs::write(
                root.join(format!("Annotations/{number}.xml")),
                xml + "</annotation>",
            )
            .unwrap();
            lines += &format!("JPEGImages/{number}.png Annotations/{number}.xml\n");
            number += 1;
        }
        fs::write(root.join(list), lines).unwrap();
    }
    fs::write(root.join("labels.txt"), labels).unwrap();
    DatasetRef {
        format: DatasetFormat::Voc,
        root: root.display().to_string(),
    }
}

pub fn params(model: &str) -> DetectionParams {
    let mut common = parameters(model);
    common.image_shape = [64, 64];
    common.batch_size = 2;
    DetectionParams {
        common,
        augment: augment(),
        backbone: None,
        with_fpn: true,
        use_mixup: true,
        mixup_alpha: 1.5,
        mixup_beta: 1.5,
        expand_image: true,
        expand_prob: 0.5,
        crop_image: true,
        random_shape: true,
        random_shape_sizes: vec![32, 64, 96],
        image_mean: [0.485, 0.456, 0.406],
        image_std: [0.229, 0.224, 0.225],
        ema_decay: 0.0,
    }
}
