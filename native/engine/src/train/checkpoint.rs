//! Checkpoint folders: written whole or not at all, and refused when torn.
//!
//! A folder is filled under a hidden temporary name, every file synced; `manifest.json` holds each file's size and
//! SHA-256, `.success` comes last; then the folder is renamed into place, replacing an older one in one step.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use oarlock_files as files;
use oarlock_graph::{Graph, WeightMap};
use oarlock_jobs::ErrorCode;
use oarlock_weights::save_safetensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::state::{STATE_VERSION, TrainState};
use crate::records::{Details, ModelYml};
use crate::{EngineError, Result};

/// Weights, fp32, names of the graph.
pub const WEIGHTS: &str = "model.safetensors";
/// Optimizer state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The network.
pub const GRAPH: &str = "graph.json";
/// Description for people and tools.
pub const MODEL_YML: &str = "model.yml";
/// Of a pruned model: share of channels removed by layer, FLOPs and parameters before and after.
pub const PRUNE_YML: &str = "prune.yml";
/// Where the training stood.
pub const STATE: &str = "state.json";
/// Sizes and checksums.
pub const MANIFEST: &str = "manifest.json";
/// Written last, empty.
pub const SUCCESS: &str = ".success";

/// What goes into a checkpoint.
pub struct Content<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// Its weights and buffers.
    pub weights: &'a WeightMap,
    /// Optimizer state.
    pub optimizer: &'a WeightMap,
    /// Where the training stands.
    pub state: &'a TrainState,
    /// `model.yml`.
    pub yml: &'a ModelYml,
    /// Validation predictions, of an evaluated checkpoint.
    pub eval: Option<&'a Details>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    files: IndexMap<String, Entry>,
}

/// Writes a checkpoint to `dir`, replacing an older one of that name.
///
/// # Errors
/// `ResourceExhausted` when the disk is full; other I/O failures. `dir` is then as it was before.
pub fn save(dir: &Path, content: &Content) -> Result<()> {
    let temp = files::temp_folder(dir)?;
    let result = fill(&temp, content).and_then(|()| replace_folder(&temp, dir));
    if result.is_err() {
        // Best effort: the error that matters is already in hand.
        let _ = fs::remove_dir_all(&temp);
    }
    result.map_err(|e| e.with("path", dir.display().to_string()))
}

fn fill(dir: &Path, content: &Content) -> Result<()> {
    let metadata = [
        ("network", content.graph.name.as_str()),
        ("writer", concat!("oarlock ", env!("CARGO_PKG_VERSION"))),
    ];
    save_safetensors(&dir.join(WEIGHTS), content.weights, &metadata).map_err(weights_error)?;
    save_safetensors(&dir.join(OPTIMIZER), content.optimizer, &metadata).map_err(weights_error)?;
    let graph = content
        .graph
        .to_json()
        .map_err(|e| EngineError::internal(e.to_string()))?;
    files::write_bytes(&dir.join(GRAPH), graph.as_bytes())?;
    files::write_bytes(&dir.join(MODEL_YML), content.yml.to_yaml()?.as_bytes())?;
    files::write_bytes(&dir.join(STATE), &json(content.state)?)?;
    if let Some(pruned) = &content.state.pruned {
        let text = serde_yaml_ng::to_string(pruned);
        let text = text.map_err(|e| EngineError::internal(format!("{PRUNE_YML}: {e}")))?;
        files::write_bytes(&dir.join(PRUNE_YML), text.as_bytes())?;
    }
    if let Some(eval) = content.eval {
        eval.write(&dir.join(crate::records::eval_details::FILE_NAME))?;
    }
    let mut names: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|e| e.map(|e| e.path()))
        .collect::<io::Result<_>>()?;
    names.sort();
    let mut files = IndexMap::new();
    for path in names {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        files.insert(name, digest(&path)?);
    }
    files::write_bytes(&dir.join(MANIFEST), &json(&Manifest { version: 1, files })?)?;
    files::write_bytes(&dir.join(SUCCESS), b"")?;
    Ok(())
}

/// Makes `dir` the same as the complete checkpoint `source` (hard links where the file system has them), in one
/// step.
///
/// # Errors
/// I/O failures; `dir` is then as it was before.
pub fn duplicate(source: &Path, dir: &Path) -> Result<()> {
    let temp = files::temp_folder(dir)?;
    let result = (|| -> Result<()> {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            let target = temp.join(entry.file_name());
            // Checkpoint files are never changed in place, so two folders may share them.
            if fs::hard_link(entry.path(), &target).is_err() {
                fs::copy(entry.path(), &target)?;
                File::open(&target)?.sync_all()?;
            }
        }
        replace_folder(&temp, dir)
    })();
    if result.is_err() {
        let _ = fs::remove_dir_all(&temp);
    }
    result
}

/// Everything a resume or another job needs from a checkpoint.
#[derive(Debug)]
pub struct Loaded {
    /// The network.
    pub graph: Graph,
    /// Its weights.
    pub weights: WeightMap,
    /// Optimizer state.
    pub optimizer: WeightMap,
    /// Where the training stood.
    pub state: TrainState,
}

/// Checks and reads the checkpoint `dir` for a resume.
///
/// # Errors
/// `NotFound` when there is none; `InvalidData` naming the file when it is incomplete or damaged.
pub fn load(dir: &Path) -> Result<Loaded> {
    verify(dir)?;
    let (graph, weights) = read_model(dir)?;
    let optimizer = oarlock_weights::load(&dir.join(OPTIMIZER)).map_err(weights_error)?;
    Ok(Loaded {
        graph,
        weights,
        optimizer,
        state: read_state(dir)?,
    })
}

/// Checks and reads the network and weights of the checkpoint `dir` (evaluate, predict, export).
///
/// # Errors
/// As [`load`].
pub fn load_model(dir: &Path) -> Result<(Graph, WeightMap)> {
    verify(dir)?;
    read_model(dir)
}

fn read_model(dir: &Path) -> Result<(Graph, WeightMap)> {
    let text = fs::read_to_string(dir.join(GRAPH))?;
    let graph = Graph::from_json(&text).map_err(|e| torn(dir, GRAPH, &e.to_string()))?;
    let weights = oarlock_weights::load(&dir.join(WEIGHTS)).map_err(weights_error)?;
    Ok((graph, weights))
}

/// Reads where the training of `dir` stood, without checking the other files.
///
/// # Errors
/// `InvalidData` when the file is damaged or of another version.
pub fn read_state(dir: &Path) -> Result<TrainState> {
    let text = fs::read_to_string(dir.join(STATE))?;
    let state: TrainState =
        serde_json::from_str(&text).map_err(|e| torn(dir, STATE, &e.to_string()))?;
    if state.version != STATE_VERSION {
        return Err(torn(
            dir,
            STATE,
            &format!(
                "it has version {}, this program reads {STATE_VERSION}",
                state.version
            ),
        ));
    }
    Ok(state)
}

/// Checks that the checkpoint `dir` is complete and undamaged. Folders without a manifest (imported ones) pass
/// with their `.success` alone.
///
/// # Errors
/// `NotFound` when there is no such folder; `InvalidData` naming what is wrong.
pub fn verify(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        return Err(EngineError::new(
            ErrorCode::NotFound,
            format!("there is no checkpoint `{}`", dir.display()),
        ));
    }
    if !dir.join(SUCCESS).exists() {
        return Err(torn(
            dir,
            SUCCESS,
            "it is missing, so the checkpoint was never completed",
        ));
    }
    let text = match fs::read_to_string(dir.join(MANIFEST)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|e| torn(dir, MANIFEST, &e.to_string()))?;
    for (name, expected) in &manifest.files {
        let path = dir.join(name);
        let size = fs::metadata(&path)
            .map(|m| m.len())
            .map_err(|e| torn(dir, name, &e.to_string()))?;
        if size != expected.bytes {
            return Err(torn(
                dir,
                name,
                &format!("it has {size} bytes instead of {}", expected.bytes),
            ));
        }
        if digest(&path)?.sha256 != expected.sha256 {
            return Err(torn(dir, name, "its checksum is wrong"));
        }
    }
    Ok(())
}

fn torn(dir: &Path, file: &str, reason: &str) -> EngineError {
    EngineError::new(
        ErrorCode::InvalidData,
        format!(
            "the checkpoint `{}` is damaged: `{file}`: {reason}",
            dir.display()
        ),
    )
    .with("path", dir.display().to_string())
    .with("file", file)
    .hint("use an older checkpoint or train again")
}

fn weights_error(error: oarlock_weights::WeightError) -> EngineError {
    oarlock_jobs::JobError::from(error).into()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| EngineError::internal(e.to_string()))
}

fn digest(path: &Path) -> Result<Entry> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut bytes = 0u64;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Entry { bytes, sha256 })
}

/// Moves the synced folder `temp` to `dir`; an older `dir` is exchanged in the same instant, then removed.
fn replace_folder(temp: &Path, dir: &Path) -> Result<()> {
    File::open(temp)?.sync_all()?;
    if dir.exists() {
        exchange(temp, dir)?;
        files::sync_parent(dir)?;
        // What was `dir` now has the temporary name.
        fs::remove_dir_all(temp)?;
    } else {
        fs::rename(temp, dir)?;
        files::sync_parent(dir)?;
    }
    Ok(())
}

/// Swaps two folders in one step.
fn exchange(a: &Path, b: &Path) -> Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let path = |p: &Path| {
        CString::new(p.as_os_str().as_bytes())
            .map_err(|_| io::Error::other("a path holds a NUL byte"))
    };
    let (from, to) = (path(a)?, path(b)?);
    // SAFETY: both are NUL-terminated paths that outlive the call.
    let rc = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if rc == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if !matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP)
    ) {
        return Err(error.into());
    }
    // Some network file systems cannot exchange; `recover` completes this if it is cut between the two renames.
    let aside = old_name(b);
    fs::rename(b, &aside)?;
    fs::rename(a, b)?;
    fs::rename(&aside, a)?;
    Ok(())
}

fn old_name(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!(".{name}.old"))
}

/// Tidies an `output` folder after a crash: a folder that was set aside comes back, half-written ones go.
///
/// # Errors
/// I/O failures.
pub fn recover(output: &Path) -> Result<()> {
    let entries = match fs::read_dir(output) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(original) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".old")) {
            let target = path.with_file_name(original);
            if target.exists() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::rename(&path, &target)?;
            }
        } else if name.starts_with('.') && name.ends_with(".tmp") && path.is_dir() {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
