//! The device's geometry on CPU tensors, against the CPU's pipeline. The stand-in for nvJPEG gives
//! libjpeg-turbo's pixels, so that only the geometry can differ.

use std::sync::Arc;

use oarlock_datasets::{
    ClassifyPipeline, ClassifyTrain, Deferred, Jitter, Loader, LoaderConfig, Pipeline, Sample,
};

use super::*;
use crate::runtime::nvjpeg::tests::{Fake, jpeg};

fn batch<P: Pipeline<Sample = Sample>>(
    samples: &Arc<Vec<Sample>>,
    pipeline: P,
) -> oarlock_datasets::Batch<P::Target> {
    let config = LoaderConfig {
        samples: samples.clone(),
        batch_size: samples.len(),
        pipeline,
        shuffle_seed: None,
        epoch: 0,
        start_batch: 0,
        drop_last: false,
        threads: 1,
        prefetch: 1,
        cache: None,
        memory: None,
        max_corrupt_fraction: 0.0,
    };
    Loader::new(config).unwrap().next().unwrap().unwrap()
}

/// Differences of every value between both ways, an image a list; `size` is (height, width).
fn differences(files: &[Vec<u8>], fake: &Fake, size: (usize, usize)) -> Vec<Vec<u8>> {
    differences_of(ClassifyPipeline::eval_of(size.0, size.1), files, fake)
}

fn differences_of(pipeline: ClassifyPipeline, files: &[Vec<u8>], fake: &Fake) -> Vec<Vec<u8>> {
    let size = pipeline.output_size();
    let dir = tempfile::tempdir().unwrap();
    let write = |(i, bytes): (usize, &Vec<u8>)| {
        let path = dir.path().join(format!("{i}.jpg"));
        std::fs::write(&path, bytes).unwrap();
        let label = i as i64;
        Sample { path, label }
    };
    let samples = Arc::new(files.iter().enumerate().map(write).collect::<Vec<_>>());
    let deferred = batch(&samples, Deferred::of(&pipeline));
    let expected = batch(&samples, pipeline);
    let labels: Vec<i64> = deferred.targets.iter().map(|t| t.label).collect();
    assert_eq!(labels, expected.targets);
    let mut decoder = Decoder::of_library(&fake.path, Device::Cpu).unwrap();
    let pixels = decoded_pixels(&mut decoder, &deferred.targets, size, Device::Cpu).unwrap();
    let (n, h, w) = (files.len() as i64, size.0 as i64, size.1 as i64);
    assert_eq!(pixels.size(), [n, h, w, 3]);
    let pixels = Vec::<u8>::try_from(pixels.flatten(0, -1)).unwrap();
    let image = size.0 * size.1 * 3;
    let pairs = pixels.chunks(image).zip(expected.images.chunks(image));
    pairs
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).collect())
        .collect()
}

fn share_over(differences: &[u8], level: u8) -> f64 {
    let over = differences.iter().filter(|d| **d > level).count();
    over as f64 / differences.len() as f64
}

#[test]
fn views_are_those_of_the_cpu() {
    let Some(fake) = Fake::new() else { return };
    let photo = include_bytes!("../../../imaging/tests/fixtures/photo.jpg").to_vec();
    let files = [
        photo,
        jpeg(300, 260, 1),
        jpeg(257, 400, 2),
        jpeg(256, 256, 3),
        jpeg(61, 50, 4), // enlarged
    ];
    files.iter().for_each(|file| {
        fake.know(file);
    });
    for size in [(224, 224), (100, 224), (64, 48)] {
        // Small targets are decoded at a fraction; here both ways must start from the same pixels.
        let whole = |file: &&Vec<u8>| {
            let image = fake.know(file);
            let short = image.width().min(image.height());
            short < 2 * (size.0.max(size.1) as f64 * 1.143) as usize
        };
        let files: Vec<Vec<u8>> = files.iter().filter(whole).cloned().collect();
        assert!(!files.is_empty());
        for (i, d) in differences(&files, &fake, size).iter().enumerate() {
            let over = share_over(d, 1);
            assert!(over <= 0.001, "image {i} to {size:?}: {over} over 1 level");
        }
    }
    assert!(fake.counts()[3] >= 5 && fake.counts()[4] == 0);
}

/// Everything random is drawn alike: the same crop, flips, colours and turn of every image. The resize is the one of
/// [`views_are_those_of_the_cpu`]; contrast and hue may make more of its single level.
#[test]
fn training_inputs_are_those_of_the_cpu() {
    let Some(fake) = Fake::new() else { return };
    let photo = include_bytes!("../../../imaging/tests/fixtures/photo.jpg").to_vec();
    let mut files = vec![photo];
    files.extend((0..15).map(|i| jpeg(150 + 7 * i, 190 - 3 * i, i)));
    files.iter().for_each(|file| {
        fake.know(file);
    });
    let always = |range: f32| Some(Jitter { range, prob: 0.8 });
    let train = ClassifyTrain {
        crop: (96, 96),
        scale: (0.88, 1.0),
        aspect: (0.75, 4.0 / 3.0),
        horizontal_flip: 0.5,
        vertical_flip: 0.5,
        brightness: always(0.4),
        contrast: always(0.4),
        saturation: always(0.4),
        hue: always(18.0),
        rotate: Some(Jitter {
            range: 30.0,
            prob: 0.5,
        }),
    };
    let differences = differences_of(ClassifyPipeline::Train(train), &files, &fake);
    let moved = differences.iter().filter(|d| share_over(d, 3) > 0.002);
    assert_eq!(moved.count(), 0, "more than 0.2 % over 3 levels");
    let mean = |d: &Vec<u8>| d.iter().map(|d| f64::from(*d)).sum::<f64>() / d.len() as f64;
    let largest = differences.iter().map(mean).fold(0.0, f64::max);
    assert!(largest < 0.5, "{largest} levels in the mean");
    assert!(fake.counts()[3] >= 16, "all reach the device");
}

/// A decoder's scaling works on frequencies, this on pixels: the places must be the same, the values near.
#[test]
fn shrunk_pictures_lie_in_the_same_place() {
    let Some(fake) = Fake::new() else { return };
    let files = [jpeg(301, 263, 1), jpeg(1027, 801, 2), jpeg(600, 1200, 3)];
    files.iter().for_each(|file| {
        fake.know(file);
    });
    for (i, d) in differences(&files, &fake, (64, 64)).iter().enumerate() {
        let mean = d.iter().map(|d| f64::from(*d)).sum::<f64>() / d.len() as f64;
        assert!(mean < 1.0, "image {i}: {mean}");
        assert!(share_over(d, 6) < 0.01, "image {i}");
    }
}

#[test]
fn unusual_files_are_left_to_the_cpu() {
    let Some(fake) = Fake::new() else { return };
    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../../imaging/tests/fixtures/", $name)).to_vec()
        };
    }
    let mut trailing = jpeg(60, 60, 1);
    trailing.push(0);
    let files = [
        fixture!("turned6.jpg"),
        fixture!("cmyk.jpg"),
        fixture!("grey.jpg"),
        fixture!("progressive.jpg"),
        fixture!("palette.png"),
        trailing,
    ];
    for d in differences(&files, &fake, (64, 64)) {
        assert!(d.iter().all(|d| *d == 0));
    }
    assert_eq!(fake.counts()[3], 0, "none of them reaches the device");
}
