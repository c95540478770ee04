//! A graph with its weights on a device.

use std::cell::{Cell, RefCell};

use oarlock_graph::{Graph, HostTensor, NodeId, Op, ParamKind, WeightMap};
use oarlock_jobs::ErrorCode;
use tch::{Device, Kind, Tensor};

use super::flat;
use super::ops;
use super::plan::{self, Fusion, Kernel, Step};
use crate::runtime::Placement;
use crate::{EngineError, Result, ffi};

/// A parameter or buffer on the device.
#[derive(Debug)]
pub struct Parameter {
    /// Full name, `<node>.<suffix>`.
    pub name: String,
    /// Role.
    pub kind: ParamKind,
    /// fp32 weights; what is saved and what the optimizer updates.
    pub master: Tensor,
    /// What the forward pass reads and what gets the gradient: `master` itself, or its bf16 copy.
    pub compute: Tensor,
}

impl Parameter {
    /// Whether it is learned (running statistics are not).
    pub fn trainable(&self) -> bool {
        !matches!(self.kind, ParamKind::RunningMean | ParamKind::RunningVar)
    }

    /// The same tensors under the same name.
    pub(super) fn share(&self) -> Self {
        Self {
            name: self.name.clone(),
            kind: self.kind,
            master: self.master.shallow_clone(),
            compute: self.compute.shallow_clone(),
        }
    }
}

/// A graph with its weights on a device, ready to run forward and backward.
///
/// Not `Sync`: one thread at a time.
#[derive(Debug)]
pub struct Network {
    pub(super) graph: Graph,
    pub(super) placement: Placement,
    pub(super) parameters: Vec<Parameter>,
    /// First parameter of each node, and the end.
    pub(super) offsets: Vec<usize>,
    pub(super) fusion: Fusion,
    pub(super) steps: Vec<Step>,
    /// Weights in the convolution kernels' own order, by node; inference only.
    pub(super) packed: RefCell<Vec<Option<Tensor>>>,
    pub(super) seed: Cell<u64>,
    pub(super) frozen_norms: Cell<bool>,
    /// What names of nodes begin with whose parameters do not change.
    pub(super) frozen_layers: Cell<&'static [&'static str]>,
}

impl Network {
    /// Places `graph` with `weights` on a device; weights are cast to the compute type as needed.
    ///
    /// # Errors
    /// `InvalidData` when a weight is missing or has another shape; out of memory.
    pub fn new(graph: Graph, weights: &WeightMap, placement: Placement) -> Result<Self> {
        Self::with_fusion(graph, weights, placement, Fusion::Norm)
    }

    fn with_fusion(
        graph: Graph,
        weights: &WeightMap,
        placement: Placement,
        fusion: Fusion,
    ) -> Result<Self> {
        let mut parameters = Vec::new();
        let mut offsets = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            offsets.push(parameters.len());
            for param in node.params() {
                let name = format!("{}.{}", node.name, param.suffix);
                let host = weights.get(&name).ok_or_else(|| {
                    EngineError::new(
                        ErrorCode::InvalidData,
                        format!("the weight `{name}` is missing"),
                    )
                })?;
                check_shape(&name, &host.shape, &param.shape)?;
                parameters.push(upload(name, param.kind, host, &node.op, placement)?);
            }
        }
        offsets.push(parameters.len());
        let steps = plan::steps(&graph, fusion);
        let packed = RefCell::new((0..graph.nodes.len()).map(|_| None).collect());
        Ok(Self {
            graph,
            placement,
            parameters,
            offsets,
            fusion,
            steps,
            packed,
            seed: Cell::new(0),
            frozen_norms: Cell::new(false),
            frozen_layers: Cell::new(&[]),
        })
    }

    /// The inference network of `graph`: batch norms folded into their convolutions, dropout removed; on a CPU
    /// sums and activations run inside the convolutions. Only for [`Self::forward`] without training.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_inference(graph: &Graph, weights: &WeightMap, placement: Placement) -> Result<Self> {
        let (folded, folded_weights) = oarlock_graph::fold_batch_norm(graph, weights)
            .map_err(|e| EngineError::new(ErrorCode::InvalidData, e.to_string()))?;
        let fusion = if placement.device == Device::Cpu {
            Fusion::Conv
        } else {
            Fusion::Norm
        };
        Self::with_fusion(folded, &folded_weights, placement, fusion)
    }

    /// The network's description.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where and in which number format it computes.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Parameters and buffers in graph order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Puts all learned weights one behind the other into one buffer, and their copies in the compute type into
    /// another; no value changes.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn flatten(&mut self) -> Result<()> {
        let learned = |p: &&mut Parameter| p.trainable();
        let masters: Vec<&Tensor> = self
            .parameters
            .iter()
            .filter(|p| p.trainable())
            .map(|p| &p.master)
            .collect();
        let views = flat::zeros_like(&masters, Kind::Float)?;
        let _guard = tch::no_grad_guard();
        for (p, mut view) in self.parameters.iter_mut().filter(learned).zip(views) {
            view.f_copy_(&p.master)?;
            if p.compute.kind() == Kind::Float {
                p.compute = view.shallow_clone().f_set_requires_grad(true)?;
            }
            p.master = view;
        }
        let copied = |p: &Parameter| p.trainable() && p.compute.kind() != Kind::Float;
        let copies: Vec<&Tensor> = self
            .parameters
            .iter()
            .filter(|p| copied(p))
            .map(|p| &p.compute)
            .collect();
        let views = flat::zeros_like(&copies, self.placement.compute)?;
        for (p, mut view) in self.parameters.iter_mut().filter(|p| copied(p)).zip(views) {
            view.f_copy_(&p.compute)?;
            p.compute = view.f_set_requires_grad(true)?;
        }
        Ok(())
    }

    /// Chooses the dropout masks of the following forward pass; the same seed gives the same masks.
    pub fn set_seed(&self, seed: u64) {
        self.seed.set(seed);
    }

    /// With `frozen`, batch norms use their running statistics in training too, and neither these nor their scales
    /// and shifts change: how detectors are trained on pretrained backbones with few images a batch.
    pub fn freeze_norms(&self, frozen: bool) {
        self.frozen_norms.set(frozen);
    }

    /// From now on no parameter changes of nodes whose names begin with one of these, nor is a gradient computed for it.
    pub fn freeze_layers(&self, prefixes: &'static [&'static str]) {
        self.frozen_layers.set(prefixes);
        for p in self.parameters.iter().filter(|p| p.trainable()) {
            if self.frozen_layer(p) {
                let _ = p.compute.set_requires_grad(false);
            }
        }
    }

    fn frozen_layer(&self, parameter: &Parameter) -> bool {
        let mut prefixes = self.frozen_layers.get().iter();
        prefixes.any(|p| parameter.name.starts_with(p))
    }

    /// Whether a training step changes `parameter`.
    pub fn learns(&self, parameter: &Parameter) -> bool {
        let norm = matches!(parameter.kind, ParamKind::NormScale | ParamKind::NormShift);
        parameter.trainable() && !(norm && self.frozen_norms.get()) && !self.frozen_layer(parameter)
    }

    /// Runs the network on normalised images (N×C×H×W, any memory order, fp32 or bf16).
    ///
    /// With `train`, batch norms use and update batch statistics, dropout drops and the result carries the
    /// gradient graph. Without, nothing is recorded. Returns the first output in the compute type.
    ///
    /// # Errors
    /// Out of memory; a shape that does not fit the network; a network with regions of interest, which runs in stages
    /// ([`Self::begin`]).
    pub fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let mut outputs = self.forward_all(input, train)?;
        if outputs.is_empty() {
            return Err(EngineError::internal("the network has no output"));
        }
        Ok(outputs.swap_remove(0))
    }

    /// Like [`Self::forward`], with all outputs in the graph's order.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_all(&self, input: &Tensor, train: bool) -> Result<Vec<Tensor>> {
        let _guard = (!train).then(tch::no_grad_guard);
        let input = ops::prepare_input(input, self.placement)?;
        let mut values = self.no_values();
        self.execute(&self.steps, &mut values, Some(&input), train)?;
        let outputs = self.graph.outputs.iter();
        outputs.map(|o| self.value(&values, o.node)).collect()
    }

    pub(super) fn no_values(&self) -> Vec<Option<Tensor>> {
        (0..self.graph.nodes.len()).map(|_| None).collect()
    }

    pub(super) fn value(&self, values: &[Option<Tensor>], id: NodeId) -> Result<Tensor> {
        values[id]
            .as_ref()
            .map(Tensor::shallow_clone)
            .ok_or_else(|| {
                let name = &self.graph.nodes[id].name;
                EngineError::internal(format!("the value of `{name}` is missing"))
            })
    }

    pub(super) fn execute(
        &self,
        steps: &[Step],
        values: &mut [Option<Tensor>],
        image: Option<&Tensor>,
        train: bool,
    ) -> Result<()> {
        for step in steps {
            let node = &self.graph.nodes[step.node];
            let value = if matches!(node.op, Op::Input { .. }) {
                image
                    .map(Tensor::shallow_clone)
                    .ok_or_else(|| EngineError::internal("the network needs its image"))?
            } else if matches!(node.op, Op::Rois) {
                self.value(values, step.node)
                    .map_err(|_| not_given(&node.name))?
            } else {
                let mut inputs = Vec::with_capacity(step.inputs.len());
                for &id in &step.inputs {
                    inputs.push(values[id].as_ref().ok_or_else(|| {
                        EngineError::internal(format!(
                            "`{}` reads a value that is not computed",
                            node.name
                        ))
                    })?);
                }
                self.run(step, &inputs, train)
                    .map_err(|e| e.with("layer", node.name.clone()))?
            };
            values[step.node] = Some(value);
            for &id in &step.dead {
                values[id] = None;
            }
        }
        Ok(())
    }

    pub(super) fn params_of(&self, node: NodeId) -> &[Parameter] {
        let node = self.graph.owner(node);
        &self.parameters[self.offsets[node]..self.offsets[node + 1]]
    }

    fn run(&self, step: &Step, inputs: &[&Tensor], train: bool) -> Result<Tensor> {
        // A batch without a row has no statistics.
        let empty = |x: &&Tensor| x.size().first() == Some(&0);
        let batch = train && !self.frozen_norms.get() && !inputs.first().is_some_and(empty);
        let norm = |node: NodeId| matches!(self.graph.nodes[node].op, Op::BatchNorm { .. });
        match step.kernel {
            Kernel::Node => {
                let call = ops::Call {
                    params: self.params_of(step.node),
                    train: if norm(step.node) { batch } else { train },
                    in_place: step.in_place,
                    seed: self.seed.get() ^ (step.node as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                };
                ops::run(&self.graph.nodes[step.node].op, inputs, &call)
            }
            Kernel::Norm { norm, act } => ops::norm_act(
                &self.graph.nodes[norm].op,
                self.params_of(norm),
                inputs,
                batch,
                act,
            ),
            Kernel::Excite { act } => match *inputs {
                [x, gate] => ffi::excite(x, gate, None, act),
                [x, gate, pooled] => ffi::excite(x, gate, Some(pooled), act),
                _ => Err(EngineError::internal("a gate lacks a factor")),
            },
            Kernel::Conv { conv, act } => {
                let mut packed = self.packed.borrow_mut();
                ops::conv_act(
                    &self.graph.nodes[conv].op,
                    self.params_of(conv),
                    inputs,
                    act,
                    &mut packed[conv],
                )
            }
        }
    }

    /// Copies parameters and buffers to host memory.
    ///
    /// # Errors
    /// A failed device copy.
    pub fn to_weights(&self) -> Result<WeightMap> {
        self.parameters
            .iter()
            .map(|p| Ok((p.name.clone(), download(&p.master)?)))
            .collect()
    }
}

fn not_given(node: &str) -> EngineError {
    EngineError::internal(format!(
        "the network pools regions of interest (`{node}`), which must be given: run it in stages"
    ))
}

pub(super) fn check_shape(name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(EngineError::new(
        ErrorCode::InvalidData,
        format!("the weight `{name}` has shape {found:?}, the network needs {wanted:?}"),
    ))
}

/// Host copy of a tensor, fp32, row-major.
pub(crate) fn download(tensor: &Tensor) -> Result<HostTensor> {
    let flat = tensor
        .f_detach()?
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?;
    let mut data = vec![0f32; flat.numel()];
    if !data.is_empty() {
        flat.f_copy_data(&mut data, flat.numel())?;
    }
    let shape = flat
        .size()
        .into_iter()
        .map(|d| usize::try_from(d).unwrap_or(0))
        .collect();
    Ok(HostTensor { shape, data })
}

/// Device copy of a host tensor, fp32; four-dimensional ones with the channels innermost.
pub(crate) fn upload_tensor(host: &HostTensor, device: Device) -> Result<Tensor> {
    let shape: Vec<i64> = host.shape.iter().map(|&d| d as i64).collect();
    let tensor = Tensor::f_from_slice(&host.data)?
        .f_reshape(&shape[..])?
        .f_to_device(device)?;
    if shape.len() == 4 {
        ffi::to_channels_last(&tensor)
    } else {
        Ok(tensor)
    }
}

pub(super) fn upload(
    name: String,
    kind: ParamKind,
    host: &HostTensor,
    op: &Op,
    placement: Placement,
) -> Result<Parameter> {
    let master = upload_tensor(host, placement.device)?;
    // Batch norms keep fp32 parameters: their kernels take bf16 activations with them, and the sums need the digits.
    let compute = if placement.compute != Kind::Float && !matches!(op, Op::BatchNorm { .. }) {
        master.f_to_kind(placement.compute)?
    } else {
        master.shallow_clone()
    };
    let mut parameter = Parameter {
        name,
        kind,
        master,
        compute,
    };
    if parameter.trainable() {
        parameter.compute = parameter.compute.f_set_requires_grad(true)?;
    }
    Ok(parameter)
}
