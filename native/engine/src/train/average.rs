//! Exponential moving average of the weights: what is evaluated, saved as a model and exported.
//!
//! As PaddleX's `ModelEMA` with `use_thres_step`, batch statistics included; but the average begins with the first
//! weights, not with zeros that are divided away later.

use oarlock_graph::WeightMap;
use tch::Tensor;

use crate::exec::{Network, download, upload_tensor};
use crate::{EngineError, Result};

/// Before the names of the weights that are trained, in the state of the optimizer.
const OWN: &str = "own/";

/// Averaged weights of a network.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    /// In the order of [`Network::parameters`].
    tensors: Vec<Tensor>,
}

impl Average {
    /// Begins with the weights of `network`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(decay: f64, network: &Network) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let copies = network.parameters().iter().map(|p| {
            let mut copy = p.master.f_detach()?.f_empty_like()?;
            copy.f_copy_(&p.master)?;
            Ok(copy)
        });
        Ok(Self {
            decay,
            tensors: copies.collect::<Result<_>>()?,
        })
    }

    /// Takes the weights after step number `step`, from 1, in; less is kept of the first ones.
    ///
    /// # Errors
    /// Device failures.
    pub fn update(&mut self, network: &Network, step: i64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let step = step as f64;
        let decay = self.decay.min(step / (step + 9.0));
        for (average, p) in self.tensors.iter_mut().zip(network.parameters()) {
            let _ = average.f_lerp_(&p.master.f_detach()?, 1.0 - decay)?;
        }
        Ok(())
    }

    /// Host copy.
    ///
    /// # Errors
    /// A failed device copy.
    pub fn to_weights(&self, network: &Network) -> Result<WeightMap> {
        let named = network.parameters().iter().zip(&self.tensors);
        named
            .map(|(p, average)| Ok((p.name.clone(), download(average)?)))
            .collect()
    }

    /// Takes weights of [`Self::to_weights`] over.
    ///
    /// # Errors
    /// `InvalidData` when they belong to another network.
    pub fn load(&mut self, network: &Network, weights: &WeightMap) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (average, p) in self.tensors.iter_mut().zip(network.parameters()) {
            let host = weights.get(&p.name).ok_or_else(|| {
                let what = format!("the checkpoint lacks the weight `{}`", p.name);
                EngineError::new(oarlock_jobs::ErrorCode::InvalidData, what)
            })?;
            average.f_copy_(&upload_tensor(host, average.device())?)?;
        }
        Ok(())
    }
}

/// Adds the weights that are trained to the state of the optimizer: a checkpoint's model holds the average.
pub(super) fn keep_own(state: &mut WeightMap, own: WeightMap) {
    let named = own.into_iter().map(|(name, w)| (format!("{OWN}{name}"), w));
    state.extend(named);
}

/// The weights that are trained, of a checkpoint whose model holds the average; taken out of the optimizer's state.
pub(super) fn take_own(state: &mut WeightMap) -> Option<WeightMap> {
    let names: Vec<String> = state
        .keys()
        .filter(|name| name.starts_with(OWN))
        .cloned()
        .collect();
    let taken = names.into_iter().filter_map(|name| {
        let weight = state.shift_remove(&name)?;
        Some((name[OWN.len()..].to_owned(), weight))
    });
    let own: WeightMap = taken.collect();
    (!own.is_empty()).then_some(own)
}
