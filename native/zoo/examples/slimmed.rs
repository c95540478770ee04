//! Writes slimmed networks as ONNX, for a comparison by another runtime.
//!
//! `slimmed prune DIR MODEL SIDE SEED GAIN`: `pruned.onnx` and `masked.onnx`, the same random half or less of
//! every channel group removed and zeroed. For images of SIDE×SIDE, or of the least size the model takes.
//!
//! `slimmed fold DIR MODEL SIDE SEED GAIN`: `folded.onnx`, the unpruned network with batch norms folded.
//!
//! `slimmed quantize DIR MODEL SIDE SEED GAIN`: reads `ranges.json` (`{value: [least, greatest]}` of that
//! network, measured by the other runtime) and writes `quantized.onnx`.
//!
//! MODEL may be `all`. Weights are random, the same for the same seed; batch norms that end one of L
//! residual branches are scaled by 1/√L, which keeps the variance along the
//! network, and all scales are multiplied by GAIN, for networks in which the signal would die away.
//!
//! Measured with onnxruntime 1.32.0 on the CPU: see `tests/pruning.rs`.

use std::path::Path;

use indexmap::IndexMap;
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_graph::{
    Graph, Keep, Op, ParamKind, Range, WeightMap, channel_groups, fold_batch_norm, init_weights,
    kept_count, mask, prune, quantize,
};
use oarlock_zoo::{classifier, classifier_names, input_size};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, dir, model, side, seed, gain] = &args[..] else {
        return Err("expected: prune|fold|quantize DIR MODEL SIDE SEED GAIN".into());
    };
    let models = match model.as_str() {
        "all" => classifier_names().to_vec(),
        one => vec![one],
    };
    let (side, seed) = (side.parse::<usize>()?, seed.parse::<u64>()?);
    let gain = gain.parse::<f32>()?;
    for model in models {
        let side = input_size(model).map_or(side, |size| size.min.max(side));
        let graph = classifier(model, 10)?;
        let weights = live_weights(&graph, seed, gain);
        let dir = Path::new(dir).join(model);
        std::fs::create_dir_all(&dir)?;
        match command.as_str() {
            "prune" => pruned(&graph, &weights, side, seed, &dir)?,
            "fold" => {
                let (graph, weights) = fold_batch_norm(&graph, &weights)?;
                write(&graph, &weights, side, &dir.join("folded.onnx"))?;
            }
            "quantize" => {
                let (graph, weights) = fold_batch_norm(&graph, &weights)?;
                let text = std::fs::read_to_string(dir.join("ranges.json"))?;
                let ranges: IndexMap<String, [f32; 2]> = serde_json::from_str(&text)?;
                let ranges = ranges.into_iter();
                let ranges = ranges
                    .map(|(name, [min, max])| (name, Range { min, max }))
                    .collect();
                let quantization = quantize(&graph, &weights, &ranges)?;
                let mut file = std::fs::File::create(dir.join("quantized.onnx"))?;
                onnx::write_quantized(&graph, &weights, &quantization, &options(side), &mut file)?;
            }
            _ => return Err(format!("no command `{command}`").into()),
        }
    }
    Ok(())
}

fn write(graph: &Graph, weights: &WeightMap, side: usize, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, onnx::export(graph, weights, &options(side))?)?;
    Ok(())
}

fn options(side: usize) -> OnnxOptions {
    OnnxOptions {
        image_size: Some([side, side]),
        ..OnnxOptions::default()
    }
}

fn pruned(
    graph: &Graph,
    weights: &WeightMap,
    side: usize,
    seed: u64,
    dir: &Path,
) -> Result<(), Failure> {
    let groups = channel_groups(graph)?;
    let mut random = Random(seed);
    let mut keep = Keep::new();
    for group in &groups.groups {
        let mut units: Vec<usize> = (0..group.size()).collect();
        for i in (1..units.len()).rev() {
            units.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        units.truncate(kept_count(group.size(), random.unit() / 2.0, None));
        units.sort_unstable();
        keep.insert(group.name.clone(), units);
    }
    let masked = mask(graph, weights, &groups, &keep)?;
    write(graph, &masked, side, &dir.join("masked.onnx"))?;
    let (graph, weights) = prune(graph, weights, &groups, &keep)?;
    write(&graph, &weights, side, &dir.join("pruned.onnx"))
}

fn live_weights(graph: &Graph, seed: u64, gain: f32) -> WeightMap {
    let mut weights = init_weights(graph, seed);
    let adds: Vec<_> = graph.nodes.iter().filter(|n| n.op == Op::Add).collect();
    let branch_scale = 1.0 / (adds.len().max(1) as f32).sqrt();
    for add in adds {
        for &branch in &add.inputs {
            let node = &graph.nodes[branch];
            let scale = weights.get_mut(&format!("{}.weight", node.name));
            if let (Op::BatchNorm { .. }, Some(scale)) = (&node.op, scale) {
                scale.data.fill(branch_scale);
            }
        }
    }
    let mut random = Random(seed + 1);
    for (name, param) in graph.params() {
        for v in &mut weights[&name].data {
            let u = (2.0 * random.unit() - 1.0) as f32;
            match param.kind {
                ParamKind::NormScale => *v *= gain * (1.0 + 0.2 * u),
                ParamKind::RunningVar => *v *= 1.0 + 0.2 * u,
                ParamKind::NormShift | ParamKind::RunningMean | ParamKind::Bias => *v += 0.1 * u,
                ParamKind::Weight => {}
            }
        }
    }
    weights
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
