//! The engine without Node: `oarlock-engine COMMAND [--option value]…`.
//!
//! | command | does |
//! |---|---|
//! | `bench-step` | times training steps on random images, of detectors with objects: `--model --batch --size --precision --steps --warmup --threads --device` |
//! | `bench-infer` | times inference, batch norm folded: the same options, and `--checkpoint FOLDER` for its network |
//! | `bench-onnx` | writes the network of `bench-infer` as ONNX: `--model --size --out FILE` |
//! | `bench-kernels` | times the own CPU kernels beside libtorch's operators and the machine's limits: `--batch --threads --rounds` |
//! | `train` | runs a training: `--spec FILE` (the `TrainSpec` as JSON); events as JSON lines |
//! | `sensitivity` | runs a sensitivity analysis: `--spec FILE` (the `SensitivitySpec`); `--brute true` masks channels and evaluates everything instead |
//! | `job` | runs any job: `--spec FILE` (a `JobSpec`) |
//! | `devices` | lists the GPUs, or says why there are none |

// This program's results are for other programs that read its standard output; it is no part of a compute host.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use oarlock_engine::bench::{BenchOptions, infer, kernels, onnx, step};
use oarlock_engine::jobs::sensitivity::brute_force;
use oarlock_engine::{CancelToken, run_job};
use oarlock_jobs::{ErrorCode, JobError, JobEvent, JobOutcome, JobSpec, Precision};
use serde::de::DeserializeOwned;
use serde_json::json;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let result = options(args).and_then(|options| run(&command, &options));
    match result {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": error }));
            ExitCode::FAILURE
        }
    }
}

fn options(args: impl Iterator<Item = String>) -> Result<HashMap<String, String>, JobError> {
    let args: Vec<String> = args.collect();
    args.chunks(2)
        .map(|pair| match pair {
            [key, value] if key.starts_with("--") => Ok((key[2..].to_owned(), value.clone())),
            _ => Err(usage(&format!("expected `--option value`, got {pair:?}"))),
        })
        .collect()
}

fn usage(message: &str) -> JobError {
    JobError::new(ErrorCode::InvalidArgument, message)
        .hint("commands: bench-step, bench-infer, bench-onnx, bench-kernels, train, sensitivity or job --spec FILE, devices")
}

fn run(command: &str, options: &HashMap<String, String>) -> Result<serde_json::Value, JobError> {
    match command {
        "bench-step" => Ok(step(&bench(options)?)?),
        "bench-infer" => Ok(infer(&bench(options)?)?),
        "bench-onnx" => {
            let path = options
                .get("out")
                .ok_or_else(|| usage("this command needs --out FILE"))?;
            Ok(onnx(&bench(options)?, Path::new(path))?)
        }
        "bench-kernels" => {
            let number = |key: &str, default| number(options, key, default);
            Ok(kernels(
                number("batch", 32)?.max(1),
                number("threads", 0)?,
                number("rounds", 7)?.max(1),
            )?)
        }
        "devices" => serde_json::to_value(oarlock_engine::runtime::devices())
            .map_err(|e| JobError::new(ErrorCode::Internal, e.to_string())),
        "train" => job(JobSpec::Train(Box::new(spec(options)?))),
        "job" => job(spec(options)?),
        "sensitivity" if options.contains_key("brute") => {
            let started = Instant::now();
            let (base, losses) = brute_force(&spec(options)?)?;
            Ok(json!({
                "base": base,
                "sensitivities": losses,
                "seconds": started.elapsed().as_secs_f64(),
            }))
        }
        "sensitivity" => {
            let started = Instant::now();
            let mut result = job(JobSpec::Sensitivity(spec(options)?))?;
            result["seconds"] = started.elapsed().as_secs_f64().into();
            Ok(result)
        }
        _ => Err(usage(&format!("unknown command `{command}`"))),
    }
}

fn number(options: &HashMap<String, String>, key: &str, default: u32) -> Result<u32, JobError> {
    match options.get(key) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| usage(&format!("--{key} must be a whole number, got `{text}`"))),
    }
}

fn bench(options: &HashMap<String, String>) -> Result<BenchOptions, JobError> {
    let number = |key: &str, default| number(options, key, default);
    let precision = match options.get("precision").map(String::as_str) {
        None | Some("auto") => Precision::Auto,
        Some("fp32") => Precision::Fp32,
        Some("bf16") => Precision::Bf16,
        Some(other) => {
            return Err(usage(&format!(
                "--precision must be auto, fp32 or bf16, got `{other}`"
            )));
        }
    };
    Ok(BenchOptions {
        model: options
            .get("model")
            .cloned()
            .unwrap_or_else(|| "ResNet50".to_owned()),
        checkpoint: options.get("checkpoint").cloned(),
        batch: number("batch", 16)?,
        size: number("size", 224)?,
        steps: number("steps", 5)?.max(1),
        warmup: number("warmup", 2)?,
        threads: number("threads", 0)?,
        cuda: options
            .contains_key("device")
            .then(|| number("device", 0))
            .transpose()?,
        precision,
    })
}

/// The spec in the file that `--spec` names.
fn spec<T: DeserializeOwned>(options: &HashMap<String, String>) -> Result<T, JobError> {
    let path = options
        .get("spec")
        .ok_or_else(|| usage("this command needs --spec FILE"))?;
    let text = std::fs::read_to_string(path)?;
    serde_json::from_str(&text)
        .map_err(|e| JobError::new(ErrorCode::InvalidArgument, format!("{path}: {e}")))
}

fn job(spec: JobSpec) -> Result<serde_json::Value, JobError> {
    let sink = |event: JobEvent| {
        if let Ok(line) = serde_json::to_string(&event) {
            println!("{line}");
        }
    };
    match run_job("cli", spec, &sink, &CancelToken::new()) {
        JobOutcome::Failed(error) => Err(error),
        outcome => serde_json::to_value(outcome)
            .map_err(|e| JobError::new(ErrorCode::Internal, e.to_string())),
    }
}
