//! Multi-channel TIFF and `.npy` against the formula of `tests/fixtures/make_rasters.py`.

use std::path::PathBuf;

use oarlock_imaging::{
    Format, Image, ImageError, Limits, Raster, Samples, channel_statistics, decode, decode_raster,
    inspect,
};

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/raster");
    std::fs::read(folder.join(name)).unwrap()
}

fn base(y: usize, x: usize, c: usize) -> i32 {
    (y * 31 + x * 7 + c * 1009) as i32
}

fn check(name: &str, kind: &str, channels: usize, value: impl Fn(i32) -> f32) {
    let data = bytes(name);
    let info = inspect(&data).unwrap();
    assert_eq!((info.width, info.height), (13, 9), "{name}");
    assert_eq!(usize::from(info.channels), channels, "{name}");
    let raster = decode_raster(&data, &Limits::default()).unwrap();
    assert_eq!((raster.width(), raster.height()), (13, 9), "{name}");
    assert_eq!(
        (raster.channels(), raster.samples().kind()),
        (channels, kind),
        "{name}"
    );
    for y in 0..9 {
        for x in 0..13 {
            for c in 0..channels {
                let wanted = value(base(y, x, c));
                assert_eq!(raster.value(x, y, c), wanted, "{name} at {y},{x},{c}");
            }
        }
    }
}

#[test]
fn every_form_of_tiff_gives_all_channels() {
    for name in [
        "u16.tif",
        "u16_deflate_predictor.tif",
        "u16_bigtiff.tif",
        "u16_strips.tif",
        "u16_tiles.tif",
        "u16_planar.tif",
        "u16_rgb_extra.tif",
        "u16_rgb_extra_big.tif",
    ] {
        check(name, "uint16", 5, |v| v as f32);
        assert_eq!(inspect(&bytes(name)).unwrap().format, Format::Tiff);
    }
    for name in ["u8_lzw.tif", "u8_planar_lzw.tif", "u8_rgb_extra_planar.tif"] {
        check(name, "uint8", 5, |v| (v % 251) as f32);
    }
    check("i16_big_endian.tif", "float32", 5, |v| (v - 2500) as f32);
    check("f32_deflate_predictor.tif", "float32", 5, |v| {
        v as f32 / 8.0
    });
    check("u16_one.tif", "uint16", 1, |v| v as f32);
}

#[test]
fn every_numeric_npy_gives_its_values() {
    for name in ["u2.npy", "big_u2.npy", "fortran.npy", "version2.npy"] {
        check(name, "uint16", 5, |v| v as f32);
    }
    check("two_dimensions.npy", "uint16", 1, |v| v as f32);
    check("u1.npy", "uint8", 5, |v| (v % 251) as f32);
    for name in ["u4.npy", "u8.npy"] {
        check(name, "float32", 5, |v| v as f32);
    }
    for name in ["i2.npy", "big_i4.npy", "i8.npy"] {
        check(name, "float32", 5, |v| (v - 2500) as f32);
    }
    check("f2.npy", "float32", 5, |v| (v % 251) as f32 / 8.0);
    for name in ["f4.npy", "big_f8.npy"] {
        check(name, "float32", 5, |v| v as f32 / 8.0);
    }
}

#[test]
fn arrays_of_objects_and_other_strange_ones_are_refused_with_the_reason() {
    let says = |name: &str| decode_raster(&bytes(name), &Limits::default()).unwrap_err();
    let object = says("refused_object.npy").to_string();
    assert!(
        object.contains("Python objects, which are never loaded"),
        "{object}"
    );
    for (name, part) in [
        ("refused_structured.npy", "structured"),
        ("refused_complex.npy", "c8"),
        ("refused_one_dimension.npy", "1 dimensions"),
    ] {
        let error = says(name);
        assert!(matches!(error, ImageError::Unsupported { .. }), "{name}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let rgb = decode(&bytes("u2.npy"), &Limits::default(), None).unwrap_err();
    assert!(matches!(rgb, ImageError::Unsupported { .. }));
    for cut in [5, 9, 40, 500] {
        let error = decode_raster(&bytes("u2.npy")[..cut], &Limits::default()).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn claims_beyond_the_limits_are_refused_by_the_header() {
    let limits = Limits {
        raster_bytes: 9 * 13 * 5 * 2 - 1,
        ..Limits::default()
    };
    for name in ["u16.tif", "u2.npy"] {
        let error = decode_raster(&bytes(name), &limits).unwrap_err();
        assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    }
    // A TIFF header of 900 MB on 1 KB: no allocation, no wait.
    let mut lie = bytes("u8_lzw.tif");
    let entry = |w: &[u8]| w[..2] == [0, 1] && (w[2] == 3 || w[2] == 4) && w[3] == 0;
    let width = lie.windows(4).position(entry).unwrap();
    lie[width + 2] = 4;
    lie[width + 8..width + 12].copy_from_slice(&20_000_000u32.to_le_bytes());
    let started = std::time::Instant::now();
    assert!(decode_raster(&lie, &Limits::default()).is_err());
    assert!(started.elapsed().as_millis() < 100);
}

#[test]
fn statistics_equal_numpy() {
    let raster = decode_raster(&bytes("f4.npy"), &Limits::default()).unwrap();
    let channel = channel_statistics(&raster, (2.0, 98.0))[3];
    // Printed by make_rasters.py.
    assert_eq!((channel.minimum, channel.maximum), (378.375, 419.875));
    assert!((channel.mean - 399.125).abs() < 1e-9);
    assert!((channel.deviation - 10.52724639526722).abs() < 1e-9);
    assert_eq!(channel.percentiles, (380.405, 417.845));
    let holes = Samples::F32(vec![f32::NAN, 1.0, f32::INFINITY, 3.0]);
    let holes = Raster::new(2, 2, 1, holes).unwrap();
    let channel = channel_statistics(&holes, (0.0, 100.0))[0];
    assert_eq!(
        (channel.minimum, channel.maximum, channel.mean),
        (1.0, 3.0, 2.0)
    );
}

#[test]
fn three_channels_become_a_stretched_picture() {
    let raster = decode_raster(&bytes("u16.tif"), &Limits::default()).unwrap();
    let limits = channel_statistics(&raster, (2.0, 98.0));
    let limits = [4, 2, 0].map(|c: usize| limits[c].percentiles);
    let picture = raster.to_image([4, 2, 0], limits).unwrap();
    assert_eq!(
        (picture.pixel(0, 0), picture.pixel(12, 8)),
        ([0; 3], [255; 3])
    );
    assert!(raster.to_image([0, 1, 5], limits).is_err());
    let same = Image::filled(3, 2, [1, 2, 3]);
    let back = Raster::from(same.clone());
    let whole = [(0.0, 255.0); 3];
    assert_eq!(back.to_image([0, 1, 2], whole).unwrap(), same);
}
