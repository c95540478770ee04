//! Training of classifiers: one label per image.

use std::sync::Arc;

use oarlock_datasets::{ClassifyPipeline, LoaderStats, Sample};
use oarlock_graph::Graph;
use oarlock_jobs::{ClassificationParams, DatasetRef, ErrorCode, Metrics};
use oarlock_zoo::{Origin, PaddleWeight};
use tch::{Kind, Tensor};

use super::class_batches::{ClassBatches, Order};
use super::data::{self, DataSplit};
use super::family::{EpochPart, Family, Fed, Feed, Supply, Validation, Watch};
use super::learner::{Learned, StepResult};
use super::plan::wrong;
use super::{losses, validate};
use crate::exec::Network;
use crate::records::{Details, Preprocessing, Resize};
use crate::{EngineError, Result};

/// A checked training of a classifier.
#[derive(Debug)]
pub struct Classifier {
    params: ClassificationParams,
    data: DataSplit<Sample>,
    /// Training images, balanced if asked for.
    train: Arc<Vec<Sample>>,
    /// k of the second accuracy: min(5, classes).
    topk: usize,
}

impl Classifier {
    /// Reads the lists and checks the parameters; what is changed is told in `notes`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the parameter, or what [`data::read`] says.
    pub fn new(
        params: &ClassificationParams,
        dataset: &DatasetRef,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let mut params = params.clone();
        check(&params)?;
        // The crop is a square of the first value.
        let shape = &mut params.common.image_shape;
        if shape[0] != shape[1] {
            notes.push(format!(
                "image_shape {shape:?}: classifiers take squares, {s}x{s} is used",
                s = shape[0]
            ));
            shape[1] = shape[0];
        }
        let data = data::read(dataset)?;
        let train = if params.class_balance {
            Arc::new(oarlock_datasets::balance_classes(&data.train))
        } else {
            data.train.clone()
        };
        let topk = data.labels.len().min(5);
        Ok(Self {
            params,
            data,
            train,
            topk,
        })
    }

    fn set(&self, samples: &Arc<Vec<Sample>>, pipeline: ClassifyPipeline) -> validate::ClassSet {
        validate::ClassSet {
            samples: samples.clone(),
            classes: self.data.labels.len(),
            pipeline,
            mean: self.params.image_mean,
            std: self.params.image_std,
        }
    }
}

impl Family for Classifier {
    fn model_type(&self) -> &'static str {
        "classifier"
    }

    fn labels(&self) -> &[String] {
        &self.data.labels
    }

    fn images(&self) -> usize {
        self.train.len()
    }

    fn fingerprint(&self) -> &str {
        &self.data.fingerprint
    }

    fn network(&self, origin: Origin) -> Result<(Graph, Vec<PaddleWeight>)> {
        oarlock_zoo::classifier_of(&self.params.common.model, self.data.labels.len(), origin)
            .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    fn feed(&self, part: EpochPart, supply: &Supply) -> Result<Box<dyn Feed>> {
        let set = self.set(&self.train, ClassifyPipeline::train(&self.params));
        let order = Order::Shuffled(part);
        Ok(Box::new(ClassFeed(ClassBatches::new(
            set,
            supply,
            order,
            supply.placement,
        )?)))
    }

    fn learn(&self, network: &Network, batch: &Fed, _: u64) -> Result<Learned> {
        Learned::of_outputs(network, &batch.input, |outputs| {
            losses::classification(outputs, &batch.targets, self.params.label_smoothing)
        })
    }

    fn metrics(&self, step: &StepResult, targets: &[Tensor]) -> Result<Vec<(String, Tensor)>> {
        let [labels] = targets else {
            return Err(EngineError::internal("a class id for each image is needed"));
        };
        let (_, ranked) = step.output.f_topk(self.topk as i64, 1, true, true)?;
        let hits = ranked
            .f_eq_tensor(&labels.f_unsqueeze(1)?)?
            .f_to_kind(Kind::Float)?;
        let mut metrics = vec![("acc1".to_owned(), hits.f_select(1, 0)?.f_mean(None)?)];
        if self.topk > 1 {
            let found = hits.f_sum_dim_intlist(1, false, None)?.f_mean(None)?;
            metrics.push((format!("acc{}", self.topk), found));
        }
        Ok(metrics)
    }

    fn validate(
        &self,
        network: &Network,
        supply: &Supply,
        watch: Watch,
    ) -> Result<Option<Validation>> {
        let pipeline = ClassifyPipeline::eval(&self.params);
        let Some(validate::Scored {
            details,
            skipped,
            remark,
        }) = validate::classes(network, &self.set(&self.data.val, pipeline), supply, watch)?
        else {
            return Ok(None);
        };
        let accuracy = |k: usize| {
            oarlock_metrics::top_k_accuracy(
                &details.scores,
                details.classes,
                &details.true_labels,
                k,
            )
        };
        let mut metrics = Metrics::new();
        metrics.insert("acc1".to_owned(), Some(accuracy(1)));
        if self.topk > 1 {
            metrics.insert(format!("acc{}", self.topk), Some(accuracy(self.topk)));
        }
        Ok(Some(Validation {
            metrics,
            per_class: Vec::new(),
            details: Details::Classes(details),
            skipped,
            remark,
        }))
    }

    fn preprocessing(&self) -> Preprocessing {
        let crop = self.params.common.image_shape[0];
        Preprocessing {
            resize: Resize::ShortCrop {
                short: (f64::from(crop) * 1.143) as u32,
                crop,
            },
            mean: self.params.image_mean.to_vec(),
            std: self.params.image_std.to_vec(),
            range: Vec::new(),
            image_size: None,
        }
    }
}

/// Batches with their class ids.
struct ClassFeed(ClassBatches);

impl Feed for ClassFeed {
    fn next(&mut self) -> Result<Option<Fed>> {
        let Some(batch) = self.0.next()? else {
            return Ok(None);
        };
        let device = batch.input.device();
        let labels = Tensor::f_from_slice(&batch.labels)?.f_to_device(device)?;
        Ok(Some(Fed {
            index: batch.index,
            images: batch.labels.len(),
            skipped: batch.skipped,
            input: batch.input,
            objects: Vec::new(),
            targets: vec![labels],
        }))
    }

    fn stats(&self) -> LoaderStats {
        self.0.stats()
    }

    fn remark(&self) -> Option<String> {
        self.0.remark()
    }
}

fn check(p: &ClassificationParams) -> Result<()> {
    if !(0.0..1.0).contains(&p.label_smoothing) {
        return Err(wrong("label_smoothing", "must lie in [0, 1)"));
    }
    super::plan::check_normalisation(&p.image_mean, &p.image_std)
}
