//! Weights of ImageNet for the backbones of segmenters and detectors.

use std::collections::HashMap;

use oarlock_graph::Graph;

use crate::{Origin, PaddleWeight, ZooError, classifier_of};

/// A part of a network that is a backbone's in files of its own.
pub(crate) struct Part<'a> {
    /// What the names of its parameters begin with.
    pub ours: &'a str,
    /// What PaddleX's names of it begin with.
    pub theirs: &'a str,
    /// What the rest of these names begins with; empty: anything.
    pub only: [&'a str; 2],
}

/// What the parameters of a backbone's own file are called in `graph`: stored name → name here. Known are the names of
/// PyTorch's and PaddleClas's classifier `twin`, and those of `paddle` without what stands before them. What a file has
/// beside them (its head) is not in the network.
pub(crate) fn backbone_names(
    graph: &Graph,
    paddle: &[PaddleWeight],
    parts: &[Part],
    twin: Option<&str>,
    origin: Origin,
) -> Result<HashMap<String, String>, ZooError> {
    let mut names = HashMap::new();
    let rest = |name: &str, before: &str, only: &str| -> Option<String> {
        let rest = name.strip_prefix(before)?;
        rest.starts_with(only).then(|| rest.to_owned())
    };
    let mut here = HashMap::new();
    for part in parts {
        let [ours, theirs] = part.only;
        for (name, _) in graph.params() {
            if let Some(stored) = rest(&name, part.ours, ours) {
                here.insert(stored, name);
            }
        }
        for weight in paddle.iter().filter(|w| w.name.starts_with(part.ours)) {
            if let Some(stored) = rest(&weight.paddle_name, part.theirs, theirs) {
                names.insert(stored, weight.name.clone());
            }
        }
    }
    if let Some(twin) = twin {
        for weight in classifier_of(twin, 2, origin)?.1 {
            if let Some(name) = here.get(&weight.name) {
                names.insert(weight.paddle_name, name.clone());
            }
        }
    }
    names.extend(here);
    Ok(names)
}
