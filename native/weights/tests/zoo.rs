//! Every network of the zoo takes weights under PyTorch's and under Paddle's names.

use oarlock_graph::{HostTensor, WeightMap};
use oarlock_weights::{FitMethod, fit};
use oarlock_zoo::{
    Origin, backbone_names, classifier, classifier_names, classifier_of, segmenter_backbones,
    segmenter_names, segmenter_of,
};

fn tensor(shape: &[usize], value: f32) -> HostTensor {
    HostTensor {
        shape: shape.to_vec(),
        data: vec![value; shape.iter().product()],
    }
}

#[test]
fn takes_paddle_weights_by_name() {
    let classifiers = classifier_names()
        .iter()
        .map(|&name| (name, classifier_of(name, 10, Origin::Paddle).unwrap()));
    let segmenters = segmenter_names().iter().map(|&name| {
        (
            name,
            segmenter_of(name, None, 10, 3, Origin::Paddle).unwrap(),
        )
    });
    for (name, (graph, names)) in classifiers.chain(segmenters) {
        let shapes: std::collections::HashMap<String, Vec<usize>> =
            graph.params().map(|(n, p)| (n, p.shape)).collect();
        let mut source: WeightMap = names
            .iter()
            .enumerate()
            .map(|(i, p)| (p.paddle_name.clone(), tensor(&shapes[&p.name], i as f32)))
            .collect();
        source.reverse(); // so that order cannot help
        let rename = |stored: &str| {
            names
                .iter()
                .find(|p| p.paddle_name == stored)
                .map(|p| p.name.clone())
        };
        let fitted = fit(&graph, source, Some(&rename));
        assert_eq!(fitted.report.method, FitMethod::Name, "{name}");
        assert_eq!(
            fitted.report.matched,
            fitted.report.total,
            "{name}: {:?}",
            fitted.report.notes()
        );
        assert!(
            fitted.report.unused.is_empty(),
            "{name}: {:?}",
            fitted.report.unused
        );
        for (i, p) in names.iter().enumerate() {
            let data = &fitted.weights[&p.name].data;
            assert!(
                data.iter().all(|&v| v == i as f32),
                "{name}: {} got other weights",
                p.name
            );
        }
    }
}

#[test]
fn takes_torch_weights_with_another_head() {
    for name in classifier_names() {
        let source: WeightMap = classifier(name, 1000)
            .unwrap()
            .params()
            .map(|(n, p)| (format!("module.{n}"), tensor(&p.shape, 1.0)))
            .collect();
        let graph = classifier(name, 10).unwrap();
        let fitted = fit(&graph, source, None);
        let heads = fitted.report.mismatched.len();
        assert!(
            (1..=2).contains(&heads),
            "{name}: {:?}",
            fitted.report.notes()
        );
        assert_eq!(fitted.report.matched + heads, fitted.report.total, "{name}");
    }
}

/// A backbone takes the classifier's weights, whichever library they come from; the head stays as it is.
#[test]
fn takes_imagenet_weights_into_a_backbone() {
    let deeplabs = segmenter_backbones("DeepLabV3P")
        .iter()
        .map(|&b| ("DeepLabV3P", Some(b)));
    for (name, backbone) in deeplabs.chain([("HRNet_W18", None)]) {
        let classifier = match backbone {
            None => "HRNet_W18_C",
            Some("MobileNetV2_x1.0") => "MobileNetV2",
            Some("MobileNetV3_large_x1_0_ssld") => "MobileNetV3_large",
            Some(b @ ("ResNet50_vd" | "ResNet101_vd")) => b,
            Some(_) => continue, // no such classifier
        };
        for origin in [Origin::Torch, Origin::Paddle] {
            let (graph, own) = segmenter_of(name, backbone, 4, 3, origin).unwrap();
            let inside: Vec<_> = graph
                .params()
                .filter(|(n, _)| n.starts_with("backbone."))
                .collect();
            let names = backbone_names(name, backbone, origin).unwrap();
            let rename = |stored: &str| names.get(stored).cloned();
            let (classifier, weights) = classifier_of(classifier, 1000, origin).unwrap();
            let shapes: std::collections::HashMap<_, _> =
                classifier.params().map(|(n, p)| (n, p.shape)).collect();
            let torch = shapes.keys().map(|n| (n.clone(), n.clone()));
            let clas = weights
                .iter()
                .map(|w| (w.paddle_name.clone(), w.name.clone()));
            let seg = own.iter().filter_map(|w| {
                let stored = w.paddle_name.strip_prefix("backbone.")?;
                Some((stored.to_owned(), w.name["backbone.".len()..].to_owned()))
            });
            let mut files: Vec<Vec<(String, String)>> = vec![seg.collect()];
            match origin {
                Origin::Torch => files.push(torch.collect()),
                Origin::Paddle => files.push(clas.collect()),
            }
            for file in files {
                let source: WeightMap = file
                    .into_iter()
                    .filter_map(|(stored, name)| Some((stored, tensor(shapes.get(&name)?, 1.0))))
                    .collect();
                let fitted = fit(&graph, source, Some(&rename));
                let label = format!("{name} {backbone:?} {origin:?}");
                assert_eq!(fitted.report.method, FitMethod::Name, "{label}");
                for (name, _) in &inside {
                    assert!(fitted.weights.contains_key(name), "{label}: {name}");
                }
                assert_eq!(fitted.report.matched, inside.len(), "{label}");
            }
        }
    }
}
