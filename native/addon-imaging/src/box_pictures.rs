//! Validation pictures with objects, for measuring exported detectors.

use std::path::Path;

use napi::Result;
use napi::bindgen_prelude::{BigInt64Array, Float32Array};
use napi_derive::napi;
use oarlock_datasets::coco::{Places, TruthSet};
use oarlock_datasets::{DetectPipeline, DetectTarget, Fit};
use oarlock_imaging::transform::ResizeByShort;
use oarlock_imaging::{Image, ImageError, Interpolation, Limits, box_mask, read_file};
use oarlock_jobs::{ErrorCode, JobError, MeasureSpec, MeasureTask};
use oarlock_metrics::{Detection, ImageResult, Measure, average_precision};

use crate::{failure, thrown};

/// Reads validation pictures in the order of their list, and compares the detections of several models with what is in
/// them, as the engine's validation does.
#[napi]
pub struct BoxPictures {
    spec: MeasureSpec,
    pipeline: DetectPipeline,
    measure: Measure,
    masks: bool,
    set: TruthSet,
    truths: Vec<ImageResult>,
    /// For each model, for each picture.
    found: Vec<Vec<Vec<Detection>>>,
    /// Pictures that could be read.
    read: Vec<bool>,
    next: usize,
    current: Option<(usize, DetectTarget)>,
}

/// A picture as a network's input.
#[napi(object)]
pub struct BoxPicture {
    /// 3·height·width values, normalised, 0 where the picture is not.
    pub input: Float32Array,
    /// Height and width of the picture, then those of its image in the input.
    pub size: Float32Array,
}

#[napi]
impl BoxPictures {
    /// Reads what is in the pictures that `spec` (a `MeasureSpec` as JSON) names, for `models` models.
    ///
    /// # Errors
    /// `invalid_argument` for a spec of something else; what reading its file says.
    #[napi(constructor, catch_unwind)]
    pub fn new(spec: String, models: u32) -> Result<Self> {
        let spec: MeasureSpec = serde_json::from_str(&spec)
            .map_err(|e| refused(format!("the measurement cannot be read: {e}")))?;
        let MeasureTask::Boxes {
            resize,
            coco,
            masks,
            truth: Some(path),
        } = &spec.task
        else {
            return Err(refused("no boxes are to be measured".into()));
        };
        let file = std::fs::File::open(path).map_err(failure)?;
        let set: TruthSet = serde_json::from_reader(std::io::BufReader::new(file))
            .map_err(|e| refused(format!("'{path}' cannot be read: {e}")))?;
        let places: Places = set.truth.places();
        let truths = set.truth.results(&places, *masks);
        let truths = truths.filter(|all| all.len() == set.pictures.len());
        let truths = truths.ok_or_else(|| refused(format!("'{path}' does not fit together")))?;
        Ok(Self {
            pipeline: pipeline(*resize, spec.size.map(|s| s as usize)),
            measure: if *coco { Measure::Coco } else { Measure::Voc },
            masks: *masks,
            found: (0..models)
                .map(|_| vec![Vec::new(); truths.len()])
                .collect(),
            read: vec![false; truths.len()],
            truths,
            set,
            spec,
            next: 0,
            current: None,
        })
    }

    /// Number of pictures.
    #[napi(getter, catch_unwind)]
    pub fn pictures(&self) -> u32 {
        self.set.pictures.len() as u32
    }

    /// Pictures read so far.
    #[napi(getter, catch_unwind)]
    pub fn images(&self) -> u32 {
        self.read.iter().filter(|read| **read).count() as u32
    }

    /// The next picture; null after the last. Pictures that cannot be read are left out.
    ///
    /// # Errors
    /// `invalid_data` when no picture can be read.
    #[napi(catch_unwind, js_name = "next")]
    pub fn next_picture(&mut self) -> Result<Option<BoxPicture>> {
        let size = self.spec.size.map(|side| side as usize);
        while let Some(path) = self.set.pictures.get(self.next) {
            let place = self.next;
            self.next += 1;
            let Ok((image, target)) = load(&self.pipeline, path, size) else {
                continue;
            };
            let (full, shown) = (target.full, target.shown);
            let sizes = [full.1, full.0, shown.1, shown.0].map(|v| v as f32);
            self.read[place] = true;
            self.truths[place]
                .size
                .get_or_insert((full.0 as u32, full.1 as u32));
            self.current = Some((place, target));
            return Ok(Some(BoxPicture {
                input: self.normalised(&image, size).into(),
                size: sizes.to_vec().into(),
            }));
        }
        if self.images() == 0 {
            let what = "none of the validation images can be read";
            return Err(thrown(&JobError::new(ErrorCode::InvalidData, what)));
        }
        Ok(None)
    }

    /// Planes of an image at the top left.
    fn normalised(&self, image: &Image, [height, width]: [usize; 2]) -> Vec<f32> {
        let mut planes = vec![0f32; 3 * height * width];
        let rows = image.data().chunks_exact(3 * image.width()).enumerate();
        for (y, row) in rows {
            for (x, pixel) in row.chunks_exact(3).enumerate() {
                for (c, value) in pixel.iter().enumerate() {
                    let (mean, std) = (self.spec.mean[c], self.spec.std[c]);
                    planes[(c * height + y) * width + x] = (f32::from(*value) / 255.0 - mean) / std;
                }
            }
        }
        planes
    }

    /// Keeps what a model finds in the last picture: boxes M×4, scores and labels M, masks M×s×s where it has them.
    ///
    /// # Errors
    /// `invalid_argument` for a model that is not there, and for values that are no detections.
    #[napi(catch_unwind)]
    pub fn count(
        &mut self,
        model: u32,
        boxes: Float32Array,
        scores: Float32Array,
        labels: BigInt64Array,
        masks: Option<Float32Array>,
    ) -> Result<()> {
        let (Some(all), Some((place, target))) =
            (self.found.get_mut(model as usize), &self.current)
        else {
            return Err(refused("there is no such model or no picture yet".into()));
        };
        let wrong = || refused("these are no detections of the last picture".into());
        let masks = masks.as_deref().filter(|_| self.masks);
        let area = masks.map_or(0, |m| m.len() / scores.len().max(1));
        let side = area.isqrt();
        if boxes.len() != 4 * scores.len()
            || labels.len() != scores.len()
            || side * side != area
            || masks.is_some_and(|m| m.len() != area * scores.len())
        {
            return Err(wrong());
        }
        let corners = boxes.as_chunks::<4>().0;
        for (i, (bbox, &score)) in corners.iter().zip(scores.iter()).enumerate() {
            let class = usize::try_from(labels[i]).map_err(|_| wrong())?;
            if class >= self.spec.classes as usize || !score.is_finite() {
                return Err(wrong());
            }
            let mask = masks.map(|all| &all[i * area..(i + 1) * area]);
            let mask = mask.map(|mask| box_mask(mask, side, bbox, target.full));
            let [x1, y1, x2, y2] = *bbox;
            all[*place].push(Detection {
                class,
                score: score.into(),
                bbox: [x1, y1, x2 - x1, y2 - y1].map(f64::from),
                mask: mask.transpose().map_err(|e| refused(e.to_string()))?,
            });
        }
        Ok(())
    }

    /// Average precisions of a model over the pictures that could be read, as a JSON object.
    ///
    /// # Errors
    /// `invalid_argument` for a model that is not there.
    #[napi(catch_unwind)]
    pub fn metrics(&mut self, model: u32) -> Result<String> {
        let found = self.found.get_mut(model as usize).map(std::mem::take);
        let found = found.ok_or_else(|| refused("there is no such model".into()))?;
        let pictures = self.truths.iter().zip(found).zip(&self.read);
        let images: Vec<ImageResult> = pictures
            .filter(|(_, read)| **read)
            .map(|((truth, detections), _)| ImageResult {
                detections,
                ..truth.clone()
            })
            .collect();
        let classes = self.spec.classes as usize;
        let metrics = average_precision(&images, classes, self.measure, self.masks)
            .map_err(|e| refused(e.to_string()))?;
        let metrics = metrics
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        Ok(
            serde_json::Value::Object(metrics.map(|(n, v)| (n.to_owned(), v)).collect())
                .to_string(),
        )
    }
}

fn refused(what: String) -> napi::Error {
    thrown(&JobError::new(ErrorCode::InvalidArgument, what))
}

/// How pictures become inputs; the padding is not its work.
fn pipeline(resize: Option<[u32; 2]>, [height, width]: [usize; 2]) -> DetectPipeline {
    let (fit, interpolation) = match resize {
        None => (Fit::Exact(vec![(height, width)]), Interpolation::Cubic),
        Some([short, long]) => {
            let interpolation = Interpolation::Linear;
            let resize = ResizeByShort {
                short: short as usize,
                long_cap: Some(long as usize),
                interpolation,
            };
            let multiple = 1;
            (Fit::Short { resize, multiple }, interpolation)
        }
    };
    DetectPipeline::Eval {
        fit,
        interpolation,
        fill: [0; 3],
    }
}

fn load(
    pipeline: &DetectPipeline,
    path: &Path,
    [height, width]: [usize; 2],
) -> std::result::Result<(Image, DetectTarget), ImageError> {
    let bytes = read_file(path, &Limits::default())?;
    pipeline.eval_within(&bytes, (height, width))
}
