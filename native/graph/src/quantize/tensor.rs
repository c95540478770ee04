//! Weights and biases as integers.

use crate::HostTensor;

/// Stored integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantizedData {
    /// Weights.
    Int8(Vec<i8>),
    /// Biases.
    Int32(Vec<i32>),
}

/// Integers with one scale for each slice along the first axis: value = stored · scale.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Integers, row-major.
    pub data: QuantizedData,
    /// One per slice.
    pub scales: Vec<f32>,
}

/// Largest stored bias: half of int32, which leaves the sums of products room.
const BIAS_LIMIT: f64 = (1u32 << 30) as f64;

/// What is left of a layer's weight (output channels first) in int8 with one scale per channel: the power of the
/// weights over that of their rounding errors, in dB; infinite when none is rounded.
pub fn weight_signal(weight: &HostTensor) -> f64 {
    let stored = self::weight(weight, None, 1.0);
    let QuantizedData::Int8(integers) = &stored.data else {
        return f64::NAN;
    };
    let len = (weight.data.len() / stored.scales.len().max(1)).max(1);
    let (mut signal, mut noise) = (0.0, 0.0);
    for (i, (&value, &integer)) in weight.data.iter().zip(integers).enumerate() {
        let (value, scale) = (f64::from(value), f64::from(stored.scales[i / len]));
        signal += value * value;
        noise += (value - f64::from(integer) * scale).powi(2);
    }
    10.0 * (signal / noise).log10()
}

/// A layer's weight, symmetric in −127…127 for each output channel. A channel whose bias would not fit beside products of an
/// input with steps of `input_scale` gets a coarser weight.
pub(super) fn weight(
    weight: &HostTensor,
    bias: Option<&HostTensor>,
    input_scale: f32,
) -> QuantizedTensor {
    let channels = weight.shape[0];
    let len = (weight.data.len() / channels.max(1)).max(1);
    let input_scale = f64::from(input_scale);
    let mut scales = Vec::with_capacity(channels);
    let mut data = Vec::with_capacity(weight.data.len());
    for (channel, filter) in weight.data.chunks_exact(len).enumerate() {
        let largest = filter.iter().fold(0f32, |m, w| m.max(w.abs()));
        let bias = bias.map_or(0.0, |b| f64::from(b.data[channel].abs()));
        let scale = (f64::from(largest) / 127.0).max(bias / (input_scale * BIAS_LIMIT));
        // A filter of zeros and no bias: any scale does.
        let scale = if scale < f64::from(f32::MIN_POSITIVE) {
            1.0
        } else {
            scale as f32
        };
        let round = |&w: &f32| (w / scale).round().clamp(-127.0, 127.0) as i8;
        data.extend(filter.iter().map(round));
        scales.push(scale);
    }
    QuantizedTensor {
        shape: weight.shape.clone(),
        data: QuantizedData::Int8(data),
        scales,
    }
}

/// A layer's bias at `input_scale` times the weight's scale.
pub(super) fn bias(
    bias: &HostTensor,
    weight: &QuantizedTensor,
    input_scale: f32,
) -> QuantizedTensor {
    let input_scale = f64::from(input_scale);
    let scales = weight.scales.iter();
    let products: Vec<f64> = scales.map(|&s| f64::from(s) * input_scale).collect();
    let pairs = bias.data.iter().zip(&products);
    let data = pairs
        .map(|(&b, scale)| (f64::from(b) / scale).round() as i32)
        .collect();
    QuantizedTensor {
        shape: bias.shape.clone(),
        data: QuantizedData::Int32(data),
        scales: products.iter().map(|&s| s as f32).collect(),
    }
}
