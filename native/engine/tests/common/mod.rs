//! A small generated dataset and the spec of a training on it.
#![allow(dead_code)] // each test binary uses its part

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use oarlock_engine::EventSink;
use oarlock_imaging::{Image, Rng, encode_png};
use oarlock_jobs::{
    AugmentParams, ClassificationParams, CommonParams, DatasetFormat, DatasetRef, DeviceSpec,
    JobEvent, LrPolicy, Precision, Resume, TrainParams, TrainSpec,
};

/// Three kinds of pictures that differ in colour and pattern: `per_class` for training, a quarter of it for validation.
pub fn dataset(root: &Path, per_class: usize, size: usize) {
    let mut lists = [String::new(), String::new()];
    for (class, name) in ["plain", "stripes", "checks"].iter().enumerate() {
        fs::create_dir_all(root.join(name)).unwrap();
        for i in 0..per_class + per_class.div_ceil(4) {
            let mut rng = Rng::of(&[class as u64, i as u64]);
            let (period, shade) = (2 + (rng.bits() % 3) as usize, (rng.bits() % 60) as u8);
            let mut data = Vec::with_capacity(size * size * 3);
            for y in 0..size {
                for x in 0..size {
                    let on = match class {
                        0 => true,
                        1 => (y / period) % 2 == 0,
                        _ => (y / period + x / period) % 2 == 0,
                    };
                    let noise = (rng.bits() % 30) as u8;
                    let base = if on { 160 + shade } else { 20 };
                    data.extend([base + noise, base + noise / 2, base]);
                }
            }
            let image = Image::new(size, size, data).unwrap();
            let file = format!("{name}/{i}.png");
            fs::write(root.join(&file), encode_png(&image).unwrap()).unwrap();
            lists[usize::from(i >= per_class)] += &format!("{file} {class}\n");
        }
    }
    fs::write(root.join("labels.txt"), "plain\nstripes\nchecks\n").unwrap();
    fs::write(root.join("train_list.txt"), &lists[0]).unwrap();
    fs::write(root.join("val_list.txt"), &lists[1]).unwrap();
}

/// Parameters of `model` at 32×32.
fn classification(model: &str) -> ClassificationParams {
    ClassificationParams {
        common: common(model),
        augment: augment(),
        label_smoothing: 0.1,
        image_mean: [0.485, 0.456, 0.406],
        image_std: [0.229, 0.224, 0.225],
        class_balance: false,
    }
}

/// Two epochs at 32×32.
pub fn common(model: &str) -> CommonParams {
    CommonParams {
        model: model.to_owned(),
        batch_size: 8,
        num_epochs: 2,
        learning_rate: 0.02,
        lr_policy: LrPolicy::Cosine,
        lr_decay_epochs: vec![],
        warmup_steps: 2,
        warmup_start_lr: 0.0,
        save_interval_epochs: 1,
        optimizer: "SGD".to_owned(),
        weight_decay: 1e-4,
        image_shape: [32, 32],
        early_stop_patience: 0,
        seed: 11,
    }
}

/// Everything on.
pub fn augment() -> AugmentParams {
    AugmentParams {
        horizontal_flip: true,
        horizontal_flip_prob: 0.5,
        vertical_flip: true,
        vertical_flip_prob: 0.5,
        brightness: true,
        brightness_range: 0.3,
        brightness_prob: 0.5,
        contrast: true,
        contrast_range: 0.3,
        contrast_prob: 0.5,
        saturation: true,
        saturation_range: 0.3,
        saturation_prob: 0.5,
        hue: true,
        hue_range: 18.0,
        hue_prob: 0.5,
        rotate: true,
        rotate_prob: 0.5,
        rotate_range: 30.0,
    }
}

/// A training of `model` at 32×32 on the dataset in `dir/data`, task folder `dir/<task>`.
pub fn spec(dir: &Path, task: &str, model: &str) -> TrainSpec {
    let task_dir = dir.join(task);
    fs::create_dir_all(&task_dir).unwrap();
    TrainSpec {
        task_id: task.to_owned(),
        task_dir: task_dir.display().to_string(),
        dataset: DatasetRef {
            format: DatasetFormat::ImageFolder,
            root: dir.join("data").display().to_string(),
        },
        params: TrainParams::Classification(classification(model)),
        weights: None,
        resume: Resume::Fresh,
        prune: None,
        device: DeviceSpec {
            cuda: vec![],
            threads: 2,
            precision: Precision::Fp32,
        },
    }
}

/// Keeps every event; `on_step` is told each step event.
pub struct Recorder<F: Fn(u32, u32) + Send + Sync> {
    pub events: Mutex<Vec<JobEvent>>,
    pub on_step: F,
}

pub fn recorder() -> Recorder<impl Fn(u32, u32) + Send + Sync> {
    Recorder {
        events: Mutex::new(vec![]),
        on_step: |_, _| {},
    }
}

impl<F: Fn(u32, u32) + Send + Sync> EventSink for Recorder<F> {
    fn emit(&self, event: JobEvent) {
        if let JobEvent::Step { epoch, step, .. } = event {
            (self.on_step)(epoch, step);
        }
        self.events.lock().unwrap().push(event);
    }
}

impl<F: Fn(u32, u32) + Send + Sync> Recorder<F> {
    /// (epoch, step, loss) of each step event.
    pub fn losses(&self) -> Vec<(u32, u32, f64)> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| match e {
                JobEvent::Step {
                    epoch,
                    step,
                    metrics,
                    ..
                } => Some((*epoch, *step, metrics["loss"].unwrap())),
                _ => None,
            })
            .collect()
    }
}
