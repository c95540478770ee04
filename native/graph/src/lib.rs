//! The network description: a directed graph of typed nodes with parameter names, and the passes
//! over it. No libtorch, no files: a model is a value.

mod ir;

pub use ir::{Act, Graph, HostTensor, Node, NodeId, Op, Output, Param, ParamKind, WeightMap};
