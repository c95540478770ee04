//! SGD with momentum and Adam on fp32 master weights.

use oarlock_graph::{HostTensor, WeightMap};
use oarlock_jobs::ErrorCode;
use tch::{Kind, Tensor};

use super::average::{self, Average};
use crate::exec::{Network, download, upload_tensor, zeros_like};
use crate::{EngineError, Result, ffi};

/// Momentum factor of [`Rule::Sgd`].
const MOMENTUM: f64 = 0.9;
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// How gradients become steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Momentum 0.9.
    Sgd,
    /// β 0.9 and 0.999.
    Adam,
}

impl Rule {
    /// The rule of the parameter `optimizer`; letter case does not matter.
    ///
    /// # Errors
    /// `InvalidArgument` for other names.
    pub fn from_name(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "sgd" | "momentum" => Ok(Self::Sgd),
            "adam" => Ok(Self::Adam),
            _ => Err(EngineError::new(
                ErrorCode::InvalidArgument,
                format!("the optimizer `{name}` is unknown; use SGD or Adam"),
            )),
        }
    }

    /// Names of the state tensors of one parameter.
    fn slots(self) -> &'static [&'static str] {
        match self {
            Self::Sgd => &["momentum"],
            Self::Adam => &["exp_avg", "exp_avg_sq"],
        }
    }
}

/// Optimizer state of a network's parameters.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    /// Steps done.
    steps: i64,
    /// State tensors by parameter (index in [`Network::parameters`]), for the trainable ones.
    states: Vec<(usize, Vec<Tensor>)>,
    /// Of the weights, where it is wanted.
    average: Option<Average>,
}

impl Optimizer {
    /// Zero state for `network`, whose weights it lays out for its steps. L2 decay applies to every learned parameter,
    /// biases and batch norms included, as PaddleX's L2 regularisation does.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(rule: Rule, weight_decay: f64, network: &mut Network) -> Result<Self> {
        network.flatten()?;
        let learned = || {
            network
                .parameters()
                .iter()
                .enumerate()
                .filter(|(_, p)| p.trainable())
        };
        let mut states: Vec<(usize, Vec<Tensor>)> =
            learned().map(|(i, _)| (i, Vec::new())).collect();
        let masters: Vec<&Tensor> = learned().map(|(_, p)| &p.master).collect();
        for _ in rule.slots() {
            let zeros = zeros_like(&masters, Kind::Float)?;
            states
                .iter_mut()
                .zip(zeros)
                .for_each(|((_, state), zero)| state.push(zero));
        }
        Ok(Self {
            rule,
            weight_decay,
            steps: 0,
            states,
            average: None,
        })
    }

    /// Keeps a moving average of the weights from here on; a `decay` of 0 keeps none.
    ///
    /// # Errors
    /// Out of memory.
    pub fn with_average(mut self, decay: f64, network: &Network) -> Result<Self> {
        self.average = (decay > 0.0)
            .then(|| Average::new(decay, network))
            .transpose()?;
        Ok(self)
    }

    /// The averaged weights, where they are kept.
    pub fn average(&self) -> Option<&Average> {
        self.average.as_ref()
    }

    /// Where the averaged weights are kept, those of a checkpoint go on.
    pub fn average_mut(&mut self) -> Option<&mut Average> {
        self.average.as_mut()
    }

    /// The tensors whose gradients [`Self::step`] wants, in its order.
    pub fn wanted<'a>(&self, network: &'a Network) -> Vec<&'a Tensor> {
        let all = self.states.iter().map(|&(i, _)| &network.parameters()[i]);
        all.filter(|p| network.learns(p))
            .map(|p| &p.compute)
            .collect()
    }

    /// One step at learning rate `lr`; `grads` in the order of [`Self::wanted`]. Parameters whose gradient is undefined
    /// had no part in the loss and stay as they are.
    ///
    /// # Errors
    /// A gradient of unexpected type; out of memory.
    pub fn step(&mut self, network: &Network, grads: Vec<Tensor>, lr: f64) -> Result<()> {
        self.steps += 1;
        let learned = self.states.iter();
        let learned = learned.filter(|(i, _)| network.learns(&network.parameters()[*i]));
        let params: Vec<ffi::StepTensors> = learned
            .zip(&grads)
            .filter(|(_, grad)| grad.defined())
            .map(|((i, state), grad)| {
                let p = &network.parameters()[*i];
                ffi::StepTensors {
                    master: &p.master,
                    compute: &p.compute,
                    grad,
                    state,
                }
            })
            .collect();
        match self.rule {
            Rule::Sgd => ffi::sgd_step(&params, lr, MOMENTUM, self.weight_decay)?,
            Rule::Adam => ffi::adam_step(
                &params,
                &ffi::Adam {
                    lr,
                    beta1: BETA1,
                    beta2: BETA2,
                    eps: EPS,
                    weight_decay: self.weight_decay,
                    step: self.steps,
                },
            )?,
        }
        match &mut self.average {
            Some(average) => average.update(network, self.steps),
            None => Ok(()),
        }
    }

    /// Host copy of the state: `<parameter>.<slot>` and the scalar `steps`; with an average also the weights that are
    /// trained.
    ///
    /// # Errors
    /// A failed device copy.
    pub fn to_state(&self, network: &Network) -> Result<WeightMap> {
        let mut map = WeightMap::new();
        for (i, state) in &self.states {
            for (slot, tensor) in self.rule.slots().iter().zip(state) {
                map.insert(
                    format!("{}.{slot}", network.parameters()[*i].name),
                    download(tensor)?,
                );
            }
        }
        // Exact in fp32 up to 2^24 steps in each half.
        let (high, low) = (self.steps >> 24, self.steps & 0xff_ffff);
        map.insert(
            "steps".to_owned(),
            HostTensor {
                shape: vec![2],
                data: vec![high as f32, low as f32],
            },
        );
        if self.average.is_some() {
            average::keep_own(&mut map, network.to_weights()?);
        }
        Ok(map)
    }

    /// Takes a state of [`Self::to_state`] over.
    ///
    /// # Errors
    /// `InvalidData` when the state belongs to another network or another optimizer.
    pub fn load_state(&mut self, network: &Network, state: &WeightMap) -> Result<()> {
        let wrong = |what: String| {
            EngineError::new(
                ErrorCode::InvalidData,
                format!("the optimizer state of the checkpoint does not fit: {what}"),
            )
        };
        let _guard = tch::no_grad_guard();
        for (i, tensors) in &mut self.states {
            let p = &network.parameters()[*i];
            for (slot, tensor) in self.rule.slots().iter().zip(tensors) {
                let name = format!("{}.{slot}", p.name);
                let host = state
                    .get(&name)
                    .ok_or_else(|| wrong(format!("`{name}` is missing")))?;
                let loaded = upload_tensor(host, p.master.device())?;
                if loaded.size() != tensor.size() || loaded.kind() != Kind::Float {
                    return Err(wrong(format!("`{name}` has shape {:?}", host.shape)));
                }
                tensor.f_copy_(&loaded)?;
            }
        }
        let steps = state
            .get("steps")
            .filter(|s| s.data.len() == 2)
            .ok_or_else(|| wrong("`steps` is missing".into()))?;
        self.steps = ((steps.data[0] as i64) << 24) | steps.data[1] as i64;
        Ok(())
    }
}
