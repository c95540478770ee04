//! Quantized values and weights as ONNX nodes.

use super::lower::{Lowering, int};
use crate::{Affine, QuantizedData, QuantizedTensor};

const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT32: i32 = 6;

impl Lowering<'_> {
    /// Appends the pair that takes `value` through uint8 and back; returns the name of the result.
    pub fn quantized_value(&mut self, value: &str, affine: Affine) -> String {
        let Affine { scale, zero_point } = affine;
        let scale = self.floats(format!("{value}.scale"), &[], &[scale]);
        let raw = vec![zero_point];
        let zero = self.constant(format!("{value}.zero_point"), &[], UINT8, raw);
        let (integers, result) = (format!("{value}.quantized"), format!("{value}.dequantized"));
        self.emit(
            "QuantizeLinear",
            &[value, &scale, &zero],
            &integers,
            Vec::new(),
        );
        self.emit(
            "DequantizeLinear",
            &[&integers, &scale, &zero],
            &result,
            Vec::new(),
        );
        result
    }

    /// Appends integers and the node that makes them the parameter `name`.
    pub fn quantized_param(&mut self, name: &str, tensor: &QuantizedTensor) {
        let (data_type, raw) = match &tensor.data {
            QuantizedData::Int8(data) => {
                (INT8, data.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            QuantizedData::Int32(data) => {
                (INT32, data.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        };
        let integers = self.constant(format!("{name}.quantized"), &tensor.shape, data_type, raw);
        let count = tensor.scales.len();
        let scales = self.floats(format!("{name}.scale"), &[count], &tensor.scales);
        // The zero point may be left out where it is 0 and the type is that of the input: runtimes
        // recognise int8 weights only with it.
        let mut inputs = vec![integers.as_str(), scales.as_str()];
        let zeros;
        if data_type == INT8 {
            zeros = self.constant(format!("{name}.zero_point"), &[count], INT8, vec![0; count]);
            inputs.push(&zeros);
        }
        self.emit("DequantizeLinear", &inputs, name, vec![int("axis", 0)]);
    }
}
