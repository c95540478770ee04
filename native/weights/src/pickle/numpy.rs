//! numpy's arrays and scalars, from the calls that rebuild them.

use std::borrow::Cow;

use super::{Arena, Global, Ref, Value};
use crate::dtype::{Dtype, element_count};

/// An array as stored.
pub(crate) struct NdArray<'a> {
    /// Element format.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Whether the first dimension runs fastest.
    pub fortran: bool,
    /// Little-endian elements, exactly as many as the shape says.
    pub raw: Cow<'a, [u8]>,
}

/// The array a value stands for; `None` when it is no array at all.
pub(crate) fn array<'a>(arena: &'a Arena<'_>, r: Ref) -> Option<Result<NdArray<'a>, String>> {
    match *arena.get(r) {
        Value::Call {
            global: Global::NumpyReconstruct,
            state,
            ..
        } => Some(reconstructed(arena, state)),
        Value::Call {
            global: Global::NumpyFromBuffer,
            args,
            ..
        } => Some(from_buffer(arena, args)),
        _ => None,
    }
}

/// A numpy scalar's number; `None` when the value is no such scalar.
pub(crate) fn scalar(arena: &Arena<'_>, r: Ref) -> Option<Result<(Dtype, f64), String>> {
    let Value::Call {
        global: Global::NumpyScalar,
        args,
        ..
    } = *arena.get(r)
    else {
        return None;
    };
    Some((|| {
        let Some(&[dtype, raw]) = arena.items(args) else {
            return Err("a numpy scalar without type and value".to_owned());
        };
        let (dtype, swap) = element_type(arena, dtype)?;
        let raw = arena.bytes(raw).ok_or("a numpy scalar without bytes")?;
        if raw.len() != dtype.size() {
            return Err(format!("a numpy scalar of {} bytes", raw.len()));
        }
        Ok((dtype, dtype.read(&native(raw, dtype, swap))))
    })())
}

/// `_reconstruct(…)` with the state `(version, shape, dtype, is_fortran, raw)`.
fn reconstructed<'a>(arena: &'a Arena<'_>, state: Option<Ref>) -> Result<NdArray<'a>, String> {
    let state = state.ok_or("a numpy array without content")?;
    let Some(&[_, shape, dtype, fortran, raw]) = arena.items(state) else {
        return Err("a numpy array with an unknown state".into());
    };
    let fortran = matches!(arena.get(fortran), Value::Bool(true) | Value::Int(1));
    build(arena, shape, dtype, fortran, raw)
}

/// `_frombuffer(raw, dtype, shape, order)` of protocol 5.
fn from_buffer<'a>(arena: &'a Arena<'_>, args: Ref) -> Result<NdArray<'a>, String> {
    let Some(&[raw, dtype, shape, order]) = arena.items(args) else {
        return Err("a numpy buffer with unknown arguments".into());
    };
    build(arena, shape, dtype, arena.str(order) == Some("F"), raw)
}

fn build<'a>(
    arena: &'a Arena<'_>,
    shape: Ref,
    dtype: Ref,
    fortran: bool,
    raw: Ref,
) -> Result<NdArray<'a>, String> {
    let shape = arena.sizes(shape).ok_or("a numpy array without a shape")?;
    let (dtype, swap) = element_type(arena, dtype)?;
    let raw = arena
        .bytes(raw)
        .ok_or("a numpy array whose content is no plain bytes")?;
    let wanted = element_count(&shape).and_then(|n| n.checked_mul(dtype.size()));
    if wanted != Some(raw.len()) {
        return Err(format!(
            "a numpy array of shape {shape:?} with {} bytes",
            raw.len()
        ));
    }
    Ok(NdArray {
        dtype,
        shape,
        fortran,
        raw: native(raw, dtype, swap),
    })
}

/// Element format and whether bytes must be swapped.
fn element_type(arena: &Arena<'_>, r: Ref) -> Result<(Dtype, bool), String> {
    let Value::Call {
        global: Global::NumpyDtype,
        args,
        state,
    } = *arena.get(r)
    else {
        return Err("a numpy value without an element type".into());
    };
    let code = arena
        .items(args)
        .and_then(|a| arena.str(*a.first()?))
        .unwrap_or_default();
    let dtype = match code {
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "b1" => Dtype::Bool,
        other => {
            let other: String = other.chars().take(20).collect();
            return Err(format!("a numpy value of the element type '{other}'"));
        }
    };
    let order = state
        .and_then(|s| arena.items(s))
        .and_then(|s| arena.str(*s.get(1)?));
    Ok((dtype, order == Some(">")))
}

fn native(raw: Cow<'_, [u8]>, dtype: Dtype, swap: bool) -> Cow<'_, [u8]> {
    if !swap || dtype.size() == 1 {
        return raw;
    }
    let mut bytes = raw.into_owned();
    bytes
        .chunks_exact_mut(dtype.size())
        .for_each(<[u8]>::reverse);
    Cow::Owned(bytes)
}
