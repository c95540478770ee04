//! A graph with its weights on a device.

use std::cell::{Cell, RefCell};

use oarlock_graph::{Graph, HostTensor, NodeId, Op, ParamKind, WeightMap};
use oarlock_jobs::ErrorCode;
use tch::{Device, Kind, Tensor};

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
    fn share(&self) -> Self {
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
    graph: Graph,
    placement: Placement,
    parameters: Vec<Parameter>,
    /// First parameter of each node, and the end.
    offsets: Vec<usize>,
    fusion: Fusion,
    steps: Vec<Step>,
    /// Weights in the convolution kernels' own order, by node; inference only.
    packed: RefCell<Vec<Option<Tensor>>>,
    seed: Cell<u64>,
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
            for param in node.op.params() {
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
        })
    }

    /// A network of the same nodes with other sizes, as pruning makes it: `weights` takes the place of this one's
    /// where it names them, all else is shared, packed weights included.
    ///
    /// # Errors
    /// `InvalidData` when a weight that `graph` needs in another shape is not among `weights`; out of memory.
    pub fn variant(&self, graph: Graph, weights: &WeightMap) -> Result<Self> {
        if graph.nodes.len() != self.graph.nodes.len() {
            return Err(EngineError::internal(
                "a variant has the nodes of its network",
            ));
        }
        let mut parameters = Vec::with_capacity(self.parameters.len());
        let mut packed = Vec::with_capacity(graph.nodes.len());
        for (id, node) in graph.nodes.iter().enumerate() {
            let mut same = true;
            for (own, param) in self.params_of(id).iter().zip(node.op.params()) {
                let name = &own.name;
                let host = weights.get(name);
                same &= host.is_none();
                parameters.push(match host {
                    Some(host) => {
                        check_shape(name, &host.shape, &param.shape)?;
                        upload(name.clone(), own.kind, host, &node.op, self.placement)?
                    }
                    None => {
                        let shape: Vec<usize> =
                            own.master.size().iter().map(|&d| d as usize).collect();
                        check_shape(name, &shape, &param.shape)?;
                        own.share()
                    }
                });
            }
            let own = self.packed.borrow();
            packed.push(own[id].as_ref().filter(|_| same).map(Tensor::shallow_clone));
        }
        Ok(Self {
            steps: plan::steps(&graph, self.fusion),
            graph,
            placement: self.placement,
            parameters,
            offsets: self.offsets.clone(),
            fusion: self.fusion,
            packed: RefCell::new(packed),
            seed: Cell::new(0),
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

    /// The inference network of this one's current weights, on the same device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn inference_copy(&self) -> Result<Self> {
        Self::for_inference(&self.graph, &self.to_weights()?, self.placement)
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

    /// Chooses the dropout masks of the following forward pass; the same seed gives the same masks.
    pub fn set_seed(&self, seed: u64) {
        self.seed.set(seed);
    }

    /// Runs the network on normalised images (N×C×H×W, any memory order, fp32 or bf16).
    ///
    /// With `train`, batch norms use and update batch statistics, dropout drops and the result carries the
    /// gradient graph. Without, nothing is recorded. Returns the first output in the compute type.
    ///
    /// # Errors
    /// Out of memory; a shape that does not fit the network.
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

    /// Runs for inference what is needed to get the values `wanted`, beginning from values that are there already
    /// (`kept`, by node) and the image (as in [`Self::forward`]; only needed where they do not suffice). Values
    /// come and go in the compute type; none that is passed in is written to.
    ///
    /// Only values that inference makes can be named: what a fused step computes on its way is not lost, it is
    /// made a step of its own.
    ///
    /// # Errors
    /// Out of memory; shapes that do not fit the network; an image that is needed and not given.
    pub fn forward_from(
        &self,
        kept: &[(NodeId, Tensor)],
        image: Option<&Tensor>,
        wanted: &[NodeId],
    ) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        let mut values = self.no_values();
        for (id, value) in kept {
            values[*id] = Some(value.shallow_clone());
        }
        let available: Vec<NodeId> = kept.iter().map(|(id, _)| *id).collect();
        let run = oarlock_graph::nodes_to_run(&self.graph, &available, wanted);
        let steps = plan::section(&self.graph, self.fusion, &run, wanted);
        let image = image
            .map(|image| ops::prepare_input(image, self.placement))
            .transpose()?;
        self.execute(&steps, &mut values, image.as_ref(), false)?;
        wanted.iter().map(|&id| self.value(&values, id)).collect()
    }

    fn no_values(&self) -> Vec<Option<Tensor>> {
        (0..self.graph.nodes.len()).map(|_| None).collect()
    }

    fn value(&self, values: &[Option<Tensor>], id: NodeId) -> Result<Tensor> {
        values[id]
            .as_ref()
            .map(Tensor::shallow_clone)
            .ok_or_else(|| {
                let name = &self.graph.nodes[id].name;
                EngineError::internal(format!("the value of `{name}` is missing"))
            })
    }

    fn execute(
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

    fn params_of(&self, node: NodeId) -> &[Parameter] {
        &self.parameters[self.offsets[node]..self.offsets[node + 1]]
    }

    fn run(&self, step: &Step, inputs: &[&Tensor], train: bool) -> Result<Tensor> {
        match step.kernel {
            Kernel::Node => {
                let call = ops::Call {
                    params: self.params_of(step.node),
                    train,
                    in_place: step.in_place,
                    seed: self.seed.get() ^ (step.node as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                };
                ops::run(&self.graph.nodes[step.node].op, inputs, &call)
            }
            Kernel::Norm { norm, act } => ops::norm_act(
                &self.graph.nodes[norm].op,
                self.params_of(norm),
                inputs,
                train,
                act,
            ),
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

fn check_shape(name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
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

/// The channels (second axis) `channels` of a value, in that order; maps keep the channels innermost in memory.
///
/// # Errors
/// A channel that is not there; out of memory.
pub fn select_channels(value: &Tensor, channels: &[usize]) -> Result<Tensor> {
    let channels: Vec<i64> = channels.iter().map(|&c| c as i64).collect();
    ffi::select_channels(value, &channels)
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

fn upload(
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
