//! Transforms against OpenCV and Pillow (fixtures by `tests/fixtures/make_transforms.py`).

use std::path::PathBuf;

use oarlock_imaging::transform::{
    BoxCrop, Clip, Expand, Flip, Letterbox, PadToMultiple, PaddingCrop, Resize, ResizeByLong,
    ResizeByShort, Rotate, ScaleAspect, ScaledCrop, Stretch, Transform, apply_all, mixup,
};
use oarlock_imaging::{
    BBox, Change, Image, Interpolation, Labeled, Limits, Object, Pixels, Plane, Raster, Rect, Rng,
    Samples, decode, decode_raster, polygon_area,
};

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transforms");
    std::fs::read(folder.join(name)).unwrap()
}

fn read(name: &str) -> Image {
    decode(&bytes(&format!("{name}.png")), &Limits::default(), None).unwrap()
}

fn labels(name: &str) -> Plane {
    let grey = read(name);
    let values = grey.data().iter().step_by(3).copied().collect();
    Plane::new(grey.width(), grey.height(), values).unwrap()
}

fn array(name: &str) -> Raster {
    decode_raster(&bytes(name), &Limits::default()).unwrap()
}

/// Largest difference and share of values that differ by more than `step`.
fn difference(a: &[u8], b: &[u8], step: u8) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let diffs = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let above = diffs.clone().filter(|d| *d > step).count();
    (diffs.max().unwrap(), above as f64 / a.len() as f64)
}

fn resized<P: Pixels>(picture: &P, to: (usize, usize), how: Interpolation) -> P {
    let change = Change::Resize {
        from: picture.whole(),
        to,
        interpolation: how,
    };
    picture.changed(&change).unwrap()
}

const SIZES: [(&str, (usize, usize)); 3] =
    [("down", (67, 53)), ("up", (200, 149)), ("mixed", (190, 71))];

#[test]
fn every_interpolation_equals_opencv_within_one_level() {
    use Interpolation as I;
    let photo = read("photo");
    for (name, how) in [
        ("nearest", I::Nearest),
        ("linear", I::Linear),
        ("cubic", I::Cubic),
        ("area", I::Area),
        ("lanczos", I::Lanczos),
    ] {
        for (size, to) in SIZES {
            if size == "mixed" && !["area", "cubic"].contains(&name) {
                continue;
            }
            let expected = read(&format!("{name}_{size}"));
            let (max, above) = difference(resized(&photo, to, how).data(), expected.data(), 1);
            assert!(above <= 0.001 && max <= 3, "{name} {size}: {max}, {above}");
        }
    }
}

#[test]
fn antialiased_interpolations_equal_pillow_within_one_level() {
    use Interpolation as I;
    let photo = read("photo");
    for (name, how) in [
        ("linear", I::LinearAntialiased),
        ("cubic", I::CubicAntialiased),
        ("lanczos", I::LanczosAntialiased),
    ] {
        let expected = read(&format!("{name}_antialiased_down"));
        let got = resized(&photo, (67, 53), how);
        let (max, above) = difference(got.data(), expected.data(), 1);
        assert!(above <= 0.001 && max <= 2, "{name}: {max}, {above}");
    }
}

#[test]
fn label_maps_equal_opencv_nearest_exactly() {
    let map = labels("labels");
    for (size, to) in &SIZES[..2] {
        // Asked for cubic: labels never mix.
        let got = resized(&map, *to, Interpolation::Cubic);
        assert_eq!(got, labels(&format!("labels_{size}")), "{size}");
    }
}

#[test]
fn bands_equal_opencv() {
    let bands = array("bands.npy");
    let compare = |got: &Raster, expected: &Raster, step: f32, what: &str| {
        assert_eq!(got.samples().kind(), expected.samples().kind(), "{what}");
        assert_eq!((got.size(), got.channels()), (expected.size(), 5), "{what}");
        let mut worst = 0f32;
        for c in 0..5 {
            let pairs = got.channel(c).into_iter().zip(expected.channel(c));
            worst = pairs.map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        }
        assert!(worst <= step, "{what}: {worst}");
    };
    for (name, how) in [
        ("linear", Interpolation::Linear),
        ("cubic", Interpolation::Cubic),
        ("area", Interpolation::Area),
    ] {
        let got = resized(&bands, (31, 29), how);
        compare(&got, &array(&format!("bands_{name}.npy")), 1.0, name);
    }
    let floats: Vec<f32> = match bands.samples() {
        Samples::U16(v) => v.iter().map(|v| f32::from(*v) / 97.0).collect(),
        _ => unreachable!(),
    };
    let floats = Raster::new(60, 48, 5, Samples::F32(floats)).unwrap();
    let got = resized(&floats, (31, 29), Interpolation::Cubic);
    compare(&got, &array("bands_float_cubic.npy"), 0.01, "float cubic");
    let got = bands.changed(&Change::Blur(5)).unwrap();
    compare(&got, &array("bands_blur.npy"), 1.0, "blur");
}

#[test]
fn flips_blur_rotation_and_canvas_equal_opencv() {
    let photo = read("photo");
    for (change, name) in [
        (Change::FlipHorizontal, "flip_horizontal"),
        (Change::FlipVertical, "flip_vertical"),
    ] {
        assert_eq!(photo.changed(&change).unwrap(), read(name));
    }
    for kernel in [3, 5, 7, 9] {
        let got = photo.changed(&Change::Blur(kernel)).unwrap();
        let (max, _) = difference(got.data(), read(&format!("blur_{kernel}")).data(), 1);
        assert!(max <= 1, "blur {kernel}: {max}");
    }
    let part = photo.crop(Rect {
        x: 0,
        y: 0,
        width: 80,
        height: 60,
    });
    let mut item = Labeled::new(part);
    let fill = [124.0, 116.0, 104.0];
    item.place((110, 107), (9, 17), &fill).unwrap();
    assert_eq!(item.image, read("expand"));

    let mut item = Labeled::new(photo);
    item.label_map = Some(labels("labels"));
    item.rotate(17.5, false, &fill).unwrap();
    // OpenCV rounds positions to 1/32 pixel: up to a few levels where neighbours differ much.
    let (max, above) = difference(item.image.data(), read("rotate").data(), 2);
    assert!(max <= 10 && above <= 0.02, "{max} {above}");
    let (_, other) = difference(
        item.label_map.unwrap().data(),
        labels("labels_rotate").data(),
        0,
    );
    assert!(other <= 0.002, "{other} of the labels differ");
}

/// A picture of one dark rectangle, known in every way an annotation can be.
fn rectangle(size: (usize, usize), at: Rect) -> Labeled {
    let mut image = Image::filled(size.0, size.1, [200; 3]);
    let mut mask = Plane::filled(size.0, size.1, 0);
    let mut map = Plane::filled(size.0, size.1, 0);
    for y in at.y..at.y + at.height {
        image.row_mut(y)[at.x * 3..(at.x + at.width) * 3].fill(20);
        let row = y * size.0 + at.x..y * size.0 + at.x + at.width;
        mask.data_mut()[row.clone()].fill(1);
        map.data_mut()[row].fill(7);
    }
    let bbox = BBox::from(at);
    let BBox { x1, y1, x2, y2 } = bbox;
    let object = Object {
        class: 7,
        bbox,
        polygons: vec![vec![[x1, y1], [x2, y1], [x2, y2], [x1, y2]]],
        mask: Some(mask),
        difficult: false,
        crowd: false,
        weight: 1.0,
    };
    Labeled {
        image,
        objects: vec![object],
        label_map: Some(map),
    }
}

/// The bounds of the pixels for which `is` holds.
fn bounds(width: usize, height: usize, is: impl Fn(usize, usize) -> bool) -> BBox {
    let mut out = BBox::new(f32::MAX, f32::MAX, 0.0, 0.0);
    for y in 0..height {
        for x in (0..width).filter(|x| is(*x, y)) {
            let (x, y) = (x as f32, y as f32);
            out = BBox::new(
                out.x1.min(x),
                out.y1.min(y),
                out.x2.max(x + 1.0),
                out.y2.max(y + 1.0),
            );
        }
    }
    out
}

fn near(a: BBox, b: BBox, by: f32) -> bool {
    [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)]
        .into_iter()
        .all(|(a, b)| (a - b).abs() <= by)
}

/// Whether box, polygon, mask and label map still say where the rectangle is in the picture.
fn agree(item: &Labeled, by: f32, what: &str) {
    let (w, h) = item.image.size();
    let dark = bounds(w, h, |x, y| item.image.pixel(x, y)[0] < 110);
    let map = item.label_map.as_ref().unwrap();
    assert_eq!(map.size(), (w, h), "{what}");
    let Some(object) = item.objects.first() else {
        return;
    };
    let mask = object.mask.as_ref().unwrap();
    let points = object.polygons.iter().flatten();
    let outline = points.fold(BBox::new(f32::MAX, f32::MAX, 0.0, 0.0), |b, p| {
        BBox::new(
            b.x1.min(p[0]),
            b.y1.min(p[1]),
            b.x2.max(p[0]),
            b.y2.max(p[1]),
        )
    });
    for (name, got) in [
        ("box", object.bbox),
        ("polygon", outline),
        ("mask", bounds(w, h, |x, y| mask.value(x, y) == 1)),
        ("map", bounds(w, h, |x, y| map.value(x, y) == 7)),
    ] {
        assert!(
            near(got, dark, by),
            "{what}: {name} {got:?}, seen at {dark:?}"
        );
    }
}

#[test]
fn annotations_stay_on_their_thing_through_every_transform() {
    let how = Interpolation::Linear;
    let fill = vec![200.0];
    let transforms: [(&str, Box<dyn Transform>); 13] = [
        (
            "resize",
            Box::new(Resize {
                to: (90, 120),
                interpolations: Interpolation::CV2.to_vec(),
            }),
        ),
        (
            "by short",
            Box::new(ResizeByShort {
                short: 70,
                long_cap: Some(90),
                interpolation: how,
            }),
        ),
        (
            "by long",
            Box::new(ResizeByLong {
                long: 200,
                interpolation: how,
            }),
        ),
        (
            "letterbox",
            Box::new(Letterbox {
                to: (96, 96),
                fill: fill.clone(),
                interpolation: how,
            }),
        ),
        (
            "multiple",
            Box::new(PadToMultiple {
                of: 32,
                fill: fill.clone(),
            }),
        ),
        (
            "scaled crop",
            Box::new(ScaledCrop {
                to: (64, 64),
                scale: (0.88, 1.0),
                aspect: (0.75, 1.333),
            }),
        ),
        ("box crop", Box::new(BoxCrop::default())),
        (
            "scale aspect",
            Box::new(ScaleAspect {
                min_ratio: 0.5,
                aspect: 0.33,
            }),
        ),
        (
            "padding crop",
            Box::new(PaddingCrop {
                to: (80, 200),
                fill: fill.clone(),
            }),
        ),
        (
            "expand",
            Box::new(Expand {
                ratio: 4.0,
                prob: 1.0,
                fill: fill.clone(),
            }),
        ),
        (
            "flip",
            Box::new(Flip {
                horizontal: 0.5,
                vertical: 0.5,
            }),
        ),
        (
            "rotate",
            Box::new(Rotate {
                range: 0.0,
                prob: 1.0,
                grow: true,
                fill: fill.clone(),
            }),
        ),
        ("quarter turn", Box::new(QuarterTurn)),
    ];
    for seed in 0..40 {
        let mut rng = Rng::of(&[seed]);
        let size = (60 + rng.below(80), 60 + rng.below(80));
        let (width, height) = (12 + rng.below(30), 12 + rng.below(30));
        let at = Rect {
            x: rng.below(size.0 - width),
            y: rng.below(size.1 - height),
            width,
            height,
        };
        for (name, transform) in &transforms {
            let mut item = rectangle(size, at);
            transform.apply(&mut item, &mut rng).unwrap();
            agree(&item, 1.6, name);
        }
        // All after each other, twice with the same stream: the same result.
        let chain: Vec<&dyn Transform> = transforms.iter().map(|(_, t)| &**t).collect();
        let run = || {
            let mut item = rectangle(size, at);
            apply_all(&chain, &mut item, &mut Rng::of(&[seed, 1])).unwrap();
            item
        };
        assert_eq!(run(), run());
    }
}

/// Turns by 90 degrees exactly.
struct QuarterTurn;

impl Transform for QuarterTurn {
    fn apply(&self, item: &mut Labeled, _: &mut Rng) -> Result<(), oarlock_imaging::ImageError> {
        let before = item.image.size();
        item.rotate(90.0, true, &[200.0])?;
        assert_eq!(item.image.size(), (before.1, before.0));
        Ok(())
    }
}

#[test]
fn turned_boxes_hold_the_turned_polygon() {
    let mut item = rectangle(
        (200, 160),
        Rect {
            x: 80,
            y: 60,
            width: 40,
            height: 30,
        },
    );
    item.rotate(30.0, true, &[200.0]).unwrap();
    let object = &item.objects[0];
    assert!((polygon_area(&object.polygons[0]) - 1200.0).abs() < 1.0);
    // w·cos + h·sin, w·sin + h·cos
    assert!(
        (object.bbox.x2 - object.bbox.x1 - 49.64).abs() < 0.05,
        "{:?}",
        object.bbox
    );
    assert!(
        (object.bbox.y2 - object.bbox.y1 - 45.98).abs() < 0.05,
        "{:?}",
        object.bbox
    );
    agree(&item, 1.6, "turned");
}

#[test]
fn the_box_crop_keeps_its_promises() {
    let boxes = [
        BBox::new(10.0, 10.0, 60.0, 50.0),
        BBox::new(150.0, 100.0, 190.0, 140.0),
    ];
    let crop = BoxCrop {
        thresholds: vec![0.3],
        allow_whole: false,
        ..BoxCrop::default()
    };
    let (mut cut, mut sides) = (0, (1.0f32, 0.0f32));
    for seed in 0..500 {
        let Some(rect) = crop.draw((200, 150), &boxes, &mut Rng::of(&[seed])) else {
            continue;
        };
        cut += 1;
        let part = BBox::from(rect);
        assert!(boxes.iter().any(|b| b.iou(&part) >= 0.3));
        let scale = (part.area() / (200.0 * 150.0)).sqrt();
        sides = (sides.0.min(scale), sides.1.max(scale));
        assert!(part.x2 <= 200.0 && part.y2 <= 150.0);
    }
    assert!(
        cut > 200 && sides.0 < 0.31 && sides.1 > 0.45,
        "{cut} {sides:?}"
    );
    assert_eq!(crop.draw((200, 150), &[], &mut Rng::of(&[1])), None);
}

#[test]
fn mixup_blends_and_weighs() {
    let first = rectangle(
        (60, 40),
        Rect {
            x: 5,
            y: 5,
            width: 10,
            height: 10,
        },
    );
    let second = rectangle(
        (50, 70),
        Rect {
            x: 20,
            y: 50,
            width: 10,
            height: 10,
        },
    );
    let mixed = mixup(first.clone(), second.clone(), 0.7);
    assert_eq!(mixed.image.size(), (60, 70));
    // 200·0.7 + 200·0.3; only the second one below 40; neither in the corner.
    assert_eq!(mixed.image.pixel(1, 1), [200; 3]);
    assert!(mixed.image.pixel(1, 60)[0].abs_diff(60) <= 1);
    assert_eq!(mixed.image.pixel(55, 60), [0; 3]);
    assert!(mixed.image.pixel(7, 7)[0].abs_diff(74) <= 1);
    let weights: Vec<f32> = mixed.objects.iter().map(|o| o.weight).collect();
    assert!((weights[0] - 0.7).abs() < 1e-6 && (weights[1] - 0.3).abs() < 1e-6);
    assert_eq!(mixup(first.clone(), second.clone(), 1.0), first);
    assert_eq!(mixup(first, second.clone(), -0.5), second);
}

#[test]
fn value_ranges_are_cut_and_stretched() {
    let raster = Raster::new(2, 1, 2, Samples::U16(vec![100, 5, 900, 6])).unwrap();
    let limits = vec![(200.0, 600.0), (5.0, 7.0)];
    let cut = Clip {
        limits: limits.clone(),
    }
    .of(&raster)
    .unwrap();
    assert_eq!(*cut.samples(), Samples::U16(vec![200, 5, 600, 6]));
    let out = Stretch { limits }.of(&raster).unwrap();
    assert_eq!(*out.samples(), Samples::U8(vec![0, 0, 255, 128]));
    assert!(Clip { limits: vec![] }.of(&raster).is_err());
    // Geometry of bands goes through the same transforms.
    let mut item = Labeled::new(array("bands.npy"));
    item.label_map = Some(Plane::filled(60, 48, 3));
    let crop = PaddingCrop {
        to: (70, 30),
        fill: vec![0.0],
    };
    crop.apply(&mut item, &mut Rng::of(&[3])).unwrap();
    assert_eq!((item.image.size(), item.image.channels()), ((70, 30), 5));
    assert_eq!(item.label_map.as_ref().unwrap().value(65, 5), 255);
}
