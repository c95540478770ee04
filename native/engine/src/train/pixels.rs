//! Scoring of label maps: the network looks at resized images, its answer is compared at the label map's own size.
//!
//! As PaddleX does: the class of each pixel is decided at the network's size and brought to the label map's by the
//! nearest neighbour; pixels labelled 255 are left out.

use std::sync::Arc;

use oarlock_datasets::{Loader, LoaderConfig, PixelPipeline, SegmentSample, SegmentTarget};
use oarlock_jobs::{ErrorCode, JobError, Metrics};
use oarlock_metrics::{PixelCounter, nearest, overlap};
use tch::{Device, Kind, Tensor};

use super::family::{Supply, Validation, Watch};
use super::pictures::Pictures;
use crate::exec::{Network, network_input};
use crate::records::{Details, PixelDetails, Preprocessing};
use crate::{EngineError, Result};

/// Compares `network` (an inference network) with the label maps of `samples`; `None` when a stop was asked for.
///
/// # Errors
/// `NonFinite` when the network gives NaN; unreadable data; out of memory.
pub fn validate(
    network: &Network,
    pipeline: PixelPipeline,
    samples: Arc<Vec<SegmentSample>>,
    classes: usize,
    input: &Preprocessing,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<Validation>> {
    let mut loader = Loader::new(LoaderConfig {
        cache: supply.cache.clone(),
        max_corrupt_fraction: supply.max_corrupt_fraction,
        ..LoaderConfig::in_order(samples, supply.batch_size as usize, pipeline)
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
        count(&mut counter, &maps, (batch.w, batch.h), &batch.targets)?;
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

/// How validation looks at `pictures` for a network with this preprocessing.
pub fn eval_pipeline(input: &Preprocessing, pictures: &Pictures) -> PixelPipeline {
    let [height, width] = input.size().map(|s| s as usize);
    let raster = pictures
        .raster
        .then_some((pictures.channels, pictures.depth));
    PixelPipeline::eval((height, width), raster, &input.range)
}

/// Compares class ids at the network's size (width, height), image after image, with whole label maps.
///
/// # Errors
/// `Internal` when the label maps were not kept.
pub fn count(
    counter: &mut PixelCounter,
    maps: &[u8],
    (width, height): (usize, usize),
    targets: &[SegmentTarget],
) -> Result<()> {
    for (map, target) in maps.chunks_exact(width * height).zip(targets) {
        let truth = target
            .map
            .as_ref()
            .ok_or_else(|| EngineError::internal("the label map was not kept"))?;
        let size = (truth.width(), truth.height());
        counter.add(truth.data(), &nearest(map, (width, height), size));
    }
    Ok(())
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
