//! Against PaddleX's own modules on the same outputs (`tests/data/record_two_stage.py`), and bad input.

use oarlock_datasets::DetectTarget;
use oarlock_graph::{Proposals, RpnLevel, Suppression, TwoStageHead};
use oarlock_imaging::{BBox, Object, Plane, Rng};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::anchors::{AnchorTargets, assign, losses as anchor_losses};
use super::masks::{MaskTargets, loss as mask_loss};
use super::regions::{Region, losses as box_losses, sample};
use super::sampling::Sampling;
use super::{Truth, TwoStage};
use crate::detect::Frame;
use crate::detect::boxes::Edges;
use crate::detect::proposals::Rpn;
use crate::detect::two_stage::{choose, in_picture};

const CLASSES: usize = 3;
const SIDE: usize = 28;
const SHOWN: [(usize, usize); 2] = [(120, 90), (128, 96)];
const FULL: [(usize, usize); 2] = [(240, 180), (100, 75)];

fn recorded() -> Value {
    serde_json::from_str(include_str!("../../../../tests/data/two_stage.json")).unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    match v.as_array() {
        Some(all) => all.iter().flat_map(numbers).collect(),
        None => vec![v.as_f64().unwrap()],
    }
}

fn places(v: &Value) -> Vec<usize> {
    numbers(v).into_iter().map(|x| x as usize).collect()
}

fn rows(v: &Value) -> Vec<Vec<f32>> {
    let row = |r: &Value| numbers(r).into_iter().map(|x| x as f32).collect();
    v.as_array().unwrap().iter().map(row).collect()
}

fn boxes(v: &Value) -> Vec<Edges> {
    rows(v).iter().map(|r| r[..4].try_into().unwrap()).collect()
}

/// As in the script.
fn unit(name: &str, n: usize) -> Vec<f64> {
    let s: u64 = (1..).zip(name.bytes()).map(|(k, b)| k * u64::from(b)).sum();
    let value = |i: u64| {
        let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(s * 40503) & 0xffff_ffff;
        x ^= x >> 16;
        x = x.wrapping_mul(0x45d_9f3b) & 0xffff_ffff;
        x ^= x >> 16;
        x as f64 / 4_294_967_296.0 - 0.5
    };
    (0..n as u64).map(value).collect()
}

fn made(name: &str, shape: &[i64], scale: f64) -> Tensor {
    let values = unit(name, shape.iter().product::<i64>() as usize);
    let values = Tensor::from_slice(&values) * scale;
    values
        .to_kind(Kind::Float)
        .reshape(shape)
        .set_requires_grad(true)
}

fn checksum(tensor: &Tensor) -> f64 {
    let check = Tensor::from_slice(&unit("check", tensor.numel()));
    let gradient = tensor
        .grad()
        .contiguous()
        .reshape([-1])
        .to_kind(Kind::Double);
    gradient.dot(&check).double_value(&[])
}

#[track_caller]
fn near(found: f64, expected: f64, within: f64) {
    assert!(
        (found - expected).abs() < within,
        "{found} instead of {expected}"
    );
}

#[track_caller]
fn same_boxes(found: &[Edges], expected: &[Edges]) {
    assert_eq!(found.len(), expected.len());
    let sorted = |boxes: &[Edges]| {
        let mut boxes = boxes.to_vec();
        boxes.sort_by(|a, b| {
            (a[0] + 3.1 * a[1] + 7.7 * a[2]).total_cmp(&(b[0] + 3.1 * b[1] + 7.7 * b[2]))
        });
        boxes
    };
    for (a, b) in sorted(found).iter().zip(sorted(expected)) {
        assert!(
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3),
            "{a:?} {b:?}"
        );
    }
}

fn head() -> TwoStageHead {
    let level = |stride: usize, size: f32| RpnLevel {
        stride,
        sizes: vec![size],
        ratios: vec![0.5, 1.0, 2.0],
    };
    let proposals = |before, after| Proposals {
        before,
        after,
        overlap: 0.7,
        min_size: 0.0,
    };
    TwoStageHead {
        classes: CLASSES,
        levels: vec![level(8, 16.0), level(16, 32.0), level(32, 64.0)],
        train: proposals(200, 100),
        test: proposals(100, 50),
        delta_weights: [10.0, 10.0, 5.0, 5.0],
        mask_size: Some(SIDE),
        suppression: Suppression::Nms {
            score: 0.05,
            overlap: 0.5,
            candidates: None,
            detections: 12,
        },
    }
}

/// The scores and deltas of the script's region proposal network.
fn maps() -> Vec<(Tensor, Tensor)> {
    let map = |(i, stride): (usize, i64)| {
        let (h, w) = (96 / stride, 128 / stride);
        let score = made(&format!("score{i}"), &[2, 3, h, w], 8.0);
        (score, made(&format!("delta{i}"), &[2, 12, h, w], 0.6))
    };
    [8, 16, 32].into_iter().enumerate().map(map).collect()
}

fn object(class: usize, b: Edges, polygons: &[&[f32]]) -> Object {
    Object {
        class,
        bbox: BBox::new(b[0], b[1], b[2], b[3]),
        polygons: polygons
            .iter()
            .map(|p| p.as_chunks::<2>().0.to_vec())
            .collect(),
        weight: 1.0,
        ..Object::default()
    }
}

fn target(objects: Vec<Object>, image: usize) -> DetectTarget {
    DetectTarget {
        objects,
        full: FULL[image],
        shown: SHOWN[image],
    }
}

/// The script's objects.
fn targets() -> [DetectTarget; 2] {
    let first = vec![
        object(
            0,
            [10.5, 12.0, 40.25, 45.0],
            &[&[10.5, 12.0, 40.25, 20.0, 30.0, 45.0, 12.0, 40.0]],
        ),
        object(
            2,
            [50.0, 8.0, 74.0, 70.0],
            &[
                &[50.0, 8.0, 74.0, 8.0, 74.0, 30.0, 50.0, 30.0],
                &[55.0, 40.0, 70.0, 40.0, 62.0, 70.0],
            ],
        ),
        object(
            1,
            [80.0, 50.0, 118.0, 88.0],
            &[&[80.0, 69.0, 99.0, 50.0, 118.0, 69.0, 99.0, 88.0]],
        ),
        object(
            1,
            [84.0, 52.0, 110.0, 80.0],
            &[&[84.0, 52.0, 110.0, 52.0, 110.0, 80.0, 84.0, 80.0]],
        ),
        object(
            0,
            [2.0, 60.0, 9.0, 66.0],
            &[&[2.0, 60.0, 9.0, 60.0, 9.0, 66.0, 2.0, 66.0]],
        ),
    ];
    let second = vec![
        object(
            2,
            [0.0, 0.0, 128.0, 96.0],
            &[&[0.0, 0.0, 128.0, 0.0, 128.0, 96.0, 0.0, 96.0]],
        ),
        object(
            0,
            [60.0, 33.0, 91.0, 70.0],
            &[&[60.0, 33.0, 91.0, 33.0, 75.0, 70.0]],
        ),
    ];
    [target(first, 0), target(second, 1)]
}

const FEW: Sampling = Sampling {
    count: 64,
    objects: 0.5,
};

#[test]
fn anchors_and_what_they_show_are_those_of_paddlex() {
    let file = recorded();
    let rpn = Rpn::new(&head().levels, &maps()).unwrap();
    let mut place = 0;
    for (level, expected) in rpn
        .anchors
        .levels()
        .iter()
        .zip(file["anchors"].as_array().unwrap())
    {
        for (i, expected) in boxes(expected).into_iter().enumerate() {
            same_boxes(&[rpn.anchors.at(level.first + 5 * i)], &[expected]);
        }
        place += level.count();
    }
    assert_eq!((place, rpn.anchors.count()), (756, 756));
    let objective = TwoStage::new(&head());
    for (target, expected) in targets().iter().zip(file["labels"].as_array().unwrap()) {
        let labels = assign(&rpn.anchors, &objective.truths(target).unwrap());
        let objects: Vec<usize> = labels.objects.iter().map(|&i| i as usize).collect();
        assert_eq!(objects, places(&expected["positive"]));
        let matches: Vec<usize> = objects
            .iter()
            .map(|&i| labels.matches[i] as usize)
            .collect();
        assert_eq!(matches, places(&expected["matches"]));
        let ignored = places(&expected["ignored"]);
        assert_eq!(labels.background.len(), 756 - objects.len() - ignored.len());
        assert!(
            labels
                .background
                .iter()
                .all(|&i| !ignored.contains(&(i as usize)))
        );
    }
}

#[test]
fn losses_of_the_proposal_network_are_those_of_paddlex() {
    let file = recorded();
    let maps = maps();
    let rpn = Rpn::new(&head().levels, &maps).unwrap();
    let objective = TwoStage::new(&head());
    let mut chosen = AnchorTargets::default();
    for target in &targets() {
        let truths = objective.truths(target).unwrap();
        let labels = assign(&rpn.anchors, &truths);
        chosen.add(&rpn.anchors, &truths, &labels, FEW, None);
    }
    let (cls, reg) = anchor_losses(&rpn, &chosen, FEW).unwrap();
    let expected = &file["rpn"];
    near(
        cls.double_value(&[]),
        expected["loss_rpn_cls"].as_f64().unwrap(),
        1e-5,
    );
    near(
        reg.double_value(&[]),
        expected["loss_rpn_reg"].as_f64().unwrap(),
        1e-5,
    );
    (cls + reg).backward();
    let tensors = maps.iter().map(|m| &m.0).chain(maps.iter().map(|m| &m.1));
    for (tensor, expected) in tensors.zip(numbers(&expected["gradients"])) {
        near(checksum(tensor), expected, 1e-6);
    }
}

#[test]
fn proposals_are_those_of_paddlex() {
    let rpn = Rpn::new(&head().levels, &maps()).unwrap();
    for (how, expected) in [head().train, head().test]
        .iter()
        .zip(recorded()["proposals"].as_array().unwrap())
    {
        let found = rpn.propose(how, &SHOWN, true).unwrap();
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            same_boxes(found, &boxes(expected));
        }
    }
}

/// The regions that PaddleX sampled, with its labels checked on the way.
fn sampled(file: &Value, truths: &[Vec<Truth>]) -> Vec<Vec<Region>> {
    let sampling = Sampling {
        count: 64,
        objects: 0.25,
    };
    let proposals = file["proposals"][0].as_array().unwrap();
    let image = |(i, expected): (usize, &Value)| {
        let regions = sample(boxes(&proposals[i]), &truths[i], sampling, None);
        let found: Vec<Edges> = regions.iter().map(|r| r.bbox).collect();
        same_boxes(&found, &boxes(&expected["rois"]));
        let label = |r: &Region| r.shows.map_or(CLASSES, |o| truths[i][o].class);
        let labels: Vec<usize> = regions.iter().map(label).collect();
        assert_eq!(labels, places(&expected["labels"]));
        for (region, object) in regions.iter().zip(places(&expected["objects"])) {
            assert!(region.shows.is_none_or(|o| o == object));
        }
        regions
    };
    file["rois"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(image)
        .collect()
}

#[test]
fn losses_of_the_second_stage_are_those_of_paddlex() {
    let file = recorded();
    let (targets, objective) = (targets(), TwoStage::new(&head()));
    let truths: Vec<_> = targets
        .iter()
        .map(|t| objective.truths(t).unwrap())
        .collect();
    let regions = sampled(&file, &truths);
    let total = regions.iter().map(Vec::len).sum::<usize>() as i64;
    let scores = made("box_score", &[total, 4], 6.0);
    let deltas = made("box_delta", &[total, 12], 6.0);
    let (cls, reg) = box_losses(&head(), &scores, &deltas, &regions, &truths).unwrap();
    let expected = &file["box"];
    near(
        cls.double_value(&[]),
        expected["loss_bbox_cls"].as_f64().unwrap(),
        1e-5,
    );
    near(
        reg.double_value(&[]),
        expected["loss_bbox_reg"].as_f64().unwrap(),
        1e-4,
    );
    (cls + reg).backward();
    for (tensor, expected) in [&scores, &deltas]
        .into_iter()
        .zip(numbers(&expected["gradients"]))
    {
        near(checksum(tensor), expected, 1e-6);
    }

    let targets = MaskTargets::new(&regions, &truths, SIDE);
    let expected = &file["mask"];
    for (found, expected) in targets
        .regions
        .iter()
        .zip(expected["rois"].as_array().unwrap())
    {
        same_boxes(found, &boxes(expected));
    }
    let count = targets.regions.iter().map(Vec::len).sum::<usize>() as i64;
    let logits = made("mask", &[count, 3, SIDE as i64, SIDE as i64], 6.0);
    let loss = mask_loss(&logits, &targets).unwrap();
    // The truths are equal pixel by pixel, or neither the loss nor its gradient were.
    near(
        loss.double_value(&[]),
        expected["loss_mask"].as_f64().unwrap(),
        1e-5,
    );
    loss.backward();
    near(
        checksum(&logits),
        expected["gradient"].as_f64().unwrap(),
        1e-6,
    );
}

#[test]
fn detections_and_pasted_masks_are_those_of_paddlex() {
    let file = recorded();
    for (i, expected) in file["detections"].as_array().unwrap().iter().enumerate() {
        let regions = boxes(&file["proposals"][1][i]);
        let n = regions.len() as i64;
        let scores = made(&format!("test_score{i}"), &[n, 4], 8.0).softmax(-1, Kind::Float);
        let deltas = made(&format!("test_delta{i}"), &[n, 12], 6.0);
        let flat = |t: &Tensor| Vec::<f32>::try_from(t.detach().reshape([-1])).unwrap();
        let found = choose(
            &head(),
            &[regions],
            &SHOWN[i..=i],
            &flat(&scores),
            &flat(&deltas),
        );
        let found = found.unwrap().remove(0);
        // PaddleX orders them by class.
        let expected_rows = rows(&expected["in_input"]);
        assert_eq!(found.len(), expected_rows.len());
        let frame = Frame {
            full: FULL[i],
            shown: SHOWN[i],
        };
        for (k, row) in expected_rows.iter().enumerate() {
            let same = |f: &&crate::detect::two_stage::Found| {
                f.class as f32 == row[0]
                    && (f.score - row[1]).abs() < 2e-4
                    && (f.bbox[0] - row[2]).abs() < 1e-2
            };
            let one = found.iter().find(same).unwrap();
            let wave = |p: usize| {
                let (y, x, k) = ((p / SIDE) as f64, (p % SIDE) as f64, k as f64);
                (0.5 + 0.5 * (0.3 * x + 0.1 * k).sin() * (0.2 * y + 0.3 * k).cos()) as f32
            };
            let mask: Vec<f32> = (0..SIDE * SIDE).map(wave).collect();
            let detected = in_picture(one, &frame, Some((&mask, SIDE)))
                .unwrap()
                .unwrap();
            let last = &rows(&expected["final"])[k];
            for (a, b) in detected.bbox.iter().zip(&last[2..]) {
                assert!((a - b).abs() < 2e-3, "{:?} {last:?}", detected.bbox);
            }
            let runs: Vec<u32> = places(&expected["runs"][k])
                .iter()
                .map(|&v| v as u32)
                .collect();
            let theirs =
                oarlock_imaging::Rle::new(FULL[i].0 as u32, FULL[i].1 as u32, &runs).unwrap();
            let found = detected.mask.unwrap();
            let both = found.intersection(&theirs);
            // Pixels that are exactly on the border may differ.
            assert!(
                found.area() + theirs.area() - 2 * both <= 2,
                "{k}: {} {} {both}",
                found.area(),
                theirs.area()
            );
        }
    }
}

#[test]
fn masks_are_pooled_as_outlines_are_drawn() {
    // A region on whole pixels, each cell of which is 2×2 of them.
    let (mut shape, corners) = (
        Plane::filled(128, 96, 0),
        [[20.0, 20.0, 60.0, 60.0], [50.0, 30.0, 70.0, 72.0]],
    );
    for y in 0..96 {
        for x in 0..128 {
            let inside = |c: &[f32; 4]| {
                let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
                x > c[0] && x < c[2] && y > c[1] && y < c[3]
            };
            if corners.iter().any(inside) {
                shape.data_mut()[y * 128 + x] = 1;
            }
        }
    }
    let masked = Object {
        mask: Some(shape),
        ..object(1, [20.0, 20.0, 70.0, 72.0], &[])
    };
    let rectangle = |c: &[f32; 4]| vec![c[0], c[1], c[2], c[1], c[2], c[3], c[0], c[3]];
    let outlines: Vec<Vec<f32>> = corners.iter().map(rectangle).collect();
    let outlines: Vec<&[f32]> = outlines.iter().map(Vec::as_slice).collect();
    let outlined = object(1, [20.0, 20.0, 70.0, 72.0], &outlines);
    let boxed = object(1, [20.0, 20.0, 70.0, 72.0], &[]);
    let all = target(vec![masked, outlined, boxed], 1);
    let truths = vec![TwoStage::new(&head()).truths(&all).unwrap()];
    let region = |object| Region {
        bbox: [16.0, 18.0, 72.0, 74.0],
        shows: Some(object),
    };
    let of = |object| MaskTargets::new(&[vec![region(object)]], &truths, SIDE);
    let logits = made("mask", &[1, 3, SIDE as i64, SIDE as i64], 6.0);
    let loss = |object| mask_loss(&logits, &of(object)).unwrap().double_value(&[]);
    near(loss(0), loss(1), 1e-6);
    // An object without an outline teaches its box alone.
    assert!(of(2).regions[0].is_empty());
    near(
        mask_loss(&logits.narrow(0, 0, 0), &of(2))
            .unwrap()
            .double_value(&[]),
        0.0,
        1e-9,
    );
}

#[test]
fn samples_depend_on_the_seed_alone() {
    let all: Vec<u32> = (0..5000).collect();
    let draw = |seed| {
        FEW.draw(
            all[..100].to_vec(),
            all[100..].to_vec(),
            Some(&mut Rng::of(&[seed])),
        )
    };
    let (objects, background) = draw(1);
    assert_eq!((objects.len(), background.len()), (32, 32));
    assert_eq!(draw(1), (objects.clone(), background.clone()));
    assert_ne!(draw(2).1, background);
    let distinct: std::collections::HashSet<_> = background.iter().collect();
    assert!(distinct.len() == 32 && background.iter().all(|&i| i >= 100));
    // Few objects leave more room.
    let (objects, background) = FEW.draw(vec![3], all[100..].to_vec(), Some(&mut Rng::of(&[1])));
    assert_eq!((objects, background.len()), (vec![3], 63));
}

#[test]
fn what_has_no_area_and_crowds_teach_nothing() {
    let mut crowd = object(0, [1.0, 1.0, 50.0, 50.0], &[]);
    crowd.crowd = true;
    let objects = vec![
        crowd,
        object(0, [10.0, 10.0, 10.0, 40.0], &[]),
        object(1, [f32::NAN, 10.0, 20.0, 40.0], &[]),
        object(1, [130.0, 10.0, 150.0, 40.0], &[]),
        // Larger than the image.
        object(2, [-50.0, -50.0, 500.0, 500.0], &[]),
    ];
    let objective = TwoStage::new(&head());
    let kept = target(objects, 1);
    let truths = objective.truths(&kept).unwrap();
    assert_eq!(truths.len(), 1);
    assert_eq!(truths[0].bbox, [0.0, 0.0, 128.0, 96.0]);
    let unknown = target(vec![object(3, [1.0, 1.0, 5.0, 5.0], &[])], 1);
    let error = objective.truths(&unknown).unwrap_err().to_string();
    assert!(error.contains("class id 3"), "{error}");
}

#[test]
fn ten_thousand_objects_and_none_are_bearable() {
    let many = |i: usize| {
        let (x, y) = ((i % 100) as f32 * 8.0, (i / 100) as f32 * 8.0);
        object(i % 3, [x, y, x + 7.0, y + 6.0], &[])
    };
    let crowded = DetectTarget {
        objects: (0..10_000).map(many).collect(),
        full: (800, 800),
        shown: (800, 800),
    };
    let objective = TwoStage::new(&head());
    let truths = objective.truths(&crowded).unwrap();
    let sizes = [(100, 100), (50, 50), (25, 25)];
    let anchors = crate::detect::anchors::Anchors::new(&head().levels, &sizes);
    let labels = assign(&anchors, &truths);
    assert!(labels.objects.len() >= 9_000, "{}", labels.objects.len());
    let random = &mut Rng::of(&[1]);
    let regions = sample(
        vec![[0.0, 0.0, 90.0, 90.0]; 1000],
        &truths,
        objective.regions,
        Some(random),
    );
    assert_eq!(regions.len(), 512);
    assert_eq!(regions.iter().filter(|r| r.shows.is_some()).count(), 128);

    let labels = assign(&anchors, &[]);
    assert_eq!(
        (labels.objects.len(), labels.background.len()),
        (0, anchors.count())
    );
    assert!(sample(Vec::new(), &[], objective.regions, None).is_empty());
    // Not a single region: no loss, and none that is NaN.
    let (scores, deltas) = (made("s", &[0, 4], 1.0), made("d", &[0, 12], 1.0));
    let (cls, reg) = box_losses(&head(), &scores, &deltas, &[vec![]], &[vec![]]).unwrap();
    assert_eq!((cls + reg).double_value(&[]), 0.0);
}

#[test]
fn numbers_that_are_none_are_an_error_in_inference_and_no_region_in_training() {
    let mut maps = maps();
    maps[0].0 = maps[0].0.detach();
    let _ = maps[0].0.narrow(0, 0, 1).fill_(f64::NAN);
    let rpn = Rpn::new(&head().levels, &maps).unwrap();
    let error = rpn.propose(&head().test, &SHOWN, true).unwrap_err();
    assert!(error.to_string().contains("NaN"), "{error}");
    assert_eq!(rpn.propose(&head().train, &SHOWN, false).unwrap().len(), 2);
}
