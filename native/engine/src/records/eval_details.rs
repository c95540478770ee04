//! `eval_details.json`: predictions on the validation set, from which reports are made.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use oarlock_files as files;
use oarlock_jobs::ErrorCode;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::BoxDetails;
use crate::EngineError;

/// Largest file: 100,000 images of 1,000 classes take about 1 GiB.
const MAX_BYTES: u64 = 4 << 30;

/// File name in a checkpoint folder.
pub const FILE_NAME: &str = "eval_details.json";

/// What a checkpoint keeps of its evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Details {
    /// Of a classifier.
    Classes(EvalDetails),
    /// Of a segmenter.
    Pixels(PixelDetails),
    /// Of a detector.
    Boxes(BoxDetails),
}

impl Details {
    /// Writes `eval_details.json` atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Classes(details) => details.write(path),
            Self::Pixels(details) => {
                files::write_bytes(path, serde_json::to_string(details)?.as_bytes())
            }
            Self::Boxes(details) => {
                files::write(path, |out| Ok(serde_json::to_writer(out, details)?))
            }
        }
    }
}

/// Pixels of the validation images, counted by class.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct PixelDetails {
    /// Truth (rows) against prediction (columns); ignored pixels are left out.
    pub confusion_matrix: Vec<Vec<u64>>,
}

impl PixelDetails {
    /// Reads and checks the file for a model of `classes` classes.
    ///
    /// # Errors
    /// As [`EvalDetails::read`].
    pub fn read(path: &Path, classes: usize) -> crate::Result<Self> {
        let file = open(path)?;
        let damaged = |what: String| {
            let what = format!(
                "'{}' is damaged or of another model: {what}",
                path.display()
            );
            EngineError::new(ErrorCode::InvalidData, what).hint("evaluate a newer checkpoint")
        };
        let details: Self = serde_json::from_reader(file).map_err(|e| damaged(e.to_string()))?;
        let rows = &details.confusion_matrix;
        if rows.len() != classes || rows.iter().any(|row| row.len() != classes) {
            return Err(damaged(format!("no matrix of {classes} classes")));
        }
        Ok(details)
    }
}

/// True class and predicted scores of every validation image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EvalDetails {
    /// Class ids.
    pub true_labels: Vec<u32>,
    /// Scores, images × classes, row by row.
    pub scores: Vec<f32>,
    /// Length of a row.
    pub classes: usize,
}

impl EvalDetails {
    /// Writes `{"true_labels": […], "pred_scores": [[…], …]}` atomically.
    ///
    /// # Errors
    /// When the file cannot be written, or rows and labels differ in number.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if self.scores.len() != self.true_labels.len() * self.classes {
            return Err(io::Error::other("evaluation details with rows missing"));
        }
        files::write(path, |out| {
            out.write_all(b"{\"true_labels\": ")?;
            serde_json::to_writer(&mut *out, &self.true_labels)?;
            out.write_all(b", \"pred_scores\": [")?;
            // An empty set has no rows; a row length of 1 keeps `chunks` from panicking on 0.
            for (i, row) in self.scores.chunks(self.classes.max(1)).enumerate() {
                if i > 0 {
                    out.write_all(b", ")?;
                }
                // Infinity and NaN become null and are refused on reading.
                serde_json::to_writer(&mut *out, row)?;
            }
            out.write_all(b"]}\n")
        })
    }

    /// Reads and checks the file for a model of `classes` classes.
    ///
    /// # Errors
    /// `NotReady` when there is no such file, `InvalidData` when it is damaged or belongs to another
    /// number of classes, `ResourceExhausted` when it is too large.
    pub fn read(path: &Path, classes: usize) -> crate::Result<Self> {
        Self::parse(open(path)?, classes).map_err(|e| {
            let what = format!("'{}' is damaged or of another model: {e}", path.display());
            EngineError::new(ErrorCode::InvalidData, what).hint("evaluate a newer checkpoint")
        })
    }

    fn parse(reader: impl Read, classes: usize) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_reader(reader);
        let details = Fields(classes).deserialize(&mut json)?;
        json.end()?;
        if let Some(label) = details.true_labels.iter().find(|&&l| l as usize >= classes) {
            return Err(Error::custom(format!(
                "label {label}, but there are {classes} classes"
            )));
        }
        if details.scores.len() != details.true_labels.len() * classes {
            return Err(Error::custom("labels and predictions differ in number"));
        }
        Ok(details)
    }
}

/// Opens the file, which may not be there or be absurdly large.
pub(super) fn open(path: &Path) -> crate::Result<BufReader<File>> {
    let file = File::open(path).map_err(|e| {
        if e.kind() != io::ErrorKind::NotFound {
            return EngineError::from(e);
        }
        EngineError::new(
            ErrorCode::NotReady,
            "this checkpoint has no stored validation predictions (eval_details.json)",
        )
        .with("path", path.display().to_string())
        .hint("train at least one epoch with a validation set, or choose another epoch")
    })?;
    let size = file.metadata()?.len();
    if size > MAX_BYTES {
        let what = format!(
            "'{}' has {size} bytes, more than {MAX_BYTES}",
            path.display()
        );
        return Err(EngineError::new(ErrorCode::ResourceExhausted, what));
    }
    Ok(BufReader::with_capacity(1 << 18, file))
}

/// Reads the object, knowing the row length.
struct Fields(usize);

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = EvalDetails;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<EvalDetails, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = EvalDetails;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("evaluation details of a classifier")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<EvalDetails, A::Error> {
        let mut details = EvalDetails {
            classes: self.0,
            ..EvalDetails::default()
        };
        let (mut labels, mut scores) = (false, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "true_labels" => {
                    details.true_labels = map.next_value()?;
                    labels = true;
                }
                "pred_scores" => {
                    details.scores = map.next_value_seed(Rows(self.0))?;
                    scores = true;
                }
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        if !labels || !scores {
            return Err(A::Error::custom("true_labels or pred_scores is missing"));
        }
        Ok(details)
    }
}

/// Reads rows into one flat list, without a list for each.
struct Rows(usize);

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Vec<f32>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<f32>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "rows of {} scores", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Vec<f32>, A::Error> {
        let mut flat = Vec::new();
        while rows.next_element_seed(Row(&mut flat, self.0))?.is_some() {}
        Ok(flat)
    }
}

struct Row<'a>(&'a mut Vec<f32>, usize);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} scores", self.1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let start = self.0.len();
        while let Some(Score(score)) = row.next_element()? {
            if self.0.len() - start == self.1 {
                return Err(A::Error::custom(format!(
                    "a row of more than {} scores",
                    self.1
                )));
            }
            self.0.push(score);
        }
        if self.0.len() - start == self.1 {
            Ok(())
        } else {
            Err(A::Error::custom(format!(
                "a row of {} scores",
                self.0.len() - start
            )))
        }
    }
}

/// A finite number that fits a float.
struct Score(f32);

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let v = f32::deserialize(d)?;
        if v.is_finite() {
            Ok(Self(v))
        } else {
            Err(D::Error::custom("a score beyond all bounds"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, classes: usize) -> Result<EvalDetails, String> {
        EvalDetails::parse(text.as_bytes(), classes).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_what_it_writes_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let details = EvalDetails {
            true_labels: vec![0, 2],
            scores: vec![0.1, 0.2, 0.7, 1e-30, f32::MIN_POSITIVE, 0.333_333_34],
            classes: 3,
        };
        details.write(&path).unwrap();
        assert_eq!(EvalDetails::read(&path, 3).unwrap(), details);
        let empty = EvalDetails {
            classes: 3,
            ..EvalDetails::default()
        };
        empty.write(&path).unwrap();
        assert_eq!(EvalDetails::read(&path, 3).unwrap(), empty);
    }

    #[test]
    fn says_clearly_that_there_are_no_predictions() {
        let dir = tempfile::tempdir().unwrap();
        let error = EvalDetails::read(&dir.path().join(FILE_NAME), 3).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotReady);
        assert!(error.0.message.contains("eval_details.json"));
    }

    #[test]
    fn refuses_what_does_not_fit_the_model() {
        let ok = r#"{"true_labels": [1], "other": {"x": [1]}, "pred_scores": [[0.5, 0.5]]}"#;
        assert!(parse(ok, 2).is_ok());
        for (text, classes) in [
            (ok, 3),
            (ok, 1),
            ("", 2),
            ("{}", 2),
            (r#"{"true_labels": [2], "pred_scores": [[0.5, 0.5]]}"#, 2),
            (r#"{"true_labels": [0, 1], "pred_scores": [[0.5, 0.5]]}"#, 2),
            (r#"{"true_labels": [-1], "pred_scores": [[0.5, 0.5]]}"#, 2),
            (r#"{"true_labels": [0], "pred_scores": [[0.5, null]]}"#, 2),
            (r#"{"true_labels": [0], "pred_scores": [[0.5, 1e60]]}"#, 2),
            (r#"{"true_labels": [0], "pred_scores": [[0.5, 0.5]]} x"#, 2),
            (r#"{"true_labels": [0], "pred_scores": [[0.5"#, 2),
        ] {
            assert!(parse(text, classes).is_err(), "{text}");
        }
        assert!(parse(&format!("{{\"other\": {}", "[".repeat(1 << 20)), 2).is_err());
    }

    #[test]
    fn survives_mutated_files() {
        let base = br#"{"true_labels": [1, 0], "pred_scores": [[0.25, 0.75], [1e-3, 0.999]]}"#;
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = base.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 20) as u8;
            }
            let _ = EvalDetails::parse(bytes.as_slice(), 2);
        }
    }
}
