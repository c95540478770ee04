//! Every network of the zoo takes weights under PyTorch's and under Paddle's names.

use oarlock_graph::{HostTensor, WeightMap};
use oarlock_weights::{FitMethod, fit};
use oarlock_zoo::{Origin, classifier, classifier_names, classifier_of};

fn tensor(shape: &[usize], value: f32) -> HostTensor {
    HostTensor {
        shape: shape.to_vec(),
        data: vec![value; shape.iter().product()],
    }
}

#[test]
fn takes_paddle_weights_by_name() {
    for name in classifier_names() {
        let (graph, names) = classifier_of(name, 10, Origin::Paddle).unwrap();
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
