//! What can be wrong with a graph or its weights.

/// A graph that cannot be built, run, folded or exported, named by node.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// The structure is wrong: order, arity, names, channel counts.
    #[error("graph `{graph}`: node `{node}` ({op}): {reason}")]
    Node {
        /// Name of the graph.
        graph: String,
        /// Name of the node.
        node: String,
        /// Kind of its operation.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something that belongs to no single node.
    #[error("graph `{graph}`: {reason}")]
    Graph {
        /// Name of the graph.
        graph: String,
        /// What is wrong.
        reason: String,
    },
    /// A parameter that the graph needs is not in the weights.
    #[error("graph `{graph}`: the weights have no `{name}` (shape {shape:?})")]
    MissingWeight {
        /// Name of the graph.
        graph: String,
        /// Full parameter name.
        name: String,
        /// Shape that the graph wants.
        shape: Vec<usize>,
    },
    /// A parameter has another shape than the graph says.
    #[error("graph `{graph}`: weight `{name}` has shape {found:?}, the graph needs {expected:?}")]
    WeightShape {
        /// Name of the graph.
        graph: String,
        /// Full parameter name.
        name: String,
        /// Shape that the graph wants.
        expected: Vec<usize>,
        /// Shape that was given.
        found: Vec<usize>,
    },
    /// Text that is not a graph.
    #[error("this is not a graph description: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// The graph is right but the target format cannot hold it.
    #[error("graph `{graph}` cannot be exported: {reason}")]
    Export {
        /// Name of the graph.
        graph: String,
        /// What is in the way, and what to do.
        reason: String,
    },
}
