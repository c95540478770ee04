//! Losses on the network's outputs.

use oarlock_jobs::{LossKind, LossTerm};
use tch::{Kind, Reduction, Tensor};

use crate::{EngineError, Result};

/// Cross-entropy of a classifier: `outputs` [N×classes], `targets` [N class ids]; `smoothing` is the share of the
/// target that is spread over all classes.
///
/// # Errors
/// Out of memory.
pub fn classification(outputs: &[Tensor], targets: &[Tensor], smoothing: f64) -> Result<Tensor> {
    let ([logits, ..], [labels]) = (outputs, targets) else {
        return Err(EngineError::internal(
            "the loss needs an output and class ids",
        ));
    };
    Ok(logits.f_cross_entropy_loss::<&Tensor>(labels, None, Reduction::Mean, -100, smoothing)?)
}

/// Label that no loss looks at.
const IGNORED: i64 = 255;

/// The losses of a segmenter, added up.
#[derive(Debug)]
pub struct PixelLoss {
    terms: Vec<LossTerm>,
    /// One value a class; `None` = all 1.
    class_weights: Option<Vec<f32>>,
}

impl PixelLoss {
    /// The sum of these terms; no class weights = all 1.
    ///
    /// # Errors
    /// `InvalidArgument` when class weights are negative or all 0.
    pub fn new(terms: &[LossTerm], class_weights: &[f32], classes: usize) -> Result<Self> {
        let usable = |w: &f32| w.is_finite() && *w >= 0.0;
        let given = !class_weights.is_empty();
        if given
            && (class_weights.len() != classes
                || !class_weights.iter().all(usable)
                || class_weights.iter().all(|w| *w == 0.0))
        {
            return Err(super::plan::wrong(
                "class_weights",
                "must be numbers of at least 0, one a class, not all 0",
            ));
        }
        Ok(Self {
            terms: terms.to_vec(),
            class_weights: given.then(|| class_weights.to_vec()),
        })
    }

    /// The loss of all `outputs` (N×classes×H×W each, fp32), each times its weight, against the label maps `map` (N×H×W,
    /// class ids, 255 = ignored).
    ///
    /// # Errors
    /// Out of memory; outputs of another size.
    pub fn of_outputs(&self, outputs: &[Tensor], weights: &[f32], map: &Tensor) -> Result<Tensor> {
        let target = PixelTarget::new(map)?;
        let mut sum: Option<Tensor> = None;
        for (logits, weight) in outputs.iter().zip(weights) {
            let loss = self.of(logits, &target)?;
            let loss = if *weight == 1.0 {
                loss
            } else {
                loss.f_mul_scalar(f64::from(*weight))?
            };
            sum = Some(match sum {
                Some(sum) => sum.f_add(&loss)?,
                None => loss,
            });
        }
        sum.ok_or_else(|| EngineError::internal("the network has no output"))
    }

    fn of(&self, logits: &Tensor, target: &PixelTarget) -> Result<Tensor> {
        let classes = logits.size().get(1).copied().unwrap_or(0);
        // Pixels × classes: no copy for maps whose channels lie innermost.
        let rows = logits.f_permute([0, 2, 3, 1])?.f_reshape([-1, classes])?;
        let mut sum: Option<Tensor> = None;
        for term in &self.terms {
            let loss = match term.kind {
                LossKind::CrossEntropy => {
                    cross_entropy(&rows, target, self.class_weights.as_deref())?
                }
                LossKind::Dice => dice(&rows, target)?,
                LossKind::Lovasz => lovasz(&rows, target)?,
                LossKind::Bce => bce(&rows, target)?,
            };
            let loss = loss.f_mul_scalar(term.weight)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&loss)?,
                None => loss,
            });
        }
        sum.ok_or_else(|| EngineError::internal("no loss is chosen"))
    }
}

/// Label maps as rows.
struct PixelTarget {
    /// Class id of each pixel.
    labels: Tensor,
    /// 1 where it counts, else 0; fp32.
    counts: Tensor,
    /// Number of those, at least 1; fp32 scalar.
    number: Tensor,
}

impl PixelTarget {
    fn new(map: &Tensor) -> Result<Self> {
        let labels = map.f_reshape([-1])?;
        let counts = labels.f_ne(IGNORED)?.f_to_kind(Kind::Float)?;
        let number = counts.f_sum(None)?.f_clamp_min(1.0)?;
        Ok(Self {
            labels,
            counts,
            number,
        })
    }

    /// Pixels × classes, 1 at each pixel's class; rows of ignored pixels are 0.
    fn one_hot(&self, classes: i64) -> Result<Tensor> {
        let counts = self.counts.f_unsqueeze(1)?;
        let ids = self.labels.f_clamp(0, classes - 1)?.f_unsqueeze(1)?;
        let zeros = counts.f_zeros_like()?.f_repeat([1, classes])?;
        Ok(zeros.f_scatter(1, &ids, &counts)?)
    }
}

/// Mean over the pixels that count, each times the weight of its class.
fn cross_entropy(rows: &Tensor, target: &PixelTarget, weights: Option<&[f32]>) -> Result<Tensor> {
    let weights = weights
        .map(|w| Tensor::f_from_slice(w)?.f_to_device(rows.device()))
        .transpose()?;
    let sum = rows.f_cross_entropy_loss(
        &target.labels,
        weights.as_ref(),
        Reduction::Sum,
        IGNORED,
        0.0,
    )?;
    Ok(sum.f_div(&target.number)?)
}

/// 1 − mean over the classes of 2·|P∩T| / (|P| + |T|) with soft P (Milletari et al. 2016).
fn dice(rows: &Tensor, target: &PixelTarget) -> Result<Tensor> {
    let classes = rows.size()[1];
    let truth = target.one_hot(classes)?;
    let soft = rows
        .f_softmax(-1, Kind::Float)?
        .f_mul(&target.counts.f_unsqueeze(1)?)?;
    let both = soft.f_mul(&truth)?.f_sum_dim_intlist(0, false, None)?;
    let sizes = soft.f_add(&truth)?.f_sum_dim_intlist(0, false, None)?;
    let overlap = both.f_mul_scalar(2.0)?.f_div(&sizes.f_add_scalar(1e-5)?)?;
    Ok(overlap.f_mean(None)?.f_neg()?.f_add_scalar(1.0)?)
}

/// Lovász-softmax over the classes that occur (Berman et al. 2018, algorithm 1).
fn lovasz(rows: &Tensor, target: &PixelTarget) -> Result<Tensor> {
    let places = target.counts.f_nonzero()?.f_squeeze_dim(1)?;
    let soft = rows
        .f_softmax(-1, Kind::Float)?
        .f_index_select(0, &places)?;
    let labels = target.labels.f_index_select(0, &places)?;
    let mut losses = Vec::new();
    for class in 0..rows.size()[1] {
        let truth = labels.f_eq(class)?.f_to_kind(Kind::Float)?;
        if truth.f_sum(None)?.f_double_value(&[])? == 0.0 {
            continue;
        }
        let errors = truth.f_sub(&soft.f_select(1, class)?)?.f_abs()?;
        let (errors, order) = errors.f_sort(0, true)?;
        let slope = {
            let _guard = tch::no_grad_guard();
            jaccard_slope(&truth.f_index_select(0, &order)?)?
        };
        losses.push(errors.f_dot(&slope)?);
    }
    if losses.is_empty() {
        return Ok(rows.f_sum(None)?.f_mul_scalar(0.0)?);
    }
    Ok(Tensor::f_stack(&losses, 0)?.f_mean(None)?)
}

/// Gradient of the Jaccard loss's extension at errors sorted downwards.
fn jaccard_slope(truth: &Tensor) -> Result<Tensor> {
    let all = truth.f_sum(None)?;
    let found = truth.f_cumsum(0, Kind::Float)?;
    let wrong = truth.f_neg()?.f_add_scalar(1.0)?.f_cumsum(0, Kind::Float)?;
    let loss = all
        .f_sub(&found)?
        .f_div(&all.f_add(&wrong)?)?
        .f_neg()?
        .f_add_scalar(1.0)?;
    let n = loss.size()[0];
    let steps = loss
        .f_narrow(0, 1, n - 1)?
        .f_sub(&loss.f_narrow(0, 0, n - 1)?)?;
    Ok(Tensor::f_cat(&[loss.f_narrow(0, 0, 1)?, steps], 0)?)
}

/// Mean over pixels and classes of the binary cross-entropy of each class's sigmoid.
fn bce(rows: &Tensor, target: &PixelTarget) -> Result<Tensor> {
    let classes = rows.size()[1];
    let truth = target.one_hot(classes)?;
    let weight = target.counts.f_unsqueeze(1)?;
    let sum = rows.f_binary_cross_entropy_with_logits::<&Tensor>(
        &truth,
        Some(&weight),
        None,
        Reduction::Sum,
    )?;
    Ok(sum.f_div(&target.number)?.f_div_scalar(classes as f64)?)
}
