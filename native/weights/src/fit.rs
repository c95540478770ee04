//! Matching stored tensors with the parameters of a network.

use std::collections::HashSet;

use indexmap::IndexMap;
use oarlock_graph::{Graph, HostTensor, WeightMap};
use serde::Serialize;

use crate::paddle::transpose;

/// A network's own translation of another framework's names into its own.
pub type Rename<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How names were brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FitMethod {
    /// By name, after removing known prefixes and translating known suffixes.
    Name,
    /// By order, because the names have nothing in common but all shapes align.
    Order,
}

/// A tensor whose name fits but whose shape does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Name in the network.
    pub name: String,
    /// Name in the file.
    pub source: String,
    /// Sizes the network wants.
    pub wanted: Vec<usize>,
    /// Sizes in the file.
    pub found: Vec<usize>,
}

/// What became of every parameter and every stored tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FitReport {
    /// How names were matched.
    pub method: FitMethod,
    /// Parameters and buffers of the network.
    pub total: usize,
    /// How many of them were found with the right shape.
    pub matched: usize,
    /// Parameters and buffers the file does not have.
    pub missing: Vec<String>,
    /// Parameters of another shape (usually the class head); not used.
    pub mismatched: Vec<Mismatch>,
    /// Stored tensors the network has no place for.
    pub unused: Vec<String>,
}

/// The weights that fit, by the network's names in the network's order, and the report.
#[derive(Debug)]
pub struct Fit {
    /// Weights to set; parameters not in it keep their initial values.
    pub weights: WeightMap,
    /// What fitted and what did not.
    pub report: FitReport,
}

impl FitReport {
    /// Sentences for the user's log: how much fitted, then each kind of remainder by name and shape.
    pub fn notes(&self) -> Vec<String> {
        let by = match self.method {
            FitMethod::Name => "",
            FitMethod::Order => " (matched by order and shape, as the names differ)",
        };
        let mut notes = vec![format!(
            "{} of {} parameters and buffers were taken from the weights{by}",
            self.matched, self.total
        )];
        if !self.mismatched.is_empty() {
            let all = self
                .mismatched
                .iter()
                .map(|m| format!("{} (network {:?}, weights {:?})", m.name, m.wanted, m.found));
            notes.push(format!("skipped because of their shape: {}", listed(all)));
        }
        if !self.missing.is_empty() {
            notes.push(format!(
                "not in the weights: {}",
                listed(self.missing.iter().cloned())
            ));
        }
        if !self.unused.is_empty() {
            notes.push(format!(
                "in the weights only: {}",
                listed(self.unused.iter().cloned())
            ));
        }
        notes
    }
}

/// The first eight items, and how many more there are.
fn listed(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(8);
    let shown = items.take(8).collect::<Vec<_>>().join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

/// Wrappers whose name training scripts leave in front of parameter names.
const PREFIXES: [&str; 6] = [
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
];

/// Suffixes of other frameworks and what they are here.
const SUFFIXES: [(&str, &str); 14] = [
    ("_mean", "running_mean"),
    ("_variance", "running_var"),
    ("moving_mean", "running_mean"),
    ("moving_variance", "running_var"),
    ("gamma", "weight"),
    ("beta", "bias"),
    ("w_0", "weight"),
    ("b_0", "bias"),
    ("w_1", "running_mean"),
    ("w_2", "running_var"),
    ("scale", "weight"),
    ("offset", "bias"),
    ("weights", "weight"),
    ("biases", "bias"),
];

/// Matches `source` with the parameters and buffers of `graph`.
///
/// Names are tried as they are, through `rename` (a network's own translation from another
/// framework's names), without the prefixes of wrappers, and with known suffixes of other frameworks.
/// If hardly any name fits, tensors are matched in order, provided every shape aligns (the last
/// layer may differ). Shapes may differ by a transposition of a linear layer or by the trailing 1×1
/// of a convolution that is a linear layer elsewhere; any other difference is reported, not used.
pub fn fit(graph: &Graph, mut source: WeightMap, rename: Option<Rename<'_>>) -> Fit {
    // PyTorch's counter of batches has no use here and no counterpart.
    source.retain(|name, _| !name.ends_with("num_batches_tracked"));
    let wanted: IndexMap<String, Vec<usize>> =
        graph.params().map(|(name, p)| (name, p.shape)).collect();
    let mut pairs = by_name(&wanted, &source, rename);
    let mut method = FitMethod::Name;
    if pairs.len() * 4 < wanted.len()
        && let Some(ordered) = by_order(&wanted, &source)
    {
        pairs = ordered;
        method = FitMethod::Order;
    }
    let mut weights = WeightMap::new();
    let mut report = FitReport {
        method,
        total: wanted.len(),
        matched: 0,
        missing: Vec::new(),
        mismatched: Vec::new(),
        unused: Vec::new(),
    };
    for (name, shape) in &wanted {
        let Some(stored) = pairs.get(name) else {
            report.missing.push(name.clone());
            continue;
        };
        // Moved out, not copied: a stored name belongs to one parameter only.
        let empty = HostTensor {
            shape: Vec::new(),
            data: Vec::new(),
        };
        let Some(tensor) = source.get_mut(stored).map(|t| std::mem::replace(t, empty)) else {
            continue;
        };
        let found = tensor.shape.clone();
        match adapt(tensor, shape) {
            Some(tensor) => {
                weights.insert(name.clone(), tensor);
            }
            None => report.mismatched.push(Mismatch {
                name: name.clone(),
                source: stored.clone(),
                wanted: shape.clone(),
                found,
            }),
        }
    }
    report.matched = weights.len();
    let used: HashSet<&String> = pairs.values().collect();
    report.unused = source
        .keys()
        .filter(|name| !used.contains(name))
        .cloned()
        .collect();
    Fit { weights, report }
}

/// Network name → stored name.
type Pairs = IndexMap<String, String>;

fn by_name(
    wanted: &IndexMap<String, Vec<usize>>,
    source: &WeightMap,
    rename: Option<Rename<'_>>,
) -> Pairs {
    let mut pairs = Pairs::new();
    for stored in source.keys() {
        let found = candidates(stored, rename)
            .into_iter()
            .find(|name| wanted.contains_key(name) && !pairs.contains_key(name));
        if let Some(name) = found {
            pairs.insert(name, stored.clone());
        }
    }
    pairs
}

/// What a stored name may be called in the network, likeliest first.
fn candidates(stored: &str, rename: Option<Rename<'_>>) -> Vec<String> {
    let mut bare = vec![stored];
    let mut rest = stored;
    while let Some(inner) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        bare.push(inner);
        rest = inner;
    }
    let mut names: Vec<String> = bare.iter().map(|&n| n.to_owned()).collect();
    for name in &bare {
        if let Some((module, suffix)) = name.rsplit_once('.') {
            let known = SUFFIXES.iter().find(|&&(theirs, _)| theirs == suffix);
            names.extend(known.map(|(_, ours)| format!("{module}.{ours}")));
        }
    }
    match rename {
        // The network's own translation knows best.
        Some(rename) => names
            .iter()
            .filter_map(|n| rename(n))
            .chain(names.clone())
            .collect(),
        None => names,
    }
}

fn by_order(wanted: &IndexMap<String, Vec<usize>>, source: &WeightMap) -> Option<Pairs> {
    if wanted.len() != source.len() {
        return None;
    }
    let head = wanted
        .keys()
        .next_back()
        .and_then(|n| n.rsplit_once('.'))
        .map(|(module, _)| module);
    let aligned = wanted
        .iter()
        .zip(source)
        .all(|((name, shape), (_, tensor))| {
            let in_head = name.rsplit_once('.').map(|(module, _)| module) == head;
            fits(&tensor.shape, shape) || (in_head && tensor.shape.len() == shape.len())
        });
    aligned.then(|| wanted.keys().cloned().zip(source.keys().cloned()).collect())
}

/// Whether [`adapt`] can turn one shape into the other.
fn fits(found: &[usize], wanted: &[usize]) -> bool {
    match (found, wanted) {
        (f, w) if f == w => true,
        ([a, b], [c, d]) => (a, b) == (d, c),
        ([a, b], [c, d, 1, 1]) | ([a, b, 1, 1], [c, d]) => (a, b) == (c, d),
        _ => false,
    }
}

fn adapt(tensor: HostTensor, wanted: &[usize]) -> Option<HostTensor> {
    if !fits(&tensor.shape, wanted) {
        return None;
    }
    match *tensor.shape.as_slice() {
        [rows, columns] if wanted == [columns, rows] && rows != columns => {
            Some(transpose(&tensor.data, rows, columns))
        }
        _ => Some(HostTensor {
            shape: wanted.to_vec(),
            data: tensor.data,
        }),
    }
}
