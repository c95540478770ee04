//! YAML as data: what Python writes with type tags is read without building any object.

use oarlock_jobs::ErrorCode;
use serde_json::{Map, Number, Value as Json};
use serde_yaml_ng::Value as Yaml;

use crate::{EngineError, Result};

/// Largest file: a `model.yml` with ten thousand labels stays below 1 MiB.
const MAX_BYTES: usize = 8 << 20;

/// Reads one YAML document as JSON. Python tags are ignored or understood as data: tuples become
/// arrays, numpy scalars numbers, ordered dicts objects.
///
/// # Errors
/// `InvalidData` when the text is too long, no YAML, nested too deeply or multiplied by aliases.
pub(super) fn parse(text: &str) -> Result<Json> {
    let invalid = |what: String| EngineError::new(ErrorCode::InvalidData, what);
    if text.len() > MAX_BYTES {
        return Err(invalid(format!(
            "the YAML text has {} bytes, more than {MAX_BYTES}",
            text.len()
        )));
    }
    let yaml: Yaml = serde_yaml_ng::from_str(text).map_err(|e| invalid(e.to_string()))?;
    Ok(to_json(yaml))
}

/// The parser limits nesting to 128, so recursion is safe.
fn to_json(yaml: Yaml) -> Json {
    match yaml {
        Yaml::Null => Json::Null,
        Yaml::Bool(b) => Json::Bool(b),
        Yaml::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => i.into(),
            (_, Some(u)) => u.into(),
            _ => n
                .as_f64()
                .and_then(Number::from_f64)
                .map_or(Json::Null, Json::Number),
        },
        Yaml::String(s) => Json::String(s),
        Yaml::Sequence(items) => {
            let items: Vec<Json> = items.into_iter().map(to_json).collect();
            numpy_scalar(&items)
                .or_else(|| ordered_dict(&items))
                .unwrap_or(Json::Array(items))
        }
        Yaml::Mapping(map) => Json::Object(
            map.into_iter()
                .map(|(k, v)| {
                    let key = match to_json(k) {
                        Json::String(s) => s,
                        other => other.to_string(),
                    };
                    (key, to_json(v))
                })
                .collect::<Map<_, _>>(),
        ),
        Yaml::Tagged(tagged) => to_json(tagged.value),
    }
}

/// `numpy.core.multiarray.scalar`: `[{args: [f8, …], state: [3, <, …]}, base64 of the bytes]`.
fn numpy_scalar(items: &[Json]) -> Option<Json> {
    let [dtype, Json::String(raw)] = items else {
        return None;
    };
    let code = dtype.get("args")?.get(0)?.as_str()?;
    let order = dtype.get("state")?.get(1)?.as_str()?;
    let mut bytes = base64(raw)?;
    if order == ">" {
        bytes.reverse();
    }
    let b = bytes.as_slice();
    let float = |f: f64| Number::from_f64(f).map_or(Json::Null, Json::Number);
    Some(match code {
        "f4" => float(f64::from(f32::from_le_bytes(b.try_into().ok()?))),
        "f8" => float(f64::from_le_bytes(b.try_into().ok()?)),
        "i4" => i32::from_le_bytes(b.try_into().ok()?).into(),
        "i8" => i64::from_le_bytes(b.try_into().ok()?).into(),
        "b1" => Json::Bool(*b.first()? != 0),
        _ => return None,
    })
}

/// `collections.OrderedDict`: a list that holds one list of pairs with text first.
fn ordered_dict(items: &[Json]) -> Option<Json> {
    let [Json::Array(pairs)] = items else {
        return None;
    };
    if pairs.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|pair| match pair.as_array()?.as_slice() {
            [Json::String(key), value] => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect::<Option<Map<_, _>>>()
        .map(Json::Object)
}

/// Standard base64, white space allowed.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let v = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(v);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}
