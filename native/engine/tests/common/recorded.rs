//! Numbers that other programs made in the same way, so that fixtures hold outputs only.
#![allow(dead_code)] // each test binary uses its part

use oarlock_graph::{Graph, HostTensor, ParamKind, WeightMap};
use oarlock_zoo::PaddleWeight;
use tch::{Kind, Tensor};

/// The hash of the `data/record_*.py` scripts: `n` numbers in [-0.5, 0.5).
pub fn unit(name: &str, n: usize) -> Vec<f64> {
    hashed(
        (1..).zip(name.bytes()).map(|(k, b)| k * u64::from(b)).sum(),
        n,
    )
}

/// `n` numbers in [-0.5, 0.5) for a seed.
pub fn hashed(s: u64, n: usize) -> Vec<f64> {
    (0..n as u64)
        .map(|i| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(s * 40503) & 0xffff_ffff;
            x ^= x >> 16;
            x = x.wrapping_mul(0x45d_9f3b) & 0xffff_ffff;
            x ^= x >> 16;
            x as f64 / 4_294_967_296.0 - 0.5
        })
        .collect()
}

/// The weights that the other network was given, by what `theirs` says they are called there.
pub fn recorded_weights(graph: &Graph, theirs: impl Fn(&str) -> String, gain: f64) -> WeightMap {
    let mut weights = WeightMap::new();
    for (name, param) in graph.params() {
        let n = param.shape.iter().product();
        let (scale, shift) = match param.kind {
            ParamKind::Weight => ((24.0 / (n / param.shape[0]) as f64).sqrt(), 0.0),
            ParamKind::RunningVar => (0.4, 1.0),
            ParamKind::NormScale => (0.4 * gain, gain),
            _ => (0.2, 0.0),
        };
        let values = unit(&theirs(&name), n).into_iter();
        let data = values.map(|u| (shift + scale * u) as f32).collect();
        let shape = param.shape;
        weights.insert(name, HostTensor { shape, data });
    }
    weights
}

/// The name of a parameter in PaddleX.
pub fn in_paddle(names: &[PaddleWeight], name: &str) -> String {
    let named = names.iter().find(|w| w.name == name);
    named.unwrap().paddle_name.clone()
}

/// Two pictures.
pub fn images(channels: i64, [h, w]: [i64; 2]) -> Tensor {
    let values: Vec<f32> = unit("input", (2 * channels * h * w) as usize)
        .into_iter()
        .map(|u| (u * 4.0) as f32)
        .collect();
    Tensor::from_slice(&values).reshape([2, channels, h, w])
}

/// All values, row by row.
pub fn values(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(t.to_kind(Kind::Double).contiguous().flatten(0, -1)).unwrap()
}
