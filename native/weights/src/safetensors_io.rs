//! The safetensors format: a length, a JSON header, then the tensors.

use std::io::{self, Write};
use std::path::Path;

use oarlock_graph::{HostTensor, WeightMap};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype as StDtype;
use serde_json::{Map, Value, json};

use crate::dtype::{Budget, Dtype, MAX_RANK, Strided};
use crate::error::WeightError;
use oarlock_files as files;

/// Reads every tensor of a file, in the order of their data. Types that no weight has (8-bit
/// floats, complex numbers) are refused by name.
pub(crate) fn read(path: &Path, file: &[u8]) -> Result<WeightMap, WeightError> {
    let invalid = |e: String| WeightError::invalid(path, e);
    let (_, metadata) = SafeTensors::read_metadata(file).map_err(|e| invalid(e.to_string()))?;
    let tensors = SafeTensors::deserialize(file).map_err(|e| invalid(e.to_string()))?;
    let mut budget = Budget::for_file(file.len());
    let mut map = WeightMap::new();
    for name in metadata.offset_keys() {
        let view = tensors.tensor(&name).map_err(|e| invalid(e.to_string()))?;
        let dtype = match view.dtype() {
            StDtype::F16 => Dtype::F16,
            StDtype::BF16 => Dtype::Bf16,
            StDtype::F32 => Dtype::F32,
            StDtype::F64 => Dtype::F64,
            StDtype::I8 => Dtype::I8,
            StDtype::I16 => Dtype::I16,
            StDtype::I32 => Dtype::I32,
            StDtype::I64 => Dtype::I64,
            StDtype::U8 => Dtype::U8,
            StDtype::U16 => Dtype::U16,
            StDtype::U32 => Dtype::U32,
            StDtype::U64 => Dtype::U64,
            StDtype::BOOL => Dtype::Bool,
            other => {
                let what = format!("tensor '{name}' has the type {other:?}; store it as F32");
                return Err(WeightError::unsupported(path, what));
            }
        };
        let shape = view.shape().to_vec();
        if shape.len() > MAX_RANK {
            return Err(invalid(format!(
                "tensor '{name}' has {} dimensions",
                shape.len()
            )));
        }
        let stride = Strided::dense(&shape);
        let tensor = Strided {
            storage: view.data(),
            dtype,
            offset: 0,
            shape,
            stride,
        }
        .gather(&mut budget)
        .map_err(|e| invalid(format!("tensor '{name}': {e}")))?;
        map.insert(name, tensor);
    }
    Ok(map)
}

/// Writes fp32 tensors in the map's order, atomically (temporary file, fsync, rename).
///
/// `metadata` becomes the header's `__metadata__` (text to text); a `format` of `pt` is added so
/// that other readers take the tensors for PyTorch's.
///
/// # Errors
/// [`WeightError::Io`] when the disk is full or the folder cannot be written, and
/// [`WeightError::Invalid`] when a tensor's data does not fit its shape.
pub fn save_safetensors(
    path: &Path,
    weights: &WeightMap,
    metadata: &[(&str, &str)],
) -> Result<(), WeightError> {
    let header = header(weights, metadata).map_err(|e| WeightError::invalid(path, e))?;
    files::write(path, |file| -> io::Result<()> {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in weights.values() {
            write_f32(file, tensor)?;
        }
        Ok(())
    })
    .map_err(|e| WeightError::io(path, e))
}

fn header(weights: &WeightMap, metadata: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let mut entries = Map::new();
    let mut texts = Map::new();
    texts.insert("format".into(), Value::from("pt"));
    texts.extend(
        metadata
            .iter()
            .map(|&(k, v)| (k.to_owned(), Value::from(v))),
    );
    entries.insert("__metadata__".into(), Value::Object(texts));
    let mut at = 0usize;
    for (name, HostTensor { shape, data }) in weights {
        if crate::dtype::element_count(shape) != Some(data.len()) {
            return Err(format!(
                "tensor '{name}' of shape {shape:?} has {} values",
                data.len()
            ));
        }
        let end = at + data.len() * 4;
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
        entries.insert(name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // The data starts at a multiple of 8, as the reference writer has it.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn write_f32(out: &mut impl Write, tensor: &HostTensor) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4 << 14);
    for chunk in tensor.data.chunks(1 << 14) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&buffer)?;
    }
    Ok(())
}
