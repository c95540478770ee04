//! Measured sensitivities on disk: `sensitivities.json`.

use std::fs;
use std::io;
use std::path::Path;

use oarlock_datasets::{DetectSample, Listed, Sample, SegmentSample};
use oarlock_files as files;
use oarlock_graph::{Criterion, Graph, Sensitivities, WeightMap};
use oarlock_jobs::ErrorCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RATIOS;
use crate::records::Preprocessing;
use crate::{EngineError, Result};

/// Name of the file in the folder of an analysis.
pub const FILE_NAME: &str = "sensitivities.json";
/// Raised when the meaning of a field changes.
const VERSION: u32 = 1;

/// What identifies an image and its truth.
pub trait Identified: Listed {
    /// Adds the truth to `hash`.
    fn truth(&self, root: &Path, hash: &mut Sha256);
}

impl Identified for Sample {
    fn truth(&self, _: &Path, hash: &mut Sha256) {
        hash.update(self.label.to_le_bytes());
    }
}

impl Identified for SegmentSample {
    fn truth(&self, root: &Path, hash: &mut Sha256) {
        hash.update(name(&self.map, root));
    }
}

impl Identified for DetectSample {
    fn truth(&self, _: &Path, hash: &mut Sha256) {
        for object in &self.objects {
            let b = object.bbox;
            hash.update(object.class.to_le_bytes());
            [b.x1, b.y1, b.x2, b.y2]
                .iter()
                .for_each(|v| hash.update(v.to_le_bytes()));
        }
    }
}

/// A file within `root`.
fn name<'a>(path: &'a Path, root: &Path) -> &'a [u8] {
    let name = path.strip_prefix(root).unwrap_or(path);
    name.as_os_str().as_encoded_bytes()
}

/// What losses depend on, as hashes: equal ones mean equal losses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The network.
    pub graph: String,
    /// Its weights.
    pub weights: String,
    /// The validation images, by name and truth (class, or name of the label map), how they are prepared, the ratios and the criterion.
    pub data: String,
}

impl Fingerprint {
    /// Of an analysis.
    ///
    /// # Errors
    /// None that a valid graph causes.
    pub fn new(
        graph: &Graph,
        weights: &WeightMap,
        samples: &[impl Identified],
        root: &Path,
        preprocessing: &Preprocessing,
        criterion: Criterion,
    ) -> Result<Self> {
        let mut data = Sha256::new();
        for sample in samples {
            data.update(name(sample.path(), root));
            sample.truth(root, &mut data);
        }
        data.update(format!("{preprocessing:?} {RATIOS:?} {criterion:?}"));
        Ok(Self {
            graph: graph_hash(graph)?,
            weights: weights_hash(weights),
            data: hex(data),
        })
    }
}

/// Hash of a network's description.
///
/// # Errors
/// None that a valid graph causes.
pub fn graph_hash(graph: &Graph) -> Result<String> {
    let text = graph.to_json();
    let text = text.map_err(|e| EngineError::internal(e.to_string()))?;
    Ok(hex(Sha256::new_with_prefix(text)))
}

/// Hash of all weights.
pub fn weights_hash(weights: &WeightMap) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in weights {
        hash.update(name);
        // In pieces: hashing wants bytes, and the whole may be hundreds of megabytes.
        for values in tensor.data.chunks(1 << 14) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(bytes);
        }
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The losses measured so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    version: u32,
    /// Name of the network.
    pub model: String,
    /// Name of the metric.
    pub metric: String,
    /// The metric of the unpruned network.
    pub base: f64,
    /// Images it was measured on.
    pub images: usize,
    /// `l1_norm` or `geometric_median`.
    pub criterion: String,
    /// What the losses depend on.
    pub fingerprint: Fingerprint,
    /// Groups of layers that can be pruned.
    pub groups: usize,
    /// (ratio, relative loss) by group; groups that are not measured yet are not there.
    pub sensitivities: Sensitivities,
}

impl Table {
    /// Without losses.
    pub fn new(
        model: &str,
        metric: &str,
        criterion: Criterion,
        fingerprint: Fingerprint,
        groups: usize,
    ) -> Self {
        let criterion = match criterion {
            Criterion::L1Norm => "l1_norm",
            Criterion::GeometricMedian => "geometric_median",
        };
        Self {
            version: VERSION,
            model: model.to_owned(),
            metric: metric.to_owned(),
            base: 0.0,
            images: 0,
            criterion: criterion.to_owned(),
            fingerprint,
            groups,
            sensitivities: Sensitivities::new(),
        }
    }

    /// Whether every group is measured.
    pub fn complete(&self) -> bool {
        self.sensitivities.len() >= self.groups
    }

    /// Writes the file whole.
    ///
    /// # Errors
    /// I/O failures, a full disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self);
        let text = text.map_err(|e| EngineError::internal(e.to_string()))?;
        files::write_bytes(path, &text)
            .map_err(|e| EngineError::from(e).with("path", path.display().to_string()))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// `NotReady` when there is none, `InvalidData` when it is damaged or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => EngineError::new(
                ErrorCode::NotReady,
                "there are no sensitivities: the analysis of this model has not run",
            )
            .with("path", path.display().to_string())
            .hint("run the sensitivity analysis of the parent task first"),
            _ => e.into(),
        })?;
        let damaged = |what: String| {
            EngineError::new(
                ErrorCode::InvalidData,
                format!("the sensitivities '{}' are damaged: {what}", path.display()),
            )
            .hint("run the sensitivity analysis of the parent task again")
        };
        let table: Self = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if table.version != VERSION {
            let version = table.version;
            return Err(damaged(format!(
                "they have version {version}, this program reads {VERSION}"
            )));
        }
        let finite =
            |points: &Vec<(f64, f64)>| points.iter().all(|(r, l)| r.is_finite() && l.is_finite());
        if !table.sensitivities.values().all(finite) {
            return Err(damaged("a loss is no number".to_owned()));
        }
        Ok(table)
    }
}
