//! The `segmentation` of an annotation: outlines or run lengths.

use oarlock_imaging::{Polygon, Rle, polygon_area};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a thing covers.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Segmentation {
    /// Nothing is said.
    #[default]
    None,
    /// Outlines in pixels.
    Polygons(Vec<Polygon>),
    /// A mask as large as the picture.
    Rle(Rle),
}

/// A list of outlines, each flat, or one flat outline.
#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Number(f32),
    List(Vec<f32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Text(String),
    List(Vec<u32>),
}

struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = Segmentation;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("polygons or run lengths as segmentation")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Segmentation, E> {
        Ok(Segmentation::None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Segmentation, A::Error> {
        let mut flat = Vec::new();
        let mut polygons = Vec::new();
        let mut add = |numbers: &[f32]| {
            if !numbers.len().is_multiple_of(2) || numbers.len() < 6 {
                let text = format!(
                    "a polygon of {} numbers; it takes three or more pairs of x and y",
                    numbers.len()
                );
                return Err(de::Error::custom(text));
            }
            polygons.push(numbers.chunks_exact(2).map(|p| [p[0], p[1]]).collect());
            Ok(())
        };
        while let Some(part) = list.next_element::<Part>()? {
            match part {
                Part::Number(number) => flat.push(number),
                Part::List(numbers) if numbers.is_empty() => {}
                Part::List(numbers) => add(&numbers)?,
            }
        }
        if !flat.is_empty() {
            add(&flat)?;
        }
        Ok(match polygons.is_empty() {
            true => Segmentation::None,
            false => Segmentation::Polygons(polygons),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Segmentation, A::Error> {
        let (mut size, mut counts) = (None::<[u32; 2]>, None::<Counts>);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "size" => size = Some(map.next_value()?),
                "counts" => counts = Some(map.next_value()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        let [height, width] = size.ok_or_else(|| de::Error::missing_field("size"))?;
        let counts = counts.ok_or_else(|| de::Error::missing_field("counts"))?;
        let rle = match counts {
            Counts::Text(text) => Rle::from_compressed(width, height, &text),
            Counts::List(list) => Rle::new(width, height, &list),
        };
        rle.map(Segmentation::Rle).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shapes)
    }
}

/// The number as the file has it: what is filled turns on fifths of a pixel, which floats miss.
fn written(v: f32) -> f64 {
    if v.fract() == 0.0 {
        return f64::from(v);
    }
    v.to_string().parse().unwrap_or_else(|_| f64::from(v))
}

impl Serialize for Segmentation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Polygons(polygons) => {
                let flat = |p: &Polygon| p.iter().flatten().copied().collect::<Vec<f32>>();
                serializer.collect_seq(polygons.iter().map(flat))
            }
            Self::Rle(rle) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("size", &[rle.height(), rle.width()])?;
                map.serialize_entry("counts", &rle.compressed())?;
                map.end()
            }
        }
    }
}

impl Segmentation {
    /// Whether nothing is said.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The mask in a picture of this width and height; `None` without outline or mask, and where it fits no picture
    /// of that size. Outlines are filled as MSCOCO's evaluation does.
    pub fn mask(&self, (width, height): (u32, u32)) -> Option<Rle> {
        match self {
            Self::None => None,
            Self::Rle(rle) => ((rle.width(), rle.height()) == (width, height)).then(|| rle.clone()),
            Self::Polygons(polygons) => {
                let flat = |p: &Polygon| p.iter().flatten().map(|v| written(*v)).collect();
                let flat: Vec<Vec<f64>> = polygons.iter().map(flat).collect();
                Rle::from_polygons(width, height, &flat).ok()
            }
        }
    }

    /// Whether it fits a picture of this width and height; otherwise why not.
    pub(super) fn check(&self, (width, height): (f32, f32)) -> Result<(), String> {
        match self {
            Self::Rle(rle) if (rle.width() as f32, rle.height() as f32) != (width, height) => {
                Err(format!(
                    "its mask is {}×{}, but the picture {width}×{height}",
                    rle.width(),
                    rle.height()
                ))
            }
            Self::Rle(rle) if rle.area() == 0 => Err("its mask is empty".into()),
            Self::Polygons(polygons)
                if polygons.iter().flatten().flatten().any(|v| !v.is_finite()) =>
            {
                Err("its polygons hold a number that is too large".into())
            }
            Self::Polygons(polygons) if polygons.iter().all(|p| polygon_area(p) <= 0.0) => {
                Err("its polygons have no area".into())
            }
            _ => Ok(()),
        }
    }

    /// The box around it: x, y, width, height.
    pub(super) fn bbox(&self) -> Option<[f32; 4]> {
        match self {
            Self::None => None,
            Self::Rle(rle) => Some(rle.bbox().map(|v| v as f32)),
            Self::Polygons(polygons) => {
                let fold = |axis: usize, start: f32, pick: fn(f32, f32) -> f32| {
                    polygons.iter().flatten().map(|p| p[axis]).fold(start, pick)
                };
                let (x, y) = (
                    fold(0, f32::INFINITY, f32::min),
                    fold(1, f32::INFINITY, f32::min),
                );
                let (r, b) = (
                    fold(0, f32::NEG_INFINITY, f32::max),
                    fold(1, f32::NEG_INFINITY, f32::max),
                );
                Some([x, y, r - x, b - y])
            }
        }
    }
}
