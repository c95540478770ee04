//! Scoring of label maps: the network looks at resized images, its answer is compared at the label map's own size.
//!
//! As PaddleX does: the class of each pixel is decided at the network's size and brought to the label map's by the
//! nearest neighbour; pixels labelled 255 are left out.

use std::sync::Arc;

use oarlock_datasets::{Loader, LoaderConfig, Pipeline, SegmentSample, SegmentTarget};
use oarlock_jobs::{ErrorCode, JobError, Metrics};
use oarlock_metrics::{PixelCounter, overlap};
use tch::{Device, Kind, Tensor};

use super::family::{Supply, Validation, Watch};
use crate::exec::{Network, network_input};
use crate::records::{Details, PixelDetails, Preprocessing};
use crate::{EngineError, Result};

/// Compares `network` (an inference network) with the label maps of `samples`; `None` when a stop was asked for.
///
/// # Errors
/// `NonFinite` when the network gives NaN; unreadable data; out of memory.
pub fn validate<P>(
    network: &Network,
    pipeline: P,
    samples: Arc<Vec<SegmentSample>>,
    classes: usize,
    input: &Preprocessing,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<Validation>>
where
    P: Pipeline<Sample = SegmentSample, Target = SegmentTarget>,
{
    let mut loader = Loader::new(LoaderConfig {
        samples,
        batch_size: supply.batch_size as usize,
        pipeline,
        shuffle_seed: None,
        epoch: 0,
        start_batch: 0,
        drop_last: false,
        threads: 0,
        prefetch: 2,
        cache: supply.cache.clone(),
        memory: None,
        max_corrupt_fraction: supply.max_corrupt_fraction,
    })
    .map_err(JobError::from)?;
    let mut counter = PixelCounter::new(classes);
    let (mut images, mut skipped) = (0, 0);
    loop {
        if watch.cancel.is_cancelled() {
            return Ok(None);
        }
        let Some(batch) = loader.next() else { break };
        let batch = batch.map_err(JobError::from)?;
        skipped += batch.skipped.len();
        if batch.n == 0 {
            continue;
        }
        let shape = [batch.n, batch.h, batch.w, batch.channels];
        let x = network_input(
            &batch.images,
            batch.depth,
            shape,
            input,
            network.placement(),
        )?;
        let maps = label_maps(&network.forward(&x, false)?)?;
        let (height, width) = (batch.h, batch.w);
        for (map, target) in maps.chunks_exact(height * width).zip(&batch.targets) {
            let truth = target
                .map
                .as_ref()
                .ok_or_else(|| EngineError::internal("the label map was not kept"))?;
            let size = (truth.width(), truth.height());
            counter.add(truth.data(), &nearest(map, (width, height), size));
        }
        images += batch.n;
        loader.recycle(batch.images);
        watch.heart.tick();
    }
    if images == 0 {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "none of the validation images can be read",
        ));
    }
    let confusion = counter.finish();
    let measures = overlap(&confusion);
    let each =
        |f: fn(&oarlock_metrics::ClassOverlap) -> f64| measures.classes.iter().map(f).collect();
    let metrics: Metrics = [
        ("miou".to_owned(), Some(measures.miou)),
        ("oacc".to_owned(), Some(measures.accuracy)),
        ("kappa".to_owned(), measures.kappa),
    ]
    .into_iter()
    .collect();
    Ok(Some(Validation {
        metrics,
        per_class: vec![
            ("category_iou", each(|c| c.iou)),
            ("category_acc", each(|c| c.accuracy)),
            ("category_F1-score", each(|c| c.f1)),
        ],
        details: Details::Pixels(PixelDetails {
            confusion_matrix: confusion.rows().map(<[u64]>::to_vec).collect(),
        }),
        skipped,
        remark: None,
    }))
}

/// Class ids of logits N×classes×H×W, image after image.
///
/// # Errors
/// `NonFinite` when there is NaN; a failed device copy.
pub fn label_maps(logits: &Tensor) -> Result<Vec<u8>> {
    if logits.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
        return Err(EngineError::new(
            ErrorCode::NonFinite,
            "the network gives NaN on the validation images",
        )
        .hint("lower learning_rate or use a warm-up; earlier checkpoints are kept"));
    }
    let ids = logits
        .f_argmax(1, false)?
        .f_to_kind(Kind::Uint8)?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?;
    let mut bytes = vec![0u8; ids.numel()];
    ids.f_copy_data(&mut bytes, ids.numel())?;
    Ok(bytes)
}

/// A map of `from` (width, height) at another size: the value at ⌊i · from / to⌋.
pub fn nearest(map: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return map.to_vec();
    }
    let columns: Vec<usize> = (0..to.0).map(|x| x * from.0 / to.0).collect();
    let mut out = Vec::with_capacity(to.0 * to.1);
    for y in 0..to.1 {
        let row = &map[y * from.1 / to.1 * from.0..][..from.0];
        out.extend(columns.iter().map(|&x| row[x]));
    }
    out
}
