//! Opening weights of any kind.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use oarlock_graph::WeightMap;

use crate::error::WeightError;
use crate::torch::{self, TorchError};
use crate::{paddle, safetensors_io};

/// Largest weight file: far beyond any classifier, small enough to notice a mistake.
const MAX_BYTES: u64 = 16 << 30;

/// What a weight file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    /// `torch.save` since 1.6, a zip archive.
    TorchZip,
    /// `torch.save` before 1.6.
    TorchLegacy,
    Paddle,
}

/// Files looked for in a checkpoint folder, best first.
const FOLDER_FILES: [&str; 6] = [
    "model.safetensors",
    "model.pdparams",
    "model.pth",
    "model.pt",
    "pytorch_model.bin",
    "best.pt",
];

/// Suffixes of weight files, for folders that hold exactly one.
const SUFFIXES: [&str; 4] = ["safetensors", "pdparams", "pth", "pt"];

/// Reads weights as fp32 tensors in PyTorch's layout (linear weights `[out, in]`) under the file's own
/// names, which [`fit`](crate::fit) translates.
///
/// `path` is a file (the kind is told from its content, not its name) or a checkpoint folder.
/// Whole numbers become fp32 too (`num_batches_tracked`); the order is that of the file.
///
/// # Errors
/// [`WeightError::NotFound`] when there is nothing, `Unsupported` for a kind that is not read,
/// `Invalid` or `Pickle` for a damaged or hostile file. Never panics, never executes anything.
pub fn load(path: &Path) -> Result<WeightMap, WeightError> {
    let meta = path.metadata().map_err(|e| WeightError::io(path, e))?;
    let path = if meta.is_dir() {
        in_folder(path)?
    } else {
        path.to_owned()
    };
    let file = File::open(&path).map_err(|e| WeightError::io(&path, e))?;
    let size = file
        .metadata()
        .map_err(|e| WeightError::io(&path, e))?
        .len();
    if size > MAX_BYTES {
        return Err(WeightError::unsupported(
            &path,
            format!("it has {size} bytes"),
        ));
    }
    if size == 0 {
        return Err(WeightError::invalid(&path, "the file is empty"));
    }
    // SAFETY: the map is read-only and dropped at the end of this function. Another process that
    // truncates the file meanwhile would fault this one, which is why weights are only opened in
    // compute hosts and the command line, never in the API process.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| WeightError::io(&path, e))?;
    from_bytes(&path, &map)
}

/// Tells the kind of a weight file from its first bytes.
pub(crate) fn sniff(bytes: &[u8]) -> Option<Format> {
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(Format::TorchZip);
    }
    if bytes.starts_with(torch::LEGACY_START) {
        return Some(Format::TorchLegacy);
    }
    // A header length, then the header's opening brace.
    if let Some(head) = bytes.first_chunk::<9>()
        && head[8] == b'{'
        && head[5..8] == [0, 0, 0]
    {
        return Some(Format::Safetensors);
    }
    // PROTO 2 to 5, or the bare dict opcodes of protocol 0 and 1.
    match bytes {
        [0x80, 2..=5, ..] | [b'(' | b'}', ..] => Some(Format::Paddle),
        _ => None,
    }
}

pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<WeightMap, WeightError> {
    let torch = |e: TorchError| match e {
        TorchError::Pickle(source) => WeightError::Pickle {
            path: path.to_owned(),
            source,
        },
        TorchError::Content(what) => WeightError::invalid(path, what),
        TorchError::Unsupported(what) => WeightError::unsupported(path, what),
    };
    let weights = match sniff(bytes) {
        Some(Format::Safetensors) => safetensors_io::read(path, bytes)?,
        Some(Format::TorchZip) => torch::read_zip(bytes).map_err(torch)?,
        Some(Format::TorchLegacy) => torch::read_legacy(bytes).map_err(torch)?,
        Some(Format::Paddle) => paddle::read(bytes).map_err(|source| WeightError::Pickle {
            path: path.to_owned(),
            source,
        })?,
        None => {
            return Err(WeightError::unsupported(
                path,
                "it is neither safetensors, a PyTorch state dict (.pth) nor Paddle parameters \
                 (.pdparams)",
            ));
        }
    };
    if weights.is_empty() {
        return Err(WeightError::invalid(path, "it holds no tensors"));
    }
    Ok(weights)
}

fn in_folder(folder: &Path) -> Result<PathBuf, WeightError> {
    if let Some(found) = FOLDER_FILES
        .iter()
        .map(|f| folder.join(f))
        .find(|p| p.is_file())
    {
        return Ok(found);
    }
    let entries = folder.read_dir().map_err(|e| WeightError::io(folder, e))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| {
            p.extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| SUFFIXES.contains(&e))
        })
        .filter(|p| p.is_file())
        .take(2)
        .collect();
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(WeightError::NotFound {
            path: folder.to_owned(),
            why: format!("the folder holds none of {}", FOLDER_FILES.join(", ")),
        }),
        (Some(_), Some(_)) => Err(WeightError::NotFound {
            path: folder.to_owned(),
            why: "the folder holds several weight files; name one of them".into(),
        }),
    }
}
