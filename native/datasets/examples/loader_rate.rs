//! How fast the loader is: `cargo run --release -p oarlock-datasets --example loader_rate -- FOLDER [THREADS] [SIZE]`.
//!
//! Reads every picture directly in FOLDER with the default classification training transforms and
//! prints a line of JSON: images a second by the clock and by processor time, and peak memory.

use std::sync::Arc;
use std::time::Instant;

use oarlock_datasets::{
    ClassifyTrain, Jitter, Loader, LoaderConfig, Pipeline, Sample, is_picture_name,
};

/// Seconds of processor time of this process (user and system).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|k| k.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("which folder?")?;
    let threads = args.next().map_or(Ok(1), |t| t.parse())?;
    let size = args.next().map_or(Ok(224), |s| s.parse())?;
    let mut samples: Vec<Sample> = std::fs::read_dir(&folder)?
        .flatten()
        .filter(|e| is_picture_name(&e.file_name().to_string_lossy()))
        .map(|e| Sample {
            path: e.path(),
            label: 0,
        })
        .collect();
    samples.sort_by(|a, b| a.path.cmp(&b.path));
    let jitter = |range| Some(Jitter { range, prob: 0.5 });
    let pipeline = Pipeline::ClassifyTrain(ClassifyTrain {
        crop: (size, size),
        scale: (0.88, 1.0),
        aspect: (0.75, 4.0 / 3.0),
        horizontal_flip: 0.5,
        vertical_flip: 0.0,
        brightness: jitter(0.9),
        contrast: jitter(0.9),
        saturation: jitter(0.9),
        hue: None,
        rotate: None,
    });
    let mut loader = Loader::new(LoaderConfig {
        samples: Arc::new(samples),
        batch_size: 16,
        pipeline,
        shuffle_seed: Some(1),
        epoch: 1,
        start_batch: 0,
        drop_last: false,
        threads,
        prefetch: 4,
        cache: None,
        max_corrupt_fraction: 0.0,
    })?;
    let (clock, processor) = (Instant::now(), processor_seconds());
    let mut images = 0;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        images += batch.n;
        loader.recycle(batch.images);
    }
    let (clock, processor) = (
        clock.elapsed().as_secs_f64(),
        processor_seconds() - processor,
    );
    let stats = loader.stats();
    eprintln!(
        "{{\"images\": {images}, \"per_second\": {:.1}, \"per_core_second\": {:.1}, \"decode_share\": {:.2}, \"peak_mib\": {:.0}}}",
        images as f64 / clock,
        images as f64 / processor,
        stats.decode_seconds / (stats.decode_seconds + stats.transform_seconds),
        peak_mib()
    );
    Ok(())
}
