//! Protobuf by hand where it is large: messages are encoded by prost, weights are streamed between.

use std::io::{self, Write};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::lower::{FLOAT, Lowered};
use super::proto::{ModelProto, TensorProto};
use crate::{GraphError, HostTensor};

const GRAPH_FIELD: u32 = 7;
const INITIALIZER_FIELD: u32 = 5;
const RAW_DATA_FIELD: u32 = 9;
/// Readers use protobuf's C++ library, which counts bytes in an int32.
const LIMIT: usize = i32::MAX as usize;

/// Writes `model` (which has no graph yet) with the graph of `lowered`.
pub(super) fn model(
    name: &str,
    model: &ModelProto,
    lowered: &Lowered<'_>,
    target: &mut impl Write,
) -> Result<(), GraphError> {
    let heads: Vec<TensorProto> = lowered.weights.iter().map(|(n, t)| head(n, t)).collect();
    let mut graph_len = lowered.proto.encoded_len();
    for (head, (_, tensor)) in heads.iter().zip(&lowered.weights) {
        graph_len += field_len(INITIALIZER_FIELD, tensor_len(head, tensor));
    }
    let total = model.encoded_len() + field_len(GRAPH_FIELD, graph_len);
    if total > LIMIT {
        return Err(GraphError::Export {
            graph: name.to_owned(),
            reason: format!("it takes {total} bytes, ONNX files end at {LIMIT}"),
        });
    }
    stream(model, lowered, &heads, graph_len, target).map_err(|error| GraphError::Export {
        graph: name.to_owned(),
        reason: format!("writing failed: {error}"),
    })
}

fn stream(
    model: &ModelProto,
    lowered: &Lowered<'_>,
    heads: &[TensorProto],
    graph_len: usize,
    target: &mut impl Write,
) -> io::Result<()> {
    let mut buffer = model.encode_to_vec();
    begin_field(GRAPH_FIELD, graph_len, &mut buffer);
    buffer.extend_from_slice(&lowered.proto.encode_to_vec());
    target.write_all(&buffer)?;
    for (head, (_, tensor)) in heads.iter().zip(&lowered.weights) {
        buffer.clear();
        begin_field(INITIALIZER_FIELD, tensor_len(head, tensor), &mut buffer);
        buffer.extend_from_slice(&head.encode_to_vec());
        begin_field(RAW_DATA_FIELD, 4 * tensor.data.len(), &mut buffer);
        target.write_all(&buffer)?;
        for chunk in tensor.data.chunks(1 << 14) {
            buffer.clear();
            buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
            target.write_all(&buffer)?;
        }
    }
    target.flush()
}

/// The tensor without its values.
fn head(name: &str, tensor: &HostTensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape.iter().map(|&d| d as i64).collect(),
        data_type: FLOAT,
        name: name.to_owned(),
        raw_data: None,
    }
}

fn tensor_len(head: &TensorProto, tensor: &HostTensor) -> usize {
    head.encoded_len() + field_len(RAW_DATA_FIELD, 4 * tensor.data.len())
}

fn field_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

fn begin_field(field: u32, len: usize, buffer: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}
