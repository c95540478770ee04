//! Boxes and masks that a detector found on the validation images, and what is there, as MSCOCO result files have it.

use std::path::Path;

use oarlock_datasets::coco::{CocoTruth, Id, Segmentation};
use oarlock_jobs::ErrorCode;
use oarlock_metrics::{Detection, ImageResult};
use serde::{Deserialize, Serialize};

use super::eval_details::open;
use crate::detect::Detected;
use crate::{EngineError, Result};

/// Validation predictions of a detector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxDetails {
    /// What is in the images.
    pub gt: CocoTruth,
    /// What was found.
    pub bbox: Vec<FoundBox>,
    /// The masks of `bbox`, one each; absent where the network predicts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Vec<FoundMask>>,
}

/// A box of an MSCOCO result file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundBox {
    /// The picture.
    pub image_id: Id,
    /// The class.
    pub category_id: Id,
    /// x, y, width, height in pixels.
    pub bbox: [f32; 4],
    /// Confidence, 0 to 1.
    pub score: f32,
}

/// A mask of an MSCOCO result file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundMask {
    /// The picture.
    pub image_id: Id,
    /// The class.
    pub category_id: Id,
    /// Run lengths.
    pub segmentation: Segmentation,
    /// Confidence, 0 to 1.
    pub score: f32,
}

impl BoxDetails {
    /// With nothing found yet.
    pub fn new(gt: CocoTruth, masks: bool) -> Self {
        Self {
            gt,
            bbox: Vec::new(),
            mask: masks.then(Vec::new),
        }
    }

    /// Adds what was found in the picture with the place `image` in `gt`.
    ///
    /// # Errors
    /// `Internal` for classes that are not in `gt`, and where a mask is missing.
    pub fn add(&mut self, image: usize, found: &[Detected]) -> Result<()> {
        let image_id = &self.gt.images[image].id;
        for one in found {
            let category = self.gt.categories.get(one.class);
            let category_id = &category
                .ok_or_else(|| EngineError::internal(format!("class {} was found", one.class)))?
                .id;
            let [x1, y1, x2, y2] = one.bbox;
            self.bbox.push(FoundBox {
                image_id: image_id.clone(),
                category_id: category_id.clone(),
                bbox: [x1, y1, x2 - x1, y2 - y1],
                score: one.score,
            });
            if let Some(masks) = &mut self.mask {
                let mask = one.mask.clone();
                let mask = mask.ok_or_else(|| EngineError::internal("a box without its mask"))?;
                masks.push(FoundMask {
                    image_id: image_id.clone(),
                    category_id: category_id.clone(),
                    segmentation: Segmentation::Rle(mask),
                    score: one.score,
                });
            }
        }
        Ok(())
    }

    /// Reads the file of a model of `classes` classes.
    ///
    /// # Errors
    /// `NotReady` when there is no such file, `InvalidData` when it is damaged or belongs to another number of
    /// classes, `ResourceExhausted` when it is too large.
    pub fn read(path: &Path, classes: usize) -> Result<Self> {
        let damaged = |what: String| damaged(path, &what);
        let details: Self =
            serde_json::from_reader(open(path)?).map_err(|e| damaged(e.to_string()))?;
        if details.gt.categories.len() != classes {
            let count = details.gt.categories.len();
            return Err(damaged(format!(
                "{count} categories, but there are {classes} classes"
            )));
        }
        if details
            .mask
            .as_ref()
            .is_some_and(|masks| masks.len() != details.bbox.len())
        {
            return Err(damaged("boxes and masks differ in number".into()));
        }
        details.images().map_err(|e| damaged(e.0.message))?;
        Ok(details)
    }

    /// What is in each image and what was found there, in the order of `gt.images`.
    ///
    /// # Errors
    /// `InvalidData` for pictures or classes that `gt` does not know, for boxes and scores that are no numbers.
    pub fn images(&self) -> Result<Vec<ImageResult>> {
        let invalid = |what: String| EngineError::new(ErrorCode::InvalidData, what);
        let unknown = || invalid("an image or a category is not in gt".into());
        let places = self.gt.places();
        let results = self.gt.results(&places, self.mask.is_some());
        let mut results = results.ok_or_else(unknown)?;
        for (i, found) in self.bbox.iter().enumerate() {
            let place = places.find(&found.image_id, &found.category_id);
            let (image, class) = place.ok_or_else(unknown)?;
            if !found.score.is_finite() || found.bbox.iter().any(|v| !v.is_finite()) {
                return Err(invalid(format!("box {i} is no box")));
            }
            let size = results[image].size;
            results[image].detections.push(Detection {
                class,
                score: found.score.into(),
                bbox: found.bbox.map(f64::from),
                mask: self.mask.as_ref().and_then(|masks| {
                    let mask = masks.get(i)?;
                    mask.segmentation.mask(size?)
                }),
            });
        }
        Ok(results)
    }
}

fn damaged(path: &Path, what: &str) -> EngineError {
    let what = format!(
        "'{}' is damaged or of another model: {what}",
        path.display()
    );
    EngineError::new(ErrorCode::InvalidData, what).hint("evaluate a newer checkpoint")
}

#[cfg(test)]
mod tests {
    use oarlock_imaging::Rle;

    use super::*;

    fn details() -> BoxDetails {
        let text = r#"{"gt": {"images": [{"id": 4, "file_name": "a.jpg", "width": 8, "height": 6}],
            "categories": [{"id": 1, "name": "nut", "supercategory": "component"}, {"id": 9, "name": "b"}],
            "annotations": [{"id": 0, "image_id": 4, "category_id": 9, "bbox": [1, 1, 4, 3], "area": 12, "iscrowd": 0,
                "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]}]},
            "bbox": [{"image_id": 4, "category_id": 9, "bbox": [1, 1, 4, 3], "score": 0.5}],
            "mask": [{"image_id": 4, "category_id": 9, "score": 0.5, "segmentation": {"size": [6, 8], "counts": [48]}}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn files_of_paddlex_and_ours_become_results() {
        let mut details = details();
        let mut row = [0; 48];
        row[7..10].fill(1);
        let mask = Rle::new(8, 6, &[7, 3, 38]).unwrap();
        details
            .add(
                0,
                &[Detected {
                    class: 0,
                    score: 0.25,
                    bbox: [1.0, 1.0, 2.0, 4.0],
                    mask: Some(mask.clone()),
                }],
            )
            .unwrap();
        let text = serde_json::to_string(&details).unwrap();
        let again: BoxDetails = serde_json::from_str(&text).unwrap();
        assert_eq!(again, details);
        let images = again.images().unwrap();
        assert_eq!(images[0].size, Some((8, 6)));
        let truth = &images[0].truths[0];
        assert_eq!((truth.class, truth.area), (1, 12.0));
        assert_eq!(truth.mask.as_ref().map(Rle::area), Some(12));
        let found = &images[0].detections[1];
        assert_eq!((found.class, found.bbox), (0, [1.0, 1.0, 1.0, 3.0]));
        assert_eq!(found.mask.as_ref(), Some(&mask));
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval_details.json");
        let refused = |details: &BoxDetails, classes: usize| {
            std::fs::write(&path, serde_json::to_string(details).unwrap()).unwrap();
            BoxDetails::read(&path, classes).unwrap_err().code()
        };
        assert_eq!(refused(&details(), 3), ErrorCode::InvalidData);
        let mut strange = details();
        strange.bbox[0].image_id = Id::Number(5);
        assert_eq!(refused(&strange, 2), ErrorCode::InvalidData);
        let mut fewer = details();
        fewer.mask = Some(Vec::new());
        assert_eq!(refused(&fewer, 2), ErrorCode::InvalidData);
        std::fs::write(&path, "{\"gt\": 3").unwrap();
        assert!(BoxDetails::read(&path, 2).is_err());
    }
}
