//! Building, checking, shapes, counts, initial weights and batch-norm folding.

use oarlock_graph::{
    Act, Conv, Graph, GraphBuilder, GraphError, HostTensor, Init, Op, Output, ParamKind, WeightMap,
    cost, fold_batch_norm, infer_shapes, init_of, init_weights, parameter_count,
};

/// conv → norm → relu → pool → flatten → linear.
fn small() -> Graph {
    let mut b = GraphBuilder::new("small");
    let x = b.input(3);
    let x = b.conv("conv", x, Conv::new(8, 3).stride(2));
    let x = b.batch_norm("norm", x);
    let x = b.act(x, Act::Relu);
    let x = b.global_avg_pool(x);
    let x = b.flatten(x);
    let x = b.dropout(x, 0.5);
    let x = b.linear("fc", x, 4);
    b.output("logits", x);
    b.finish().unwrap()
}

fn built(build: impl FnOnce(&mut GraphBuilder) -> usize) -> Result<Graph, GraphError> {
    let mut b = GraphBuilder::new("test");
    let out = build(&mut b);
    b.output("out", out);
    b.finish()
}

fn message(result: Result<Graph, GraphError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn names_shapes_and_counts() {
    let graph = small();
    let names: Vec<String> = graph.params().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "conv.weight",
            "norm.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "fc.weight",
            "fc.bias"
        ]
    );
    let shapes = infer_shapes(&graph, [5, 3, 9, 10]).unwrap();
    assert_eq!(shapes[1], [5, 8, 5, 5]);
    assert_eq!(shapes.last().unwrap(), &[5, 4]);
    let cost = cost(&graph, [9, 10]).unwrap();
    assert_eq!(cost.total.params, 3 * 9 * 8 + 16 + 8 * 4 + 4);
    assert_eq!(cost.total.params, parameter_count(&graph));
    assert_eq!(cost.total.buffers, 16);
    assert_eq!(cost.total.macs, 25 * 8 * 27 + 32);
    assert_eq!(cost.flops(), 2 * cost.total.macs);
    assert_eq!(cost.nodes[1].macs, 25 * 8 * 27);
}

#[test]
fn mistakes_name_the_node() {
    let text = message(built(|b| {
        let x = b.input(3);
        let a = b.conv("a", x, Conv::new(4, 1));
        b.add(a, x)
    }));
    assert!(
        text.contains("add_2") && text.contains("4×?×?, 3×?×?"),
        "{text}"
    );
    let text = message(built(|b| {
        let x = b.input(3);
        b.conv("a", x, Conv::new(4, 3).groups(2))
    }));
    assert!(text.contains("`a`") && text.contains("2 groups"), "{text}");
    let text = message(built(|b| {
        let x = b.input(3);
        b.flatten(x)
    }));
    assert!(text.contains("pool before it"), "{text}");
    let text = message(built(|b| {
        let x = b.input(3);
        b.slice(x, 2, 2)
    }));
    assert!(text.contains("2..4") && text.contains("of 3"), "{text}");
    let text = message(built(|b| {
        let x = b.input(3);
        let x = b.conv("twice", x, Conv::new(3, 1));
        b.conv("twice", x, Conv::new(3, 1))
    }));
    assert!(text.contains("used twice"), "{text}");
    let text = message(built(|b| {
        let x = b.input(3);
        b.linear("fc", x, 2)
    }));
    assert!(text.contains("flatten it first"), "{text}");
    let text = message(built(|b| b.input(3) + 7));
    assert!(text.contains("names no node"), "{text}");
    assert!(message(GraphBuilder::new("empty").finish()).contains("0 inputs"));
    // Ids that do not exist must not panic.
    let text = message(built(|b| b.add(5, 9)));
    assert!(text.contains("has 0 inputs"), "{text}");
}

#[test]
fn invalid_graphs_are_refused_after_reading() {
    let graph = small();
    let mut cyclic = graph.clone();
    cyclic.nodes[1].inputs = vec![3];
    assert!(
        cyclic
            .validate()
            .unwrap_err()
            .to_string()
            .contains("does not stand before it")
    );
    let mut no_output = graph.clone();
    no_output.outputs.clear();
    assert!(
        no_output
            .validate()
            .unwrap_err()
            .to_string()
            .contains("no output")
    );
    let mut twice = graph.clone();
    twice.outputs.push(Output {
        name: "logits".to_owned(),
        node: 1,
        auxiliary: None,
    });
    assert!(twice.validate().is_err());
    let mut arity = graph.clone();
    arity.nodes[2].inputs = vec![1, 1];
    assert!(
        arity
            .validate()
            .unwrap_err()
            .to_string()
            .contains("2 inputs")
    );

    let json = graph.to_json().unwrap();
    assert_eq!(Graph::from_json(&json).unwrap(), graph);
    assert!(matches!(
        Graph::from_json("{"),
        Err(GraphError::Json { .. })
    ));
    assert!(matches!(
        Graph::from_json("{\"name\":1}"),
        Err(GraphError::Json { .. })
    ));
    for huge in [
        "\"stride\":[18446744073709551615,2]",
        "\"stride\":[99999,2]",
    ] {
        let json = json.replace("\"stride\":[2,2]", huge);
        assert!(
            Graph::from_json(&json)
                .unwrap_err()
                .to_string()
                .contains("beyond all reason")
        );
    }
    let json_groups = json.replace("\"groups\":1", "\"groups\":0");
    assert!(
        Graph::from_json(&json_groups)
            .unwrap_err()
            .to_string()
            .contains("0 groups")
    );
    let broken = json.replace("\"out_channels\":8", "\"out_channels\":9");
    assert!(
        Graph::from_json(&broken)
            .unwrap_err()
            .to_string()
            .contains("`norm`")
    );
}

#[test]
fn shapes_need_a_fitting_image() {
    let graph = small();
    assert!(
        infer_shapes(&graph, [1, 1, 8, 8])
            .unwrap_err()
            .to_string()
            .contains("takes 3")
    );
    assert!(
        infer_shapes(&graph, [1, 3, 0, 8])
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
    let unpadded = built(|b| {
        let x = b.input(3);
        b.conv("c", x, Conv::new(1, 5).padding(0))
    });
    let error = infer_shapes(&unpadded.unwrap(), [1, 3, 4, 9])
        .unwrap_err()
        .to_string();
    assert!(error.contains("4×9") && error.contains("5×5"), "{error}");
}

/// Sizes from `torch.nn.functional.max_pool2d`.
#[test]
fn pooling_sizes_round_as_in_pytorch() {
    // size, kernel, stride, padding, rounded down, rounded up
    for (size, kernel, stride, padding, floor, ceil) in [
        (5, 3, 2, 0, 2, 2),
        (6, 3, 2, 0, 2, 3),
        (6, 3, 2, 1, 3, 4),
        (5, 3, 3, 1, 2, 2), // the third window would begin in the padding
        (6, 2, 3, 1, 3, 3),
        (1, 2, 2, 0, 0, 1),
        (7, 2, 2, 0, 3, 4),
    ] {
        for (ceil, wanted) in [(false, floor), (true, ceil)] {
            let graph = built(|b| {
                let x = b.input(1);
                let op = Op::MaxPool {
                    kernel: [kernel; 2],
                    stride: [stride; 2],
                    padding: [padding; 2],
                    ceil,
                };
                b.plain(op, &[x])
            });
            let shapes = infer_shapes(&graph.unwrap(), [1, 1, size, size]);
            match shapes {
                Ok(shapes) => {
                    assert_eq!(shapes[1][2], wanted, "{size} {kernel} {stride} {padding}")
                }
                Err(_) => assert_eq!(wanted, 0),
            }
        }
    }
}

#[test]
fn dead_nodes_go_and_the_input_stays() {
    let mut graph = small();
    graph.outputs = vec![Output {
        name: "map".to_owned(),
        node: 3,
        auxiliary: None,
    }];
    let pruned = graph.without_dead_nodes();
    assert_eq!(pruned.nodes.len(), 4);
    pruned.validate().unwrap();
    graph.outputs[0].node = 0;
    assert_eq!(graph.without_dead_nodes().nodes.len(), 1);
}

#[test]
fn weights_must_fit() {
    let graph = small();
    let mut weights = init_weights(&graph, 0);
    graph.validate_weights(&weights).unwrap();
    weights["fc.bias"].shape = vec![5];
    let error = graph.validate_weights(&weights).unwrap_err().to_string();
    assert!(
        error.contains("`fc.bias` has shape [5]") && error.contains("needs [4]"),
        "{error}"
    );
    weights.shift_remove("conv.weight");
    let error = fold_batch_norm(&graph, &weights).unwrap_err().to_string();
    assert!(
        error.contains("no `conv.weight` (shape [8, 3, 3, 3])"),
        "{error}"
    );
}

#[test]
fn initial_weights_have_their_distribution() {
    let graph = built(|b| {
        let x = b.input(64);
        let x = b.conv("full", x, Conv::new(128, 3).bias());
        let x = b.conv("depthwise", x, Conv::depthwise(128, 5));
        let x = b.batch_norm("norm", x);
        let x = b.global_avg_pool(x);
        let x = b.flatten(x);
        b.linear("fc", x, 1000)
    })
    .unwrap();
    let weights = init_weights(&graph, 42);
    let std = |name: &str| {
        let data = &weights[name].data;
        let mean = data.iter().map(|&v| f64::from(v)).sum::<f64>() / data.len() as f64;
        let squares = data
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>();
        (mean, (squares / data.len() as f64).sqrt())
    };
    // He et al. 2015 with fan-out 9·128 and, for one filter per channel, 25.
    for (name, wanted, count) in [("full", 9.0 * 128.0, 73_728.0), ("depthwise", 25.0, 3200.0)] {
        let wanted = f64::sqrt(2.0 / wanted);
        let (mean, found) = std(&format!("{name}.weight"));
        let error = 4.0 * wanted / f64::sqrt(count); // four standard errors
        assert!(
            mean.abs() < error && (found - wanted).abs() < error,
            "{name}: {mean} {found}"
        );
    }
    let bound = 1.0 / f64::sqrt(128.0);
    let (_, found) = std("fc.weight");
    assert!((found - bound / f64::sqrt(3.0)).abs() < 0.001);
    assert!(
        weights["fc.weight"]
            .data
            .iter()
            .all(|v| f64::from(v.abs()) <= bound)
    );
    assert!(weights["full.bias"].data.iter().all(|&v| v == 0.0));
    assert!(weights["norm.running_var"].data.iter().all(|&v| v == 1.0));

    assert_eq!(init_weights(&graph, 42), weights);
    assert_ne!(init_weights(&graph, 43)["fc.weight"], weights["fc.weight"]);
    let params = graph.nodes[1].op.params();
    assert_eq!(params[1].kind, ParamKind::Bias);
    assert_eq!(init_of(&graph.nodes[1].op, &params[1]), Init::Constant(0.0));
}

fn tensor(shape: &[usize], data: &[f32]) -> HostTensor {
    HostTensor {
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

#[test]
fn folding_moves_scale_and_shift_into_the_convolution() {
    let graph = built(|b| {
        let x = b.input(1);
        let x = b.conv("c", x, Conv::new(2, 1).bias());
        b.batch_norm_with("n", x, 0.25, 0.1)
    })
    .unwrap();
    let mut weights = WeightMap::new();
    for (name, tensor) in [
        ("n.running_var", tensor(&[2], &[0.75, 3.75])), // √(var + ε) = 1, 2
        ("n.running_mean", tensor(&[2], &[1.0, -1.0])),
        ("n.bias", tensor(&[2], &[0.5, 0.25])),
        ("n.weight", tensor(&[2], &[2.0, 3.0])),
        ("c.bias", tensor(&[2], &[4.0, 1.0])),
        ("c.weight", tensor(&[2, 1, 1, 1], &[10.0, 20.0])),
        ("unrelated", tensor(&[1], &[0.0])),
    ] {
        weights.insert(name.to_owned(), tensor);
    }
    let (folded, weights) = fold_batch_norm(&graph, &weights).unwrap();
    assert_eq!(folded.nodes.len(), 2);
    assert_eq!(folded.outputs[0].node, 1);
    folded.validate().unwrap();
    let names: Vec<&String> = weights.keys().collect();
    assert_eq!(names, ["c.weight", "c.bias"]);
    assert_eq!(weights["c.weight"].data, [20.0, 30.0]);
    // β + (b − μ)·γ/σ: 0.5 + 3·2, 0.25 + 2·1.5
    assert_eq!(weights["c.bias"].data, [6.5, 3.25]);
    let again = fold_batch_norm(&folded, &weights).unwrap();
    assert_eq!(again, (folded, weights));
}

#[test]
fn folding_leaves_what_it_must() {
    // A norm after a concatenation, after a convolution used twice, and after one that is an output.
    let mut b = GraphBuilder::new("test");
    let x = b.input(2);
    let shared = b.conv("shared", x, Conv::new(2, 1));
    let normed = b.batch_norm("after_shared", shared);
    let both = b.concat(&[shared, normed]);
    let x = b.batch_norm("after_concat", both);
    let x = b.dropout(x, 0.5);
    let seen = b.conv("seen", x, Conv::new(2, 1));
    let x = b.batch_norm("after_seen", seen);
    let x = b.conv("plain", x, Conv::new(2, 1));
    let x = b.batch_norm("after_plain", x);
    b.output("seen", seen);
    b.output("out", x);
    let graph = b.finish().unwrap();
    let (folded, weights) = fold_batch_norm(&graph, &init_weights(&graph, 3)).unwrap();
    folded.validate_weights(&weights).unwrap();
    let left: Vec<&str> = folded
        .nodes
        .iter()
        .filter(|n| matches!(n.op, Op::BatchNorm { .. } | Op::Dropout { .. }))
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(left, ["after_shared", "after_concat", "after_seen"]);
    assert_eq!(folded.nodes[folded.outputs[0].node].name, "seen");
    assert_eq!(folded.nodes[folded.outputs[1].node].name, "plain");
}
