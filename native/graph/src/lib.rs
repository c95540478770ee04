//! The network description: a directed graph of typed nodes with parameter names, and the passes
//! over it. No libtorch, no files: a model is a value.
//!
//! | pass | function |
//! |---|---|
//! | build | [`GraphBuilder`] |
//! | validity, dead nodes, JSON | [`Graph::validate`], [`Graph::without_dead_nodes`], [`Graph::to_json`] |
//! | shapes | [`infer_shapes`] |
//! | parameters, multiply–accumulates | [`cost`], [`parameter_count`] |
//! | initial weights | [`init_weights`] |
//! | inference graph | [`fold_batch_norm`], [`Graph::without_auxiliary`] |
//! | channels that must be removed together | [`channel_groups`] |
//! | fewer channels | [`prune()`], [`mask`], [`unit_scores`], [`plan_for_flops`] |
//! | values to keep so that only a suffix runs | [`cut_points`], [`plan_cuts`] |
//! | 8 bits | [`Histogram`], [`Calibration`], [`quantize()`] |
//! | ONNX file | [`onnx::write`], [`onnx::export`], [`onnx::write_quantized`] |

mod builder;
mod channels;
mod check;
mod count;
mod cut;
mod detection;
mod error;
mod fold;
mod init;
mod ir;
pub mod onnx;
mod prune;
mod quantize;
mod shape;

pub use builder::{Conv, GraphBuilder};
pub use channels::{ChannelGroup, ChannelGroups, FixedLayers, FixedReason, channel_groups};
pub use count::{Cost, NodeCost, cost, parameter_count};
pub use cut::{CutPlan, CutPoint, CutStep, cut_points, nodes_to_run, plan_cuts};
pub use detection::{
    Head, PicoHead, Proposals, RpnLevel, Suppression, TwoStageHead, YoloHead, YoloLevel,
};
pub use error::GraphError;
pub use fold::fold_batch_norm;
pub use init::{Init, init_of, init_weights};
pub use ir::{
    Act, Graph, HostTensor, Node, NodeId, Op, Output, Param, ParamKind, WeightMap, level_areas,
    pyramid_level,
};
pub use prune::{
    Criterion, Judges, Keep, PruningPlan, Sensitivities, keep_by_ratios, keep_for_ratio,
    kept_channels, kept_count, mask, plan_for_flops, plan_for_loss, prune, prune_changes,
    prune_graph, ratios_for_loss, removed_share, tolerance_curve, unit_scores,
};
pub use quantize::{
    Affine, Calibration, Histogram, Quantization, QuantizedData, QuantizedTensor, Range,
    calibration_values, quantize, weight_signal,
};
pub use shape::{Value, infer_shapes, same_padding};
