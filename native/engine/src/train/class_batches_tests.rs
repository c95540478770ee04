//! Both ways of decoding behind one list of batches, with a stand-in for nvJPEG and no GPU.

use std::sync::Arc;

use super::*;
use crate::runtime::nvjpeg::tests::{Fake, jpeg};

const BATCHES: usize = DecodeChoice::WORTHWHILE + 6;
const PLACE: Placement = Placement::CPU_FP32;

fn supply() -> Supply {
    Supply {
        batch_size: 2,
        seed: 0,
        cache: None,
        max_corrupt_fraction: 0.5,
        placement: PLACE,
    }
}

/// A set on disk whose third file is no picture; the stand-in knows the others.
fn set(dir: &std::path::Path, fake: &Fake) -> ClassSet {
    let sample = |i: usize| {
        let path = dir.join(format!("{i}.jpg"));
        let bytes = jpeg(48 + i % 5, 44, i);
        fake.know(&bytes);
        std::fs::write(&path, if i == 2 { b"nothing".to_vec() } else { bytes }).unwrap();
        Sample {
            path,
            label: i as i64,
        }
    };
    ClassSet {
        samples: Arc::new((0..2 * BATCHES).map(sample).collect()),
        classes: 2 * BATCHES,
        pipeline: ClassifyPipeline::eval_of(32, 32),
        mean: [0.5; 3],
        std: [0.25; 3],
    }
}

/// All labels, inputs and the number of skipped files.
fn read(batches: &mut ClassBatches, mut before: impl FnMut(usize)) -> (Vec<i64>, Tensor, usize) {
    let (mut labels, mut inputs, mut skipped) = (vec![], vec![], 0);
    for i in 0.. {
        before(i);
        let Some(batch) = batches.next().unwrap() else {
            break;
        };
        labels.extend(batch.labels);
        inputs.push(batch.input);
        skipped += batch.skipped.len();
    }
    (labels, Tensor::cat(&inputs, 0), skipped)
}

fn decoder(fake: &Fake) -> Option<Decoder> {
    Some(Decoder::of_library(&fake.path, Device::Cpu).unwrap())
}

/// One level of 255 is 1/(255 · 0.25) of input.
fn near(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.allclose(b, 0.0, 0.033, false)
}

#[test]
fn every_image_comes_once_whoever_decodes() {
    let Some(fake) = Fake::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (set, supply) = (set(dir.path(), &fake), supply());
    let mut cpu = ClassBatches::new(set.clone(), &supply, Order::AsListed, PLACE).unwrap();
    let expected = read(&mut cpu, |_| {});
    assert!(cpu.decoder.is_none(), "on the CPU nothing is tried");
    assert_eq!((cpu.remark(), expected.2), (None, 1));

    let mut both =
        ClassBatches::with(set.clone(), &supply, Order::AsListed, PLACE, decoder(&fake)).unwrap();
    let found = read(&mut both, |_| {});
    assert_eq!((&found.0, found.2), (&expected.0, 1));
    assert!(near(&found.1, &expected.1));
    assert!(
        fake.counts()[3] >= 12,
        "six batches were decoded by the device"
    );
    assert!(both.remark().unwrap().contains("images/s"));
}

#[test]
fn after_a_failure_the_cpu_makes_the_same_batch() {
    let Some(fake) = Fake::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (set, supply) = (set(dir.path(), &fake), supply());
    let expected = read(
        &mut ClassBatches::new(set.clone(), &supply, Order::AsListed, PLACE).unwrap(),
        |_| {},
    );
    let mut batches =
        ClassBatches::with(set.clone(), &supply, Order::AsListed, PLACE, decoder(&fake)).unwrap();
    // In the midst of the device's trial, whose batches are 6 to 11.
    let found = read(&mut batches, |i| {
        fake.fail_decode(if i == 8 { 3 } else { 0 })
    });
    assert_eq!((&found.0, found.2), (&expected.0, 1));
    assert!(near(&found.1, &expected.1));
    assert_eq!(fake.counts()[2], 2, "the device is not asked again");
    let remark = batches.remark().unwrap();
    assert!(
        remark.contains("CPU") && remark.contains("damaged"),
        "{remark}"
    );
}

/// A resumed epoch of training, whose batches the device makes for a while: the same images in the same order with the
/// same changes, and none of them twice.
#[test]
fn a_training_may_go_over_to_the_device_and_back() {
    let Some(fake) = Fake::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut set, supply) = (set(dir.path(), &fake), supply());
    let jitter = |range: f32| Some(oarlock_datasets::Jitter { range, prob: 1.0 });
    set.pipeline = ClassifyPipeline::Train(oarlock_datasets::ClassifyTrain {
        crop: (32, 32),
        scale: (0.88, 1.0),
        aspect: (0.75, 1.33),
        horizontal_flip: 0.5,
        vertical_flip: 0.5,
        brightness: jitter(0.2),
        contrast: None,
        saturation: jitter(0.2),
        hue: None,
        rotate: None,
    });
    let order = Order::Shuffled(EpochPart {
        epoch: 3,
        start_batch: 2,
    });
    let mut cpu = ClassBatches::new(set.clone(), &supply, order, PLACE).unwrap();
    let expected = read(&mut cpu, |_| {});
    assert_eq!(expected.0.len(), 2 * (BATCHES - 2) - 1);
    let listed = read(
        &mut ClassBatches::new(set.clone(), &supply, Order::AsListed, PLACE).unwrap(),
        |_| {},
    );
    assert_ne!(listed.0[4..], expected.0, "shuffled");

    let mut both = ClassBatches::with(set, &supply, order, PLACE, decoder(&fake)).unwrap();
    let found = read(&mut both, |i| fake.fail_decode(if i == 9 { 3 } else { 0 }));
    assert_eq!((&found.0, found.2), (&expected.0, 1));
    assert!(
        fake.counts()[3] >= 4,
        "some batches were made by the device"
    );
    // Two levels of 255: one of the resize, which brightness and saturation may double.
    let apart = (&found.1 - &expected.1).abs();
    let over = (&apart * (255.0 * 0.25))
        .gt(2.01)
        .to_kind(tch::Kind::Double);
    assert!(over.mean(tch::Kind::Double).double_value(&[]) < 0.002);
    let stats = both.stats();
    assert!(stats.images >= found.0.len() as u64, "{stats:?}");
    assert!(both.remark().unwrap().contains("CPU"));
}
