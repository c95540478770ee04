//! Memory of this machine, for budgets and messages.

use std::fs;

use crate::ffi;

/// Bytes of tensors on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMemory {
    /// In use.
    pub used: u64,
    /// Most in use since these numbers were last asked for.
    pub peak: u64,
    /// Free, kept for later tensors.
    pub kept: u64,
}

/// Memory of tensors on the CPU; the peak begins anew.
pub fn tensors() -> TensorMemory {
    let [used, peak, kept] = ffi::memory_stats();
    TensorMemory { used, peak, kept }
}

/// Most bytes that tensors on the CPU may take; `None` = what the machine has. Beyond it allocations fail with
/// `ResourceExhausted`.
pub fn set_limit(bytes: Option<u64>) {
    ffi::memory_limit(bytes.unwrap_or(0));
}

/// Gives memory that is kept for later tensors back to the system (at the end of a job).
pub fn trim() {
    ffi::memory_trim();
}

/// Bytes that can still be used: what the kernel says, or what the control group leaves.
pub fn available() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let free = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    Some(group_left().map_or(free, |left| left.min(free)))
}

/// What the control group (version 2) of this process may still take.
fn group_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// Bytes of this process in memory.
pub fn resident() -> Option<u64> {
    of_process("VmRSS:")
}

/// Most bytes of this process that were in memory at once.
pub fn peak_resident() -> Option<u64> {
    of_process("VmHWM:")
}

fn of_process(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
