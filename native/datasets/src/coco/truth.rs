//! Annotations as MSCOCO lists: what detections are compared with.

use std::collections::HashMap;
use std::path::PathBuf;

use oarlock_imaging::Rle;
use oarlock_metrics::{ImageResult, Truth};
use serde::{Deserialize, Serialize};

use super::{Coco, CocoAnnotation, CocoCategory, CocoImage, Id, Segmentation};
use crate::DetectSample;

/// The three lists of an MSCOCO file. The place of a category is the class id of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CocoTruth {
    /// Pictures.
    pub images: Vec<CocoImage>,
    /// Classes.
    pub categories: Vec<CocoCategory>,
    /// Things, crowds too.
    pub annotations: Vec<CocoAnnotation>,
}

/// Pictures with what is in them, as one process hands them to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TruthSet {
    /// Absolute files, in the order of the truth's pictures.
    pub pictures: Vec<PathBuf>,
    /// What is in them.
    pub truth: CocoTruth,
}

/// Places of pictures and classes in their lists.
#[derive(Debug)]
pub struct Places {
    images: HashMap<Id, usize>,
    classes: HashMap<Id, usize>,
}

impl Places {
    /// Place of a picture and of a class; none when one of both is not there.
    pub fn find(&self, image: &Id, class: &Id) -> Option<(usize, usize)> {
        let image = self.images.get(image).copied();
        image.zip(self.classes.get(class).copied())
    }
}

impl CocoTruth {
    /// Where everything stands.
    pub fn places(&self) -> Places {
        let places = |ids: &mut dyn Iterator<Item = &Id>| -> HashMap<Id, usize> {
            ids.enumerate()
                .map(|(place, id)| (id.clone(), place))
                .collect()
        };
        Places {
            images: places(&mut self.images.iter().map(|i| &i.id)),
            classes: places(&mut self.categories.iter().map(|c| &c.id)),
        }
    }

    /// What is in each picture, where nothing was found yet, in the order of `images`; with `masks` the pixels too. None
    /// when an annotation names a picture or a class that is not there.
    pub fn results(&self, places: &Places, masks: bool) -> Option<Vec<ImageResult>> {
        let size = |side: f32| (side >= 1.0).then_some(side as u32);
        let empty = |image: &CocoImage| ImageResult {
            size: size(image.width).zip(size(image.height)),
            ..ImageResult::default()
        };
        let mut results: Vec<ImageResult> = self.images.iter().map(empty).collect();
        for annotation in &self.annotations {
            let (image, class) = places.find(&annotation.image_id, &annotation.category_id)?;
            let result = &mut results[image];
            let size = masks.then_some(result.size).flatten();
            result.truths.push(truth(annotation, class, size));
        }
        Some(results)
    }

    /// The content of a file: its usable annotations and its crowds. With `masks`, things without one are left out, as
    /// in training.
    pub fn of(coco: &Coco, masks: bool) -> Self {
        let usable = coco.annotations.iter().chain(&coco.crowds);
        Self {
            images: coco.images.clone(),
            categories: coco.categories.clone(),
            annotations: usable
                .map(|(_, _, annotation)| annotation)
                .filter(|a| !masks || a.segmentation != Segmentation::None)
                .cloned()
                .collect(),
        }
    }

    /// The boxes of a list with class names `labels`. Ids are numbered, pictures from 0 and classes from 1, as PaddleX
    /// does; the sizes of the pictures are not known and 0.
    pub fn of_samples(labels: &[String], samples: &[DetectSample]) -> Self {
        let id = |place: usize| Id::Number(place as i64);
        let category = |(i, name): (usize, &String)| CocoCategory {
            id: id(i + 1),
            name: name.clone(),
        };
        let image = |(i, sample): (usize, &DetectSample)| CocoImage {
            id: id(i),
            file_name: sample
                .path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            width: 0.0,
            height: 0.0,
        };
        let mut annotations = Vec::new();
        for (i, sample) in samples.iter().enumerate() {
            for object in &sample.objects {
                let (b, place) = (object.bbox, annotations.len());
                annotations.push(CocoAnnotation {
                    id: Some(id(place)),
                    image_id: id(i),
                    category_id: id(object.class + 1),
                    bbox: Some([b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1]),
                    area: Some(f64::from(b.area())),
                    segmentation: Segmentation::None,
                    iscrowd: false,
                    difficult: object.difficult,
                });
            }
        }
        Self {
            images: samples.iter().enumerate().map(image).collect(),
            categories: labels.iter().enumerate().map(category).collect(),
            annotations,
        }
    }
}

fn truth(annotation: &CocoAnnotation, class: usize, size: Option<(u32, u32)>) -> Truth {
    let bbox = annotation.bbox.unwrap_or_default().map(f64::from);
    let mask = size.and_then(|size| annotation.segmentation.mask(size));
    let measured = || {
        mask.as_ref()
            .map_or(bbox[2] * bbox[3], |mask: &Rle| f64::from(mask.area()))
    };
    Truth {
        class,
        bbox,
        area: annotation.area.unwrap_or_else(measured),
        crowd: annotation.iscrowd,
        difficult: annotation.difficult,
        mask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": "b", "file_name": "b.jpg", "width": 4, "height": 3}],
        "categories": [{"id": 3, "name": "nut"}, {"id": 1, "name": "螺丝"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1.5, 2, 10.25, 4], "area": 30.5, "iscrowd": 0, "segmentation": [[1.5, 2, 11, 2, 11, 6]]},
            {"id": 2, "image_id": "b", "category_id": 3, "bbox": [0, 0, 2, 2], "area": 4},
            {"id": 3, "image_id": "b", "category_id": 3, "bbox": [0, 0, 4, 3], "area": 6, "iscrowd": 1, "segmentation": {"size": [3, 4], "counts": [3, 6, 3]}},
            {"id": 4, "image_id": "b", "category_id": 9, "bbox": [0, 0, 4, 3], "area": 6, "iscrowd": 1}]}"#;

    #[test]
    fn what_is_written_is_what_was_read() {
        let coco = Coco::parse(FILE).unwrap();
        assert_eq!((coco.annotations.len(), coco.crowds.len()), (2, 1));
        let truth = CocoTruth::of(&coco, false);
        let text = serde_json::to_string(&truth).unwrap();
        assert!(text.contains("[1.5,2.0,10.25,4.0]"), "{text}");
        assert!(text.contains(r#""iscrowd":1"#), "{text}");
        assert_eq!(serde_json::from_str::<CocoTruth>(&text).unwrap(), truth);
        let masks = CocoTruth::of(&coco, true);
        let ids: Vec<_> = masks.annotations.iter().map(|a| a.id.clone()).collect();
        assert_eq!(ids, [Some(Id::Number(1)), Some(Id::Number(3))]);
    }

    #[test]
    fn boxes_of_a_list_get_ids() {
        let object = oarlock_imaging::Object {
            class: 1,
            bbox: oarlock_imaging::BBox::new(1.0, 2.0, 5.0, 8.0),
            difficult: true,
            ..Default::default()
        };
        let sample = |name: &str, objects| DetectSample {
            path: name.into(),
            objects,
        };
        let samples = [sample("/x/a.jpg", vec![]), sample("/x/b.jpg", vec![object])];
        let labels = ["nut".to_owned(), "螺丝".to_owned()];
        let truth = CocoTruth::of_samples(&labels, &samples);
        let names: Vec<&str> = truth.images.iter().map(CocoImage::name).collect();
        assert_eq!(names, ["a.jpg", "b.jpg"]);
        let only = &truth.annotations[0];
        assert_eq!(
            (&only.image_id, &only.category_id),
            (&Id::Number(1), &Id::Number(2))
        );
        assert_eq!(
            (only.bbox, only.area),
            (Some([1.0, 2.0, 4.0, 6.0]), Some(24.0))
        );
        assert!(only.difficult);
    }
}
