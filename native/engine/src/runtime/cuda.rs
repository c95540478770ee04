//! GPUs: what the driver reports, and loading libtorch's CUDA part.
//!
//! Asking for the GPUs uses the driver alone (`libcuda`, and `libnvidia-ml` for free memory): no context is made on
//! any GPU and libtorch stays out of it. libtorch's CUDA library is loaded when a job wants a GPU, never before.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

use oarlock_jobs::ErrorCode;
use serde::Serialize;

use super::dl::{self, Library};
use crate::{EngineError, Result, ffi};

/// A GPU the driver offers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// `cuda`.
    pub kind: &'static str,
    /// Ordinal, after `CUDA_VISIBLE_DEVICES`.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Memory in MiB.
    pub memory_total_mb: u64,
    /// Free memory in MiB; the whole where it cannot be asked for.
    pub memory_free_mb: u64,
    /// Compute capability, such as `9.0`.
    pub compute_capability: String,
    /// The driver's name of this very card.
    pub uuid: String,
}

/// The GPUs of this machine, or why there are none.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceReport {
    /// Usable GPUs.
    pub gpus: Vec<Gpu>,
    /// Why there are none.
    pub reason: Option<String>,
}

/// Asks the driver for its GPUs.
pub fn devices() -> DeviceReport {
    match list() {
        Ok(gpus) if gpus.is_empty() => DeviceReport {
            gpus,
            reason: Some("the NVIDIA driver offers no GPU (CUDA_VISIBLE_DEVICES?)".to_owned()),
        },
        Ok(gpus) => DeviceReport { gpus, reason: None },
        Err(reason) => DeviceReport {
            gpus: Vec::new(),
            reason: Some(reason),
        },
    }
}

const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

type Get<T> = unsafe extern "C" fn(*mut T) -> c_int;

/// Why a driver call failed.
fn check(code: c_int, what: &str) -> std::result::Result<(), String> {
    match code {
        0 => Ok(()),
        100 => Err("the NVIDIA driver finds no GPU".to_owned()),
        803 => Err(
            "the NVIDIA driver does not match its own libraries; restart the machine".to_owned(),
        ),
        code => Err(format!(
            "the NVIDIA driver failed: {what} gave error {code}"
        )),
    }
}

fn list() -> std::result::Result<Vec<Gpu>, String> {
    let cuda = Library::open("libcuda.so.1", false)
        .map_err(|e| format!("no NVIDIA driver is installed (libcuda.so.1: {e})"))?;
    // SAFETY: the types are those of cuda.h, unchanged since CUDA 3.2.
    let (init, count, get, name, total, attribute, uuid) = unsafe {
        (
            cuda.function::<unsafe extern "C" fn(c_uint) -> c_int>(c"cuInit")?,
            cuda.function::<Get<c_int>>(c"cuDeviceGetCount")?,
            cuda.function::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>(c"cuDeviceGet")?,
            cuda.function::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(
                c"cuDeviceGetName",
            )?,
            cuda.function::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>(
                c"cuDeviceTotalMem_v2",
            )?,
            cuda.function::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>(
                c"cuDeviceGetAttribute",
            )?,
            cuda.function::<unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int>(
                c"cuDeviceGetUuid",
            )?,
        )
    };
    let memory = FreeMemory::open();
    let mut number = 0;
    // SAFETY: cuInit takes flags, which must be 0; `number` is a valid place.
    unsafe {
        check(init(0), "cuInit")?;
        check(count(&mut number), "cuDeviceGetCount")?;
    }
    (0..number)
        .map(|i| {
            let (mut device, mut bytes, mut major, mut minor) = (0, 0usize, 0, 0);
            let (mut text, mut id) = ([0 as c_char; 256], [0u8; 16]);
            // SAFETY: every pointer is a valid place of the type the call writes; `text` has the length told.
            unsafe {
                check(get(&mut device, i), "cuDeviceGet")?;
                check(name(text.as_mut_ptr(), 256, device), "cuDeviceGetName")?;
                check(total(&mut bytes, device), "cuDeviceTotalMem")?;
                check(
                    attribute(&mut major, CAPABILITY_MAJOR, device),
                    "cuDeviceGetAttribute",
                )?;
                check(
                    attribute(&mut minor, CAPABILITY_MINOR, device),
                    "cuDeviceGetAttribute",
                )?;
                check(uuid(&mut id, device), "cuDeviceGetUuid")?;
            }
            text[255] = 0;
            // SAFETY: NUL-terminated within the array, by the line above.
            let name = unsafe { CStr::from_ptr(text.as_ptr()) }
                .to_string_lossy()
                .into_owned();
            let uuid = uuid_text(&id);
            let total_mb = (bytes >> 20) as u64;
            let free_mb = memory
                .as_ref()
                .and_then(|m| m.of(&uuid))
                .map_or(total_mb, |b| b >> 20);
            Ok(Gpu {
                kind: "cuda",
                index: i.unsigned_abs(),
                name,
                memory_total_mb: total_mb,
                memory_free_mb: free_mb,
                compute_capability: format!("{major}.{minor}"),
                uuid,
            })
        })
        .collect()
}

/// `GPU-8-4-4-4-12` hexadecimal digits, as NVIDIA's tools write it.
fn uuid_text(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "GPU-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[repr(C)]
#[derive(Default)]
struct NvmlMemory {
    total: u64,
    free: u64,
    used: u64,
}

type NvmlHandle = *mut std::ffi::c_void;

/// NVIDIA's management library: free memory without a context on the GPU.
struct FreeMemory {
    by_uuid: unsafe extern "C" fn(*const c_char, *mut NvmlHandle) -> c_int,
    memory: unsafe extern "C" fn(NvmlHandle, *mut NvmlMemory) -> c_int,
}

impl FreeMemory {
    fn open() -> Option<Self> {
        let nvml = Library::open("libnvidia-ml.so.1", false).ok()?;
        // SAFETY: the types are those of nvml.h.
        unsafe {
            let init = nvml
                .function::<unsafe extern "C" fn() -> c_int>(c"nvmlInit_v2")
                .ok()?;
            (init() == 0).then_some(())?;
            Some(Self {
                by_uuid: nvml.function(c"nvmlDeviceGetHandleByUUID").ok()?,
                memory: nvml.function(c"nvmlDeviceGetMemoryInfo").ok()?,
            })
        }
    }

    fn of(&self, uuid: &str) -> Option<u64> {
        let uuid = std::ffi::CString::new(uuid).ok()?;
        let mut handle = std::ptr::null_mut();
        let mut memory = NvmlMemory::default();
        // SAFETY: a NUL-terminated name and valid places for the results.
        let done = unsafe {
            (self.by_uuid)(uuid.as_ptr(), &mut handle) == 0
                && (self.memory)(handle, &mut memory) == 0
        };
        done.then_some(memory.free)
    }
}

/// Loads libtorch's CUDA part into this process, once, and checks that it works with GPU `ordinal`.
///
/// # Errors
/// `Unsupported` with the reason: no driver, no such GPU, libraries missing.
pub(super) fn load(ordinal: u32) -> Result<Gpu> {
    let report = devices();
    let unusable = |reason: String| {
        EngineError::new(
            ErrorCode::Unsupported,
            format!("GPU {ordinal} cannot be used: {reason}"),
        )
        .with("gpu", ordinal)
        .hint("choose the CPU or another GPU")
    };
    let Some(gpu) = report.gpus.iter().find(|g| g.index == ordinal).cloned() else {
        let reason = report
            .reason
            .unwrap_or_else(|| format!("the driver offers {} GPUs", report.gpus.len()));
        return Err(unusable(reason));
    };
    static LOADED: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let folder =
            dl::folder_of(ffi::libtorch_address()).ok_or("libtorch's own folder is unknown")?;
        Library::open(&format!("{folder}/libtorch_cuda.so"), true)
            .map_err(|e| format!("libtorch's GPU part cannot be loaded: {e}"))
    });
    if let Err(reason) = loaded {
        return Err(unusable(reason.clone()));
    }
    let usable = ffi::cuda_devices()?;
    if u64::from(ordinal) >= usable {
        return Err(unusable(format!(
            "libtorch sees {usable} GPUs (is the driver recent enough for CUDA 13?)"
        )));
    }
    Ok(gpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_nvidia_writes_them() {
        let id: [u8; 16] = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(uuid_text(&id), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_machine_says_its_gpus_or_why_it_has_none() {
        let report = devices();
        assert_eq!(report.gpus.is_empty(), report.reason.is_some());
    }
}
