//! Sizes and costs against published ones.
//!
//! * Trained parameters to the last one, and thousandths of giga multiply–accumulates: the metadata of
//!   torchvision 0.26 (`num_params`, `_ops`); for `vd` networks and HRNet the size of timm 1.0's models.
//!   Running statistics do not count.
//! * PaddleClas's table, docs/en/algorithm_introduction/ImageNet_models_en.md: `Params(M)` counts running
//!   statistics too, `FLOPs` are what `paddle.flops()` counts, multiply–accumulates and two operations for
//!   each value that passes a batch norm. Images are 224×224, Xception's 299×299, DarkNet53's 256×256.

use oarlock_graph::{Graph, Op, cost, infer_shapes, parameter_count};
use oarlock_zoo::{Origin, classifier, classifier_names, classifier_of};

/// Model, trained parameters, thousandths of giga multiply–accumulates at 224×224, where published.
const EXACT: &[(&str, u64, Option<u64>, &str)] = &[
    ("AlexNet", 61_100_840, Some(714), "torchvision alexnet"),
    (
        "DenseNet121",
        7_978_856,
        Some(2834),
        "torchvision densenet121",
    ),
    (
        "DenseNet161",
        28_681_000,
        Some(7728),
        "torchvision densenet161",
    ),
    (
        "DenseNet169",
        14_149_480,
        Some(3360),
        "torchvision densenet169",
    ),
    (
        "DenseNet201",
        20_013_928,
        Some(4291),
        "torchvision densenet201",
    ),
    ("HRNet_W18_C", 21_299_004, None, "timm hrnet_w18"),
    ("HRNet_W30_C", 37_712_220, None, "timm hrnet_w30"),
    ("HRNet_W32_C", 41_232_680, None, "timm hrnet_w32"),
    ("HRNet_W40_C", 57_557_160, None, "timm hrnet_w40"),
    ("HRNet_W44_C", 67_064_984, None, "timm hrnet_w44"),
    ("HRNet_W48_C", 77_469_864, None, "timm hrnet_w48"),
    ("HRNet_W64_C", 128_059_944, None, "timm hrnet_w64"),
    (
        "MobileNetV2",
        3_504_872,
        Some(301),
        "torchvision mobilenet_v2",
    ),
    (
        "MobileNetV3_large",
        5_483_032,
        Some(217),
        "torchvision mobilenet_v3_large",
    ),
    (
        "MobileNetV3_small",
        2_542_856,
        Some(57),
        "torchvision mobilenet_v3_small",
    ),
    ("ResNet18", 11_689_512, Some(1814), "torchvision resnet18"),
    ("ResNet18_vd", 11_708_744, None, "timm resnet18d"),
    ("ResNet34", 21_797_672, Some(3664), "torchvision resnet34"),
    ("ResNet34_vd", 21_816_904, None, "timm resnet34d"),
    ("ResNet50", 25_557_032, Some(4089), "torchvision resnet50"),
    ("ResNet50_vd", 25_576_264, None, "timm resnet50d"),
    ("ResNet101", 44_549_160, Some(7801), "torchvision resnet101"),
    ("ResNet101_vd", 44_568_392, None, "timm resnet101d"),
    (
        "ResNet152",
        60_192_808,
        Some(11514),
        "torchvision resnet152",
    ),
    ("ResNet152_vd", 60_212_040, None, "timm resnet152d"),
    (
        "ShuffleNetV2",
        2_278_604,
        Some(145),
        "torchvision shufflenet_v2_x1_0",
    ),
];

/// Model, image side, GFLOPs, millions of parameters with running statistics.
const PADDLECLAS: &[(&str, usize, f64, f64)] = &[
    ("AlexNet", 224, 0.71, 61.10),
    ("DarkNet53", 256, 9.31, 41.65),
    ("DenseNet121", 224, 2.87, 8.06),
    ("DenseNet161", 224, 7.79, 28.90),
    ("DenseNet169", 224, 3.40, 14.31),
    ("DenseNet201", 224, 4.34, 20.24),
    ("DenseNet264", 224, 5.82, 33.74),
    ("HRNet_W18_C", 224, 4.32, 21.35),
    ("HRNet_W30_C", 224, 8.15, 37.78),
    ("HRNet_W32_C", 224, 8.97, 41.30),
    ("HRNet_W40_C", 224, 12.74, 57.64),
    ("HRNet_W44_C", 224, 14.94, 67.16),
    ("HRNet_W48_C", 224, 17.34, 77.57),
    ("HRNet_W64_C", 224, 28.97, 128.18),
    ("MobileNetV1", 224, 0.578_88, 4.25),
    ("MobileNetV2", 224, 0.327_84, 3.54),
    ("MobileNetV3_large", 224, 0.229_66, 5.50),
    ("MobileNetV3_large_ssld", 224, 0.229_66, 5.50),
    ("MobileNetV3_small", 224, 0.063_67, 2.95),
    ("MobileNetV3_small_ssld", 224, 0.063_67, 2.95),
    ("PPLCNet", 224, 0.160_81, 2.96),
    ("PPLCNet_ssld", 224, 0.160_81, 2.96),
    ("ResNet18", 224, 1.83, 11.70),
    ("ResNet18_vd", 224, 2.07, 11.72),
    ("ResNet34", 224, 3.68, 21.81),
    ("ResNet34_vd", 224, 3.93, 21.84),
    ("ResNet50", 224, 4.11, 25.61),
    ("ResNet50_vd", 224, 4.35, 25.63),
    ("ResNet50_vd_ssld", 224, 4.35, 25.63),
    ("ResNet101", 224, 7.83, 44.65),
    ("ResNet101_vd", 224, 8.08, 44.67),
    ("ResNet101_vd_ssld", 224, 8.08, 44.67),
    ("ResNet152", 224, 11.56, 60.34),
    ("ResNet152_vd", 224, 11.80, 60.36),
    ("ResNet200_vd", 224, 15.30, 74.93),
    ("ShuffleNetV2", 224, 0.148_86, 2.29),
    ("ShuffleNetV2_swish", 224, 0.148_86, 2.29),
    ("Xception41", 299, 8.57, 23.02),
    ("Xception65", 299, 13.25, 36.04),
    ("Xception71", 299, 16.21, 37.86),
];

/// Values that pass a batch norm, for one image.
fn normalised_values(graph: &Graph, side: usize) -> u64 {
    let shapes = infer_shapes(graph, [1, 3, side, side]).unwrap();
    let norms = graph
        .nodes
        .iter()
        .zip(&shapes)
        .filter(|(n, _)| matches!(n.op, Op::BatchNorm { .. }));
    norms
        .map(|(_, shape)| shape.iter().product::<usize>() as u64)
        .sum()
}

#[test]
fn torch_versions_have_the_published_size_and_cost() {
    for &(name, params, macs, source) in EXACT {
        let graph = classifier(name, 1000).unwrap();
        assert_eq!(parameter_count(&graph), params, "{name}: {source}");
        let total = cost(&graph, [224, 224]).unwrap().total;
        assert_eq!(total.params, params);
        if let Some(macs) = macs {
            assert_eq!((total.macs + 500_000) / 1_000_000, macs, "{name}: {source}");
        }
    }
}

#[test]
fn paddle_versions_have_the_published_size_and_cost() {
    for &(name, side, gflops, millions) in PADDLECLAS {
        let (graph, _) = classifier_of(name, 1000, Origin::Paddle).unwrap();
        let total = cost(&graph, [side, side]).unwrap().total;
        let flops = (total.macs + 2 * normalised_values(&graph, side)) as f64 / 1e9;
        // Published with two decimals, cut or rounded; poolings, which they count too, are within 0.6 %.
        assert!(
            (flops / gflops - 1.0).abs() < 0.006,
            "{name}: {flops} GFLOPs, not {gflops}"
        );
        let params = (total.params + total.buffers) as f64 / 1e6;
        assert!(
            (params - millions).abs() < 0.01,
            "{name}: {params} M, not {millions} M"
        );
    }
}

#[test]
fn every_classifier_is_compared_with_a_published_one() {
    for name in classifier_names() {
        assert!(
            PADDLECLAS.iter().any(|row| row.0 == *name),
            "{name} is in no table"
        );
    }
}
