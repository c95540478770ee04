//! Pascal VOC annotations: an XML file with named boxes for each picture.

use std::collections::HashMap;
use std::path::Path;

use oarlock_imaging::{BBox, Object};
use roxmltree::{Document, Node};

use crate::{DataError, DetectSample, lines, read_text, split_pair};

/// Largest annotation file: a hundred thousand boxes fit.
const MAX_BYTES: u64 = 64 << 20;

/// One `object` element.
#[derive(Debug, Clone, PartialEq)]
pub struct VocObject {
    /// Place in the file, from 1.
    pub number: usize,
    /// Class name, trimmed, never empty.
    pub name: String,
    /// Box in pixels, clipped to 0 … size − 1 where the file says a size; both sides are above 0.
    pub bbox: BBox,
    /// Not counted in mean average precision.
    pub difficult: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VocAnnotation {
    /// Width and height as the file says them.
    pub size: Option<(f32, f32)>,
    /// Picture id, for COCO metrics.
    pub id: Option<i64>,
    /// Objects with a usable box.
    pub objects: Vec<VocObject>,
    /// What was left out and why: `object 2 (dog): its box … lies outside the picture`.
    pub dropped: Vec<String>,
}

/// Why a file is no annotation; one sentence without the file's name, which the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VocError {
    /// Not well-formed XML, with line and column.
    #[error("the XML is not well formed: {0}")]
    Xml(String),
    /// Objects that cannot be used, each with its number.
    #[error("{}", .0.join("; "))]
    Objects(Vec<String>),
    /// The file cannot be read as text.
    #[error("{0}")]
    File(String),
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children()
        .find(|c| c.is_element() && c.tag_name().name().eq_ignore_ascii_case(name))
}

fn text<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    child(node, name)?
        .text()
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

fn number(node: Node<'_, '_>, name: &str) -> Option<f32> {
    text(node, name)?
        .parse()
        .ok()
        .filter(|v: &f32| v.is_finite())
}

impl VocAnnotation {
    /// Reads the text of an XML file; tag names in any case. Objects without a box, and boxes outside the
    /// picture or without area, are left out and told. Errors: text that is no XML; objects without a name,
    /// or with corners that are no numbers.
    pub fn parse(xml: &str) -> Result<Self, VocError> {
        let document = Document::parse(xml).map_err(|e| VocError::Xml(e.to_string()))?;
        let root = document.root_element();
        let size = child(root, "size");
        let side = |name| size.and_then(|s| number(s, name)).filter(|v| *v >= 1.0);
        let mut read = Self {
            size: side("width").zip(side("height")),
            id: text(root, "id").and_then(|t| t.parse().ok()),
            ..Self::default()
        };
        let objects = root
            .children()
            .filter(|c| c.is_element() && c.tag_name().name().eq_ignore_ascii_case("object"));
        let mut faults = Vec::new();
        for (i, node) in objects.enumerate() {
            if let Err(fault) = read.object(i + 1, node) {
                faults.push(fault);
            }
        }
        if faults.is_empty() {
            return Ok(read);
        }
        let more = faults.len().saturating_sub(5);
        faults.truncate(5);
        if more > 0 {
            faults.push(format!("and {more} more objects"));
        }
        Err(VocError::Objects(faults))
    }

    fn object(&mut self, number_: usize, node: Node<'_, '_>) -> Result<(), String> {
        let name = text(node, "name").ok_or(format!("object {number_} has no name"))?;
        let what = format!("object {number_} ({name})");
        let Some(corners) = child(node, "bndbox") else {
            self.dropped.push(format!("{what}: it has no bndbox"));
            return Ok(());
        };
        let edge = |tag: &str| {
            number(corners, tag).ok_or_else(|| match text(corners, tag) {
                Some(other) => format!("{what}: {tag} is `{other:.40}`, no number"),
                None => format!("{what}: its bndbox has no {tag}"),
            })
        };
        let [x1, y1, x2, y2] = [edge("xmin")?, edge("ymin")?, edge("xmax")?, edge("ymax")?];
        let given = format!("{x1}, {y1} – {x2}, {y2}");
        let mut bbox = BBox::new(x1, y1, x2, y2);
        if x2 <= x1 || y2 <= y1 {
            self.dropped
                .push(format!("{what}: its box {given} has no area"));
            return Ok(());
        }
        if let Some((width, height)) = self.size {
            bbox = bbox.clipped(&BBox::new(0.0, 0.0, width - 1.0, height - 1.0));
            if bbox.x2 <= bbox.x1 || bbox.y2 <= bbox.y1 {
                self.dropped.push(format!(
                    "{what}: its box {given} lies outside the picture of {width}×{height}"
                ));
                return Ok(());
            }
        }
        let difficult = number(node, "difficult").is_some_and(|v| v != 0.0);
        self.objects.push(VocObject {
            number: number_,
            name: name.to_owned(),
            bbox,
            difficult,
        });
        Ok(())
    }

    /// Reads a file of at most 64 MiB. Errors like those of [`VocAnnotation::parse`].
    pub fn read(path: &Path) -> Result<Self, VocError> {
        let size = std::fs::metadata(path).map(|m| m.len());
        match size {
            Ok(size) if size > MAX_BYTES => {
                let text = format!("{size} bytes are too many for the annotation of one picture");
                return Err(VocError::File(text));
            }
            Err(error) => return Err(VocError::File(error.to_string())),
            Ok(_) => {}
        }
        let text = read_text(path).map_err(|e| match e {
            DataError::Io { source, .. } => VocError::File(source.to_string()),
            _ => VocError::File("it is no UTF-8 or GB18030 text".into()),
        })?;
        Self::parse(&text)
    }

    /// The objects for training and evaluation; `classes` gives the id of a name. Errors: the first name
    /// that is no class.
    pub fn objects(&self, classes: &HashMap<&str, usize>) -> Result<Vec<Object>, String> {
        self.objects
            .iter()
            .map(|object| {
                let class = classes.get(object.name.as_str()).copied().ok_or_else(|| {
                    let VocObject { number, name, .. } = object;
                    format!("object {number}: {name} is in labels.txt no class")
                })?;
                Ok(Object {
                    class,
                    bbox: object.bbox,
                    difficult: object.difficult,
                    weight: 1.0,
                    ..Object::default()
                })
            })
            .collect()
    }
}

/// The pictures of a list (`train_list.txt` …) of an imported and split set with their boxes; `labels` are
/// the class names in order of their ids. Whether the pictures are there is left to the loader. Errors: the
/// list cannot be read, an annotation is faulty, a name is no class.
pub fn read_list(
    root: &Path,
    list: &str,
    labels: &[String],
) -> Result<Vec<DetectSample>, DataError> {
    let classes: HashMap<&str, usize> = labels
        .iter()
        .enumerate()
        .map(|(i, l)| (l.as_str(), i))
        .collect();
    let mut samples = Vec::new();
    for (number, line) in lines(&read_text(&root.join(list))?) {
        let leads_out = |path: &str| path.starts_with('/') || path.split('/').any(|p| p == "..");
        let pair = split_pair(line).filter(|(p, a)| !leads_out(p) && !leads_out(a));
        let Some((picture, xml)) = pair else {
            return Err(DataError::Invalid(format!(
                "{list}, line {number}: expected a picture and its annotation, both relative to the dataset: `{line}`"
            )));
        };
        let invalid = |reason: String| DataError::Invalid(format!("{xml}: {reason}"));
        let read = VocAnnotation::read(&root.join(&xml)).map_err(|e| invalid(e.to_string()))?;
        samples.push(DetectSample {
            path: root.join(picture),
            objects: read.objects(&classes).map_err(invalid)?,
        });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_whatever_the_case_of_tags() {
        let read = VocAnnotation::parse(
            "<?xml version='1.0' encoding='utf-8'?><Annotation><ID>7</ID><Size><Width>100</Width><height> 80 </height></Size>
             <object><name> 螺丝 </name><difficult>1</difficult><bndbox><xmin>-5</xmin><YMIN>10.5</YMIN><xmax>40</xmax><ymax>200</ymax></bndbox></object>
             <Object><name>nut</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox><part><name>x</name></part></Object>
             <object><name>nut</name></object>
             <object><name>far</name><bndbox><xmin>100</xmin><ymin>2</ymin><xmax>130</xmax><ymax>4</ymax></bndbox></object>
             <object><name>flat</name><bndbox><xmin>5</xmin><ymin>2</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object></Annotation>",
        )
        .unwrap();
        assert_eq!((read.size, read.id), (Some((100.0, 80.0)), Some(7)));
        let first = VocObject {
            number: 1,
            name: "螺丝".into(),
            bbox: BBox::new(0.0, 10.5, 40.0, 79.0),
            difficult: true,
        };
        assert_eq!(read.objects[0], first);
        assert_eq!(read.objects.len(), 2);
        assert_eq!(
            read.dropped,
            [
                "object 3 (nut): it has no bndbox",
                "object 4 (far): its box 100, 2 – 130, 4 lies outside the picture of 100×80",
                "object 5 (flat): its box 5, 2 – 5, 4 has no area",
            ]
        );
        let objects = read
            .objects(&HashMap::from([("nut", 0), ("螺丝", 1)]))
            .unwrap();
        assert_eq!((objects[0].class, objects[0].weight), (1, 1.0));
        assert!(read.objects(&HashMap::from([("nut", 0)])).is_err());
    }

    #[test]
    fn faults_name_the_object() {
        let fault = |xml: &str| VocAnnotation::parse(xml).unwrap_err().to_string();
        assert!(
            fault("<annotation><object></annotation>")
                .starts_with("the XML is not well formed: expected")
        );
        assert!(fault("").contains("not well formed"));
        let corners = |xmin: &str| {
            format!("<bndbox><xmin>{xmin}</xmin><ymin>1</ymin><xmax>9</xmax></bndbox>")
        };
        let xml = format!(
            "<a><object><name> </name></object><object><name>x</name>{}</object><object><name>y</name>{}</object></a>",
            corners("ten"),
            corners("1"),
        );
        assert_eq!(
            fault(&xml),
            "object 1 has no name; object 2 (x): xmin is `ten`, no number; object 3 (y): its bndbox has no ymax"
        );
        let many = format!("<a>{}</a>", "<object/>".repeat(50));
        assert!(fault(&many).ends_with("and 45 more objects"));
        let inf = format!("<a><object><name>x</name>{}</object></a>", corners("inf"));
        assert!(fault(&inf).contains("xmin is `inf`"));
        // Entities that expand without end are refused, not expanded.
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>";
        assert!(fault(bomb).contains("not well formed"));
    }

    #[test]
    fn ten_thousand_objects_and_deep_nesting_are_no_trouble() {
        let one = "<object><name>n</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>";
        let xml = format!("<a>{}</a>", one.repeat(10_000));
        assert_eq!(VocAnnotation::parse(&xml).unwrap().objects.len(), 10_000);
        let deep = "<a>".repeat(200_000) + &"</a>".repeat(200_000);
        let _ = VocAnnotation::parse(&deep); // only that it comes back
    }
}
