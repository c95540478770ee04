//! Detectors take weights of ImageNet into their backbones, whichever library they come from, and whole detectors with
//! other classes.

use std::collections::HashMap;

use oarlock_graph::{Graph, HostTensor, WeightMap};
use oarlock_weights::{Fit, FitMethod, fit};
use oarlock_zoo::{
    Origin, classifier_of, detector_backbone_names, detector_backbones, detector_names,
    detector_of, rename_torch,
};

fn tensor(shape: &[usize]) -> HostTensor {
    HostTensor {
        shape: shape.to_vec(),
        data: vec![1.0; shape.iter().product()],
    }
}

fn shapes(graph: &Graph) -> HashMap<String, Vec<usize>> {
    graph.params().map(|(n, p)| (n, p.shape)).collect()
}

/// Stored name → sizes.
fn file(stored: impl Iterator<Item = (String, Vec<usize>)>) -> WeightMap {
    stored.map(|(name, shape)| (name, tensor(&shape))).collect()
}

/// The classifier of the same layers; none where there is none of the same widths.
fn twin(detector: &str, backbone: &str) -> Option<&'static str> {
    Some(match backbone {
        _ if detector == "PPYOLOTiny" => return None,
        "MobileNetV1" | "MobileNetV1_ssld" => "MobileNetV1",
        "MobileNetV3_small" => "MobileNetV3_small",
        "MobileNetV3" | "MobileNetV3_ssld" | "MobileNetV3_large" => "MobileNetV3_large",
        "DarkNet53" => "DarkNet53",
        "HRNet_W18" => "HRNet_W18_C",
        "ResNet18" => "ResNet18",
        "ResNet18_vd" => "ResNet18_vd",
        "ResNet34" => "ResNet34",
        "ResNet34_vd" => "ResNet34_vd",
        "ResNet50" => "ResNet50",
        "ResNet50_vd" | "ResNet50_vd_ssld" | "ResNet50_vd_dcn" => "ResNet50_vd",
        _ => return None,
    })
}

fn fitted(graph: &Graph, source: WeightMap, names: &HashMap<String, String>) -> Fit {
    fit(graph, source, Some(&|stored| names.get(stored).cloned()))
}

/// Every backbone parameter that is not in the weights.
fn left_out<'a>(inside: &'a [String], fitted: &Fit) -> Vec<&'a str> {
    let missing = inside.iter().filter(|n| !fitted.weights.contains_key(*n));
    missing.map(String::as_str).collect()
}

#[test]
fn backbones_take_imagenet_weights() {
    for name in detector_names() {
        for &backbone in detector_backbones(name) {
            // The same structure at twice the time.
            if backbone.starts_with("ResNet101") || (name == "MaskRCNN" && backbone != "ResNet18") {
                continue;
            }
            for origin in [Origin::Torch, Origin::Paddle] {
                let label = format!("{name} {backbone} {origin:?}");
                let (graph, paddle) = detector_of(name, Some(backbone), true, 4, origin).unwrap();
                let all = shapes(&graph);
                let before = match name {
                    "FasterRCNN" | "MaskRCNN" => "backbone.body.",
                    _ => "backbone.",
                };
                let inside: Vec<String> = all
                    .keys()
                    .filter(|n| n.starts_with(before))
                    .cloned()
                    .collect();
                assert!(inside.len() > 50, "{label}");
                let names = detector_backbone_names(name, Some(backbone), true, origin).unwrap();

                // PaddleDetection's own file of the backbone, bare, and as PaddleX keeps it.
                if origin == Origin::Paddle {
                    for prefix in ["", "backbone."] {
                        let own = paddle.iter().filter_map(|w| {
                            let stored = w.paddle_name.strip_prefix("backbone.")?;
                            let shape = all[&w.name].clone();
                            w.name
                                .starts_with(before)
                                .then(|| (format!("{prefix}{stored}"), shape))
                        });
                        let fitted = fitted(&graph, file(own), &names);
                        assert_eq!(left_out(&inside, &fitted), [""; 0], "{label}");
                        assert_eq!(fitted.report.matched, inside.len(), "{label}");
                    }
                }
                let Some(twin) = twin(name, backbone) else {
                    continue;
                };
                let (classifier, weights) = classifier_of(twin, 1000, origin).unwrap();
                let theirs = shapes(&classifier);
                let source = match origin {
                    Origin::Torch => file(theirs.into_iter()),
                    Origin::Paddle => file(
                        weights
                            .iter()
                            .map(|w| (w.paddle_name.clone(), theirs[&w.name].clone())),
                    ),
                };
                let fitted = fitted(&graph, source, &names);
                assert_eq!(fitted.report.method, FitMethod::Name, "{label}");
                let missing = left_out(&inside, &fitted);
                let deformed = |n: &&str| backbone.ends_with("_dcn") && n.contains("layer4.");
                assert!(missing.iter().all(deformed), "{label}: {missing:?}");
                assert!(missing.len() <= 20, "{label}: {missing:?}");
            }
        }
    }
}

/// Without a pyramid the last stage of the backbone's file is the head of boxes, under both names that PaddleX knows.
#[test]
fn the_last_stage_becomes_the_head_without_a_pyramid() {
    let (graph, _) = detector_of("FasterRCNN", None, false, 4, Origin::Paddle).unwrap();
    let names = detector_backbone_names("FasterRCNN", None, false, Origin::Paddle).unwrap();
    let (classifier, weights) = classifier_of("ResNet50", 1000, Origin::Paddle).unwrap();
    let theirs = shapes(&classifier);
    let source = weights
        .iter()
        .map(|w| (w.paddle_name.clone(), theirs[&w.name].clone()));
    let found = fitted(&graph, file(source), &names);
    let head: Vec<String> = shapes(&graph)
        .into_keys()
        .filter(|n| n.starts_with("roi_heads.box_head.layer4."))
        .collect();
    assert!(head.len() > 40, "{head:?}");
    assert_eq!(left_out(&head, &found), [""; 0]);
    let (stored, own) = names
        .iter()
        .find(|(stored, _)| stored.starts_with("res5."))
        .unwrap();
    let shape = shapes(&graph)[own].clone();
    let paddlex = file([(format!("backbone.{stored}"), shape)].into_iter());
    assert!(fitted(&graph, paddlex, &names).weights.contains_key(own));
}

/// Only the layers that know the classes are left out, and the report names them.
#[test]
fn whole_detectors_with_other_classes_keep_all_but_their_last_layers() {
    for (name, backbone, heads) in [
        ("YOLOv3", "MobileNetV1", 6),
        ("PPYOLO", "ResNet18_vd", 4),
        ("PPYOLOTiny", "MobileNetV3", 6),
        ("PicoDet", "ESNet_s", 8),
        ("FasterRCNN", "ResNet18", 4),
        ("MaskRCNN", "ResNet18", 6),
    ] {
        let (coco, names) = detector_of(name, Some(backbone), true, 80, Origin::Paddle).unwrap();
        let (graph, _) = detector_of(name, Some(backbone), true, 4, Origin::Paddle).unwrap();
        let theirs = shapes(&coco);
        let source = names
            .iter()
            .map(|w| (w.paddle_name.clone(), theirs[&w.name].clone()));
        let mut rename: HashMap<String, String> = names
            .iter()
            .map(|w| (w.paddle_name.clone(), w.name.clone()))
            .collect();
        for (stored, own) in
            detector_backbone_names(name, Some(backbone), true, Origin::Paddle).unwrap()
        {
            rename.entry(stored).or_insert(own);
        }
        let fitted = fitted(&graph, file(source), &rename);
        let report = &fitted.report;
        assert_eq!(
            report.mismatched.len(),
            heads,
            "{name}: {:?}",
            report.mismatched
        );
        assert_eq!(
            report.matched + heads,
            report.total,
            "{name}: {:?}",
            report.missing
        );
        assert!(report.unused.is_empty(), "{name}: {:?}", report.unused);
        let notes = report.notes().join("\n");
        assert!(notes.contains(&report.mismatched[0].name), "{notes}");
    }
}

/// torchvision's detection files of before and after 0.13: everything but the predictors, whose background comes first.
#[test]
fn files_of_torchvision_fit_under_old_and_new_names() {
    let (graph, _) = detector_of("MaskRCNN", Some("ResNet50"), true, 4, Origin::Torch).unwrap();
    let wanted = shapes(&graph);
    for old in [false, true] {
        let mut rows = HashMap::new();
        let mut put = |new: String, before: String, shape: Vec<usize>| {
            rows.insert(if old { before } else { new }, shape);
        };
        for (name, shape) in &wanted {
            let last = [
                "predictor.score",
                "predictor.delta",
                "mask_predictor.logits",
            ];
            if last.iter().any(|n| name.contains(n)) {
                continue;
            }
            let before = name
                .replace("rpn.head.conv.0.0.", "rpn.head.conv.")
                .replace("blocks.0.0.", "blocks.0.")
                .replace("blocks.1.0.", "blocks.1.")
                .replace("blocks.2.0.", "blocks.2.")
                .replace("blocks.3.0.", "blocks.3.");
            let before = (0..4).fold(before, |n, i| {
                n.replace(
                    &format!("mask_head.{i}.0."),
                    &format!("mask_head.mask_fcn{}.", i + 1),
                )
            });
            put(name.clone(), before, shape.clone());
        }
        put(
            "roi_heads.box_predictor.cls_score.weight".into(),
            "roi_heads.box_predictor.cls_score.weight".into(),
            vec![91, 1024],
        );
        let names =
            detector_backbone_names("MaskRCNN", Some("ResNet50"), true, Origin::Torch).unwrap();
        let rename = |stored: &str| rename_torch(stored).or_else(|| names.get(stored).cloned());
        let fitted = fit(&graph, file(rows.into_iter()), Some(&rename));
        let mut missing = fitted.report.missing.clone();
        missing.sort();
        let left = [
            "box_predictor.delta.bias",
            "box_predictor.delta.weight",
            "box_predictor.score.bias",
            "box_predictor.score.weight",
            "mask_predictor.logits.bias",
            "mask_predictor.logits.weight",
        ];
        let left = left.map(|n| format!("roi_heads.{n}"));
        assert_eq!(missing, left, "{old}");
        assert_eq!(
            fitted.report.unused,
            ["roi_heads.box_predictor.cls_score.weight"]
        );
    }
}
