//! Sizes and costs of segmenters against published ones.
//!
//! * PaddleSeg's table, docs/model_zoo_overview.md (release 2.3): 19 classes at 1024×512; `Params(M)` counts
//!   running statistics, `Flops(G)` are what `paddle.flops()` counts: multiply–accumulates, biases, and two
//!   operations for each value that passes a batch norm.
//! * Trained parameters to the last one: `parameters()` of PaddleX 2.1's own networks with 5 classes. For
//!   MobileNets, which it has not, those of PaddleClas's networks under its head.

use oarlock_graph::{Graph, Op, cost, infer_shapes, parameter_count};
use oarlock_zoo::{Origin, segmenter_backbones, segmenter_names, segmenter_of};

/// Model, backbone, GFLOPs, millions of parameters with running statistics.
const PADDLESEG: &[(&str, &str, f64, f64)] = &[
    ("BiSeNetV2", "", 16.14, 2.33),
    ("FastSCNN", "", 2.04, 1.44),
    ("UNet", "", 253.75, 13.41),
    ("DeepLabV3P", "ResNet50_vd", 228.44, 26.79),
    ("HRNet_W48", "", 187.50, 65.94),
];

/// Model, backbone, trained parameters with 5 classes.
const EXACT: &[(&str, &str, u64)] = &[
    ("UNet", "", 13_398_149),
    ("FastSCNN", "", 1_418_074),
    ("BiSeNetV2", "", 2_511_233),
    ("HRNet_W18", "", 9_637_325),
    ("HRNet_W48", "", 65_849_285),
    ("DeepLabV3P", "ResNet50_vd", 26_719_797),
    ("DeepLabV3P", "ResNet101_vd", 45_711_925),
    ("DeepLabV3P", "Xception41", 28_106_949),
    ("DeepLabV3P", "Xception65", 41_053_701),
    ("DeepLabV3P", "MobileNetV2_x0.25", 722_077),
    ("DeepLabV3P", "MobileNetV2_x0.5", 1_173_589),
    ("DeepLabV3P", "MobileNetV2_x1.0", 2_720_149),
    ("DeepLabV3P", "MobileNetV2_x1.5", 5_124_757),
    ("DeepLabV3P", "MobileNetV2_x2.0", 8_387_413),
    ("DeepLabV3P", "MobileNetV3_large_x1_0_ssld", 3_511_675),
];

/// What `paddle.flops()` counts.
fn operations(graph: &Graph, [h, w]: [usize; 2]) -> u64 {
    let shapes = infer_shapes(graph, [1, 3, h, w]).unwrap();
    let values = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let extra = graph
        .nodes
        .iter()
        .zip(&shapes)
        .map(|(node, shape)| match node.op {
            Op::BatchNorm { .. } => 2 * values(shape),
            Op::Conv2d { bias: true, .. } => values(shape),
            _ => 0,
        });
    cost(graph, [h, w]).unwrap().total.macs + extra.sum::<u64>()
}

#[test]
fn paddle_versions_have_the_published_size_and_cost() {
    for &(name, backbone, gflops, millions) in PADDLESEG {
        let (graph, _) = segmenter_of(name, Some(backbone), 19, 3, Origin::Paddle).unwrap();
        // BiSeNetV2 has auxiliary heads in training only, Fast-SCNN always.
        let graph = if name == "BiSeNetV2" {
            graph.without_auxiliary()
        } else {
            graph
        };
        let flops = operations(&graph, [512, 1024]) as f64 / 1e9;
        assert!(
            (flops / gflops - 1.0).abs() < 0.01,
            "{name}: {flops} GFLOPs, not {gflops}"
        );
        let total = cost(&graph, [512, 1024]).unwrap().total;
        let params = (total.params + total.buffers) as f64 / 1e6;
        assert!(
            (params - millions).abs() < 0.01,
            "{name}: {params} M, not {millions} M"
        );
    }
}

#[test]
fn paddle_versions_have_as_many_parameters_as_paddlexs_networks() {
    for &(name, backbone, params) in EXACT {
        let (graph, _) = segmenter_of(name, Some(backbone), 5, 3, Origin::Paddle).unwrap();
        assert_eq!(parameter_count(&graph), params, "{name} {backbone}");
    }
    for name in segmenter_names() {
        let backbones = segmenter_backbones(name);
        let rows = EXACT.iter().filter(|row| row.0 == *name);
        assert_eq!(rows.count(), backbones.len().max(1), "{name} lacks a row");
    }
}
