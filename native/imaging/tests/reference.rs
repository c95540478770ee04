//! Decoders and transforms against OpenCV and Pillow (fixtures by `tests/fixtures/make.py`).

use std::path::PathBuf;

use oarlock_imaging::{
    DecodePlan, Format, Image, Limits, Rect, brightness, contrast, decode, decode_file,
    decode_region, hue, inspect, plan, resize, rotate, saturation,
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn read(name: &str) -> Image {
    decode_file(&fixture(name), &Limits::default(), None).unwrap()
}

/// Largest difference, and the share of values that differ by more than one level.
fn difference(a: &Image, b: &Image) -> (u8, f64) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let diffs = a.data().iter().zip(b.data()).map(|(a, b)| a.abs_diff(*b));
    let above = diffs.clone().filter(|d| *d > 1).count();
    (diffs.max().unwrap(), above as f64 / a.data().len() as f64)
}

fn within_one(a: &Image, b: &Image, what: &str) {
    let (max, above) = difference(a, b);
    assert!(
        max <= 1,
        "{what}: largest difference {max}, {:.2} % above 1",
        above * 100.0
    );
}

#[test]
fn every_format_is_told_by_content_and_decoded_as_opencv_does() {
    let plain = read("plain.png");
    for (name, format, depth, channels) in [
        ("plain.bmp", Format::Bmp, 8, 3),
        ("lossless.webp", Format::WebP, 8, 3),
        ("plain.tif", Format::Tiff, 8, 3),
        ("alpha.png", Format::Png, 8, 4),
        ("deep.png", Format::Png, 16, 3),
        ("deep.tif", Format::Tiff, 16, 3),
    ] {
        let info = inspect(&bytes(name)).unwrap();
        assert_eq!(
            (info.format, info.width, info.height),
            (format, 40, 27),
            "{name}"
        );
        assert_eq!((info.depth, info.channels), (depth, channels), "{name}");
        assert_eq!(read(name), plain, "{name}");
    }
    let palette = read("expect_palette_png.png");
    for name in ["palette.png", "palette.gif", "palette.bmp", "animated.gif"] {
        assert_eq!(read(name), palette, "{name}");
    }
    assert_eq!(read("grey.png"), read("expect_grey_png.png"));
    assert_eq!(read("deep.png"), read("expect_deep_png.png"));
    assert_eq!(read("alpha.png"), read("expect_alpha_png.png"));
    within_one(&read("cmyk.jpg"), &read("expect_cmyk_jpg.png"), "cmyk");
    within_one(&read("photo.jpg"), &read("expect_photo_jpg.png"), "jpeg");
    within_one(&read("lossy.webp"), &read("expect_lossy_webp.png"), "webp");
    assert_eq!(inspect(&bytes("grey.jpg")).unwrap().channels, 1);
    assert!(
        read("grey.jpg")
            .data()
            .chunks_exact(3)
            .all(|p| p[0] == p[1] && p[1] == p[2])
    );
    assert_eq!(read("progressive.jpg").width(), 112);
}

#[test]
fn exif_orientation_is_applied_as_cv2_imread_does() {
    let expected = read("expect_turned.png"); // one row of pixels an orientation
    for orientation in 1..=8u8 {
        let name = format!("turned{orientation}.jpg");
        let info = inspect(&bytes(&name)).unwrap();
        assert_eq!(
            (info.orientation, info.width, info.height),
            (orientation, 40, 27)
        );
        let image = read(&name);
        assert_eq!((image.width(), image.height()), info.display_size());
        let row = expected.row(usize::from(orientation) - 1);
        let worst = image
            .data()
            .iter()
            .zip(row)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap();
        assert!(worst <= 1, "orientation {orientation}: {worst}");
    }
}

#[test]
fn resize_equals_opencv_inter_linear_within_one_level() {
    let base = read("expect_photo_jpg.png");
    let crop = Rect {
        x: 15,
        y: 6,
        width: 81,
        height: 62,
    };
    let corner = Rect {
        x: 15,
        y: 6,
        width: 28,
        height: 20,
    };
    within_one(
        &resize(&base, None, 40, 32).unwrap(),
        &read("expect_resize_down.png"),
        "down",
    );
    within_one(
        &resize(&base, Some(crop), 48, 48).unwrap(),
        &read("expect_resize_crop.png"),
        "crop",
    );
    within_one(
        &resize(&base, Some(corner), 67, 49).unwrap(),
        &read("expect_resize_up.png"),
        "up",
    );
}

#[test]
fn rotation_equals_opencv_within_two_levels() {
    let small = read("expect_small.png");
    let mut out = vec![0; small.data().len()];
    rotate(small.data(), small.width(), small.height(), 17.5, &mut out);
    let out = Image::new(small.width(), small.height(), out).unwrap();
    // OpenCV rounds positions to 1/32 pixel, which is up to 4 levels at this image's edges.
    let (max, above) = difference(&out, &read("expect_rotate.png"));
    assert!(max <= 5 && above < 0.05, "{max} {above}");
}

#[test]
fn colour_changes_equal_pillow_and_opencv_within_one_level() {
    let small = read("expect_small.png");
    type Change = fn(&mut [u8]);
    let cases: [(&str, Change); 4] = [
        ("brightness", |p| brightness(p, 1.37)),
        ("contrast", |p| contrast(p, 1.6)),
        ("saturation", |p| saturation(p, 0.35)),
        ("hue", |p| hue(p, 25.0)),
    ];
    for (name, change) in cases {
        let mut image = small.clone();
        change(image.data_mut());
        within_one(&image, &read(&format!("expect_{name}.png")), name);
    }
}

#[test]
fn a_region_equals_the_same_cut_of_the_whole_for_every_scale_and_orientation() {
    let limits = Limits::default();
    let names = [
        "photo.jpg",
        "progressive.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "turned3.jpg",
        "turned6.jpg",
        "turned7.jpg",
        "plain.png",
    ];
    for name in names {
        let data = bytes(name);
        for cover in [None, Some((50, 30)), Some((20, 10)), Some((3, 2))] {
            let plan: DecodePlan = plan(&data, &limits, cover).unwrap();
            let whole = decode(&data, &limits, cover).unwrap();
            assert_eq!(decode_region(&data, &plan, None).unwrap(), whole);
            assert_eq!(
                (whole.width(), whole.height()),
                (plan.width, plan.height),
                "{name}"
            );
            for (x, y, width, height) in
                [(0, 0, 5, 5), (3, 2, 9, 4), (1, 0, 200, 3), (2, 1, 7, 200)]
            {
                let rect = Rect {
                    x,
                    y,
                    width,
                    height,
                }
                .clamped(plan.width, plan.height);
                let part = decode_region(&data, &plan, Some(rect)).unwrap();
                assert_eq!(
                    part.data(),
                    whole.crop(rect).data(),
                    "{name} {cover:?} {rect:?}"
                );
            }
        }
    }
}

#[test]
fn the_smallest_scale_that_covers_the_target_is_taken() {
    let data = bytes("photo.jpg"); // 112×75
    let limits = Limits::default();
    for (cover, denominator) in [
        (None, 1),
        (Some((113, 10)), 1),
        (Some((57, 10)), 1),
        (Some((56, 38)), 2),
        (Some((28, 19)), 4),
        (Some((14, 10)), 8),
        (Some((1, 1)), 8),
    ] {
        assert_eq!(
            plan(&data, &limits, cover).unwrap().denominator,
            denominator,
            "{cover:?}"
        );
    }
}
