//! What an import of an instance segmentation set keeps for each picture: `Annotations/<stem>.npy`, a JSON
//! text under the name that PaddleX gives its pickles.

use std::path::Path;

use oarlock_imaging::{BBox, Polygon};
use oarlock_jobs::{ErrorCode, JobError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::coco::{Coco, WHOLE};

/// Largest annotation of one picture.
const MAX_BYTES: u64 = 256 << 20;

/// The annotation of one picture in the shape of the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Instances {
    /// Height of the picture.
    pub h: f64,
    /// Width.
    pub w: f64,
    /// Class names.
    pub gt_class: Vec<String>,
    /// x1, y1, x2, y2.
    pub gt_bbox: Vec<[f32; 4]>,
    /// Flat polygons, or nothing.
    pub gt_poly: Vec<Option<Vec<Vec<f32>>>>,
}

impl Instances {
    fn of(coco: &Coco, image: usize, places: &[usize]) -> Self {
        let entry = &coco.images[image];
        let mut all = Self {
            h: entry.height.into(),
            w: entry.width.into(),
            ..Self::default()
        };
        for &place in places {
            let object = coco.object(place);
            let BBox { x1, y1, x2, y2 } = object.bbox;
            all.gt_class
                .push(coco.categories[object.class].name.clone());
            all.gt_bbox.push([x1, y1, x2, y2]);
            let flat = |p: &Polygon| p.iter().flatten().copied().collect();
            all.gt_poly.push(match object.polygons.as_slice() {
                [] => None,
                polygons => Some(polygons.iter().map(flat).collect()),
            });
        }
        all
    }

    /// The outlines of one object.
    pub fn polygons(&self, object: usize) -> Vec<Polygon> {
        let points = |flat: &Vec<f32>| flat.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
        let flat = self.gt_poly.get(object).and_then(Option::as_ref);
        flat.map_or_else(Vec::new, |all| all.iter().map(points).collect())
    }

    /// Reads `Annotations/<stem>.npy` of a dataset. A pickle that PaddleX left there is never loaded: the
    /// same is read from `annotations.json` then.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let other = |why: &str| JobError::new(ErrorCode::Unsupported, format!("{name} {why}"));
        if std::fs::metadata(path)?.len() > MAX_BYTES {
            return Err(other("is too large for the annotation of one picture"));
        }
        let text = std::fs::read(path)?;
        if is_pickle(&text) {
            return Self::from_whole(path);
        }
        serde_json::from_slice(&text).map_err(|_| other("is no instance segmentation annotation"))
    }

    fn from_whole(path: &Path) -> Result<Self, JobError> {
        let missing = || {
            let text = "the annotation of this picture is not in annotations.json";
            JobError::new(ErrorCode::NotFound, text).hint("import the dataset again")
        };
        let root = path.parent().and_then(Path::parent).ok_or_else(missing)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let coco = Coco::read(&root.join(WHOLE)).map_err(|reason| {
            JobError::new(ErrorCode::InvalidData, format!("{WHOLE}: {reason}"))
        })?;
        let of = |name: &str| name.rsplit_once('.').is_some_and(|(s, _)| s == stem) || name == stem;
        let image = coco
            .images
            .iter()
            .rposition(|i| of(i.name()))
            .ok_or_else(missing)?;
        Ok(Self::of(&coco, image, &coco.by_image()[image]))
    }
}

/// Whether it is a file that PaddleX wrote and still reads.
pub(crate) fn is_pickle(content: &[u8]) -> bool {
    content.starts_with(b"\x93NUMPY")
}

/// The text that an import writes for one picture.
pub(crate) fn annotation_json(coco: &Coco, image: usize, places: &[usize]) -> String {
    serde_json::to_value(Instances::of(coco, image, places))
        .as_ref()
        .map_or_else(|_| String::new(), Value::to_string)
}

/// An annotation of an instance segmentation set as JSON text: `h`, `w`, `gt_class`, `gt_bbox`, `gt_poly`.
/// Errors: a file that is something else.
pub fn read_annotation(path: &Path) -> Result<String, JobError> {
    let read = Instances::read(path)?;
    serde_json::to_string(&read).map_err(|e| JobError::new(ErrorCode::Internal, e.to_string()))
}
