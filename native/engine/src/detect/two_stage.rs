//! From proposals to detections: Faster R-CNN (Ren et al. 2015) and Mask R-CNN (He et al. 2017).

use oarlock_graph::{Suppression, TwoStageHead};
use oarlock_imaging::{Selection, box_mask, multiclass_nms};
use oarlock_jobs::ErrorCode;
use tch::{Device, Kind, Tensor};

use super::boxes::{Edges, clipped, decode, sides};
use super::proposals::{Rpn, non_finite, regions};
use super::{Detected, Frame, device as there};
use crate::exec::{Network, Pass};
use crate::{EngineError, Result};

/// A chosen box in pixels of the input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub class: usize,
    pub score: f32,
    pub bbox: Edges,
}

/// Reads the maps of the region proposal network.
///
/// # Errors
/// Outputs that do not fit the head; out of memory.
pub(crate) fn rpn(pass: &Pass, head: &TwoStageHead) -> Result<Rpn> {
    let maps = (0..head.levels.len()).map(|level| {
        let score = pass.output(&format!("rpn_score{level}"))?;
        let delta = pass.output(&format!("rpn_delta{level}"))?;
        Ok((score, delta))
    });
    Rpn::new(&head.levels, &maps.collect::<Result<Vec<_>>>()?)
}

/// See [`super::detect`].
pub(super) fn detect(
    network: &Network,
    head: &TwoStageHead,
    input: &Tensor,
    frames: &[Frame],
) -> Result<Vec<Vec<Detected>>> {
    let _guard = tch::no_grad_guard();
    if input.size().first() != Some(&(frames.len() as i64)) {
        return Err(EngineError::internal("each image needs its frame"));
    }
    let device = network.placement().device;
    let mut pass = network.begin(input, false)?;
    let shown: Vec<(usize, usize)> = frames.iter().map(|f| f.shown).collect();
    let proposals = rpn(&pass, head)?.propose(&head.test, &shown, true)?;
    if proposals.iter().all(Vec::is_empty) {
        return Ok(vec![Vec::new(); frames.len()]);
    }
    pass.give(
        "rois",
        &regions(proposals.iter().map(Vec::as_slice), device)?,
    )?;
    let scores = pass.output("box_score")?.f_softmax(-1, Kind::Float)?;
    let deltas = pass.output("box_delta")?;
    let found = if there::chooses(device) {
        choose_there(head, &proposals, &shown, &scores, &deltas)?
    } else {
        choose(head, &proposals, &shown, &host(&scores)?, &host(&deltas)?)?
    };
    let masks = match head.mask_size {
        Some(side) => Some((side, masks(&mut pass, side, &found, device)?)),
        None => None,
    };
    let mut next = 0;
    let mut results = Vec::with_capacity(frames.len());
    for (found, frame) in found.iter().zip(frames) {
        let mut result = Vec::with_capacity(found.len());
        for one in found {
            let mask = masks
                .as_ref()
                .map(|(side, all)| (&all[next * side * side..(next + 1) * side * side], *side));
            next += 1;
            result.extend(in_picture(one, frame, mask)?);
        }
        results.push(result);
    }
    Ok(results)
}

/// Regions of each image and stage that [`to_the_end`] pools at most.
const CALIBRATION_REGIONS: usize = 100;

/// A pass of all stages for its values, whatever is found: the regions of boxes are the surest proposals, those of
/// masks the boxes found there, else the proposals again.
///
/// # Errors
/// As [`super::detect`].
pub(crate) fn to_the_end<'n>(
    network: &'n Network,
    head: &TwoStageHead,
    input: &Tensor,
    frames: &[Frame],
) -> Result<Pass<'n>> {
    let _guard = tch::no_grad_guard();
    let device = network.placement().device;
    let mut pass = network.begin(input, false)?;
    let shown: Vec<(usize, usize)> = frames.iter().map(|f| f.shown).collect();
    let mut proposals = rpn(&pass, head)?.propose(&head.test, &shown, true)?;
    proposals
        .iter_mut()
        .for_each(|image| image.truncate(CALIBRATION_REGIONS));
    let all = regions(proposals.iter().map(Vec::as_slice), device)?;
    pass.give("rois", &all)?;
    if head.mask_size.is_none() {
        return Ok(pass);
    }
    let scores = host(&pass.output("box_score")?.f_softmax(-1, Kind::Float)?)?;
    let deltas = host(&pass.output("box_delta")?)?;
    let found = choose(head, &proposals, &shown, &scores, &deltas)?;
    let boxes: Vec<Vec<Edges>> = found
        .iter()
        .map(|image| image.iter().map(|f| f.bbox).collect())
        .collect();
    match boxes.iter().all(Vec::is_empty) {
        true => pass.give("mask_rois", &all)?,
        false => pass.give(
            "mask_rois",
            &regions(boxes.iter().map(Vec::as_slice), device)?,
        )?,
    }
    Ok(pass)
}

/// fp32 values in host memory.
fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor
        .f_to_kind(Kind::Float)?
        .f_to_device(Device::Cpu)?
        .f_reshape([-1])?;
    Ok(Vec::try_from(flat)?)
}

/// The detections of each image, from chances of K regions × (classes + 1) and boxes K×4·classes as changes of the
/// regions; in pixels of the input, surest first.
///
/// # Errors
/// `NonFinite` for values that are no numbers; `Unsupported` for matrix suppression.
pub(crate) fn choose(
    head: &TwoStageHead,
    proposals: &[Vec<Edges>],
    shown: &[(usize, usize)],
    scores: &[f32],
    deltas: &[f32],
) -> Result<Vec<Vec<Found>>> {
    let &Suppression::Nms {
        score,
        overlap,
        candidates,
        detections,
    } = &head.suppression
    else {
        let what = "matrix suppression is not made for boxes of two-stage detectors";
        return Err(EngineError::new(ErrorCode::Unsupported, what));
    };
    let classes = head.classes;
    if scores.iter().chain(deltas).any(|v| v.is_nan()) {
        return Err(non_finite());
    }
    let selection = Selection {
        score_threshold: score,
        candidates: candidates.unwrap_or(usize::MAX),
        detections: usize::MAX,
        background: None,
        inclusive: false,
    };
    let mut first = 0;
    let mut result = Vec::with_capacity(proposals.len());
    for (regions, &shown) in proposals.iter().zip(shown) {
        let mut found = Vec::new();
        for class in 0..classes {
            let (mut boxes, mut chances) = (Vec::new(), Vec::new());
            for (row, region) in (first..).zip(regions) {
                let chance = scores[row * (classes + 1) + class];
                if chance > score {
                    let delta = &deltas[(row * classes + class) * 4..][..4];
                    boxes.push(clipped(&decode(region, delta, &head.delta_weights), shown));
                    chances.push(chance);
                }
            }
            let chosen = multiclass_nms(&boxes, &chances, overlap, &selection);
            found.extend(chosen.into_iter().map(|c| Found {
                class,
                score: c.score,
                bbox: boxes[c.index],
            }));
        }
        first += regions.len();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(detections);
        result.push(found);
    }
    Ok(result)
}

/// [`choose`] where the values are: only what is chosen leaves the device.
pub(super) fn choose_there(
    head: &TwoStageHead,
    proposals: &[Vec<Edges>],
    shown: &[(usize, usize)],
    scores: &Tensor,
    deltas: &Tensor,
) -> Result<Vec<Vec<Found>>> {
    let deltas = deltas.f_to_kind(Kind::Float)?;
    for values in [scores, &deltas] {
        if values.f_isnan()?.f_any()?.f_int64_value(&[])? != 0 {
            return Err(non_finite());
        }
    }
    let classes = head.classes as i64;
    let rois = regions(proposals.iter().map(Vec::as_slice), scores.device())?;
    let (mut first, mut result) = (0, Vec::with_capacity(proposals.len()));
    for (regions, shown) in proposals.iter().zip(shown) {
        let count = regions.len() as i64;
        let rows = |t: &Tensor| t.f_narrow(0, first, count);
        let base = rows(&rois)?.f_narrow(1, 1, 4)?.f_unsqueeze(0)?;
        let deltas = rows(&deltas)?.f_reshape([count, classes, 4])?;
        let deltas = deltas.f_transpose(0, 1)?;
        let within = there::sizes(&[*shown], scores.device())?;
        let boxes = there::decode(&base, &deltas, &head.delta_weights, &within)?;
        let chances = rows(scores)?.f_narrow(1, 0, classes)?.f_tr()?;
        let chosen = there::choose(&boxes, &chances, &head.suppression)?;
        let found = chosen.into_iter().map(|d| Found {
            class: d.class,
            score: d.score,
            bbox: d.bbox,
        });
        result.push(found.collect());
        first += count;
    }
    Ok(result)
}

/// Chances of the masks of all chosen boxes, one after the other, each of its own class.
fn masks(pass: &mut Pass, side: usize, found: &[Vec<Found>], device: Device) -> Result<Vec<f32>> {
    let classes: Vec<i64> = found.iter().flatten().map(|f| f.class as i64).collect();
    if classes.is_empty() {
        return Ok(Vec::new());
    }
    let boxes: Vec<Vec<Edges>> = found
        .iter()
        .map(|image| image.iter().map(|f| f.bbox).collect())
        .collect();
    let given = regions(boxes.iter().map(Vec::as_slice), device)?;
    pass.give("mask_rois", &given)?;
    let logits = of_classes(&pass.output("mask")?, &classes)?;
    let chances = host(&logits.f_to_kind(Kind::Float)?.f_sigmoid()?)?;
    if chances.len() != classes.len() * side * side {
        return Err(EngineError::internal("the masks have another size"));
    }
    if chances.iter().any(|v| v.is_nan()) {
        return Err(non_finite());
    }
    Ok(chances)
}

/// Of masks M×C×s×s those of one class each, M×s×s.
pub(crate) fn of_classes(masks: &Tensor, classes: &[i64]) -> Result<Tensor> {
    let &[_, count, height, width] = &masks.size()[..] else {
        return Err(EngineError::internal("masks have four sizes"));
    };
    let rows = (0i64..)
        .zip(classes)
        .map(|(row, class)| row * count + class);
    let rows = Tensor::f_from_slice(&rows.collect::<Vec<_>>())?.f_to_device(masks.device())?;
    let flat = masks.f_reshape([-1, height, width])?;
    Ok(flat.f_index_select(0, &rows)?)
}

/// In pixels of the stored picture; `None` when nothing of it is left there.
pub(crate) fn in_picture(
    found: &Found,
    frame: &Frame,
    mask: Option<(&[f32], usize)>,
) -> Result<Option<Detected>> {
    let scale = |shown: usize, full: usize| full as f32 / shown.max(1) as f32;
    let (x, y) = (
        scale(frame.shown.0, frame.full.0),
        scale(frame.shown.1, frame.full.1),
    );
    let [x1, y1, x2, y2] = found.bbox;
    let bbox = clipped(&[x1 * x, y1 * y, x2 * x, y2 * y], frame.full);
    let (width, height) = sides(&bbox);
    if !(width > 0.0 && height > 0.0) {
        return Ok(None);
    }
    let mask = match mask {
        Some((mask, side)) => {
            let pixels = box_mask(mask, side, &bbox, frame.full);
            Some(pixels.map_err(|e| EngineError::new(ErrorCode::InvalidData, e.to_string()))?)
        }
        None => None,
    };
    Ok(Some(Detected {
        class: found.class,
        score: found.score,
        bbox,
        mask,
    }))
}
