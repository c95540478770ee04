//! Taking turns with the peers of a benchmark, as `bench/peers/turns.py` does.

use std::io::{BufRead, Write};
use std::time::Instant;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Answers turns; `step` does `work` units and gives its result.
pub fn turns(work: usize, mut step: impl FnMut() -> Result<f64, Failure>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{{\"ready\": true}}")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let count = line.strip_prefix("run ").map(|n| n.trim().parse::<usize>());
        let Some(Ok(count)) = count else { break };
        let started = Instant::now();
        let mut result = 0.0;
        for _ in 0..count {
            result = step()?;
        }
        let rate = (work * count) as f64 / started.elapsed().as_secs_f64();
        let peak = peak_bytes();
        writeln!(
            stdout,
            "{{\"rate\": {rate:.2}, \"peak_bytes\": {peak}, \"result\": {result}}}"
        )?;
        stdout.flush()?;
    }
    Ok(())
}
