//! labelme, EasyData and Jingling: one JSON for each picture.

use std::path::Path;

use oarlock_imaging::{BBox, Polygon, Rle};
use oarlock_jobs::SourceFormat;
use serde_json::Value;

use super::find::{pictures, read_value, stem, suffix};
use super::{Geometry, Shape, Source};
use crate::Problems;

/// Reads the annotations that belong to pictures; pictures without one are dropped.
pub fn read(
    format: SourceFormat,
    root: &Path,
    files: &[String],
    problems: &mut Problems,
) -> Source {
    let pictures = pictures(files);
    let mut source = Source::default();
    let mut lone = 0;
    for file in files.iter().filter(|f| suffix(f) == "json") {
        let Some(found) = pictures.get(stem(file)) else {
            lone += 1;
            continue;
        };
        // Of several pictures of this name the one in the same folder.
        let folder = |path: &str| path.rsplit_once('/').map_or("", |(f, _)| f).to_owned();
        let picture = found
            .iter()
            .find(|p| folder(p) == folder(file))
            .unwrap_or(&found[0]);
        let value = match read_value(root, file) {
            Ok(value) => value,
            Err(reason) => {
                let remedy = "save it again with the tool that made it";
                problems.add(file.as_str(), None, reason, remedy);
                continue;
            }
        };
        let mut told = |number: usize, result: Result<Option<Shape>, String>| match result {
            Ok(shape) => shape,
            Err(reason) => {
                problems.warn(format!(
                    "{file}: shape {}: {reason}; it is left out",
                    number + 1
                ));
                None
            }
        };
        let shapes = match format {
            SourceFormat::Labelme => list(&value["shapes"], labelme, &mut told),
            SourceFormat::Easydata => {
                let size = [&value["size"]["width"], &value["size"]["height"]];
                let size = size.map(|v| v.as_u64().and_then(|v| u32::try_from(v).ok()));
                let size = size[0].zip(size[1]).or_else(|| header(root, picture));
                list(&value["labels"], |v| easydata(v, size), &mut told)
            }
            _ => list(&value["outputs"]["object"], jingling, &mut told),
        };
        let Some(shapes) = shapes else {
            let reason = "it holds no list of shapes";
            problems.add(
                file.as_str(),
                None,
                reason,
                "check the format, or remove the file",
            );
            continue;
        };
        source.pictures.push(((*picture).clone(), shapes));
    }
    if lone > 0 {
        problems.warn(format!(
            "{lone} JSON files belong to no picture and are not used"
        ));
    }
    source.pictures.sort_by(|a, b| a.0.cmp(&b.0));
    source.pictures.dedup_by(|a, b| a.0 == b.0);
    let dropped = pictures.values().map(Vec::len).sum::<usize>()
        - source
            .pictures
            .len()
            .min(pictures.values().map(Vec::len).sum());
    if dropped > 0 {
        problems.warn(format!(
            "{dropped} pictures have no annotation file and are not used"
        ));
    }
    source
}

/// Width and height of a picture by its header.
fn header(root: &Path, picture: &str) -> Option<(u32, u32)> {
    let bytes = oarlock_imaging::read_file(&root.join(picture), &Default::default()).ok()?;
    let (w, h) = oarlock_imaging::inspect(&bytes).ok()?.display_size();
    Some((w as u32, h as u32))
}

fn list(
    value: &Value,
    mut one: impl FnMut(&Value) -> Result<Option<Shape>, String>,
    told: &mut impl FnMut(usize, Result<Option<Shape>, String>) -> Option<Shape>,
) -> Option<Vec<Shape>> {
    let entries = match value {
        Value::Array(entries) => entries.as_slice(),
        Value::Null => return None,
        // A single object without its list.
        one => std::slice::from_ref(one),
    };
    let shapes = entries.iter().enumerate();
    Some(shapes.filter_map(|(i, v)| told(i, one(v))).collect())
}

fn name_of(value: &Value, key: &str) -> Result<String, String> {
    let name = match &value[key] {
        Value::String(name) => name.trim().replace(['\n', '\r'], " "),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    if name.is_empty() {
        Err(format!("it has no {key}"))
    } else {
        Ok(name)
    }
}

fn number(value: &Value) -> Option<f32> {
    let read = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.map(|v| v as f32).filter(|v| v.is_finite())
}

fn points(value: &Value) -> Option<Polygon> {
    let point = |v: &Value| Some([number(&v[0])?, number(&v[1])?]);
    value.as_array()?.iter().map(point).collect()
}

fn corners(a: [f32; 2], b: [f32; 2]) -> BBox {
    BBox::new(
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[0].max(b[0]),
        a[1].max(b[1]),
    )
}

fn labelme(value: &Value) -> Result<Option<Shape>, String> {
    let name = name_of(value, "label")?;
    let points = points(&value["points"]).ok_or("its points cannot be read")?;
    let kind = value["shape_type"].as_str().unwrap_or("polygon");
    let geometry = match (kind, points.as_slice()) {
        ("rectangle", [a, b]) => Geometry::Box(corners(*a, *b)),
        ("rectangle", [a, _, b, _]) => Geometry::Box(corners(*a, *b)),
        ("circle", [centre, rim]) => Geometry::Circle {
            centre: *centre,
            radius: (rim[0] - centre[0]).hypot(rim[1] - centre[1]),
        },
        ("polygon", [_, _, _, ..]) => Geometry::Polygons(vec![points]),
        ("line" | "linestrip", [_, _, ..]) | ("point", [_]) => Geometry::Line(points),
        ("rectangle" | "circle" | "polygon" | "line" | "linestrip" | "point", points) => {
            return Err(format!("a {kind} of {} points", points.len()));
        }
        (other, _) => return Err(format!("shapes of the type `{other:.30}` are not read")),
    };
    Ok(Some(Shape { name, geometry }))
}

fn easydata(value: &Value, size: Option<(u32, u32)>) -> Result<Option<Shape>, String> {
    let name = name_of(value, "name")?;
    let edge = |key: &str| number(&value[key]).ok_or(format!("it has no number {key}"));
    let mask = match value["mask"].as_str() {
        Some(text) if !text.is_empty() => {
            let (w, h) = size.ok_or("the size of its picture is not known")?;
            let rle = Rle::from_compressed(w, h, text).map_err(|e| e.to_string())?;
            if rle.area() == 0 {
                return Err("its mask is empty".into());
            }
            Some(rle)
        }
        _ => None,
    };
    let bbox = match (edge("x1"), edge("y1"), edge("x2"), edge("y2"), &mask) {
        (Ok(x1), Ok(y1), Ok(x2), Ok(y2), _) => corners([x1, y1], [x2, y2]),
        (.., Some(rle)) => {
            let [x, y, w, h] = rle.bbox().map(|v| v as f32);
            BBox::new(x, y, x + w, y + h)
        }
        (Err(e), ..) | (_, Err(e), ..) | (_, _, Err(e), ..) | (_, _, _, Err(e), _) => {
            return Err(e);
        }
    };
    let geometry = match mask {
        Some(rle) => Geometry::Mask(rle, bbox),
        None => Geometry::Box(bbox),
    };
    Ok(Some(Shape { name, geometry }))
}

fn jingling(value: &Value) -> Result<Option<Shape>, String> {
    let name = name_of(value, "name")?;
    let geometry = if value["polygon"].is_object() {
        let side = |axis: &str, i: usize| number(&value["polygon"][format!("{axis}{i}")]);
        let corner = |i: usize| Some([side("x", i)?, side("y", i)?]);
        let polygon: Polygon = (1..).map_while(corner).collect();
        if polygon.len() < 3 {
            return Err(format!("a polygon of {} points", polygon.len()));
        }
        Geometry::Polygons(vec![polygon])
    } else if value["bndbox"].is_object() {
        let edge =
            |key: &str| number(&value["bndbox"][key]).ok_or(format!("its bndbox has no {key}"));
        Geometry::Box(corners(
            [edge("xmin")?, edge("ymin")?],
            [edge("xmax")?, edge("ymax")?],
        ))
    } else {
        return Err("it has neither polygon nor bndbox".into());
    };
    Ok(Some(Shape { name, geometry }))
}
