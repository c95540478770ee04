//! Our side of `npm run bench -- data`: `data_rate --task classify|detect|segment --folder FOLDER
//! [--threads N] [--cache]`. Answers every line `run N` on stdin with a line of JSON: images a second by the
//! clock, and peak memory.
//!
//! The folder holds JPEGs; for `detect` also `boxes.txt` (file, class, x1, y1, x2, y2 a line), for
//! `segment` also `masks/<stem>.png`. With `--cache` (`classify` only) decoded pictures are kept from turn
//! to turn, as they are from epoch to epoch of a training.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use oarlock_datasets::{
    ClassifyTrain, DetectTrain, ImageCache, Jitter, Loader, LoaderConfig, Pipeline, Sample,
    SegmentTrain, is_picture_name,
};
use oarlock_imaging::transform::{BoxCrop, Distort, ScaleAspect};
use oarlock_imaging::{BBox, Interpolation, Limits, Object, Rng, read_file};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .unwrap_or_default();
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|k| k.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder)?.flatten().map(|e| e.path());
    let is_picture = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| is_picture_name(&n.to_string_lossy()))
    };
    let mut files: Vec<PathBuf> = entries.filter(is_picture).collect();
    files.sort();
    Ok(files)
}

fn jitter(range: f32, prob: f32) -> Option<Jitter> {
    Some(Jitter { range, prob })
}

/// Decode, random resized crop to 224, flip, all four colour changes on every picture; the real loader.
fn classify(
    files: &[PathBuf],
    count: usize,
    threads: usize,
    round: u64,
    cache: Option<Arc<ImageCache>>,
) -> Result<(), Failure> {
    let sample = |path: &PathBuf| Sample {
        path: path.clone(),
        label: 0,
    };
    let samples: Vec<Sample> = files.iter().cycle().take(count).map(sample).collect();
    let mut loader = Loader::new(LoaderConfig {
        samples: Arc::new(samples),
        batch_size: 32,
        pipeline: Pipeline::ClassifyTrain(ClassifyTrain {
            crop: (224, 224),
            scale: (0.88, 1.0),
            aspect: (0.75, 4.0 / 3.0),
            horizontal_flip: 0.5,
            vertical_flip: 0.0,
            brightness: jitter(0.4, 1.0),
            contrast: jitter(0.4, 1.0),
            saturation: jitter(0.4, 1.0),
            hue: jitter(18.0, 1.0),
            rotate: None,
        }),
        shuffle_seed: Some(round),
        epoch: 1,
        start_batch: 0,
        drop_last: false,
        threads,
        prefetch: 4,
        cache,
        max_corrupt_fraction: 0.0,
    })?;
    while let Some(batch) = loader.next() {
        loader.recycle(batch?.images);
    }
    Ok(())
}

fn boxes(folder: &Path) -> Result<HashMap<String, Vec<Object>>, Failure> {
    let mut out: HashMap<String, Vec<Object>> = HashMap::new();
    for line in std::fs::read_to_string(folder.join("boxes.txt"))?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, class, edges @ ..] = &words[..] else {
            return Err("boxes.txt: a line is too short".into());
        };
        let edges = edges
            .iter()
            .map(|w| w.parse())
            .collect::<Result<Vec<f32>, _>>()?;
        let [x1, y1, x2, y2] = edges[..] else {
            return Err("boxes.txt: a line has not four edges".into());
        };
        out.entry((*name).to_owned()).or_default().push(Object {
            class: class.parse()?,
            bbox: BBox::new(x1, y1, x2, y2),
            weight: 1.0,
            ..Object::default()
        });
    }
    Ok(out)
}

/// Makes one input: its number, memory for pixels and for labels.
type Work<'a> = dyn Fn(usize, &mut Vec<u8>, &mut Vec<u8>) -> Result<(), Failure> + Sync + 'a;

/// Runs `work` for 0..count on threads of its own.
fn spread(count: usize, threads: usize, work: &Work<'_>) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let run = || {
        let (mut out, mut labels) = (Vec::new(), Vec::new());
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return Ok(());
            }
            work(item, &mut out, &mut labels)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|_| Err("a thread failed".into())))
    })
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let place = args.iter().position(|a| a == name)?;
        args.get(place + 1).cloned()
    };
    let task = option("--task").ok_or("--task?")?;
    let folder = PathBuf::from(option("--folder").ok_or("--folder?")?);
    let threads = option("--threads").map_or(Ok(1), |t| t.parse())?;
    let files = pictures(&folder)?;
    if files.is_empty() {
        return Err("there are no pictures in the folder".into());
    }
    let detect = DetectTrain {
        size: (608, 608),
        distort: Distort {
            brightness: jitter(0.5, 0.5),
            contrast: jitter(0.5, 0.5),
            saturation: jitter(0.5, 0.5),
            hue: jitter(18.0, 0.5),
        },
        expand: Some((4.0, 0.5)),
        crop: Some(BoxCrop::default()),
        horizontal_flip: 0.5,
        interpolations: Interpolation::CV2.to_vec(),
        fill: [124, 116, 104],
    };
    let segment = SegmentTrain {
        resize: None,
        scale_aspect: Some(ScaleAspect {
            min_ratio: 0.5,
            aspect: 0.33,
        }),
        crop: (512, 512),
        blur: 0.0,
        distort: Distort::default(),
        horizontal_flip: 0.5,
        vertical_flip: 0.0,
        fill: [128; 3],
    };
    let objects = if task == "detect" {
        boxes(&folder)?
    } else {
        HashMap::new()
    };
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let cached = args.iter().any(|a| a == "--cache");
    let cache = cached.then(|| Arc::new(ImageCache::within_free_memory(0.25)));
    if cached {
        classify(&files, files.len(), threads, 0, cache.clone())?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{{\"ready\": true}}")?;
    for (round, line) in std::io::stdin().lock().lines().enumerate() {
        let Some(count) = line?
            .strip_prefix("run ")
            .and_then(|n| n.trim().parse().ok())
        else {
            break;
        };
        let started = Instant::now();
        let stream = |item: usize| Rng::of(&[round as u64, item as u64]);
        let limits = Limits::default();
        match task.as_str() {
            "classify" => classify(&files, count, threads, round as u64, cache.clone())?,
            "detect" => spread(count, threads, &|item, out, _| {
                let path = &files[item % files.len()];
                let known = name(path).and_then(|n| objects.get(&n));
                out.resize(608 * 608 * 3, 0);
                let bytes = read_file(path, &limits)?;
                let known = known.map_or(&[][..], Vec::as_slice);
                detect.run(&bytes, known, &mut stream(item), out)?;
                Ok(())
            })?,
            "segment" => spread(count, threads, &|item, out, labels| {
                let path = &files[item % files.len()];
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let mask = folder.join(format!("masks/{stem}.png"));
                out.resize(512 * 512 * 3, 0);
                labels.resize(512 * 512, 0);
                let (bytes, mask) = (read_file(path, &limits)?, read_file(&mask, &limits)?);
                segment.run(&bytes, &mask, &mut stream(item), out, labels)?;
                Ok(())
            })?,
            other => return Err(format!("unknown task {other}").into()),
        }
        let rate = count as f64 / started.elapsed().as_secs_f64();
        writeln!(
            stdout,
            "{{\"rate\": {rate:.2}, \"peak_bytes\": {}}}",
            peak_bytes()
        )?;
        stdout.flush()?;
    }
    Ok(())
}
