//! MSCOCO annotations: one JSON file for all pictures (Lin et al. 2014).
//!
//! The entries of the lists are parsed one by one, so that a fault names its entry, and nothing is held
//! twice.

mod parts;
mod segmentation;
mod truth;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use oarlock_imaging::{BBox, Object, mask_outlines};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use crate::{DataError, DetectSample, decode_text};

pub use parts::PARTS;
pub(crate) use parts::{WHOLE, merged, write_parts};
pub use segmentation::Segmentation;
pub use truth::{CocoTruth, Places, TruthSet};

/// Largest annotation file.
const MAX_BYTES: u64 = 4 << 30;
/// Faults that are kept; others are counted only.
const KEPT: usize = 100;

/// The folder of the pictures.
pub const PICTURES: &str = "JPEGImages";

/// An id as written: mostly a number, of some tools a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(i64),
    /// Anything as text.
    Text(String),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(t) => write!(f, "`{t}`"),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Id;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or text as id")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Id, E> {
                Ok(Id::Number(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Id, E> {
                Ok(i64::try_from(v).map_or_else(|_| Id::Text(v.to_string()), Id::Number))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Id, E> {
                if v.fract() == 0.0 && v.abs() < 9e15 {
                    Ok(Id::Number(v as i64))
                } else {
                    Ok(Id::Text(v.to_string()))
                }
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Id, E> {
                Ok(Id::Text(v.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An entry of `images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoImage {
    /// Id.
    pub id: Id,
    /// Name as written, maybe with folders.
    pub file_name: String,
    /// Width in pixels.
    pub width: f32,
    /// Height in pixels.
    pub height: f32,
}

impl CocoImage {
    /// The last part of the name: what is looked up in `JPEGImages`.
    pub fn name(&self) -> &str {
        self.file_name.rsplit(['/', '\\']).next().unwrap_or("")
    }
}

/// An entry of `categories`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoCategory {
    /// Id.
    pub id: Id,
    /// Class name.
    pub name: String,
}

/// An entry of `annotations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoAnnotation {
    /// Id, if it has one.
    pub id: Option<Id>,
    /// The picture.
    pub image_id: Id,
    /// The class.
    pub category_id: Id,
    /// x, y, width, height.
    pub bbox: Option<[f32; 4]>,
    /// Pixels.
    pub area: Option<f64>,
    /// Outline or mask.
    #[serde(default, skip_serializing_if = "Segmentation::is_none")]
    pub segmentation: Segmentation,
    /// A group of things that are not told apart; not trained with.
    #[serde(default, deserialize_with = "flag", serialize_with = "number")]
    pub iscrowd: bool,
    /// Not counted in VOC's average precision.
    #[serde(default, deserialize_with = "flag", serialize_with = "number")]
    pub difficult: bool,
}

fn number<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(u8::from(*flag))
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_bool().unwrap_or(false) || value.as_f64().is_some_and(|v| v != 0.0))
}

/// The lists of the file, unparsed.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Vec<&'a RawValue>,
    #[serde(borrow)]
    categories: Vec<&'a RawValue>,
}

/// What is wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CocoFault {
    /// The entry: `annotation 17 of image 3 (a.jpg)`.
    pub entry: String,
    /// What is wrong.
    pub reason: String,
}

/// A whole file.
#[derive(Debug, Clone, Default)]
pub struct Coco {
    /// Pictures in order of the file.
    pub images: Vec<CocoImage>,
    /// Classes in order of the file: the place is the class id of training.
    pub categories: Vec<CocoCategory>,
    /// Usable annotations in order of the file, without crowds; each with the place of its picture in
    /// `images` and of its class in `categories`.
    pub annotations: Vec<(usize, usize, CocoAnnotation)>,
    /// Crowds with a region, likewise.
    pub crowds: Vec<(usize, usize, CocoAnnotation)>,
    /// What is wrong, the first hundred.
    pub faults: Vec<CocoFault>,
    /// How many faults there are.
    pub fault_count: usize,
    /// What was left out without harm.
    pub remarks: Vec<String>,
}

/// Reads a file as text: UTF-8, or GB18030.
pub(crate) fn read_json(path: &Path) -> Result<String, DataError> {
    let io = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_BYTES {
        let text = format!("{size} bytes are too many for an annotation file");
        return Err(DataError::Invalid(text));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.starts_with('\u{feff}') => Ok(text),
        Ok(text) => Ok(text['\u{feff}'.len_utf8()..].to_owned()),
        Err(other) => decode_text(other.as_bytes())
            .ok_or_else(|| DataError::Invalid("it is neither UTF-8 nor GB18030 text".into())),
    }
}

impl Coco {
    /// Reads the text of a file. Errors: no JSON object with `images` and `categories`; faults of single
    /// entries are in `faults`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| format!("broken JSON: {e}"))?;
        let mut coco = Self::default();
        coco.categories = coco.list(&raw.categories, "category", |c: &CocoCategory| {
            if c.name.trim().is_empty() {
                Some("it has no name".into())
            } else if c.name.contains(['\n', '\r']) {
                Some("its name has a line break".into())
            } else {
                None
            }
        });
        for category in &mut coco.categories {
            category.name = category.name.trim().to_owned();
        }
        coco.images = coco.list(&raw.images, "image", |i: &CocoImage| {
            if i.name().is_empty() {
                Some("it has no file_name".into())
            } else if ![i.width, i.height]
                .iter()
                .all(|side| (1.0..1e7).contains(side))
            {
                Some(format!("its size {}×{} is none", i.width, i.height))
            } else {
                None
            }
        });
        let classes = coco.places("category", |c| {
            c.categories.iter().map(|c| c.id.clone()).collect()
        });
        coco.same_names();
        let images = coco.places("image", |c| c.images.iter().map(|i| i.id.clone()).collect());
        coco.take(&raw.annotations, &images, &classes);
        Ok(coco)
    }

    /// Reads a file of a dataset folder. Errors like those of [`Coco::parse`].
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = read_json(path).map_err(|e| match e {
            DataError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        })?;
        Self::parse(&text)
    }

    fn fault(&mut self, entry: String, reason: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < KEPT {
            let reason = reason.into();
            self.faults.push(CocoFault { entry, reason });
        }
    }

    fn remark(&mut self, text: String) {
        if self.remarks.len() < KEPT {
            self.remarks.push(text);
        }
    }

    fn list<T: for<'de> Deserialize<'de>>(
        &mut self,
        raw: &[&RawValue],
        what: &str,
        wrong: impl Fn(&T) -> Option<String>,
    ) -> Vec<T> {
        let mut list = Vec::with_capacity(raw.len());
        for (i, entry) in raw.iter().enumerate() {
            match serde_json::from_str::<T>(entry.get()) {
                Ok(read) => match wrong(&read) {
                    Some(reason) => self.fault(format!("{what} entry {}", i + 1), reason),
                    None => list.push(read),
                },
                Err(error) => self.fault(format!("{what} entry {}", i + 1), error.to_string()),
            }
        }
        list
    }

    /// Place of each id; ids that occur twice are faults.
    fn places(&mut self, what: &str, ids: impl Fn(&Self) -> Vec<Id>) -> HashMap<Id, usize> {
        let mut places = HashMap::new();
        for (place, id) in ids(self).into_iter().enumerate() {
            match places.entry(id) {
                Entry::Occupied(same) => {
                    self.fault(format!("{what} {}", same.key()), "its id is used twice");
                }
                Entry::Vacant(free) => {
                    free.insert(place);
                }
            }
        }
        places
    }

    fn same_names(&mut self) {
        let mut names: HashMap<String, Id> = HashMap::new();
        for category in self.categories.clone() {
            let CocoCategory { id, name } = category;
            if let Some(first) = names.get(&name) {
                let reason = format!("category {first} has the same name {name}");
                self.fault(format!("category {id}"), reason);
            } else {
                names.insert(name, id);
            }
        }
    }

    fn take(
        &mut self,
        raw: &[&RawValue],
        images: &HashMap<Id, usize>,
        classes: &HashMap<Id, usize>,
    ) {
        let (mut ids, mut crowds, mut strange) = (HashSet::new(), 0, 0);
        for (number, entry) in raw.iter().enumerate() {
            let mut read = match serde_json::from_str::<CocoAnnotation>(entry.get()) {
                Ok(read) => read,
                Err(error) => {
                    self.fault(
                        format!("annotation entry {}", number + 1),
                        error.to_string(),
                    );
                    continue;
                }
            };
            if read.iscrowd {
                crowds += 1;
                let places = (images.get(&read.image_id), classes.get(&read.category_id));
                if let (Some(&image), Some(&class)) = places {
                    let picture = &self.images[image];
                    // What is wrong with a crowd is no fault: it is not trained with.
                    if usable(&mut read, (picture.width, picture.height)).is_ok() {
                        self.crowds.push((image, class, read));
                    }
                }
                continue;
            }
            let Some(&image) = images.get(&read.image_id) else {
                strange += 1;
                continue;
            };
            let which = read.id.as_ref().map_or_else(
                || format!("annotation entry {}", number + 1),
                |id| format!("annotation {id}"),
            );
            let picture = &self.images[image];
            let what = format!("{which} of image {} ({})", picture.id, picture.name());
            if let Some(id) = &read.id
                && !ids.insert(id.clone())
            {
                self.fault(what, "its id is used twice");
                continue;
            }
            let Some(&class) = classes.get(&read.category_id) else {
                let reason = format!("its category {} is not in categories", read.category_id);
                self.fault(what, reason);
                continue;
            };
            let size = (picture.width, picture.height);
            match usable(&mut read, size) {
                Ok(None) => self.annotations.push((image, class, read)),
                Ok(Some(remark)) => {
                    self.remark(format!("{what}: {remark}"));
                    self.annotations.push((image, class, read));
                }
                Err(reason) => self.fault(what, reason),
            }
        }
        if crowds > 0 {
            self.remark(format!("{crowds} annotations are crowds and are not used"));
        }
        if strange > 0 {
            self.remark(format!(
                "{strange} annotations belong to no entry of images and are not used"
            ));
        }
    }

    /// Class names in the order of their training ids.
    pub fn labels(&self) -> Vec<String> {
        self.categories.iter().map(|c| c.name.clone()).collect()
    }

    /// Gives the categories the order of `labels`, so that the same class has the same id. Errors: the name of a
    /// category that is not among them. Classes that the file does not have get one without annotations.
    pub fn order_categories(&mut self, labels: &[String]) -> Result<(), String> {
        let place = |name: &String| labels.iter().position(|l| l == name);
        let places: Vec<usize> = self
            .categories
            .iter()
            .map(|c| place(&c.name).ok_or_else(|| c.name.clone()))
            .collect::<Result<_, _>>()?;
        let own = std::mem::take(&mut self.categories);
        let known = |i: usize| {
            places
                .iter()
                .position(|p| *p == i)
                .map(|at| own[at].clone())
        };
        self.categories = labels
            .iter()
            .enumerate()
            .map(|(i, name)| {
                known(i).unwrap_or_else(|| CocoCategory {
                    id: Id::Text(name.clone()),
                    name: name.clone(),
                })
            })
            .collect();
        for (_, class, _) in self.annotations.iter_mut().chain(&mut self.crowds) {
            *class = places[*class];
        }
        Ok(())
    }

    /// Annotations of every picture, in order of `images`: places in `annotations`.
    pub fn by_image(&self) -> Vec<Vec<usize>> {
        let mut lists = vec![Vec::new(); self.images.len()];
        for (place, (image, ..)) in self.annotations.iter().enumerate() {
            lists[*image].push(place);
        }
        lists
    }

    /// An annotation as the thing that training knows: class id by category order, box clipped to
    /// 0 … size − 1, outlines in pixels (of run lengths along the pixels' edges).
    pub fn object(&self, place: usize) -> Object {
        let (image, class, annotation) = &self.annotations[place];
        let image = &self.images[*image];
        let (w, h) = (image.width, image.height);
        let [x, y, width, height] = annotation.bbox.unwrap_or_default();
        let bbox = BBox::new(
            x.max(0.0),
            y.max(0.0),
            (x + (width - 1.0).max(0.0)).min(w - 1.0),
            (y + (height - 1.0).max(0.0)).min(h - 1.0),
        );
        let polygons = match &annotation.segmentation {
            Segmentation::None => Vec::new(),
            Segmentation::Polygons(polygons) => polygons.clone(),
            Segmentation::Rle(rle) => rle
                .to_plane()
                .map_or_else(|_| Vec::new(), |m| mask_outlines(&m)),
        };
        Object {
            class: *class,
            bbox,
            polygons,
            weight: 1.0,
            ..Object::default()
        }
    }

    /// All pictures with their things, for training and evaluation. With `masks`, things without an
    /// outline are left out. Whether the pictures are there is left to the loader.
    pub fn samples(&self, root: &Path, masks: bool) -> Vec<DetectSample> {
        let lists = self.by_image();
        self.images
            .iter()
            .zip(lists)
            .map(|(image, places)| DetectSample {
                path: root.join(PICTURES).join(image.name()),
                objects: places
                    .into_iter()
                    .map(|place| self.object(place))
                    .filter(|object| !masks || !object.polygons.is_empty())
                    .collect(),
            })
            .collect()
    }
}

/// Whether box, area and mask fit the picture; a remark when only the mask is missing. The box of an
/// annotation without one is that of its mask.
fn usable(
    read: &mut CocoAnnotation,
    (width, height): (f32, f32),
) -> Result<Option<String>, String> {
    read.segmentation.check((width, height))?;
    if read.bbox.is_none() {
        read.bbox = read.segmentation.bbox();
    }
    let Some([x, y, w, h]) = read.bbox else {
        return Err("it has neither bbox nor segmentation".into());
    };
    let shown = format!("{x}, {y}, {w}, {h}");
    if ![x, y, x + w, y + h].iter().all(|v| v.is_finite()) {
        return Err(format!("its box {shown} holds a number that is too large"));
    }
    if w <= 0.0 || h <= 0.0 {
        return Err(format!("its box {shown} has no area"));
    }
    let right = (x + (w - 1.0).max(0.0)).min(width - 1.0);
    let bottom = (y + (h - 1.0).max(0.0)).min(height - 1.0);
    if right < x.max(0.0) || bottom < y.max(0.0) {
        return Err(format!(
            "its box {shown} lies outside the picture of {width}×{height}"
        ));
    }
    match read.area {
        Some(area) if area <= 0.0 => Err(format!("its area is {area}")),
        _ if matches!(read.segmentation, Segmentation::None) => Ok(Some(
            "it has no mask and is not used where masks are needed".into(),
        )),
        _ => Ok(None),
    }
}

/// One part (`train.json` …) of an imported and split set. Errors: the file cannot be read, or an entry of it
/// is faulty.
pub fn read_whole_part(root: &Path, part: &str) -> Result<Coco, DataError> {
    let invalid = |reason: String| DataError::Invalid(format!("{part}: {reason}"));
    let coco = Coco::read(&root.join(part)).map_err(invalid)?;
    if let Some(CocoFault { entry, reason }) = coco.faults.first() {
        return Err(invalid(format!("{entry}: {reason}")));
    }
    Ok(coco)
}

/// The pictures of a part, and the class names in order of their ids. Errors as [`read_whole_part`].
pub fn read_part(
    root: &Path,
    part: &str,
    masks: bool,
) -> Result<(Vec<String>, Vec<DetectSample>), DataError> {
    let coco = read_whole_part(root, part)?;
    Ok((coco.labels(), coco.samples(root, masks)))
}
