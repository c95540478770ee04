//! What the sensitivity analysis of a detector measures, pass after pass.

mod common;

#[path = "common/boxes.rs"]
mod boxes;

use std::fs;

use oarlock_engine::prune::detector::DetectorSet;
use oarlock_engine::prune::evaluation::{Batch, Evaluation};
use oarlock_engine::prune::images::{Opening, Reading};
use oarlock_engine::records::{Preprocessing, Resize};
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::detector::data;
use oarlock_graph::Head;
use oarlock_zoo::{Origin, detector_of};
use tch::{Device, Kind, Tensor};

/// Pixels of the network's input.
const SIDE: i64 = 64;

/// The raw outputs of a network that finds one object where the first anchor of the middle level is to: middle (18,
/// 26.67), 28 by 42.67 pixels in the input.
fn outputs(images: i64, logit: f64) -> Vec<Tensor> {
    let map = |side: i64| Tensor::full([images, 18, side, side], -20.0, (Kind::Float, Device::Cpu));
    let maps = [2, 4, 8].map(map);
    let odds = |share: f64| (share / (1.0 - share)).ln();
    let values = [
        odds(18.0 / 16.0 - 1.0),
        odds(80.0 / 48.0 - 1.0),
        (28.0_f64 / 30.0).ln(),
        (128.0_f64 / 3.0 / 61.0).ln(),
        logit,
        logit,
    ];
    for (channel, value) in (0..).zip(values) {
        let at = maps[1].narrow(1, channel, 1).narrow(2, 1, 1);
        let _ = at.narrow(3, 1, 1).fill_(value);
    }
    maps.into()
}

#[test]
fn each_pass_counts_only_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let things: &[boxes::Thing] = &[("nut", [5, 5, 40, 45])];
    let set = boxes::voc(dir.path(), [&[things], &[things; 11]], "nut\n");
    // One of the pictures can no longer be read: what it shows is not missed.
    fs::write(dir.path().join("JPEGImages/4.png"), "no picture").unwrap();
    let data = data::read(&set, false, &mut Vec::new()).unwrap();
    let (graph, _) = detector_of("YOLOv3", None, true, 1, Origin::Torch).unwrap();
    let preprocessing = Preprocessing {
        resize: Resize::Cubic {
            height: SIDE as u32,
            width: SIDE as u32,
        },
        mean: vec![0.5; 3],
        std: vec![0.5; 3],
        range: Vec::new(),
        image_size: None,
    };
    let opening = Opening {
        batch_size: 2,
        preprocessing: &preprocessing,
        placement: Placement::CPU_FP32,
        reading: Reading::Once,
        budget: 1 << 30,
        tick: &|| Ok(()),
    };
    let mut set = DetectorSet::open(data, graph.head.as_ref(), &opening).unwrap();
    assert_eq!((set.set().count(), set.set().skipped().len()), (10, 1));
    assert!(matches!(graph.head, Some(Head::Yolo(_))));
    for (logit, expected) in [(9.0, 100.0), (-20.0, 0.0), (9.0, 100.0), (f64::NAN, 0.0)] {
        let mut found = |batch: &Batch| {
            assert_eq!(
                (batch.input)()?.size(),
                [batch.images as i64, 3, SIDE, SIDE]
            );
            Ok(outputs(batch.images as i64, logit))
        };
        let measured = set.measure(&mut found).unwrap();
        assert!((measured - expected).abs() < 1e-9, "{logit}: {measured}");
    }
}
