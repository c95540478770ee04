//! The loader with segmentation, detection and rasters: the same promises as for classification.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oarlock_datasets::{
    Batch, BatchMemory, Buffer, CommonAugment, Depth, DetectFamily, DetectPipeline, DetectSample,
    DetectionParams, ImageCache, Loader, LoaderConfig, Pipeline, RasterPipeline, RasterTask,
    RasterTrain, SegmentPipeline, SegmentSample, SegmentationParams, Switch, ValueRange,
};
use oarlock_imaging::{BBox, IGNORE, Image, Object, Rng, decode_file, encode_jpeg, encode_png};

fn noise(width: usize, height: usize, seed: u64) -> Image {
    let mut rng = Rng::of(&[seed]);
    let mut image = Image::filled(width, height, [0; 3]);
    for y in 0..height {
        let base = rng.below(200) as u8;
        for (x, value) in image.row_mut(y).iter_mut().enumerate() {
            *value = base + (x % 50) as u8;
        }
    }
    image
}

fn write_map(path: &Path, width: usize, height: usize, ids: &[u8]) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(ids).unwrap();
    writer.finish().unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Pictures of different sizes, JPEG and PNG.
fn pictures(folder: &Path, count: usize) -> Vec<(PathBuf, usize, usize)> {
    let write = |i: usize| {
        let (width, height) = (90 + 17 * (i % 5), 80 + 23 * (i % 4));
        let image = noise(width, height, i as u64);
        let (name, bytes) = match i % 3 {
            0 => (format!("{i}.png"), encode_png(&image).unwrap()),
            _ => (format!("{i}.jpg"), encode_jpeg(&image, 90).unwrap()),
        };
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        (path, width, height)
    };
    (0..count).map(write).collect()
}

fn segment_samples(folder: &Path, count: usize) -> Vec<SegmentSample> {
    let sample = |(path, width, height): (PathBuf, usize, usize)| {
        let map = path.with_extension("map.png");
        let ids: Vec<u8> = (0..width * height)
            .map(|i| ((i % width) / 20) as u8)
            .collect();
        write_map(&map, width, height, &ids);
        SegmentSample { path, map }
    };
    pictures(folder, count).into_iter().map(sample).collect()
}

fn detect_samples(folder: &Path, count: usize) -> Vec<DetectSample> {
    let sample = |(path, width, height): (PathBuf, usize, usize)| {
        let (w, h) = (width as f32, height as f32);
        let object = |x: f32, class| Object {
            class,
            bbox: BBox::new(w * x, h * 0.2, w * (x + 0.4), h * 0.7),
            difficult: class == 1,
            crowd: class == 1,
            weight: 1.0,
            ..Object::default()
        };
        DetectSample {
            path,
            objects: vec![object(0.1, 0), object(0.5, 1)],
        }
    };
    pictures(folder, count).into_iter().map(sample).collect()
}

fn config<P: Pipeline>(pipeline: P, samples: Vec<P::Sample>) -> LoaderConfig<P> {
    LoaderConfig {
        samples: Arc::new(samples),
        batch_size: 4,
        pipeline,
        shuffle_seed: Some(7),
        epoch: 3,
        start_batch: 0,
        drop_last: true,
        threads: 2,
        prefetch: 3,
        cache: None,
        memory: None,
        max_corrupt_fraction: 0.2,
    }
}

fn all<P: Pipeline>(config: LoaderConfig<P>) -> Vec<Batch<P::Target>> {
    Loader::new(config).unwrap().map(Result::unwrap).collect()
}

fn same<T: PartialEq>(a: &[Batch<T>], b: &[Batch<T>]) -> bool {
    let pair = |(a, b): (&Batch<T>, &Batch<T>)| {
        (a.index, a.n, a.h, a.w) == (b.index, b.n, b.h, b.w)
            && a.images[..] == b.images[..]
            && (&a.maps, &a.targets, &a.indices) == (&b.maps, &b.targets, &b.indices)
    };
    a.len() == b.len() && a.iter().zip(b).all(pair)
}

/// Threads, prefetch, cache and a resume change nothing; the epoch does. The batches without all that.
fn repeatable<P: Pipeline>(config: &LoaderConfig<P>) -> Vec<Batch<P::Target>>
where
    P::Target: PartialEq,
{
    let reference = all(config.clone());
    for (threads, prefetch) in [(1, 1), (5, 2)] {
        let other = LoaderConfig {
            threads,
            prefetch,
            ..config.clone()
        };
        assert!(same(&reference, &all(other)), "{threads} threads");
    }
    for budget in [1 << 30, 60_000] {
        let cached = LoaderConfig {
            cache: Some(Arc::new(ImageCache::new(budget))),
            ..config.clone()
        };
        assert!(same(&reference, &all(cached.clone())), "filling the cache");
        assert!(same(&reference, &all(cached)), "from the cache");
    }
    let resumed = LoaderConfig {
        start_batch: 2,
        ..config.clone()
    };
    assert!(same(&reference[2..], &all(resumed)));
    let later = LoaderConfig {
        epoch: config.epoch + 1,
        ..config.clone()
    };
    assert!(!same(&reference, &all(later)));
    reference
}

fn switched_on(common: &mut CommonAugment) {
    common.brightness = Switch::on(0.5, 0.5);
    common.hue = Switch::on(18.0, 0.5);
}

#[test]
fn promise_23_segmentation_batches_repeat_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = SegmentationParams {
        image_shape: [48, 64],
        scale_aspect: true,
        vertical_flip: Switch::on(0.0, 0.5),
        blur: Switch::on(0.0, 0.5),
        rotate: Switch::on(15.0, 0.5),
        ..SegmentationParams::default()
    };
    switched_on(&mut params.common);
    let samples = segment_samples(folder.path(), 18);
    let batches = repeatable(&config(SegmentPipeline::train(&params), samples));
    assert_eq!(batches.len(), 4);
    for batch in &batches {
        assert_eq!((batch.n, batch.h, batch.w, batch.channels), (4, 48, 64, 3));
        assert_eq!(
            (batch.images.len(), batch.maps.len()),
            (4 * 48 * 64 * 3, 4 * 48 * 64)
        );
        assert!(batch.maps.iter().all(|id| *id < 9 || *id == IGNORE));
    }
    let turned = batches.iter().flat_map(|b| &b.maps);
    assert!(
        turned.filter(|id| **id == IGNORE).count() > 0,
        "corners turn in"
    );
}

#[test]
fn segmentation_evaluation_is_the_resized_picture_with_its_map() {
    let folder = tempfile::tempdir().unwrap();
    let samples = segment_samples(folder.path(), 6);
    let columns: Vec<u8> = (0..90 * 80).map(|i| (i % 90) as u8).collect();
    write_map(&samples[0].map, 90, 80, &columns);
    let params = SegmentationParams {
        image_shape: [40, 45],
        ..SegmentationParams::default()
    };
    let plain = LoaderConfig {
        shuffle_seed: None,
        drop_last: false,
        ..config(SegmentPipeline::eval(&params, true), samples.clone())
    };
    let batches = all(plain);
    assert_eq!(batches.iter().map(|b| b.n).collect::<Vec<_>>(), [4, 2]);
    let image = decode_file(&samples[0].path, &Default::default(), None).unwrap(); // a PNG: 90×80
    let expected = oarlock_imaging::resize(&image, None, 45, 40).unwrap();
    assert_eq!(batches[0].images[..45 * 40 * 3], *expected.data());
    // Every second column, as cv2.resize's nearest neighbour takes it.
    let ids: Vec<u8> = (0..45).map(|x| x * 2).collect();
    assert_eq!(batches[0].maps[..45], ids);
    let target = &batches[0].targets[0];
    assert_eq!(target.full, (90, 80));
    let map = target.map.as_ref().unwrap();
    assert_eq!((map.width(), map.height(), map.value(85, 3)), (90, 80, 85));
}

#[test]
fn promise_24_a_faulty_label_map_is_skipped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let samples = segment_samples(folder.path(), 12);
    std::fs::remove_file(&samples[2].map).unwrap();
    write_map(&samples[5].map, 3, 2, &[0; 6]);
    let whole = LoaderConfig {
        drop_last: false,
        ..config(
            SegmentPipeline::train(&SegmentationParams::default()),
            samples,
        )
    };
    let batches = all(whole);
    let mut told: Vec<String> = batches
        .iter()
        .flat_map(|b| &b.skipped)
        .map(|(path, why)| format!("{}: {why}", path.file_name().unwrap().to_string_lossy()))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "2.jpg: there is no such file",
            "5.jpg: its label map is 3×2, but the picture 90×103"
        ]
    );
    for batch in batches {
        assert_eq!(batch.maps.len() * 3, batch.images.len());
        assert_eq!(batch.n, batch.targets.len());
    }
}

#[test]
fn promise_23_detection_batches_repeat_with_mixup_and_a_size_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let params = DetectionParams {
        random_sizes: vec![32, 64, 96],
        ..DetectionParams::of(DetectFamily::Yolo)
    };
    let pipeline = DetectPipeline::train(&params, 3, 27);
    let batches = repeatable(&config(pipeline, detect_samples(folder.path(), 34)));
    let sizes: std::collections::BTreeSet<usize> = batches.iter().map(|b| b.h).collect();
    assert!(sizes.len() > 1, "{sizes:?}");
    let mut mixed = 0;
    for batch in &batches {
        assert_eq!(batch.images.len(), 4 * batch.h * batch.h * 3);
        for target in &batch.targets {
            let side = batch.h as f32;
            let inside = |b: &BBox| b.x1 >= 0.0 && b.y1 >= 0.0 && b.x2 <= side && b.y2 <= side;
            assert!(target.objects.iter().all(|o| inside(&o.bbox)));
            assert!(target.objects.iter().all(|o| o.crowd == (o.class == 1)));
            mixed += target.objects.iter().filter(|o| o.weight < 1.0).count();
        }
    }
    assert!(mixed > 20, "{mixed}");
    let late = DetectPipeline::train(&params, 26, 27);
    let late = all(config(late, detect_samples(folder.path(), 34)));
    let mut objects = late
        .iter()
        .flat_map(|b| &b.targets)
        .flat_map(|t| &t.objects);
    assert!(
        objects.all(|o| o.weight == 1.0),
        "the last epochs do not mix"
    );
}

#[test]
fn a_second_picture_that_cannot_be_read_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let samples = detect_samples(folder.path(), 8);
    std::fs::write(&samples[3].path, b"no image").unwrap();
    let params = DetectionParams::of(DetectFamily::Yolo);
    let whole = LoaderConfig {
        drop_last: false,
        ..config(DetectPipeline::train(&params, 1, 27), samples)
    };
    let batches = all(whole);
    assert_eq!(batches.iter().map(|b| b.n).sum::<usize>(), 7);
    assert_eq!(batches.iter().map(|b| b.skipped.len()).sum::<usize>(), 1);
}

#[test]
fn two_stage_batches_are_padded_to_their_largest_picture() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = DetectionParams {
        image_shape: [64, 90],
        ..DetectionParams::of(DetectFamily::Rcnn)
    };
    switched_on(&mut params.common);
    let samples = detect_samples(folder.path(), 18);
    let train = config(DetectPipeline::train(&params, 1, 12), samples.clone());
    for batch in repeatable(&train) {
        assert!(batch.h % 32 == 0 && batch.w % 32 == 0);
        let largest = |side: fn(&(usize, usize)) -> usize| {
            let sides = batch.targets.iter().map(|t| side(&t.shown));
            sides.max().unwrap().next_multiple_of(32)
        };
        assert_eq!((batch.w, batch.h), (largest(|s| s.0), largest(|s| s.1)));
        for target in &batch.targets {
            assert!(target.shown.0.max(target.shown.1) <= 90);
            let edge = |o: &Object| o.bbox.x2 <= target.shown.0 as f32;
            assert!(target.objects.iter().all(edge));
        }
    }
    let plain = LoaderConfig {
        shuffle_seed: None,
        ..config(DetectPipeline::eval(&params), samples.clone())
    };
    let batch = &all(plain)[0];
    let target = &batch.targets[0];
    // 90×80 with its short side at 64.
    assert_eq!((target.full, target.shown), ((90, 80), (72, 64)));
    assert_eq!(target.objects, samples[0].objects);
    let image = decode_file(&samples[0].path, &Default::default(), None).unwrap();
    let expected = oarlock_imaging::resize(&image, None, 72, 64).unwrap();
    for y in 0..batch.h {
        let row = &batch.images[y * batch.w * 3..(y + 1) * batch.w * 3];
        let shown = if y < 64 { 72 * 3 } else { 0 };
        assert!(shown == 0 || row[..shown] == *expected.row(y));
        let padding = row[shown..].as_chunks::<3>().0;
        assert!(padding.iter().all(|p| *p == [124, 116, 104]), "row {y}");
    }
}

#[test]
fn rasters_keep_their_channels_and_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (width, height, channels) = (20usize, 16usize, 4usize);
    let sample = |i: usize| {
        let path = folder.path().join(format!("{i}.npy"));
        let header = format!(
            "{{'descr': '<u2', 'fortran_order': False, 'shape': ({height}, {width}, {channels}), }}"
        );
        let header = format!("{header:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend_from_slice(header.as_bytes());
        let values = (0..width * height * channels).map(|v| (v * 31 + i * 1000) as u16);
        bytes.extend(values.flat_map(u16::to_le_bytes));
        std::fs::write(&path, bytes).unwrap();
        let map = folder.path().join(format!("{i}.png"));
        let ids: Vec<u8> = (0..width * height).map(|p| (p % 5) as u8).collect();
        write_map(&map, width, height, &ids);
        SegmentSample { path, map }
    };
    let samples: Vec<SegmentSample> = (0..16).map(sample).collect();
    let mut pipeline = RasterPipeline {
        channels,
        depth: Depth::U16,
        range: ValueRange::Stored,
        task: RasterTask::Train(RasterTrain {
            resize: None,
            scale_aspect: None,
            crop: (24, 12),
            blur: 0.0,
            horizontal_flip: 0.0,
            vertical_flip: 0.5,
            rotate: None,
            fill: vec![9.0],
        }),
    };
    for batch in repeatable(&config(pipeline.clone(), samples.clone())) {
        assert_eq!((batch.channels, batch.depth), (4, Depth::U16));
        assert_eq!(batch.images.len(), 4 * 24 * 12 * 4 * 2);
        let values: Vec<u16> = batch
            .images
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| u16::from_ne_bytes(*b))
            .collect();
        for (place, index) in batch.indices.iter().enumerate() {
            let (pixels, map) = (
                &values[place * 24 * 12 * 4..],
                &batch.maps[place * 24 * 12..],
            );
            // Where the map says what the stored pixel was, the values are that pixel's.
            let first = (0..24).find(|y| map[y * 12] != IGNORE).unwrap();
            let steps = (0..65536u32).step_by(31).map(|v| v + *index as u32 * 1000);
            let value = u32::from(pixels[first * 12 * 4]);
            assert!(steps.take(width * height * 4).any(|v| v % 65536 == value));
            let padded = (0..24).filter(|y| map[y * 12] == IGNORE).count();
            assert_eq!(padded, 24 - height);
        }
    }
    pipeline.task = RasterTask::Eval(16, 20);
    pipeline.range = ValueRange::Stretch(vec![(0.0, 65535.0); 4]);
    let stretched = &all(config(pipeline.clone(), samples.clone()))[0];
    assert_eq!(
        (stretched.depth, stretched.images.len()),
        (Depth::U8, 4 * 16 * 20 * 4)
    );
    pipeline.channels = 3;
    pipeline.range = ValueRange::Stored;
    let error = Loader::new(config(pipeline, samples))
        .unwrap()
        .find_map(Result::err);
    let text = error.unwrap().to_string();
    assert!(
        text.contains("it has 4 channels of uint16, the dataset 3 of uint16"),
        "{text}"
    );
}

#[test]
fn batches_can_live_in_memory_of_the_readers_choice() {
    let folder = tempfile::tempdir().unwrap();
    let samples = segment_samples(folder.path(), 12);
    let plain = config(
        SegmentPipeline::train(&SegmentationParams::default()),
        samples,
    );
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let memory = BatchMemory::new(|length| {
        // The second one is refused: the heap serves.
        if TAKEN.fetch_add(1, Ordering::Relaxed) == 1 {
            return None;
        }
        let mut bytes = vec![0u8; length].into_boxed_slice();
        let base = bytes.as_mut_ptr();
        // SAFETY: a box's bytes stay where they are, and nobody else has the box.
        Some(unsafe { Buffer::foreign(base, length, Box::new(bytes)) })
    });
    let held = LoaderConfig {
        memory: Some(memory),
        ..plain.clone()
    };
    let batches = all(held);
    assert!(same(&batches, &all(plain)));
    assert_eq!(TAKEN.load(Ordering::Relaxed), 3);
    let owned = batches
        .into_iter()
        .map(|b| b.images.into_owner::<Box<[u8]>>().is_ok());
    assert_eq!(owned.filter(|o| *o).count(), 2);
}
