//! Pruned networks against the same networks with dead channels, on the real executor.

use oarlock_engine::exec::{Network, select_channels};
use oarlock_engine::runtime::Placement;
use oarlock_graph::{
    ChannelGroups, Graph, Keep, NodeId, Op, ParamKind, WeightMap, channel_groups, fold_batch_norm,
    init_weights, kept_channels, kept_count, mask, plan_cuts, prune, prune_changes,
};
use oarlock_imaging::Rng;
use oarlock_zoo::{Origin, classifier_of};
use tch::Tensor;

/// One of each family, and both where members differ in structure.
const MODELS: [&str; 14] = [
    "AlexNet",
    "DarkNet53",
    "DenseNet121",
    "HRNet_W18_C",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3_large",
    "MobileNetV3_small",
    "PPLCNet",
    "ResNet18",
    "ResNet50_vd",
    "ShuffleNetV2",
    "ShuffleNetV2_swish",
    "Xception41",
];

/// Random units, up to half of each group removed.
fn random_keep(groups: &ChannelGroups, rng: &mut Rng) -> Keep {
    let mut keep = Keep::new();
    for group in &groups.groups {
        let mut order: Vec<(f64, usize)> = (0..group.size())
            .map(|i| (rng.uniform(0.0, 1.0), i))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.truncate(kept_count(group.size(), rng.uniform(0.0, 0.5), None));
        let mut units: Vec<usize> = order.into_iter().map(|(_, i)| i).collect();
        units.sort_unstable();
        keep.insert(group.name.clone(), units);
    }
    keep
}

fn random_weights(graph: &Graph, rng: &mut Rng) -> WeightMap {
    let mut weights = init_weights(graph, 1);
    for (name, param) in graph.params() {
        for v in &mut weights[&name].data {
            let u = rng.uniform(-1.0, 1.0) as f32;
            match param.kind {
                ParamKind::NormScale => *v *= 1.0 + 0.2 * u,
                ParamKind::NormShift | ParamKind::Bias => *v += 0.1 * u,
                _ => {}
            }
        }
    }
    weights
}

/// `weights` with the batch norm statistics of `images`, so that the signal neither dies nor explodes.
fn measured(graph: &Graph, weights: &WeightMap, images: &Tensor) -> WeightMap {
    let mut graph = graph.clone();
    for node in &mut graph.nodes {
        if let Op::BatchNorm { momentum, .. } = &mut node.op {
            *momentum = 1.0; // one training pass leaves the statistics of its batch
        }
    }
    let network = Network::new(graph, weights, Placement::CPU_FP32).unwrap();
    let _ = tch::no_grad(|| network.forward(images, true)).unwrap();
    network.to_weights().unwrap()
}

fn run(network: Network, images: &Tensor) -> Tensor {
    tch::no_grad(|| network.forward(images, false)).unwrap()
}

fn largest(t: &Tensor) -> f64 {
    t.abs().max().double_value(&[])
}

#[test]
fn a_pruned_network_equals_the_masked_one() {
    tch::manual_seed(1);
    let images = Tensor::randn([4, 3, 64, 64], (tch::Kind::Float, tch::Device::Cpu));
    for model in MODELS {
        for origin in [Origin::Torch, Origin::Paddle] {
            let (graph, _) = classifier_of(model, 10, origin).unwrap();
            let mut rng = Rng::of(&[7]);
            let groups = channel_groups(&graph).unwrap();
            let keep = random_keep(&groups, &mut rng);
            let weights = random_weights(&graph, &mut rng);
            let masked = mask(&graph, &weights, &groups, &keep).unwrap();
            let masked = measured(&graph, &masked, &images);
            let (smaller, sliced) = prune(&graph, &masked, &groups, &keep).unwrap();
            let plain = |graph: &Graph, weights: &WeightMap| {
                run(
                    Network::new(graph.clone(), weights, Placement::CPU_FP32).unwrap(),
                    &images,
                )
            };
            let folded = |graph: &Graph, weights: &WeightMap| {
                run(
                    Network::for_inference(graph, weights, Placement::CPU_FP32).unwrap(),
                    &images,
                )
            };
            let pairs = [
                (
                    "as trained",
                    plain(&graph, &masked),
                    plain(&smaller, &sliced),
                ),
                ("folded", folded(&graph, &masked), folded(&smaller, &sliced)),
            ];
            for (what, theirs, ours) in pairs {
                let scale = largest(&theirs);
                // Images must lead to different logits, or equal ones would mean nothing.
                let varies = largest(&(&theirs - &theirs.mean_dim([0i64].as_slice(), true, None)));
                assert!(
                    varies > 0.01 * scale,
                    "{model} {origin:?}: {varies} of {scale}"
                );
                let difference = largest(&(&ours - &theirs)) / scale;
                assert!(
                    difference <= 1e-4,
                    "{model} {origin:?}, {what}: {difference}"
                );
            }
        }
    }
}

#[test]
fn what_runs_behind_a_cut_equals_the_whole_pruned_network() {
    tch::manual_seed(2);
    let images = Tensor::randn([2, 3, 64, 64], (tch::Kind::Float, tch::Device::Cpu));
    for model in MODELS {
        let (graph, _) = classifier_of(model, 10, Origin::Torch).unwrap();
        let mut rng = Rng::of(&[8]);
        let weights = measured(&graph, &random_weights(&graph, &mut rng), &images);
        let (folded, folded_weights) = fold_batch_norm(&graph, &weights).unwrap();
        let groups = channel_groups(&folded).unwrap();
        let base = Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap();
        let outputs: Vec<NodeId> = folded.outputs.iter().map(|o| o.node).collect();
        let whole = run(
            Network::for_inference(&graph, &weights, Placement::CPU_FP32).unwrap(),
            &images,
        );
        let every = groups.groups.len().div_ceil(7);
        let some: Vec<_> = groups.groups.iter().step_by(every).cloned().collect();
        let random = random_keep(&groups, &mut rng);
        let plan = plan_cuts(&folded, &some, [64, 64], u64::MAX, 9).unwrap();
        let mut held: Vec<(NodeId, Tensor)> = vec![];
        let mut effect = 0.0f64;
        for step in &plan.steps {
            let values = base.forward_from(&held, Some(&images), &step.keep).unwrap();
            held = step.keep.iter().copied().zip(values).collect();
            let before: Vec<Tensor> = held.iter().map(|(_, value)| value.copy()).collect();
            // From the kept values the unpruned network comes to the same.
            let [again] = &base.forward_from(&held, Some(&images), &outputs).unwrap()[..] else {
                panic!("one output")
            };
            assert!(
                largest(&(again - &whole)) <= 1e-5 * largest(&whole),
                "{model}"
            );

            let keep = Keep::from([(step.group.clone(), random[&step.group].clone())]);
            let (pruned, changes) =
                prune_changes(&folded, &folded_weights, &groups, &keep).unwrap();
            let variant = base.variant(pruned, &changes).unwrap();
            let channels = kept_channels(&folded, &groups, &keep, &step.usable).unwrap();
            let usable: Vec<(NodeId, Tensor)> = step
                .usable
                .iter()
                .zip(&channels)
                .map(|(id, channels)| {
                    let value = held.iter().find(|(held, _)| held == id).unwrap();
                    (*id, select_channels(&value.1, channels).unwrap())
                })
                .collect();
            let ours = variant
                .forward_from(&usable, Some(&images), &outputs)
                .unwrap()
                .remove(0);
            let (smaller, sliced) = prune(&graph, &weights, &groups_of(&graph), &keep).unwrap();
            let theirs = run(
                Network::for_inference(&smaller, &sliced, Placement::CPU_FP32).unwrap(),
                &images,
            );
            let scale = largest(&theirs);
            // Some layers matter little in an untrained network, but not all.
            effect = effect.max(largest(&(&theirs - &whole)) / scale);
            let difference = largest(&(&ours - &theirs)) / scale;
            assert!(difference <= 3e-5, "{model} {}: {difference}", step.group);
            for ((_, now), before) in held.iter().zip(&before) {
                assert_eq!(
                    now, before,
                    "{model} {}: a kept value was written to",
                    step.group
                );
            }
        }
        assert!(effect > 1e-2, "{model}: {effect}");
    }
}

fn groups_of(graph: &Graph) -> ChannelGroups {
    channel_groups(graph).unwrap()
}
