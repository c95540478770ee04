//! PyTorch state dicts: the zip form of `torch.save` (since 1.6) and the older stream form.

use std::collections::HashMap;
use std::io::Cursor;

use oarlock_graph::{HostTensor, WeightMap};
use zip::{CompressionMethod, ZipArchive};

use crate::dtype::{Budget, Dtype, Strided};
use crate::pickle::{Arena, Global, Limits, Loaded, PickleError, Profile, Ref, Value, run};

/// Values a state dict may have: a thousand tensors of about twenty values each stay far below.
const LIMITS: Limits = Limits { values: 2 << 20 };

/// Most entries of a zip archive: one a tensor, plus a handful.
const MAX_ENTRIES: usize = 1 << 17;

/// First pickle of the stream form: the number 0x1950a86a20f9469cfc6c.
pub(crate) const LEGACY_START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Why a file could not be read.
pub(crate) enum TorchError {
    /// The pickle was refused.
    Pickle(PickleError),
    /// Anything else about the content.
    Content(String),
    /// A known kind that is not read.
    Unsupported(String),
}

impl From<PickleError> for TorchError {
    fn from(e: PickleError) -> Self {
        Self::Pickle(e)
    }
}

impl From<String> for TorchError {
    fn from(e: String) -> Self {
        Self::Content(e)
    }
}

impl From<&str> for TorchError {
    fn from(e: &str) -> Self {
        Self::Content(e.to_owned())
    }
}

type Storages<'a> = HashMap<String, &'a [u8]>;

/// Reads the zip form.
pub(crate) fn read_zip(file: &[u8]) -> Result<WeightMap, TorchError> {
    let mut archive =
        ZipArchive::new(Cursor::new(file)).map_err(|e| format!("no readable zip archive: {e}"))?;
    if archive.len() > MAX_ENTRIES {
        return Err(format!("an archive of {} entries", archive.len()).into());
    }
    let mut pickle = None;
    let mut storages = Storages::new();
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|e| format!("entry {index}: {e}"))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        // Entries are `<archive>/data.pkl`, `<archive>/data/<key>`, `<archive>/byteorder` …
        let inner = name.split_once('/').map_or("", |(_, inner)| inner);
        let wanted = inner == "data.pkl" || inner == "byteorder" || inner.starts_with("data/");
        if inner == "constants.pkl" || inner.starts_with("code/") {
            return Err(TorchError::Unsupported(
                "it is a TorchScript program; save the state dict instead: \
                 torch.save(model.state_dict(), 'model.pth')"
                    .into(),
            ));
        }
        if !wanted {
            continue;
        }
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(TorchError::Unsupported(format!(
                "its entry '{inner}' is compressed; torch.save never does that, so save it again"
            )));
        }
        let bytes = entry
            .data_start()
            .and_then(|start| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
                file.get(start..end)
            })
            .ok_or_else(|| format!("the entry '{inner}' reaches beyond the file"))?;
        match inner {
            "data.pkl" => pickle = Some(bytes),
            "byteorder" if bytes != b"little" => {
                return Err(TorchError::Unsupported(
                    "it was written in big-endian order".into(),
                ));
            }
            "byteorder" => {}
            _ => {
                storages.insert(inner["data/".len()..].to_owned(), bytes);
            }
        }
    }
    let pickle = pickle.ok_or_else(|| {
        TorchError::Unsupported(
            "it is a zip archive but not one of torch.save (no data.pkl)".into(),
        )
    })?;
    let loaded = run(pickle, Profile::Torch, LIMITS)?;
    collect(&loaded, &storages, file.len())
}

/// Reads the stream form: magic, version, platform, object, storage keys, then the storages.
pub(crate) fn read_legacy(file: &[u8]) -> Result<WeightMap, TorchError> {
    let mut at = 0;
    let mut next = || -> Result<Loaded<'_>, TorchError> {
        let rest = file.get(at..).unwrap_or_default();
        let loaded = run(rest, Profile::Torch, LIMITS)?;
        at += loaded.consumed;
        Ok(loaded)
    };
    next()?;
    let version = next()?;
    if version.arena.usize(version.root) != Some(1001) {
        return Err(TorchError::Unsupported(
            "its torch format version is unknown".into(),
        ));
    }
    let platform = next()?;
    if let Value::Dict(pairs) = platform.arena.get(platform.root)
        && pairs.iter().any(|&(k, v)| {
            platform.arena.str(k) == Some("little_endian")
                && matches!(platform.arena.get(v), Value::Bool(false))
        })
    {
        return Err(TorchError::Unsupported(
            "it was written in big-endian order".into(),
        ));
    }
    let object = next()?;
    let keys = next()?;
    let mut sizes = HashMap::new();
    storage_sizes(&object.arena, &mut sizes);
    let mut storages = Storages::new();
    for &key in keys
        .arena
        .items(keys.root)
        .ok_or("the list of storages is missing")?
    {
        let key = keys.arena.str(key).ok_or("a storage key is no text")?;
        let &(dtype, wanted) = sizes
            .get(key)
            .ok_or_else(|| format!("storage '{key}' belongs to no tensor"))?;
        let head = file
            .get(at..at + 8)
            .ok_or("it ends early, before its last tensor")?;
        let count = head.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
        if count != wanted as u64 {
            return Err(format!("storage '{key}' has {count} elements, not {wanted}").into());
        }
        let start = at + 8;
        let bytes = wanted
            .checked_mul(dtype.size())
            .and_then(|len| file.get(start..start.checked_add(len)?))
            .ok_or("it ends early, inside a tensor")?;
        at = start + bytes.len();
        storages.insert(key.to_owned(), bytes);
    }
    collect(&object, &storages, file.len())
}

/// Element format and count of every storage that is mentioned.
fn storage_sizes(arena: &Arena<'_>, sizes: &mut HashMap<String, (Dtype, usize)>) {
    for r in arena.refs() {
        if let Value::Persistent(id) = *arena.get(r)
            && let Ok((key, Some(dtype), count)) = storage_id(arena, id)
        {
            sizes.insert(key.to_owned(), (dtype, count));
        }
    }
}

/// The parts of `('storage', type, key, device, count[, view])`.
fn storage_id<'a>(
    arena: &'a Arena<'_>,
    id: Ref,
) -> Result<(&'a str, Option<Dtype>, usize), String> {
    let parts = arena.items(id).unwrap_or_default();
    let &[kind, class, key, _, count, ..] = parts else {
        return Err("a reference that is no storage".into());
    };
    let dtype = match arena.get(class) {
        Value::Global(Global::TorchStorage(dtype)) => Some(*dtype),
        Value::Global(Global::TorchUntyped) => None,
        _ => return Err("a storage of unknown type".into()),
    };
    match (arena.str(kind), arena.str(key), arena.usize(count)) {
        (Some("storage"), Some(key), Some(count)) => Ok((key, dtype, count)),
        _ => Err("a damaged reference to a storage".into()),
    }
}

/// A tensor as a strided view; `None` when the value is no tensor.
fn tensor<'a>(
    arena: &Arena<'_>,
    r: Ref,
    storages: &Storages<'a>,
) -> Option<Result<Strided<'a>, String>> {
    let Value::Call { global, args, .. } = *arena.get(r) else {
        return None;
    };
    let items = arena.items(args)?;
    match global {
        Global::TorchTensor | Global::TorchTensorV3 => Some((|| {
            let &[storage, offset, shape, stride, ref rest @ ..] = items else {
                return Err("a tensor with unknown arguments".into());
            };
            let Value::Persistent(id) = *arena.get(storage) else {
                return Err("a tensor without a storage".into());
            };
            let (key, typed, _) = storage_id(arena, id)?;
            let explicit = rest.get(2).and_then(|&d| match arena.get(d) {
                Value::Global(Global::TorchDtype(dtype)) => Some(*dtype),
                _ => None,
            });
            let dtype = if global == Global::TorchTensorV3 {
                explicit
            } else {
                typed
            };
            let dtype = dtype.ok_or("a tensor of unknown element type")?;
            let storage = storages
                .get(key)
                .ok_or_else(|| format!("storage '{key}' is missing"))?;
            let offset = arena.usize(offset).ok_or("a tensor without an offset")?;
            let shape = arena.sizes(shape).ok_or("a tensor without a shape")?;
            let stride = arena.sizes(stride).ok_or("a tensor without strides")?;
            Ok(Strided {
                storage,
                dtype,
                offset,
                shape,
                stride,
            })
        })()),
        // A parameter wraps a tensor; one level is all torch writes.
        Global::TorchParameter => match arena.get(*items.first()?) {
            Value::Call {
                global: Global::TorchTensor | Global::TorchTensorV3,
                ..
            } => tensor(arena, *items.first()?, storages),
            _ => None,
        },
        _ => None,
    }
}

/// Names under which training scripts keep the state dict, best first.
const WRAPPERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "params",
    "weights",
];

fn is_tensor(arena: &Arena<'_>, r: Ref) -> bool {
    matches!(
        arena.get(r),
        Value::Call {
            global: Global::TorchTensor | Global::TorchTensorV3 | Global::TorchParameter,
            ..
        }
    )
}

/// The dict whose values are the tensors: the root, or a dict inside a training checkpoint.
fn state_dict<'a>(arena: &'a Arena<'_>, root: Ref, depth: usize) -> Option<&'a [(Ref, Ref)]> {
    let Value::Dict(pairs) = arena.get(root) else {
        return None;
    };
    if pairs.iter().any(|&(_, v)| is_tensor(arena, v)) {
        return Some(pairs);
    }
    if depth == 3 {
        return None;
    }
    let named = |name: &str| pairs.iter().find(|&&(k, _)| arena.str(k) == Some(name));
    WRAPPERS
        .iter()
        .filter_map(|name| named(name))
        .chain(if pairs.len() == 1 {
            pairs.first()
        } else {
            None
        })
        .find_map(|&(_, v)| state_dict(arena, v, depth + 1))
}

fn collect(
    loaded: &Loaded<'_>,
    storages: &Storages<'_>,
    file_len: usize,
) -> Result<WeightMap, TorchError> {
    let arena = &loaded.arena;
    let pairs = state_dict(arena, loaded.root, 0).ok_or_else(|| {
        TorchError::Unsupported(
            "it holds no state dict; save one with torch.save(model.state_dict(), 'model.pth')"
                .into(),
        )
    })?;
    let mut budget = Budget::for_file(file_len);
    let mut map = WeightMap::new();
    for &(key, value) in pairs {
        let (Some(name), Some(view)) = (arena.str(key), tensor(arena, value, storages)) else {
            continue;
        };
        let named = |e: String| TorchError::Content(format!("tensor '{name}': {e}"));
        let tensor: HostTensor = view.map_err(named)?.gather(&mut budget).map_err(named)?;
        map.insert(name.to_owned(), tensor);
    }
    Ok(map)
}
