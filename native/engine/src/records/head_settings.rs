//! What PaddleX's constructors say of a detector's head, from `_init_params` of a `model.yml`.

use indexmap::IndexMap;
use oarlock_jobs::ErrorCode;
use oarlock_zoo::HeadSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{EngineError, Result};

/// Reads the anchors, thresholds and numbers of boxes that are given; `null` is not given.
///
/// # Errors
/// `InvalidData` naming an entry that is something else.
pub fn head_settings(init: &IndexMap<String, Value>) -> Result<HeadSettings> {
    Ok(HeadSettings {
        anchors: anchors(init)?,
        anchor_sizes: anchor_sizes(init)?,
        aspect_ratios: entry(init, "aspect_ratios")?,
        score: either(init, ["nms_score_threshold", "score_threshold"])?,
        overlap: either(init, ["nms_iou_threshold", "nms_threshold"])?,
        // −1 is all.
        candidates: entry::<i64>(init, "nms_topk")?.map(|n| usize::try_from(n).ok()),
        detections: either(init, ["nms_keep_topk", "keep_top_k"])?,
        matrix: entry(init, "use_matrix_nms")?,
        proposals: [
            entry(init, "test_pre_nms_top_n")?,
            entry(init, "test_post_nms_top_n")?,
        ],
    })
}

fn entry<T: DeserializeOwned>(init: &IndexMap<String, Value>, name: &str) -> Result<Option<T>> {
    match init.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|e| invalid(name, &e.to_string())),
    }
}

/// One-stage and two-stage detectors name the same things differently.
fn either<T: DeserializeOwned>(
    init: &IndexMap<String, Value>,
    [one, two]: [&str; 2],
) -> Result<Option<T>> {
    Ok(match entry(init, one)? {
        Some(value) => Some(value),
        None => entry(init, two)?,
    })
}

/// The anchors of each level: `anchor_masks` are their places in `anchors`.
fn anchors(init: &IndexMap<String, Value>) -> Result<Option<Vec<Vec<[f32; 2]>>>> {
    let all: Option<Vec<[f32; 2]>> = entry(init, "anchors")?;
    let masks: Option<Vec<Vec<usize>>> = entry(init, "anchor_masks")?;
    let (Some(all), Some(masks)) = (all, masks) else {
        return Ok(None);
    };
    let place = |i: &usize| {
        let beyond = || invalid("anchor_masks", &format!("there is no anchor {i}"));
        all.get(*i).copied().ok_or_else(beyond)
    };
    let level = |mask: &Vec<usize>| mask.iter().map(place).collect::<Result<Vec<_>>>();
    masks.iter().map(level).collect::<Result<_>>().map(Some)
}

/// A list for each level; a plain list is that of every level of a pyramid.
fn anchor_sizes(init: &IndexMap<String, Value>) -> Result<Option<Vec<Vec<f32>>>> {
    if let Ok(Some(plain)) = entry::<Vec<f32>>(init, "anchor_sizes") {
        return Ok(Some(vec![plain; PYRAMID]));
    }
    let levels: Option<Vec<Vec<f32>>> = entry(init, "anchor_sizes")?;
    Ok(levels.map(|levels| match levels.len() {
        1 => vec![levels[0].clone(); PYRAMID],
        _ => levels,
    }))
}

/// Levels of a feature pyramid; more than the network has are not used.
const PYRAMID: usize = 5;

fn invalid(name: &str, what: &str) -> EngineError {
    EngineError::new(
        ErrorCode::InvalidData,
        format!("`_init_params: {name}` cannot be used: {what}"),
    )
    .with("field", name)
}

#[cfg(test)]
mod tests {
    use oarlock_graph::{Head, Suppression, parameter_count};
    use oarlock_zoo::{Origin, detector_of};
    use serde_json::json;

    use super::*;

    fn settings(init: Value) -> Result<HeadSettings> {
        let init = init.as_object().unwrap().clone();
        head_settings(&init.into_iter().collect())
    }

    #[test]
    fn anchors_and_thresholds_of_a_yolo_are_those_of_the_file() {
        let (graph, _) =
            detector_of("YOLOv3", Some("MobileNetV1"), true, 3, Origin::Paddle).unwrap();
        let init = json!({
            "anchors": [[8, 9], [20, 21], [33.5, 30], [60, 61], [90, 95], [200, 180]],
            "anchor_masks": [[4, 5], [2, 3], [0, 1]],
            "nms_score_threshold": 0.2, "nms_iou_threshold": 0.6, "nms_topk": -1, "nms_keep_topk": 7,
            "ignore_threshold": 0.7, "label_smooth": false, "use_matrix_nms": null,
        });
        let own = settings(init).unwrap().apply(&graph).unwrap();
        let Some(Head::Yolo(head)) = &own.head else {
            panic!("no YOLO");
        };
        assert_eq!(head.levels[0].anchors, [[90.0, 95.0], [200.0, 180.0]]);
        assert_eq!(head.levels[2].anchors, [[8.0, 9.0], [20.0, 21.0]]);
        let expected = Suppression::Nms {
            score: 0.2,
            overlap: 0.6,
            candidates: None,
            detections: 7,
        };
        assert_eq!(head.suppression, expected);
        // One anchor of three less, at 1024, 512 and 256 channels.
        let fewer = parameter_count(&graph) - parameter_count(&own);
        assert_eq!(fewer, 8 * (1024 + 512 + 256 + 3));
    }

    #[test]
    fn anchors_without_a_pyramid_are_those_of_the_first_list() {
        let (graph, _) = detector_of("FasterRCNN", None, false, 3, Origin::Paddle).unwrap();
        let init = json!({
            "anchor_sizes": [[32], [64], [128], [256], [512]], "aspect_ratios": [0.5, 1.0, 2.0],
            "score_threshold": 0.1, "nms_threshold": 0.4, "keep_top_k": 50, "test_pre_nms_top_n": null,
            "test_post_nms_top_n": 300,
        });
        let own = settings(init).unwrap().apply(&graph).unwrap();
        let Some(Head::TwoStage(head)) = &own.head else {
            panic!("no R-CNN");
        };
        assert_eq!(
            (head.levels.len(), &head.levels[0].sizes[..]),
            (1, &[32.0][..])
        );
        assert_eq!((head.test.before, head.test.after), (6000, 300));
        let score = own.outputs.iter().find(|o| o.name == "rpn_score0").unwrap();
        let own_op = &own.nodes[score.node].op;
        assert!(matches!(
            own_op,
            oarlock_graph::Op::Conv2d {
                out_channels: 3,
                ..
            }
        ));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = settings(json!({"anchors": [[1, 2]], "anchor_masks": [[0, 3]]})).unwrap_err();
        assert!(error.0.message.contains("anchor_masks"), "{error}");
        let error = settings(json!({"nms_score_threshold": "high"})).unwrap_err();
        assert!(error.0.message.contains("nms_score_threshold"), "{error}");
        let (graph, _) =
            detector_of("YOLOv3", Some("MobileNetV1"), true, 3, Origin::Paddle).unwrap();
        let two = settings(json!({"anchors": [[1, 2], [3, 4]], "anchor_masks": [[1], [0]]}));
        let error = two.unwrap().apply(&graph).unwrap_err().to_string();
        assert!(
            error.contains("3 levels, there are anchors for 2"),
            "{error}"
        );
        let flat = settings(json!({"anchors": [[0, 2], [3, 4]], "anchor_masks": [[1], [0], [0]]}));
        assert!(flat.unwrap().apply(&graph).is_err());
    }
}
