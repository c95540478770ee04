//! Changes of whole batches as tensors against those of the CPU, image by image.

use oarlock_imaging::transform::{Distort, Jitter};
use oarlock_imaging::{Limits, Rng, decode};
use tch::{Device, Kind, Tensor};

use super::*;

/// Some parts of a photograph, grey and saturated pixels, one after another.
fn pictures(count: usize, (height, width): (usize, usize)) -> Vec<Vec<u8>> {
    let photo = include_bytes!("../../../imaging/tests/fixtures/photo.jpg");
    let photo = decode(photo, &Limits::default(), None).unwrap();
    let mut rng = Rng::of(&[3]);
    let picture = |_| {
        let (x, y) = (
            rng.below(photo.width() - width),
            rng.below(photo.height() - height),
        );
        let rows = (y..y + height).flat_map(|y| photo.row(y)[x * 3..(x + width) * 3].to_vec());
        let mut pixels: Vec<u8> = rows.collect();
        for pixel in pixels.chunks_exact_mut(3).take(64) {
            let level = rng.bits() as u8;
            pixel.copy_from_slice(&match rng.below(3) {
                0 => [level; 3],
                1 => [255, level, 0],
                _ => [0, level, 255],
            });
        }
        pixels
    };
    (0..count).map(picture).collect()
}

/// Differences of all values.
fn differences(size: (usize, usize), changes: &[ClassifyChanges]) -> Vec<u8> {
    let pictures = pictures(changes.len(), size);
    let shape = [changes.len() as i64, size.0 as i64, size.1 as i64, 3];
    let images = Tensor::from_slice(&pictures.concat()).reshape(shape);
    let found = changed(images, &changes.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!((found.size(), found.kind()), (shape.to_vec(), Kind::Uint8));
    assert_eq!(found.device(), Device::Cpu);
    let found = Vec::<u8>::try_from(found.flatten(0, -1)).unwrap();
    let expected = pictures.into_iter().zip(changes).flat_map(|(mut p, c)| {
        c.apply(&mut p, size);
        p
    });
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| a.abs_diff(b))
        .collect()
}

fn drawn(count: u64, distort: &Distort) -> Vec<ClassifyChanges> {
    let each = |i| {
        let mut rng = Rng::of(&[i]);
        ClassifyChanges {
            horizontal_flip: rng.chance(0.5),
            vertical_flip: rng.chance(0.5),
            colours: distort.draw(&mut rng),
            degrees: None,
        }
    };
    (0..count).map(each).collect()
}

#[test]
fn flips_and_colours_are_the_cpus_to_the_last_bit() {
    let some = |range: f32| Some(Jitter { range, prob: 0.7 });
    let distort = Distort {
        brightness: some(0.9),
        contrast: some(0.9),
        saturation: some(0.9),
        hue: None,
    };
    let apart = differences((40, 56), &drawn(24, &distort));
    assert!(apart.iter().all(|d| *d == 0));
    // A hue that lies on a border of two levels may be rounded to either.
    let distort = Distort {
        hue: some(180.0),
        ..distort
    };
    let apart = differences((40, 56), &drawn(24, &distort));
    let over = apart.iter().filter(|d| **d > 0).count();
    assert!(over * 1000 <= apart.len(), "{over} of {}", apart.len());
    // No change at all.
    let apart = differences((20, 30), &[(); 3].map(|()| ClassifyChanges::default()));
    assert!(apart.iter().all(|d| *d == 0));
}

#[test]
fn rotations_are_the_cpus_within_a_level() {
    let turn = |degrees: f32| ClassifyChanges {
        degrees: Some(degrees),
        ..ClassifyChanges::default()
    };
    let turns = [0.0, 12.5, -30.0, 90.0, 180.0, -77.7].map(turn);
    for size in [(41, 41), (40, 56)] {
        let apart = differences(size, &turns);
        let over = apart.iter().filter(|d| **d > 1).count();
        assert!(over * 500 <= apart.len(), "{over} of {}", apart.len());
    }
}
