//! Tensor operations against the algorithms on the host.

use oarlock_graph::{Proposals, RpnLevel, Suppression, TwoStageHead};
use oarlock_imaging::{Chosen, Decay, Selection, matrix_nms, multiclass_nms, nms};
use tch::{Device, Kind, Tensor};

use super::device;
use super::proposals::Rpn;
use super::two_stage::{choose, choose_there};

const CLASSES: i64 = 5;
const BOXES: i64 = 300;

/// Boxes that overlap a lot, K×4, some of them without an area, and classes×K scores.
fn scene() -> (Tensor, Tensor) {
    tch::manual_seed(7);
    let place = Tensor::rand([BOXES, 2], (Kind::Float, Device::Cpu)) * 60.0;
    let sides = Tensor::rand([BOXES, 2], (Kind::Float, Device::Cpu)) * 50.0 - 1.0;
    let boxes = Tensor::cat(&[&place, &(&place + sides.clamp_min(0.0))], 1);
    let scores = Tensor::rand([CLASSES, BOXES], (Kind::Float, Device::Cpu));
    (boxes, scores)
}

fn host(boxes: &Tensor) -> Vec<[f32; 4]> {
    let flat = Vec::<f32>::try_from(boxes.reshape([-1])).unwrap();
    flat.as_chunks::<4>().0.to_vec()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().reshape([-1])).unwrap()
}

fn assert_same(found: &[super::Detected], wanted: &[Chosen], boxes: &[[f32; 4]]) {
    assert!(
        wanted.len() > 10,
        "{} detections prove little",
        wanted.len()
    );
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(
            (found.class, found.bbox),
            (wanted.class, boxes[wanted.index])
        );
        assert!(
            (found.score - wanted.score).abs() < 1e-5,
            "{found:?} {wanted:?}"
        );
    }
}

#[test]
fn greedy_suppression_keeps_the_same_boxes() {
    let (boxes, scores) = scene();
    let score = scores.select(0, 0);
    let (sorted, order) = score.sort(0, true);
    let surest = boxes.index_select(0, &order).unsqueeze(0);
    for overlap in [0.1, 0.5, 0.9] {
        let alive = sorted.gt(0.2).unsqueeze(0);
        let keep = device::suppressed(&surest, &alive, overlap).unwrap();
        let kept = order.index_select(0, &keep.squeeze().nonzero().squeeze_dim(1));
        let kept: Vec<usize> = Vec::<i64>::try_from(kept)
            .unwrap()
            .into_iter()
            .map(|i| i as usize)
            .collect();
        let scores = values(&score);
        let mut wanted = nms(&host(&boxes), &scores, overlap as f32);
        wanted.retain(|&i| scores[i] > 0.2);
        assert_eq!(kept, wanted, "overlap {overlap}");
    }
}

#[test]
fn detections_of_all_classes_are_the_same() {
    let (boxes, scores) = scene();
    let (rows, flat) = (host(&boxes), values(&scores));
    let selection = |inclusive| Selection {
        score_threshold: 0.3,
        candidates: 150,
        detections: 80,
        background: None,
        inclusive,
    };
    let wanted = multiclass_nms(&rows, &flat, 0.45, &selection(false));
    let (score, candidates, detections) = (0.3, Some(150), 80);
    let greedy = Suppression::Nms {
        score,
        overlap: 0.45,
        candidates,
        detections,
    };
    let found = device::choose(&boxes.unsqueeze(0), &scores, &greedy).unwrap();
    assert_same(&found, &wanted, &rows);
    for (sigma, decay) in [
        (None, Decay::Linear),
        (Some(2.0), Decay::Gaussian { sigma: 2.0 }),
    ] {
        let post = 0.2;
        let wanted = matrix_nms(&rows, &flat, decay, post, &selection(true));
        let matrix = Suppression::Matrix {
            score,
            post,
            sigma,
            candidates,
            detections,
        };
        let found = device::choose(&boxes.unsqueeze(0), &scores, &matrix).unwrap();
        assert_same(&found, &wanted, &rows);
    }
}

#[test]
fn matrix_suppression_knows_equal_boxes() {
    let boxes = Tensor::from_slice(&[1.0_f32, 2.0, 9.0, 8.0])
        .repeat([3, 1])
        .unsqueeze(0);
    let scores = Tensor::from_slice(&[0.9_f32, 0.8, 0.7]).unsqueeze(0);
    let matrix = Suppression::Matrix {
        score: 0.1,
        post: 0.1,
        sigma: None,
        candidates: None,
        detections: 10,
    };
    let found = device::choose(&boxes, &scores, &matrix).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].score, 0.9);
}

#[test]
fn nothing_sure_is_nothing_found() {
    let (boxes, scores) = scene();
    let how = Suppression::Nms {
        score: 2.0,
        overlap: 0.5,
        candidates: None,
        detections: 9,
    };
    assert!(
        device::choose(&boxes.unsqueeze(0), &scores, &how)
            .unwrap()
            .is_empty()
    );
    let none = (boxes.narrow(0, 0, 0).unsqueeze(0), scores.narrow(1, 0, 0));
    assert!(device::choose(&none.0, &none.1, &how).unwrap().is_empty());
}

fn rpn() -> Rpn {
    tch::manual_seed(3);
    let levels = [(4, 16), (8, 32)].map(|(stride, size)| RpnLevel {
        stride,
        sizes: vec![size as f32],
        ratios: vec![0.5, 1.0, 2.0],
    });
    let maps = [(20, 24), (10, 12)].map(|(h, w)| {
        let score = Tensor::randn([2, 3, h, w], (Kind::Float, Device::Cpu));
        let delta = Tensor::randn([2, 12, h, w], (Kind::Float, Device::Cpu)) * 0.3;
        (score, delta)
    });
    Rpn::new(&levels, &maps).unwrap()
}

const HOW: Proposals = Proposals {
    before: 400,
    after: 120,
    overlap: 0.7,
    min_size: 0.0,
};
const SHOWN: [(usize, usize); 2] = [(96, 80), (70, 50)];

#[test]
fn proposals_are_the_same() {
    let rpn = rpn();
    let wanted = rpn.propose(&HOW, &SHOWN, true).unwrap();
    let found = rpn.propose_there(&HOW, &SHOWN, true).unwrap();
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!((found.len(), wanted.len()), (120, 120));
        for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((found - wanted).abs() < 1e-3, "{found} {wanted}");
        }
    }
}

#[test]
fn proposals_that_are_no_numbers_are_told_or_left_out() {
    let rpn = rpn();
    let _ = rpn.deltas.narrow(1, 0, 3).fill_(f64::NAN);
    let _ = rpn.scores.narrow(1, 0, 3).fill_(9.0);
    assert!(rpn.propose_there(&HOW, &SHOWN, true).is_err());
    let (found, wanted) = (
        rpn.propose_there(&HOW, &SHOWN, false).unwrap(),
        rpn.propose(&HOW, &SHOWN, false).unwrap(),
    );
    assert_eq!(found[0].len(), wanted[0].len());
    assert!(found.iter().flatten().flatten().all(|v| v.is_finite()));
}

#[test]
fn detections_in_regions_are_the_same() {
    let proposals = rpn().propose(&HOW, &SHOWN, true).unwrap();
    let count = proposals.iter().map(Vec::len).sum::<usize>() as i64;
    let head = TwoStageHead {
        classes: CLASSES as usize,
        levels: Vec::new(),
        train: HOW,
        test: HOW,
        delta_weights: [10.0, 10.0, 5.0, 5.0],
        suppression: Suppression::Nms {
            score: 0.1,
            overlap: 0.5,
            candidates: None,
            detections: 50,
        },
        mask_size: None,
    };
    let scores = Tensor::randn([count, CLASSES + 1], (Kind::Float, Device::Cpu)) * 2.0;
    let scores = scores.softmax(-1, Kind::Float);
    let deltas = Tensor::randn([count, CLASSES * 4], (Kind::Float, Device::Cpu));
    let wanted = choose(
        &head,
        &proposals,
        &SHOWN,
        &values(&scores),
        &values(&deltas),
    )
    .unwrap();
    let found = choose_there(&head, &proposals, &SHOWN, &scores, &deltas).unwrap();
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!((found.len(), wanted.len()), (50, 50));
        for (found, wanted) in found.iter().zip(wanted) {
            assert_eq!((found.class, found.score), (wanted.class, wanted.score));
            for (a, b) in found.bbox.iter().zip(wanted.bbox) {
                assert!((a - b).abs() < 1e-3, "{found:?} {wanted:?}");
            }
        }
    }
    let broken = deltas.shallow_clone();
    let _ = broken.narrow(0, 5, 1).fill_(f64::NAN);
    assert!(choose_there(&head, &proposals, &SHOWN, &scores, &broken).is_err());
}
