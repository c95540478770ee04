//! Our side of `npm run bench -- data`: `data_rate --task classify|detect|segment --folder FOLDER
//! [--threads N] [--cache]`. Answers every line `run N` on stdin with a line of JSON: images a second by the
//! clock, and peak memory.
//!
//! The folder holds JPEGs; for `detect` also `boxes.txt` (file, class, x1, y1, x2, y2 a line), for
//! `segment` also `masks/<stem>.png`. With `--cache` decoded pictures are kept from turn to turn, as they
//! are from epoch to epoch of a training.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use oarlock_datasets::{
    ClassifyPipeline, ClassifyTrain, DetectPipeline, DetectSample, DetectTrain, Fit, ImageCache,
    Jitter, Loader, LoaderConfig, Pipeline, Sample, SegmentPipeline, SegmentSample, SegmentTrain,
    is_picture_name,
};
use oarlock_imaging::transform::{BoxCrop, Distort, ScaleAspect};
use oarlock_imaging::{BBox, Interpolation, Object};

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

/// Random resized crop to 224, flip, all four colour changes on every picture.
fn classify() -> ClassifyPipeline {
    ClassifyPipeline::Train(ClassifyTrain {
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
    })
}

/// Colours, expand, crop, resize to 608, flip.
fn detect() -> DetectPipeline {
    DetectPipeline::Train(DetectTrain {
        fit: Fit::Exact(vec![(608, 608)]),
        mixup: None,
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
    })
}

/// Scale-aspect crop, padding crop to 512, flip, with the label map.
fn segment() -> SegmentPipeline {
    SegmentPipeline::Train(SegmentTrain {
        resize: None,
        scale_aspect: Some(ScaleAspect {
            min_ratio: 0.5,
            aspect: 0.33,
        }),
        ..SegmentTrain::resized(512, 512, Distort::default())
    })
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

/// Lets the loader make `count` images, and throws them away.
struct Rate {
    threads: usize,
    cache: Option<Arc<ImageCache>>,
}

impl Rate {
    fn turns<P: Pipeline>(
        &self,
        pipeline: &P,
        files: &[P::Sample],
        batch_size: usize,
    ) -> Result<(), Failure> {
        let run = |count: usize, round: u64| -> Result<(), Failure> {
            let mut loader = Loader::new(LoaderConfig {
                samples: Arc::new(files.iter().cycle().take(count).cloned().collect()),
                batch_size,
                pipeline: pipeline.clone(),
                shuffle_seed: Some(round),
                epoch: 1,
                start_batch: 0,
                drop_last: false,
                threads: self.threads,
                prefetch: 4,
                cache: self.cache.clone(),
                memory: None,
                max_corrupt_fraction: 0.0,
            })?;
            while let Some(batch) = loader.next() {
                loader.recycle(batch?.images);
            }
            Ok(())
        };
        if self.cache.is_some() {
            run(files.len(), 0)?;
        }
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{{\"ready\": true}}")?;
        for (round, line) in std::io::stdin().lock().lines().enumerate() {
            let line = line?;
            let count = line.strip_prefix("run ").map(|n| n.trim().parse());
            let Some(Ok(count)) = count else { break };
            let started = Instant::now();
            run(count, round as u64)?;
            let (rate, peak) = (count as f64 / started.elapsed().as_secs_f64(), peak_bytes());
            writeln!(stdout, "{{\"rate\": {rate:.2}, \"peak_bytes\": {peak}}}")?;
            stdout.flush()?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let place = args.iter().position(|a| a == name)?;
        args.get(place + 1).cloned()
    };
    let task = option("--task").ok_or("--task?")?;
    let folder = PathBuf::from(option("--folder").ok_or("--folder?")?);
    let files = pictures(&folder)?;
    if files.is_empty() {
        return Err("there are no pictures in the folder".into());
    }
    let cached = args.iter().any(|a| a == "--cache");
    let rate = Rate {
        threads: option("--threads").map_or(Ok(1), |t| t.parse())?,
        cache: cached.then(|| Arc::new(ImageCache::within_free_memory(0.25))),
    };
    match task.as_str() {
        "classify" => {
            let sample = |path| Sample { path, label: 0 };
            let files: Vec<Sample> = files.into_iter().map(sample).collect();
            rate.turns(&classify(), &files, 32)
        }
        "detect" => {
            let known = boxes(&folder)?;
            let sample = |path: PathBuf| {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
                let objects = name.and_then(|n| known.get(&n)).cloned();
                let objects = objects.unwrap_or_default();
                DetectSample { path, objects }
            };
            let files: Vec<DetectSample> = files.into_iter().map(sample).collect();
            rate.turns(&detect(), &files, 8)
        }
        "segment" => {
            let sample = |path: PathBuf| {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let map = folder.join(format!("masks/{stem}.png"));
                SegmentSample { path, map }
            };
            let files: Vec<SegmentSample> = files.into_iter().map(sample).collect();
            rate.turns(&segment(), &files, 8)
        }
        other => Err(format!("unknown task {other}").into()),
    }
}
