//! Pickled values as JSON.

use std::borrow::Cow;

use serde_json::{Map, Number, Value as Json};

use super::numpy::{self, NdArray};
use super::{Arena, Global, Loaded, PickleError, Ref, Value};
use crate::dtype::{Dtype, Strided};

/// Deepest nesting: real files stay below ten.
const MAX_DEPTH: usize = 48;

/// Converts the whole; `input_len` sets how much may come out of shared values.
pub(super) fn convert(loaded: &Loaded<'_>, input_len: usize) -> Result<Json, PickleError> {
    // A path of a statistics file is stored once and mentioned about five times, two bytes each.
    let budget = input_len.saturating_mul(64).saturating_add(1 << 20);
    let mut converter = Converter {
        arena: &loaded.arena,
        left: budget,
    };
    converter.value(loaded.root, 0)
}

struct Converter<'a> {
    arena: &'a Arena<'a>,
    left: usize,
}

type Res<T> = Result<T, PickleError>;

impl Converter<'_> {
    fn charge(&mut self, bytes: usize) -> Res<()> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| PickleError::TooLarge {
                what: "its shared values unpack to far more than the file's size".into(),
            })?;
        Ok(())
    }

    fn value(&mut self, r: Ref, depth: usize) -> Res<Json> {
        if depth > MAX_DEPTH {
            return Err(PickleError::content(
                "values nested too deeply, or in themselves",
            ));
        }
        self.charge(16)?;
        let arena = self.arena;
        match arena.get(r) {
            Value::None => Ok(Json::Null),
            Value::Bool(b) => Ok(Json::Bool(*b)),
            Value::Int(i) => Ok(Json::from(*i)),
            Value::Big(bytes) => {
                self.charge(bytes.len())?;
                Ok(float(big(bytes)))
            }
            Value::Float(f) => Ok(float(*f)),
            Value::Str(s) => {
                self.charge(s.len())?;
                Ok(Json::String(s.clone().into_owned()))
            }
            Value::Bytes(b) => {
                self.charge(b.len())?;
                let text = std::str::from_utf8(b);
                let text =
                    text.map_err(|_| PickleError::content("raw bytes where text belongs"))?;
                Ok(Json::String(text.to_owned()))
            }
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
                let items = items.iter().map(|&item| self.value(item, depth + 1));
                Ok(Json::Array(items.collect::<Res<_>>()?))
            }
            Value::Dict(pairs) => {
                let mut map = Map::new();
                for &(key, value) in pairs {
                    let key = self.key(key)?;
                    let value = self.value(value, depth + 1)?;
                    map.insert(key, value);
                }
                Ok(Json::Object(map))
            }
            Value::Call {
                global: Global::DataClass,
                state,
                ..
            } => match *state {
                None => Ok(Json::Object(Map::new())),
                Some(state) if matches!(arena.get(state), Value::Dict(_)) => {
                    self.value(state, depth + 1)
                }
                Some(_) => Err(PickleError::content("an object whose state is no dict")),
            },
            Value::Call { .. } => {
                if let Some(scalar) = numpy::scalar(arena, r) {
                    return scalar.map(number).map_err(PickleError::content);
                }
                match numpy::array(arena, r) {
                    Some(array) => self.array(array.map_err(PickleError::content)?),
                    None => Err(PickleError::content("a value that is no plain data")),
                }
            }
            Value::Latin1(_) | Value::Global(_) | Value::Persistent(_) => {
                Err(PickleError::content("a value that is no plain data"))
            }
        }
    }

    fn key(&mut self, r: Ref) -> Res<String> {
        let key: Cow<'_, str> = match self.arena.get(r) {
            Value::Int(i) => i.to_string().into(),
            Value::Float(f) => float_key(*f).into(),
            Value::Bool(b) => if *b { "True" } else { "False" }.into(),
            Value::None => "None".into(),
            Value::Call { .. } => match numpy::scalar(self.arena, r) {
                Some(Ok((dtype, v))) if dtype.is_float() => float_key(v).into(),
                Some(Ok((_, v))) => format!("{v}").into(),
                _ => {
                    return Err(PickleError::content(
                        "a dict key that is neither text nor number",
                    ));
                }
            },
            _ => match self.arena.str(r) {
                Some(s) => s.into(),
                None => {
                    return Err(PickleError::content(
                        "a dict key that is neither text nor number",
                    ));
                }
            },
        };
        let key = key.into_owned();
        self.charge(key.len())?;
        Ok(key)
    }

    fn array(&mut self, array: NdArray<'_>) -> Res<Json> {
        let NdArray {
            dtype,
            shape,
            fortran,
            raw,
        } = array;
        let count = raw.len() / dtype.size();
        self.charge(count.saturating_mul(16))?;
        let stride = if fortran {
            Strided::column_major(&shape)
        } else {
            Strided::dense(&shape)
        };
        self.axis(&raw, dtype, &shape, &stride, 0)
    }

    fn axis(
        &mut self,
        raw: &[u8],
        dtype: Dtype,
        shape: &[usize],
        stride: &[usize],
        at: usize,
    ) -> Res<Json> {
        let (Some((&size, shape)), Some((&step, stride))) =
            (shape.split_first(), stride.split_first())
        else {
            let start = at * dtype.size();
            return Ok(number((
                dtype,
                dtype.read(&raw[start..start + dtype.size()]),
            )));
        };
        // An empty axis below makes no numbers, so the lists themselves must be paid for.
        self.charge(size.saturating_mul(16))?;
        let items = (0..size).map(|i| self.axis(raw, dtype, shape, stride, at + i * step));
        Ok(Json::Array(items.collect::<Res<_>>()?))
    }
}

fn float(f: f64) -> Json {
    Number::from_f64(f).map_or(Json::Null, Json::Number)
}

fn number((dtype, v): (Dtype, f64)) -> Json {
    match dtype {
        Dtype::Bool => Json::Bool(v != 0.0),
        d if d.is_float() => float(v),
        _ => Json::from(v as i64),
    }
}

/// Python's notation of a float: always with a point.
fn float_key(f: f64) -> String {
    format!("{f:?}")
}

/// A little-endian two's complement number of any length, rounded to a float.
fn big(bytes: &[u8]) -> f64 {
    let unsigned = bytes
        .iter()
        .rev()
        .fold(0f64, |v, &b| v * 256.0 + f64::from(b));
    if bytes.last().is_some_and(|b| b & 0x80 != 0) {
        let modulus = 256f64.powi(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        unsigned - modulus
    } else {
        unsigned
    }
}
