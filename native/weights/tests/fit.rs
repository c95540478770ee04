//! Matching stored tensors with a network's parameters.

use oarlock_graph::{Graph, HostTensor, Node, Op, Output, WeightMap};
use oarlock_weights::{FitMethod, fit};

fn conv(cin: usize, cout: usize) -> Op {
    Op::Conv2d {
        in_channels: cin,
        out_channels: cout,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        groups: 1,
        bias: false,
    }
}

/// conv1 → bn1 → pool → flatten → fc1 → fc.
fn graph(classes: usize) -> Graph {
    let bn = Op::BatchNorm {
        channels: 4,
        eps: 1e-5,
        momentum: 0.1,
    };
    let linear = |i, o| Op::Linear {
        in_features: i,
        out_features: o,
        bias: true,
    };
    let ops = [
        ("image", Op::Input { channels: 3 }),
        ("conv1", conv(3, 4)),
        ("bn1", bn),
        ("pool", Op::GlobalAvgPool),
        ("flatten", Op::Flatten),
        ("fc1", linear(4, 6)),
        ("fc", linear(6, classes)),
    ];
    let nodes = ops
        .into_iter()
        .enumerate()
        .map(|(i, (name, op))| Node {
            name: name.into(),
            op,
            inputs: if i == 0 { vec![] } else { vec![i - 1] },
            shares: None,
        })
        .collect();
    Graph {
        name: "tiny".into(),
        nodes,
        outputs: vec![Output {
            name: "logits".into(),
            node: 6,
            auxiliary: None,
        }],
        head: None,
    }
}

/// A tensor whose values tell its elements apart.
fn tensor(shape: &[usize]) -> HostTensor {
    let n: usize = shape.iter().product();
    HostTensor {
        shape: shape.to_vec(),
        data: (0..n).map(|i| i as f32).collect(),
    }
}

fn source(graph: &Graph, rename: impl Fn(&str) -> String) -> WeightMap {
    graph
        .params()
        .map(|(name, p)| (rename(&name), tensor(&p.shape)))
        .collect()
}

#[test]
fn matches_exact_names() {
    let graph = graph(5);
    let fitted = fit(&graph, source(&graph, str::to_owned), None);
    assert_eq!(fitted.report.matched, fitted.report.total);
    assert_eq!(fitted.report.method, FitMethod::Name);
    assert!(fitted.report.missing.is_empty() && fitted.report.unused.is_empty());
    let order: Vec<_> = fitted.weights.keys().cloned().collect();
    assert_eq!(order, graph.params().map(|(n, _)| n).collect::<Vec<_>>());
}

#[test]
fn removes_the_prefixes_of_wrappers() {
    let graph = graph(5);
    for prefix in ["module.", "module._orig_mod.", "model.", "backbone."] {
        let fitted = fit(&graph, source(&graph, |n| format!("{prefix}{n}")), None);
        assert_eq!(fitted.report.matched, 9, "{prefix}");
    }
}

#[test]
fn skips_a_class_head_of_another_size_and_names_it() {
    let mut weights = source(&graph(1000), str::to_owned);
    weights.insert("bn1.num_batches_tracked".into(), tensor(&[]));
    weights.insert("aux.weight".into(), tensor(&[2]));
    weights.shift_remove("bn1.running_var");
    let fitted = fit(&graph(5), weights, None);
    let report = &fitted.report;
    assert_eq!(report.matched, 6);
    assert_eq!(report.missing, ["bn1.running_var"]);
    assert_eq!(report.unused, ["aux.weight"]);
    let heads: Vec<_> = report.mismatched.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(heads, ["fc.weight", "fc.bias"]);
    assert_eq!(report.mismatched[0].wanted, [5, 6]);
    assert_eq!(report.mismatched[0].found, [1000, 6]);
    let notes = report.notes().join("\n");
    assert!(notes.contains("6 of 9"), "{notes}");
    assert!(
        notes.contains("fc.weight (network [5, 6], weights [1000, 6])"),
        "{notes}"
    );
    assert!(
        notes.contains("aux.weight") && notes.contains("bn1.running_var"),
        "{notes}"
    );
    assert!(!fitted.weights.contains_key("fc.weight"));
}

#[test]
fn translates_suffixes_of_other_frameworks() {
    let graph = graph(5);
    let paddle = |name: &str| {
        name.replace("running_mean", "_mean")
            .replace("running_var", "_variance")
    };
    assert_eq!(fit(&graph, source(&graph, paddle), None).report.matched, 9);
    let statics = |name: &str| {
        let (module, suffix) = name.split_once('.').unwrap();
        let suffix = match suffix {
            "weight" => "w_0",
            "bias" => "b_0",
            "running_mean" => "w_1",
            _ => "w_2",
        };
        format!("{module}.{suffix}")
    };
    assert_eq!(fit(&graph, source(&graph, statics), None).report.matched, 9);
}

#[test]
fn uses_the_networks_own_translation() {
    let graph = graph(5);
    let theirs = |name: &str| name.replace("conv1", "stem_conv").replace("bn1", "stem_bn");
    let ours = |name: &str| {
        Some(name.replace("stem_conv", "conv1").replace("stem_bn", "bn1")).filter(|n| n != name)
    };
    let fitted = fit(
        &graph,
        source(&graph, |n| format!("module.{}", theirs(n))),
        Some(&ours),
    );
    assert_eq!(fitted.report.matched, 9);
    assert_eq!(fitted.report.method, FitMethod::Name);
}

#[test]
fn turns_linear_layers_and_one_by_one_convolutions_into_each_other() {
    let graph = graph(5);
    let mut weights = source(&graph, str::to_owned);
    weights["fc1.weight"] = tensor(&[4, 6]); // [in, out]
    weights["fc.weight"] = tensor(&[5, 6, 1, 1]);
    let fitted = fit(&graph, weights, None);
    assert_eq!(fitted.report.matched, 9);
    let fc1 = &fitted.weights["fc1.weight"];
    assert_eq!(fc1.shape, [6, 4]);
    assert_eq!(fc1.data[..4], [0.0, 6.0, 12.0, 18.0], "transposed");
    assert_eq!(fitted.weights["fc.weight"], tensor(&[5, 6]));
}

#[test]
fn matches_by_order_only_when_every_shape_aligns() {
    let graph = graph(5);
    let stored = self::graph(1000);
    let weights: WeightMap = stored
        .params()
        .enumerate()
        .map(|(i, (_, p))| (format!("layer_{i}.p"), tensor(&p.shape)))
        .collect();
    let fitted = fit(&graph, weights.clone(), None);
    assert_eq!(fitted.report.method, FitMethod::Order);
    assert_eq!(fitted.report.matched, 7, "all but the head of another size");
    assert_eq!(fitted.report.mismatched.len(), 2);
    assert!(fitted.report.notes()[0].contains("by order"));

    let mut shuffled = weights.clone();
    shuffled.swap_indices(0, 1);
    let fitted = fit(&graph, shuffled, None);
    assert_eq!(
        fitted.report.matched, 0,
        "a wrong guess would be worse than none"
    );
    assert_eq!(fitted.report.unused.len(), 9);
    let mut shorter = weights;
    shorter.pop();
    assert_eq!(fit(&graph, shorter, None).report.matched, 0);
}
