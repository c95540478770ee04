//! Paddle parameters (`.pdparams`): pickled dicts of numpy arrays, as `paddle.save` writes them.

use std::collections::HashMap;

use oarlock_graph::{HostTensor, WeightMap};

use crate::dtype::{Budget, Dtype, Strided};
use crate::pickle::numpy::{self, NdArray};
use crate::pickle::{Arena, Limits, PickleError, Profile, Ref, Value, run};

/// Maps structured names to Paddle's internal ones; of no use here.
const NAME_TABLE: &str = "StructuredToParameterName@@";

/// Describes tensors beyond 1 GiB, which protocols 2 and 3 store in slices.
const SLICE_TABLE: &str = "UnpackBigParamInfor@@";

/// Reads a parameter file. Names stay Paddle's; linear weights `[in, out]` become `[out, in]`.
pub(crate) fn read(file: &[u8]) -> Result<WeightMap, PickleError> {
    let loaded = run(file, Profile::Paddle, Limits { values: 2 << 20 })?;
    let arena = &loaded.arena;
    let mut root = loaded.root;
    // Some exporters wrap the parameters: {'state_dict': {…}, 'epoch': 3}.
    if let Value::Dict(pairs) = arena.get(root)
        && let Some(&(_, inner)) = pairs.iter().find(|&&(k, v)| {
            matches!(arena.str(k), Some("state_dict" | "model" | "net"))
                && matches!(arena.get(v), Value::Dict(_))
        })
    {
        root = inner;
    }
    let Value::Dict(pairs) = arena.get(root) else {
        return Err(PickleError::content("it is no dict of parameters"));
    };
    let mut budget = Budget::for_file(file.len());
    let mut map = WeightMap::new();
    let mut slices = None;
    for &(key, value) in pairs {
        let Some(name) = arena.str(key) else { continue };
        match name {
            NAME_TABLE => {}
            SLICE_TABLE => slices = Some(value),
            _ => {
                let Some(array) = parameter(arena, value) else {
                    continue;
                };
                let tensor = array
                    .and_then(|a| dense(a, &mut budget))
                    .map_err(|e| PickleError::content(format!("parameter '{name}': {e}")))?;
                map.insert(name.to_owned(), tensor);
            }
        }
    }
    if let Some(table) = slices {
        join_slices(arena, table, &mut map)?;
    }
    // The only tensors of two dimensions in these networks are linear weights, [in, out] in Paddle.
    for tensor in map.values_mut() {
        if let [rows, columns] = *tensor.shape.as_slice() {
            *tensor = transpose(&tensor.data, rows, columns);
        }
    }
    Ok(map)
}

/// An array, or the pair (name, array) into which Paddle turns a tensor inside other objects.
fn parameter<'a>(arena: &'a Arena<'_>, r: Ref) -> Option<Result<NdArray<'a>, String>> {
    if let Some(&[name, array]) = arena.items(r)
        && arena.str(name).is_some()
    {
        return numpy::array(arena, array);
    }
    numpy::array(arena, r)
}

fn dense(array: NdArray<'_>, budget: &mut Budget) -> Result<HostTensor, String> {
    let NdArray {
        dtype,
        shape,
        fortran,
        raw,
    } = array;
    // numpy has no bfloat16; Paddle stores its bits as uint16, a type no parameter has.
    let dtype = if dtype == Dtype::U16 {
        Dtype::Bf16
    } else {
        dtype
    };
    let stride = if fortran {
        Strided::column_major(&shape)
    } else {
        Strided::dense(&shape)
    };
    Strided {
        storage: &raw,
        dtype,
        offset: 0,
        shape,
        stride,
    }
    .gather(budget)
}

/// Puts `name@@.0`, `name@@.1` … together: {name: {'OriginShape': …, 'slices': [part, …]}}.
fn join_slices(arena: &Arena<'_>, table: Ref, map: &mut WeightMap) -> Result<(), PickleError> {
    let Value::Dict(entries) = arena.get(table) else {
        return Err(PickleError::content(
            "the table of sliced parameters is no dict",
        ));
    };
    for &(name, entry) in entries {
        let damaged = || PickleError::content("a damaged table of sliced parameters");
        let name = arena.str(name).ok_or_else(damaged)?;
        let Value::Dict(fields) = arena.get(entry) else {
            return Err(damaged());
        };
        let fields: HashMap<&str, Ref> = fields
            .iter()
            .filter_map(|&(k, v)| Some((arena.str(k)?, v)))
            .collect();
        let shape = fields
            .get("OriginShape")
            .and_then(|&s| arena.sizes(s))
            .ok_or_else(damaged)?;
        let parts = fields
            .get("slices")
            .and_then(|&s| arena.items(s))
            .ok_or_else(damaged)?;
        let mut data = Vec::new();
        for &part in parts {
            let part = arena.str(part).ok_or_else(damaged)?;
            let part = map.shift_remove(part).ok_or_else(|| {
                PickleError::content(format!("a slice of parameter '{name}' is missing"))
            })?;
            data.extend_from_slice(&part.data);
        }
        if crate::dtype::element_count(&shape) != Some(data.len()) {
            return Err(PickleError::content(format!(
                "parameter '{name}' of shape {shape:?} has {} elements in its slices",
                data.len()
            )));
        }
        map.insert(name.to_owned(), HostTensor { shape, data });
    }
    Ok(())
}

/// `[rows, columns]` → `[columns, rows]`.
pub(crate) fn transpose(data: &[f32], rows: usize, columns: usize) -> HostTensor {
    let mut out = Vec::with_capacity(data.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| data[row * columns + column]));
    }
    HostTensor {
        shape: vec![columns, rows],
        data: out,
    }
}
