//! Detection sets as a training sees them: which pictures, which classes, what is compared.

mod common;

#[path = "common/boxes.rs"]
mod boxes;

use std::fs;

use boxes::{Thing, params, voc};
use oarlock_engine::runtime::Placement;
use oarlock_engine::train::checkpoint;
use oarlock_engine::train::detector::Detector;
use oarlock_engine::train::detector::data::{self, Measure};
use oarlock_engine::train::family::{EpochPart, Family, Supply};
use oarlock_engine::{CancelToken, run_job};
use oarlock_jobs::{
    DatasetFormat, DatasetRef, DetectionParams, ErrorCode, ExportSpec, JobEvent, JobOutcome,
    JobSpec, ModelSource, TaskType, TrainParams,
};
use oarlock_zoo::{HeadSettings, Origin, detector_of};
use serde_json::json;

const NUT: &[Thing] = &[("nut", [5, 5, 30, 25])];
const NOTHING: &[Thing] = &[];

#[test]
fn pictures_without_objects_are_not_trained_with_but_scored() {
    let dir = tempfile::tempdir().unwrap();
    let set = voc(
        dir.path(),
        [&[NUT, NOTHING, NUT], &[NUT, NOTHING]],
        "bolt\nnut\n",
    );
    let mut notes = Vec::new();
    let data = data::read(&set, false, &mut notes).unwrap();
    assert_eq!((data.split.train.len(), data.split.val.len()), (2, 2));
    assert_eq!(data.measure, Measure::Voc);
    assert_eq!(
        notes,
        [
            "1 training images have no objects and are left out",
            "no training image shows bolt",
            "no validation image shows bolt",
        ]
    );
    assert_eq!(data.truth.images.len(), 2);
    assert_eq!(data.truth.annotations[0].bbox, Some([5.0, 5.0, 25.0, 20.0]));

    let empty = tempfile::tempdir().unwrap();
    let set = voc(empty.path(), [&[NOTHING], &[NUT]], "nut\n");
    let error = data::read(&set, false, &mut Vec::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidData);
    assert!(
        error.0.message.contains("none of the 1 training images"),
        "{error}"
    );
}

#[test]
fn coco_files_decide_where_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let set = voc(dir.path(), [&[NUT, NUT], &[NUT]], "nut\n");
    let part = |categories: serde_json::Value, image: u32, category: u32| {
        json!({ "images": [{ "id": 1, "file_name": format!("{image}.png"), "width": 80, "height": 60 }],
            "categories": categories,
            "annotations": [
                { "id": 1, "image_id": 1, "category_id": category, "bbox": [5, 5, 26, 21], "area": 546, "iscrowd": 0,
                  "segmentation": [[5, 5, 31, 5, 31, 26, 5, 26]] },
                { "id": 2, "image_id": 1, "category_id": category, "bbox": [40, 5, 10, 10], "area": 100, "iscrowd": 0 },
                { "id": 3, "image_id": 1, "category_id": category, "bbox": [0, 0, 80, 60], "area": 9, "iscrowd": 1,
                  "segmentation": { "size": [60, 80], "counts": [4791, 9] } }] })
        .to_string()
    };
    let train = json!([{ "id": 7, "name": "bolt" }, { "id": 3, "name": "nut" }]);
    // The same classes in another order, with other ids.
    let val = json!([{ "id": 1, "name": "nut" }, { "id": 2, "name": "bolt" }]);
    fs::write(dir.path().join("train.json"), part(train, 0, 3)).unwrap();
    fs::write(dir.path().join("val.json"), part(val, 2, 1)).unwrap();
    let mut notes = Vec::new();
    let data = data::read(&set, false, &mut notes).unwrap();
    assert_eq!(data.measure, Measure::Coco);
    assert_eq!(data.split.labels, ["bolt", "nut"]);
    assert!(notes[0].contains("train.json and val.json"), "{notes:?}");
    let classes = |samples: &[oarlock_datasets::DetectSample]| {
        samples
            .iter()
            .flat_map(|s| &s.objects)
            .map(|o| o.class)
            .collect::<Vec<_>>()
    };
    assert_eq!(classes(&data.split.train), [1, 1]);
    assert_eq!(classes(&data.split.val), [1, 1]);
    let names: Vec<&str> = data
        .truth
        .categories
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["bolt", "nut"]);
    assert_eq!(
        data.truth.annotations.len(),
        3,
        "the crowd is compared with"
    );

    // With masks the thing without one plays no part.
    let coco = DatasetRef {
        format: DatasetFormat::Coco,
        ..set
    };
    let data = data::read(&coco, true, &mut Vec::new()).unwrap();
    assert_eq!(classes(&data.split.train), [1]);
    assert_eq!(data.truth.annotations.len(), 2);
}

#[test]
fn parameters_that_cannot_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let set = voc(dir.path(), [&[NUT, NUT], &[NUT]], "nut\n");
    let refused = |masks: bool, change: &dyn Fn(&mut DetectionParams)| {
        let mut p = params("YOLOv3");
        change(&mut p);
        let error = Detector::new(&p, masks, &set, &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        error
            .0
            .context
            .get("field")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        refused(false, &|p| p.common.model = "YOLOv9".into()),
        "model"
    );
    assert_eq!(
        refused(false, &|p| p.common.model = "MaskRCNN".into()),
        "model"
    );
    assert_eq!(refused(true, &|_| {}), "model");
    assert_eq!(
        refused(false, &|p| p.common.image_shape = [70, 64]),
        "image_shape"
    );
    assert_eq!(
        refused(false, &|p| p.random_shape_sizes = vec![64, 70]),
        "random_shape_sizes"
    );
    assert_eq!(
        refused(false, &|p| p.random_shape_sizes.clear()),
        "random_shape_sizes"
    );
    assert_eq!(refused(false, &|p| p.mixup_alpha = 0.0), "mixup_alpha");
    assert_eq!(refused(false, &|p| p.expand_prob = 1.5), "expand_prob");
    assert_eq!(refused(false, &|p| p.ema_decay = 1.0), "ema_decay");
    assert_eq!(
        refused(false, &|p| p.image_std = [0.0, 1.0, 1.0]),
        "image_std"
    );
    let two_stage = |p: &mut DetectionParams| {
        p.common.model = "FasterRCNN".into();
        p.common.image_shape = [32, 300];
    };
    assert_eq!(refused(false, &two_stage), "image_shape");
}

fn supply(batch_size: u32) -> Supply {
    Supply {
        batch_size,
        seed: 5,
        cache: None,
        max_corrupt_fraction: 0.1,
        placement: Placement::CPU_FP32,
    }
}

#[test]
fn batches_have_sizes_of_their_own_and_their_objects() {
    let dir = tempfile::tempdir().unwrap();
    let huge: &[Thing] = &[("nut", [-20, -20, 500, 500]), ("nut", [10, 10, 20, 20])];
    let pictures: Vec<&[Thing]> = vec![huge; 12];
    let set = voc(dir.path(), [&pictures, &[NUT]], "nut\n");
    let mut p = params("yolov3");
    p.common.num_epochs = 27;
    let detector = Detector::new(&p, false, &set, &mut Vec::new()).unwrap();
    assert_eq!(detector.backbone().as_deref(), Some("MobileNetV1"));
    let mut sides = std::collections::BTreeSet::new();
    // Mixed pictures show the objects of two, the last two epochs do not.
    let mut most = [0, 0];
    for (epoch, most) in [1, 27].into_iter().zip(&mut most) {
        let part = EpochPart {
            epoch,
            start_batch: 0,
        };
        let mut feed = detector.feed(part, &supply(2)).unwrap();
        let mut batches = 0;
        while let Some(fed) = feed.next().unwrap() {
            batches += 1;
            let size = fed.input.size();
            assert_eq!((size[0], size[1], size[2]), (2, 3, size[3]));
            sides.insert(size[2]);
            assert_eq!(fed.objects.len(), 2);
            for target in &fed.objects {
                let side = size[2] as f32;
                let inside = |b: &oarlock_imaging::BBox| {
                    b.x1 >= 0.0 && b.y1 >= 0.0 && b.x2 <= side && b.y2 <= side && b.area() > 0.0
                };
                assert!(target.objects.iter().all(|o| inside(&o.bbox)), "{target:?}");
                assert_eq!(target.full, (80, 60));
            }
            let counts = fed.objects.iter().map(|t| t.objects.len());
            *most = counts.max().unwrap_or(0).max(*most);
        }
        assert_eq!(batches, 6);
    }
    assert!(
        sides.len() > 1 && sides.iter().all(|s| [32, 64, 96].contains(s)),
        "{sides:?}"
    );
    assert!(most[0] > 2 && most[1] <= 2, "{most:?}");
}

#[test]
fn two_stage_batches_keep_shapes_and_are_padded() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<Thing> = (0..10_000)
        .map(|i| ("nut", [i % 70, i % 50, i % 70 + 9, i % 50 + 9]))
        .collect();
    let set = voc(dir.path(), [&[&many, &many], &[NUT]], "nut\n");
    let mut p = params("FasterRCNN");
    p.common.image_shape = [100, 120];
    let detector = Detector::new(&p, false, &set, &mut Vec::new()).unwrap();
    let part = EpochPart {
        epoch: 1,
        start_batch: 0,
    };
    let mut feed = detector.feed(part, &supply(2)).unwrap();
    let fed = feed.next().unwrap().unwrap();
    // 80×60 to a long side of 120.
    assert_eq!(fed.input.size(), [2, 3, 96, 128]);
    for target in &fed.objects {
        assert_eq!((target.shown, target.objects.len()), ((120, 90), 10_000));
    }
}

/// A classifier's file of ImageNet becomes the backbone of a detector, whose norms and first stage then stay as they are.
#[test]
fn a_classifier_becomes_the_backbone() {
    let dir = tempfile::tempdir().unwrap();
    let set = voc(dir.path(), [&[NUT, NUT, NUT], &[NUT]], "nut\n");
    let classifier = oarlock_zoo::classifier("ResNet18", 1000).unwrap();
    let mut weights = oarlock_graph::init_weights(&classifier, 9);
    for (name, tensor) in &mut weights {
        if name.ends_with("running_mean") {
            tensor.data.iter_mut().for_each(|v| *v += 0.05);
        }
    }
    let file = dir.path().join("ResNet18.safetensors");
    oarlock_weights::save_safetensors(&file, &weights, &[]).unwrap();
    let mut spec = common::spec(dir.path(), "task", "FasterRCNN");
    let mut params = params("FasterRCNN");
    params.backbone = Some("ResNet18".to_owned());
    params.common.learning_rate = 0.001;
    params.common.num_epochs = 3;
    params.common.save_interval_epochs = 3;
    spec.params = TrainParams::Detection(params);
    spec.dataset = set;
    spec.weights = Some(file.display().to_string());
    let job = JobSpec::Train(Box::new(spec.clone()));
    let outcome = run_job("train", job, &|_: JobEvent| {}, &CancelToken::new());
    assert!(matches!(outcome, JobOutcome::Train(_)), "{outcome:?}");
    let log = fs::read_to_string(dir.path().join("task/out.log")).unwrap();
    for part in [
        "100 of 130 parameters and buffers were taken from the weights",
        "not in the weights: backbone.fpn.inner_blocks.0.0.weight",
        "in the weights only: fc.weight, fc.bias",
        "the first layers and stage of the backbone, are frozen",
    ] {
        assert!(log.contains(part), "{part} in\n{log}");
    }
    let best = dir.path().join("task/output/best_model");
    let (graph, trained) = checkpoint::load_model(&best).unwrap();
    let mut learned = 0;
    for (name, param) in graph.params() {
        let Some(own) = name.strip_prefix("backbone.body.") else {
            continue;
        };
        let norm = param.kind != oarlock_graph::ParamKind::Weight;
        let first = ["conv1.", "bn1.", "layer1."];
        let frozen = norm || first.iter().any(|p| own.starts_with(p));
        let same = trained[&name] == weights[own];
        assert!(same || !frozen, "{name}");
        learned += usize::from(!same);
    }
    assert!(learned > 5, "{learned} of the later layers have changed");
}

const PADDLEX: &str = "Model: YOLOv3
Transforms:
- Resize: {target_size: 64, interp: CUBIC}
- Normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
_Attributes: {model_type: detector, num_classes: 2, labels: [bolt, nut], eval_metrics: {bbox_map: 50.0}}
_init_params:
  num_classes: 2
  backbone: MobileNetV1
  anchors: [[8, 9], [20, 21], [33, 30], [60, 61], [90, 95], [200, 180]]
  anchor_masks: [[4, 5], [2, 3], [0, 1]]
  nms_score_threshold: 0.2
  nms_keep_topk: 7
completed_epochs: 3
status: Normal
version: 2.1.0
";

/// Without its anchors the weights would not fit the network.
#[test]
fn a_checkpoint_of_paddlex_keeps_its_anchors() {
    let dir = tempfile::tempdir().unwrap();
    let settings = HeadSettings {
        anchors: Some(vec![vec![[1.0, 1.0]; 2]; 3]),
        ..HeadSettings::default()
    };
    let (graph, names) =
        detector_of("YOLOv3", Some("MobileNetV1"), true, 2, Origin::Paddle).unwrap();
    let graph = settings.apply(&graph).unwrap();
    let mut weights = oarlock_graph::init_weights(&graph, 4);
    let stored: oarlock_graph::WeightMap = names
        .iter()
        .map(|w| (w.paddle_name.clone(), weights.swap_remove(&w.name).unwrap()))
        .collect();
    let checkpoint = dir.path().join("best_model");
    fs::create_dir(&checkpoint).unwrap();
    fs::write(checkpoint.join("model.yml"), PADDLEX).unwrap();
    fs::write(checkpoint.join(".success"), "").unwrap();
    oarlock_weights::save_safetensors(&checkpoint.join("model.pdparams"), &stored, &[]).unwrap();
    let spec = ExportSpec {
        task_type: TaskType::Detection,
        source: ModelSource {
            checkpoint: checkpoint.display().to_string(),
            epoch: None,
        },
        save_dir: dir.path().join("out").display().to_string(),
        quant: None,
        log_dir: None,
        dataset: None,
        threads: 2,
    };
    let job = JobSpec::Export(spec);
    let outcome = run_job("export", job, &|_: JobEvent| {}, &CancelToken::new());
    let JobOutcome::Export(exported) = outcome else {
        panic!("{outcome:?}");
    };
    let (folded, _) =
        oarlock_graph::fold_batch_norm(&graph, &oarlock_graph::init_weights(&graph, 4)).unwrap();
    let expected = oarlock_graph::cost(&folded, [64, 64]).unwrap().total.params;
    assert_eq!(exported.parameters, expected);
}
