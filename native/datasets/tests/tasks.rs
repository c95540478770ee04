//! Detection and segmentation inputs: annotations stay on their thing, pixels equal the plain way.

use oarlock_datasets::{DetectTrain, Fit, Jitter, SegmentTrain};
use oarlock_imaging::transform::{BoxCrop, Distort, ScaleAspect};
use oarlock_imaging::{
    BBox, Image, Interpolation, Object, Rect, Rng, encode_jpeg, encode_png, resize,
};

const PAPER: u8 = 200;

/// A picture of one dark rectangle and its label map (class 7) as grey PNG.
fn picture(size: (usize, usize), at: Rect) -> (Image, Vec<u8>) {
    let mut image = Image::filled(size.0, size.1, [PAPER; 3]);
    let mut map = vec![0u8; size.0 * size.1];
    for y in at.y..at.y + at.height {
        image.row_mut(y)[at.x * 3..(at.x + at.width) * 3].fill(20);
        map[y * size.0 + at.x..y * size.0 + at.x + at.width].fill(7);
    }
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, size.0 as u32, size.1 as u32);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&map).unwrap();
    writer.finish().unwrap();
    (image, mask)
}

/// The bounds of the pixels for which `is` holds.
fn bounds(width: usize, count: usize, is: impl Fn(usize) -> bool) -> Option<BBox> {
    let mut found: Option<BBox> = None;
    for i in (0..count).filter(|i| is(*i)) {
        let (x, y) = ((i % width) as f32, (i / width) as f32);
        let b = found.unwrap_or(BBox::new(x, y, x, y));
        found = Some(BBox::new(
            b.x1.min(x),
            b.y1.min(y),
            b.x2.max(x + 1.0),
            b.y2.max(y + 1.0),
        ));
    }
    found
}

fn near(a: BBox, b: BBox, by: f32) -> bool {
    [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)]
        .into_iter()
        .all(|(a, b)| (a - b).abs() <= by)
}

fn rectangle(rng: &mut Rng) -> ((usize, usize), Rect) {
    let size = (300 + rng.below(500), 300 + rng.below(500));
    let (width, height) = (90 + rng.below(150), 90 + rng.below(150));
    let at = Rect {
        x: rng.below(size.0 - width),
        y: rng.below(size.1 - height),
        width,
        height,
    };
    (size, at)
}

#[test]
fn boxes_stay_on_their_thing_through_expand_crop_resize_and_flip() {
    let train = DetectTrain {
        fit: Fit::Exact(vec![(96, 160)]),
        mixup: None,
        distort: Distort::default(),
        expand: Some((4.0, 0.5)),
        crop: Some(BoxCrop::default()),
        horizontal_flip: 0.5,
        interpolations: Interpolation::CV2.to_vec(),
        fill: [PAPER; 3],
    };
    let (mut seen, mut lost) = (0, 0);
    for seed in 0..150 {
        let mut rng = Rng::of(&[seed]);
        let (size, at) = rectangle(&mut rng);
        let (image, _) = picture(size, at);
        let bytes = match seed % 3 {
            0 => encode_png(&image).unwrap(),
            _ => encode_jpeg(&image, 95).unwrap(),
        };
        let object = Object {
            class: 3,
            bbox: at.into(),
            weight: 1.0,
            ..Object::default()
        };
        let run = || {
            let mut out = vec![0; 96 * 160 * 3];
            let mut rng = Rng::of(&[seed, 9]);
            let objects =
                train.run_bytes(&bytes, std::slice::from_ref(&object), &mut rng, &mut out);
            (objects.unwrap(), out)
        };
        let (objects, out) = run();
        assert_eq!(
            (&objects, &out),
            (&run().0, &run().1),
            "the same stream, the same result"
        );
        let dark = bounds(160, 96 * 160, |i| out[i * 3] < 110);
        match (objects.first(), dark) {
            (Some(object), Some(dark)) => {
                seen += 1;
                assert!(
                    near(object.bbox, dark, 2.6),
                    "{seed}: {:?}, seen {dark:?}",
                    object.bbox
                );
            }
            // The centre was cut off, or the thing became thinner than a pixel.
            _ => lost += 1,
        }
    }
    assert!(seen > 120 && lost < 30, "{seen} {lost}");
}

#[test]
fn without_random_changes_the_input_is_the_resized_picture() {
    let mut rng = Rng::of(&[5]);
    let mut image = Image::filled(333, 211, [0; 3]);
    image
        .data_mut()
        .iter_mut()
        .for_each(|v| *v = rng.below(256) as u8);
    let bytes = encode_png(&image).unwrap();
    let mut train = DetectTrain {
        fit: Fit::Exact(vec![(96, 128)]),
        mixup: None,
        distort: Distort::default(),
        expand: None,
        crop: None,
        horizontal_flip: 0.0,
        interpolations: Vec::new(),
        fill: [0; 3],
    };
    let mut out = vec![0; 96 * 128 * 3];
    let expected = resize(&image, None, 128, 96).unwrap();
    train
        .run_bytes(&bytes, &[], &mut Rng::of(&[1]), &mut out)
        .unwrap();
    assert_eq!(out, expected.data());
    let bright = Some(Jitter {
        range: 0.5,
        prob: 1.0,
    });
    train.distort.brightness = bright;
    train
        .run_bytes(&bytes, &[], &mut Rng::of(&[1]), &mut out)
        .unwrap();
    assert_ne!(out, expected.data());
    assert!(
        train
            .run_bytes(&bytes, &[], &mut Rng::of(&[1]), &mut out[1..])
            .is_err()
    );

    let segment = SegmentTrain {
        horizontal_flip: 0.0,
        ..SegmentTrain::resized(96, 128, Distort::default())
    };
    let (_, mask) = picture(
        (333, 211),
        Rect {
            x: 9,
            y: 9,
            width: 50,
            height: 40,
        },
    );
    let mut labels = vec![0; 96 * 128];
    segment
        .run_bytes(&bytes, &mask, &mut Rng::of(&[1]), &mut out, &mut labels)
        .unwrap();
    let worst = out
        .iter()
        .zip(expected.data())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(worst <= Some(1), "{worst:?}");
}

#[test]
fn label_maps_stay_on_their_thing_through_crops_and_flips() {
    let train = SegmentTrain {
        resize: None,
        scale_aspect: Some(ScaleAspect {
            min_ratio: 0.5,
            aspect: 0.33,
        }),
        crop: (512, 512),
        blur: 0.3,
        distort: Distort::default(),
        horizontal_flip: 0.5,
        vertical_flip: 0.5,
        rotate: None,
        fill: [PAPER; 3],
    };
    let mut padded = 0;
    for seed in 0..120 {
        let mut rng = Rng::of(&[seed, 2]);
        let (size, at) = rectangle(&mut rng);
        let (image, mask) = picture(size, at);
        let bytes = match seed % 3 {
            0 => encode_png(&image).unwrap(),
            _ => encode_jpeg(&image, 95).unwrap(),
        };
        let (mut out, mut labels) = (vec![0; 512 * 512 * 3], vec![9; 512 * 512]);
        let mut rng = Rng::of(&[seed, 9]);
        train
            .run_bytes(&bytes, &mask, &mut rng, &mut out, &mut labels)
            .unwrap();
        let dark = bounds(512, 512 * 512, |i| out[i * 3] < 110);
        let marked = bounds(512, 512 * 512, |i| labels[i] == 7);
        match (dark, marked) {
            (Some(a), Some(b)) => assert!(near(a, b, 2.0), "{seed}: {a:?} {b:?}"),
            (a, b) => assert_eq!(a.is_some(), b.is_some(), "{seed}"),
        }
        let ignored = labels.iter().filter(|l| **l == 255).count();
        let inside = size.0.min(512) * size.1.min(512);
        assert_eq!(ignored, 512 * 512 - inside, "{seed}");
        padded += usize::from(ignored > 0);
        let known = |l: &u8| matches!(l, 0 | 7 | 255);
        assert!(labels.iter().all(known), "ids never mix");
    }
    assert!((20..115).contains(&padded), "{padded}");
    let (image, _) = picture(
        (300, 300),
        Rect {
            x: 0,
            y: 0,
            width: 9,
            height: 9,
        },
    );
    let (_, mask) = picture(
        (301, 300),
        Rect {
            x: 0,
            y: 0,
            width: 9,
            height: 9,
        },
    );
    let (mut out, mut labels) = (vec![0; 512 * 512 * 3], vec![9; 512 * 512]);
    let bytes = encode_png(&image).unwrap();
    let error = train
        .run_bytes(&bytes, &mask, &mut Rng::of(&[]), &mut out, &mut labels)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "its label map is 301×300, but the picture 300×300"
    );
}
