//! Mask R-CNN whole: its losses fall, and it finds things with their masks.

use oarlock_datasets::DetectTarget;
use oarlock_engine::detect::{Frame, detect};
use oarlock_engine::exec::{Network, normalized_input};
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::learner::Learner;
use oarlock_engine::train::objective::{Objective, freezes_norms, objective};
use oarlock_engine::train::optimizer::{Optimizer, Rule};
use oarlock_graph::{Head, init_weights};
use oarlock_imaging::{BBox, Object, Rle};
use oarlock_zoo::{Origin, detector_of};
use tch::{Kind, Tensor};

const SIDE: usize = 96;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Class, corners and colour of the shapes of each picture.
type Shape = (usize, &'static [[f32; 2]], [u8; 3]);
const PICTURES: [&[Shape]; 2] = [
    &[
        (
            0,
            &[[8.0, 10.0], [50.0, 10.0], [50.0, 48.0], [8.0, 48.0]],
            [200, 30, 180],
        ),
        (
            1,
            &[[40.0, 90.0], [88.0, 90.0], [64.0, 46.0]],
            [20, 220, 40],
        ),
    ],
    &[(
        1,
        &[[20.0, 70.0], [70.0, 70.0], [45.0, 24.0]],
        [20, 220, 40],
    )],
];

fn object(&(class, corners, _): &Shape) -> Object {
    let side = |axis: usize| corners.iter().map(move |c| c[axis]);
    let least = |axis| side(axis).fold(f32::INFINITY, f32::min);
    let most = |axis| side(axis).fold(0.0, f32::max);
    Object {
        class,
        bbox: BBox::new(least(0), least(1), most(0), most(1)),
        polygons: vec![corners.to_vec()],
        weight: 1.0,
        ..Object::default()
    }
}

/// The shape's pixels.
fn mask(shape: &Shape) -> Rle {
    let flat: Vec<f64> = shape.1.iter().flatten().map(|&v| f64::from(v)).collect();
    Rle::from_polygons(SIDE as u32, SIDE as u32, &[flat]).unwrap()
}

fn targets() -> Vec<DetectTarget> {
    let target = |shapes: &&[Shape]| DetectTarget {
        objects: shapes.iter().map(object).collect(),
        full: (2 * SIDE, 2 * SIDE),
        shown: (SIDE, SIDE),
    };
    PICTURES.iter().map(target).collect()
}

fn input() -> Tensor {
    let mut pixels = Vec::new();
    for (n, shapes) in PICTURES.iter().enumerate() {
        let masks: Vec<_> = shapes.iter().map(|s| mask(s).to_plane().unwrap()).collect();
        for y in 0..SIDE {
            for x in 0..SIDE {
                let shape = masks.iter().rposition(|m| m.value(x, y) == 1);
                let noise = (x * 31 + y * 17 + n * 7 + x * y) % 40;
                let colour = shape.map_or([90, 100, 110], |s| shapes[s].2);
                pixels.extend(colour.map(|c| c + noise as u8 / 2));
            }
        }
    }
    normalized_input(&pixels, [2, SIDE, SIDE], MEAN, STD, Placement::CPU_FP32).unwrap()
}

fn learner() -> (Learner, Box<dyn Objective>) {
    let (mut graph, _) =
        detector_of("MaskRCNN", Some("ResNet18"), true, 2, Origin::Paddle).unwrap();
    // Fewer regions make the steps short.
    if let Some(Head::TwoStage(head)) = &mut graph.head {
        head.train.after = 48;
        head.test.after = 48;
    }
    let objective = objective("MaskRCNN", graph.head.as_ref().unwrap()).unwrap();
    let weights = init_weights(&graph, 5);
    let mut network = Network::new(graph, &weights, Placement::CPU_FP32).unwrap();
    let optimizer = Optimizer::new(Rule::Sgd, 1e-4, &mut network).unwrap();
    (Learner { network, optimizer }, objective)
}

#[test]
fn losses_fall_and_things_are_found_with_their_masks() {
    let (mut learner, objective) = learner();
    let (input, targets) = (input(), targets());
    let mut first = Vec::new();
    let mut last = Vec::new();
    for step in 0..25u64 {
        let forward = |network: &Network| objective.learn(network, &input, &targets, step);
        let lr = 0.01 * (step + 1).min(5) as f64 / 5.0;
        let result = learner.step_with(&forward, lr, step).unwrap();
        let values = result
            .parts
            .iter()
            .map(|(name, v)| (name.clone(), v.double_value(&[])));
        last = values.collect::<Vec<_>>();
        let sum: f64 = last.iter().map(|p| p.1).sum();
        assert!((result.loss.double_value(&[]) - sum).abs() < 1e-4);
        if step == 0 {
            first = last.clone();
        }
    }
    let names: Vec<&str> = first.iter().map(|p| p.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "loss_rpn_cls",
            "loss_rpn_reg",
            "loss_bbox_cls",
            "loss_bbox_reg",
            "loss_mask"
        ]
    );
    for ((name, before), (_, after)) in first.iter().zip(&last) {
        // The better the proposals, the more regions have a box to learn.
        if name != "loss_bbox_reg" {
            let share = if name == "loss_rpn_reg" { 1.0 } else { 0.6 };
            assert!(*after < before * share, "{name}: {before} to {after}");
        }
    }

    let network = learner.inference_copy(Kind::Float).unwrap();
    let frame = Frame {
        full: (2 * SIDE, 2 * SIDE),
        shown: (SIDE, SIDE),
    };
    let found = detect(&network, &input, &[frame; 2]).unwrap();
    // So short a training finds things roughly; how good the masks become is a matter of the benchmark.
    assert!(!found[0].is_empty());
    for found in &found {
        assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
        for one in found {
            let mask = one.mask.as_ref().unwrap();
            assert!(one.class < 2);
            assert_eq!(
                (mask.width(), mask.height()),
                (2 * SIDE as u32, 2 * SIDE as u32)
            );
            let [x, y, width, height] = mask.bbox().map(|v| v as f32);
            let [left, top, right, bottom] = one.bbox;
            let inside = x + 0.5 >= left && x + width - 0.5 <= right;
            let inside = inside && y + 0.5 >= top && y + height - 0.5 <= bottom;
            assert!(mask.area() == 0 || inside, "{one:?}");
        }
    }
}

#[test]
fn norms_are_frozen_only_with_their_statistics() {
    let (graph, _) = detector_of("FasterRCNN", Some("ResNet18"), true, 2, Origin::Paddle).unwrap();
    let mut weights = init_weights(&graph, 5);
    assert_eq!(freezes_norms(&graph, &weights), Some(false));
    let statistics = |name: &&String| name.ends_with(".running_mean");
    let names: Vec<String> = weights.keys().filter(statistics).cloned().collect();
    for name in &names[1..] {
        weights[name].data.fill(0.25);
    }
    assert_eq!(
        freezes_norms(&graph, &weights),
        Some(false),
        "one is missing"
    );
    weights[&names[0]].data.fill(0.25);
    assert_eq!(freezes_norms(&graph, &weights), Some(true));
    let (other, _) = detector_of("YOLOv3", None, true, 2, Origin::Paddle).unwrap();
    assert_eq!(freezes_norms(&other, &weights), None);
}

#[test]
fn steps_repeat_with_their_seed() {
    let (learner, objective) = learner();
    let (input, targets) = (input(), targets());
    let loss = |seed| {
        let learned = objective
            .learn(&learner.network, &input, &targets, seed)
            .unwrap();
        learned.loss.double_value(&[])
    };
    let first = loss(3);
    assert_eq!(loss(3), first);
    assert_ne!(loss(4), first);
}

#[test]
fn images_without_objects_teach_where_nothing_is() {
    let (mut learner, objective) = learner();
    let input = input();
    let mut targets = targets();
    targets.iter_mut().for_each(|t| t.objects.clear());
    let forward = |network: &Network| objective.learn(network, &input, &targets, 1);
    let result = learner.step_with(&forward, 0.01, 1).unwrap();
    let part = |name: &str| {
        let part = result.parts.iter().find(|p| p.0 == name).unwrap();
        part.1.double_value(&[])
    };
    assert!(part("loss_rpn_cls") > 0.0 && part("loss_bbox_cls") > 0.0);
    for name in ["loss_rpn_reg", "loss_bbox_reg", "loss_mask"] {
        assert_eq!(part(name), 0.0, "{name}");
    }
    let finite = |t: &Tensor| t.isfinite().all().to_kind(Kind::Int64).int64_value(&[]) == 1;
    assert!(
        learner
            .network
            .parameters()
            .iter()
            .all(|p| finite(&p.master))
    );
}
