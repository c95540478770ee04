//! The loader: order, determinism, resume, damage.

use std::path::Path;
use std::sync::Arc;

use oarlock_datasets::{
    Batch, ClassifyPipeline, ClassifyTrain, DataError, ImageCache, Jitter, Loader, LoaderConfig,
    Sample, balance_classes,
};
use oarlock_imaging::{Image, encode_jpeg, encode_png};

/// Photographs of different sizes with structure, one a sample.
fn write_images(folder: &Path, count: usize) -> Vec<Sample> {
    (0..count)
        .map(|i| {
            let (w, h) = (60 + 13 * (i % 7), 50 + 11 * (i % 5));
            let mut image = Image::filled(w, h, [0; 3]);
            for y in 0..h {
                for (x, p) in image.row_mut(y).chunks_exact_mut(3).enumerate() {
                    p.copy_from_slice(&[
                        (x * 3 + i * 17) as u8,
                        (y * 4) as u8,
                        ((x ^ y) * 5 + i) as u8,
                    ]);
                }
            }
            let (name, bytes) = match i % 3 {
                0 => (format!("{i}.png"), encode_png(&image).unwrap()),
                _ => (format!("{i}.jpg"), encode_jpeg(&image, 90).unwrap()),
            };
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            Sample {
                path,
                label: (i % 4) as i64,
            }
        })
        .collect()
}

fn train_pipeline() -> ClassifyPipeline {
    let jitter = |range, prob| Some(Jitter { range, prob });
    ClassifyPipeline::Train(ClassifyTrain {
        crop: (32, 40),
        scale: (0.88, 1.0),
        aspect: (0.75, 4.0 / 3.0),
        horizontal_flip: 0.5,
        vertical_flip: 0.5,
        brightness: jitter(0.9, 0.5),
        contrast: jitter(0.9, 0.5),
        saturation: jitter(0.9, 0.5),
        hue: jitter(18.0, 0.5),
        rotate: jitter(30.0, 0.5),
    })
}

fn config(samples: Vec<Sample>) -> LoaderConfig<ClassifyPipeline> {
    LoaderConfig {
        samples: Arc::new(samples),
        batch_size: 8,
        pipeline: train_pipeline(),
        shuffle_seed: Some(7),
        epoch: 3,
        start_batch: 0,
        drop_last: true,
        threads: 2,
        prefetch: 3,
        cache: None,
        memory: None,
        max_corrupt_fraction: 0.1,
    }
}

fn all(config: LoaderConfig<ClassifyPipeline>) -> Vec<Batch<i64>> {
    Loader::new(config).unwrap().map(Result::unwrap).collect()
}

fn same(a: &[Batch<i64>], b: &[Batch<i64>]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.images[..] == b.images[..] && a.targets == b.targets && a.indices == b.indices
        })
}

#[test]
fn promise_23_the_batches_depend_on_seed_and_epoch_only_and_resume_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(write_images(folder.path(), 45));
    let reference = all(config.clone());
    assert_eq!(reference.len(), 5);
    assert!(
        reference
            .iter()
            .all(|b| b.n == 8 && b.images.len() == 8 * 32 * 40 * 3)
    );
    // Many short-lived threads: each has a decoder of its own, in memory that others used before.
    let crowd = std::iter::repeat_n((8, 16), 20);
    for (threads, prefetch) in [(1, 1), (3, 2)].into_iter().chain(crowd) {
        assert!(same(
            &reference,
            &all(LoaderConfig {
                threads,
                prefetch,
                ..config.clone()
            })
        ));
    }
    let resumed = all(LoaderConfig {
        start_batch: 3,
        ..config.clone()
    });
    assert!(same(&reference[3..], &resumed) && resumed[0].index == 3);
    assert!(!same(
        &reference,
        &all(LoaderConfig {
            epoch: 4,
            ..config.clone()
        })
    ));
    assert!(!same(
        &reference,
        &all(LoaderConfig {
            shuffle_seed: Some(8),
            ..config.clone()
        })
    ));

    let cache = Some(Arc::new(ImageCache::new(1 << 30)));
    let cached = LoaderConfig {
        cache,
        ..config.clone()
    };
    assert!(same(&reference, &all(cached.clone())), "filling the cache");
    let mut loader = Loader::new(cached).unwrap();
    let hits: Vec<Batch<i64>> = loader.by_ref().map(Result::unwrap).collect();
    assert!(same(&reference, &hits), "from the cache");
    assert_eq!(
        (loader.stats().cache_hits, loader.stats().cache_misses),
        (40, 0)
    );
    assert_eq!(loader.stats().cache_hit_rate(), Some(1.0));
    let line = loader.stats().to_string();
    assert!(
        line.starts_with("40 images, 0 skipped") && line.ends_with("100.0 % from the cache"),
        "{line}"
    );
    let tiny = Some(Arc::new(ImageCache::new(100_000)));
    assert!(
        same(
            &reference,
            &all(LoaderConfig {
                cache: tiny,
                ..config
            })
        ),
        "a cache with little room"
    );
}

#[test]
fn evaluation_keeps_list_order_and_the_last_partial_batch() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = ClassifyPipeline::eval_of(24, 24);
    assert_eq!(
        pipeline,
        ClassifyPipeline::Eval {
            crop: (24, 24),
            resize_short: 27
        }
    );
    let mut config = LoaderConfig {
        pipeline,
        shuffle_seed: None,
        drop_last: false,
        ..config(write_images(folder.path(), 19))
    };
    let plain = all(config.clone());
    assert_eq!(plain.iter().map(|b| b.n).collect::<Vec<_>>(), [8, 8, 3]);
    let indices: Vec<usize> = plain.iter().flat_map(|b| b.indices.clone()).collect();
    assert_eq!(indices, (0..19).collect::<Vec<_>>());
    assert!(plain.iter().all(|b| {
        b.targets
            .iter()
            .zip(&b.indices)
            .all(|(l, i)| *l == (*i % 4) as i64)
    }));
    config.cache = Some(Arc::new(ImageCache::new(1 << 30)));
    assert!(
        same(&plain, &all(config)),
        "the decoded region equals the same part of the whole"
    );
}

#[test]
fn a_part_equals_resize_then_crop() {
    let folder = tempfile::tempdir().unwrap();
    let samples = write_images(folder.path(), 2);
    let pipeline = ClassifyPipeline::Eval {
        crop: (40, 40),
        resize_short: 46,
    };
    let path = &samples[1].path; // 73×61
    let whole = oarlock_imaging::decode_file(path, &Default::default(), None).unwrap();
    let resized = oarlock_imaging::resize(&whole, None, 55, 46).unwrap();
    let rect = oarlock_imaging::centre_rect(55, 46, 40, 40);
    let mut out = vec![0; 40 * 40 * 3];
    pipeline
        .run_file(path, &mut oarlock_imaging::Rng::of(&[]), &mut out)
        .unwrap();
    let worst = out
        .iter()
        .zip(resized.crop(rect).data())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(worst <= Some(1), "{worst:?}");
}

#[test]
fn promise_24_damaged_images_are_skipped_and_named_until_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let samples = write_images(folder.path(), 40);
    std::fs::write(&samples[5].path, b"no image").unwrap();
    let bytes = std::fs::read(&samples[6].path).unwrap();
    std::fs::write(&samples[6].path, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::remove_file(&samples[7].path).unwrap();
    let config = LoaderConfig {
        batch_size: 1,
        drop_last: false,
        ..config(samples)
    };
    let mut loader = Loader::new(config.clone()).unwrap();
    let batches: Vec<Batch<i64>> = loader.by_ref().map(Result::unwrap).collect();
    assert_eq!(batches.len(), 37, "empty batches are not delivered");
    assert!(
        batches
            .iter()
            .all(|b| b.n == 1 && b.images.len() == 32 * 40 * 3)
    );
    assert_eq!(loader.stats().skipped, 3);
    let batched = all(LoaderConfig {
        batch_size: 10,
        ..config.clone()
    });
    assert_eq!(batched.iter().map(|b| b.n).sum::<usize>(), 37);
    let mut skipped: Vec<String> = batched
        .iter()
        .flat_map(|b| &b.skipped)
        .map(|(p, r)| format!("{}: {r}", p.file_name().unwrap().to_string_lossy()))
        .collect();
    skipped.sort();
    assert_eq!(
        skipped,
        [
            "5.jpg: not an image: the content is text",
            "6.png: damaged PNG image: it is truncated",
            "7.jpg: there is no such file"
        ]
    );

    let strict = LoaderConfig {
        max_corrupt_fraction: 0.05,
        ..config
    };
    let error = Loader::new(strict).unwrap().find_map(Result::err).unwrap();
    assert!(
        matches!(
            error,
            DataError::TooManyCorrupt {
                bad: 3,
                total: 40,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_dropped_loader_ends_at_once_and_memory_is_bounded_by_the_prefetch() {
    let folder = tempfile::tempdir().unwrap();
    let mut loader = Loader::new(config(write_images(folder.path(), 200))).unwrap();
    let first = loader.next().unwrap().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(
        loader.stats().images <= 8 + 3 * 8,
        "works ahead by no more than the prefetch"
    );
    loader.recycle(first.images);
    drop(loader);
    assert!(
        Loader::new(LoaderConfig {
            samples: Arc::default(),
            ..config(Vec::new())
        })
        .is_err()
    );
}

#[test]
fn rare_classes_are_repeated() {
    let sample = |name: &str, label| Sample {
        path: name.into(),
        label,
    };
    let samples = vec![
        sample("a", 0),
        sample("b", 1),
        sample("c", 0),
        sample("d", 0),
        sample("e", 2),
        sample("f", 2),
    ];
    let balanced = balance_classes(&samples);
    let count = |label| balanced.iter().filter(|s| s.label == label).count();
    assert_eq!((count(0), count(1), count(2), balanced.len()), (3, 3, 3, 9));
    assert_eq!(balanced[..6], samples[..]);
}
