//! Draws made-up labels on a picture, to look at: `cargo run --release -p oarlock-imaging --example
//! draw_labels -- PICTURE FOLDER`.

use std::path::Path;

use oarlock_imaging::{
    BBox, DrawnObject, LABEL_PICTURE_SIDE, Limits, Plane, decode_file, draw_label_map,
    draw_objects, encode_png, fit_within, resize_smooth, with_legend,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let picture = args.next().ok_or("which picture?")?;
    let folder = args.next().ok_or("into which folder?")?;
    let image = decode_file(Path::new(&picture), &Limits::default(), None)?;
    for side in [4000, 580, 120] {
        let (w, h) = fit_within(image.width(), image.height(), side);
        let image = resize_smooth(&image, w, h)?;
        let (w, h) = (w as f32, h as f32);
        let boxes = [
            (0.05, 0.02, 0.5, 0.6, "杯子 cup"),
            (0.45, 0.3, 0.95, 0.9, "Löffel"),
            (0.1, 0.65, 0.3, 0.95, "стол"),
            (0.8, 0.05, 0.99, 0.25, "スプーンとフォーク"),
        ];
        let objects: Vec<DrawnObject> = boxes
            .iter()
            .enumerate()
            .map(|(i, (x1, y1, x2, y2, name))| {
                let bbox = BBox::new(x1 * w, y1 * h, x2 * w, y2 * h);
                let corner = |k: usize| {
                    let turn = k as f32 / 40.0 * std::f32::consts::TAU;
                    let (cx, cy) = bbox.centre();
                    let (rx, ry) = ((bbox.x2 - bbox.x1) / 2.0, (bbox.y2 - bbox.y1) / 2.0);
                    [cx + rx * turn.cos(), cy + ry * turn.sin()]
                };
                DrawnObject {
                    bbox,
                    polygons: vec![(0..40).map(corner).collect()],
                    name: (*name).into(),
                    colour: i + 1,
                    score: (i % 2 == 0).then_some(0.87),
                    ..DrawnObject::default()
                }
            })
            .collect();
        let plain: Vec<DrawnObject> = objects
            .iter()
            .map(|o| DrawnObject {
                polygons: Vec::new(),
                ..o.clone()
            })
            .collect();
        let mut map = Plane::filled(image.width(), image.height(), 0);
        for (i, slot) in map.data_mut().iter_mut().enumerate() {
            let (x, y) = (i % image.width(), i / image.width());
            *slot = ((x * 4 / image.width()) + (y * 2 / image.height())) as u8;
        }
        let names: Vec<String> = ["背景", "road", "Straße", "дорога"].map(Into::into).into();
        let save = |name: &str, image: &oarlock_imaging::Image| {
            let path = format!("{folder}/{name}_{side}.png");
            encode_png(image).map(|bytes| std::fs::write(path, bytes))
        };
        let shown = Some(LABEL_PICTURE_SIDE);
        save("detection", &draw_objects(&image, &plain, shown)?)??;
        save("instance", &draw_objects(&image, &objects, shown)?)??;
        let blended = draw_label_map(&image, &map)?;
        save(
            "segmentation",
            &with_legend(&blended, &[0, 1, 2, 3, 4, 255], &names),
        )??;
    }
    Ok(())
}
