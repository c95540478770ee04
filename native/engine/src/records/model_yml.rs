//! `model.yml`: what a checkpoint or an exported model is, for people and for programs.
//!
//! The keys are PaddleX's, so that its users and tools find what they look for; reading accepts the
//! files PaddleX itself wrote, Python tags included.

use std::path::Path;

use indexmap::IndexMap;
use oarlock_jobs::{ErrorCode, Metrics};
use serde::Serialize;
use serde_json::{Value, json};

use super::yaml;
use crate::{EngineError, Result};

/// How an image gets the size of the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Resize {
    /// Classifiers: the short side is resized, keeping the aspect, and the centre square cut out. In pixels.
    ShortCrop {
        /// Length of the short side.
        short: u32,
        /// Side of the square.
        crop: u32,
    },
    /// Segmenters: exactly this, whatever the aspect. In pixels.
    Exact {
        /// Height.
        height: u32,
        /// Width.
        width: u32,
    },
    /// One-stage detectors: exactly this, whatever the aspect, by cubic interpolation. In pixels.
    Cubic {
        /// Height.
        height: u32,
        /// Width.
        width: u32,
    },
    /// Two-stage detectors: the short side is resized, keeping the aspect, unless the long one then exceeded its cap;
    /// then padded right and below. In pixels.
    Capped {
        /// Length of the short side.
        short: u32,
        /// Cap of the long side.
        long: u32,
        /// What the sides become a multiple of.
        multiple: u32,
    },
}

/// How an image becomes the network's input: resized, brought to 0–1, normalised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preprocessing {
    /// Size.
    pub resize: Resize,
    /// Mean of each channel, of values in 0–1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, likewise.
    pub std: Vec<f32>,
    /// Values of each channel that become 0 and 1, what lies outside is clipped; empty = 0 and 255.
    pub range: Vec<(f32, f32)>,
    /// Height and width of the images it was trained on, the median; segmenters look at larger ones in parts.
    pub image_size: Option<[u32; 2]>,
}

impl Preprocessing {
    /// Height and width of the input; of one that varies, those of a landscape picture of its largest size.
    pub fn size(&self) -> [u32; 2] {
        match self.resize {
            Resize::ShortCrop { crop, .. } => [crop, crop],
            Resize::Exact { height, width } | Resize::Cubic { height, width } => [height, width],
            Resize::Capped {
                short,
                long,
                multiple,
            } => [short, long].map(|side| side.next_multiple_of(multiple.max(1))),
        }
    }

    /// Mean and deviation of R, G, B; `None` for other channels or a range other than that of 8 bits.
    pub fn rgb(&self) -> Option<([f32; 3], [f32; 3])> {
        let bytes = self.range.iter().all(|r| *r == (0.0, 255.0));
        let channels = |v: &[f32]| v.try_into().ok().filter(|_| bytes);
        Some((channels(&self.mean)?, channels(&self.std)?))
    }

    /// PaddleX's list of transforms.
    fn transforms(&self) -> Value {
        let resize = match self.resize {
            Resize::ShortCrop { short, crop } => vec![
                json!({ "ResizeByShort": { "short_size": short, "max_size": -1, "interp": "LINEAR" } }),
                json!({ "CenterCrop": { "crop_size": crop } }),
            ],
            Resize::Exact { height, width } => {
                vec![json!({ "Resize": { "target_size": [height, width], "interp": "LINEAR" } })]
            }
            Resize::Cubic { height, width } => {
                vec![json!({ "Resize": { "target_size": [height, width], "interp": "CUBIC" } })]
            }
            Resize::Capped {
                short,
                long,
                multiple,
            } => vec![
                json!({ "ResizeByShort": { "short_size": short, "max_size": long, "interp": "LINEAR" } }),
                json!({ "Padding": { "size_divisor": multiple } }),
            ],
        };
        let (min, max): (Vec<_>, Vec<_>) = match self.range.is_empty() {
            true => self.mean.iter().map(|_| (json!(0), json!(255.0))).unzip(),
            false => self
                .range
                .iter()
                .map(|(l, h)| (json!(shortest(*l)), json!(shortest(*h))))
                .unzip(),
        };
        let shortest = |v: &[f32]| v.iter().map(|v| shortest(*v)).collect::<Vec<_>>();
        let normalize = json!({ "Normalize": {
            "mean": shortest(&self.mean),
            "std": shortest(&self.std),
            "min_val": min,
            "max_val": max,
            "is_scale": true,
        } });
        resize.into_iter().chain([normalize]).collect()
    }
}

/// Content of a `model.yml`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelYml {
    /// Network name, such as `ResNet50_vd`.
    pub model: String,
    /// Its backbone, where it has a choice.
    pub backbone: Option<String>,
    /// `classifier`, `detector`, `segmenter` …
    pub model_type: String,
    /// Class names in the order of their ids.
    pub labels: Vec<String>,
    /// Metrics of the last evaluation, primary one first.
    pub eval_metrics: Metrics,
    /// Best value of the primary metric so far.
    pub best_accuracy: Option<f64>,
    /// Epoch it was reached in, from 1.
    pub best_model_epoch: Option<u32>,
    /// Epochs trained completely.
    pub completed_epochs: u32,
    /// Width and height when the network accepts no other.
    pub fixed_input_shape: Option<[u32; 2]>,
    /// Validation transforms.
    pub preprocessing: Preprocessing,
    /// `Normal` for a checkpoint, `Infer` for an exported model.
    pub status: String,
    /// What else the network was built with, `_init_params`: `with_fpn`, `anchors` …
    pub init_params: IndexMap<String, Value>,
    /// Further top-level entries (`Inputs` and `Outputs` of exported models).
    pub extra: IndexMap<String, Value>,
}

impl ModelYml {
    /// The YAML text.
    ///
    /// # Errors
    /// `Internal` when the text cannot be made, which no content causes.
    pub fn to_yaml(&self) -> Result<String> {
        let mut root = json!({
            "Model": self.model,
            "Transforms": self.preprocessing.transforms(),
            "_Attributes": {
                "model_type": self.model_type,
                "num_classes": self.labels.len(),
                "labels": self.labels,
                "eval_metrics": self.eval_metrics,
                "best_accuracy": self.best_accuracy,
                "best_model_epoch": self.best_model_epoch,
                "fixed_input_shape": self.fixed_input_shape,
            },
            "_init_params": { "num_classes": self.labels.len() },
            "completed_epochs": self.completed_epochs,
            "status": self.status,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(backbone) = &self.backbone {
            root["_init_params"]["backbone"] = json!(backbone);
        }
        for (name, value) in &self.init_params {
            root["_init_params"][name] = value.clone();
        }
        if let Some(size) = self.preprocessing.image_size {
            root["_Attributes"]["image_size"] = json!(size);
        }
        if let Value::Object(map) = &mut root {
            map.extend(self.extra.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        serde_yaml_ng::to_string(&root)
            .map_err(|e| EngineError::new(ErrorCode::Internal, format!("model.yml: {e}")))
    }

    /// Reads a `model.yml` of ours or of PaddleX.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidData` when it is no YAML or names no model or labels.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let mut error = EngineError::from(e);
            error.0.message = format!("'{}': {}", path.display(), error.0.message);
            error
        })?;
        Self::parse(&text).map_err(|mut e| {
            e.0.message = format!(
                "'{}' is no usable model description: {}",
                path.display(),
                e.0.message
            );
            e
        })
    }

    /// Reads the text of a `model.yml`.
    ///
    /// # Errors
    /// `InvalidData`, see [`ModelYml::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let root = yaml::parse(text)?;
        let invalid = |what: &str| EngineError::new(ErrorCode::InvalidData, what);
        let attributes = &root["_Attributes"];
        let labels = attributes["labels"]
            .as_array()
            .ok_or_else(|| invalid("'_Attributes: labels' is no list"))?
            .iter()
            // A label such as 1 or yes was written without quotes by hand.
            .map(|l| l.as_str().map_or_else(|| l.to_string(), str::to_owned))
            .collect();
        let epoch = |v: &Value| {
            v.as_f64()
                .filter(|e| (0.0..1e9).contains(e))
                .map(|e| e as u32)
        };
        let metrics = attributes["eval_metrics"].as_object();
        let metrics = metrics
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.as_f64()))
            .collect();
        const KNOWN: [&str; 7] = [
            "Model",
            "Transforms",
            "_Attributes",
            "_init_params",
            "completed_epochs",
            "status",
            "version",
        ];
        let extra = root.as_object().into_iter().flatten();
        let extra = extra.filter(|(k, _)| !KNOWN.contains(&k.as_str()));
        let init = root["_init_params"].as_object().into_iter().flatten();
        let init = init.filter(|(k, _)| *k != "num_classes" && *k != "backbone");
        Ok(Self {
            model: root["Model"]
                .as_str()
                .ok_or_else(|| invalid("'Model' is missing"))?
                .to_owned(),
            backbone: root["_init_params"]["backbone"].as_str().map(str::to_owned),
            model_type: attributes["model_type"]
                .as_str()
                .unwrap_or("classifier")
                .to_owned(),
            labels,
            eval_metrics: metrics,
            best_accuracy: attributes["best_accuracy"].as_f64(),
            best_model_epoch: epoch(&attributes["best_model_epoch"]),
            completed_epochs: epoch(&root["completed_epochs"]).unwrap_or(0),
            fixed_input_shape: numbers(&attributes["fixed_input_shape"]),
            preprocessing: preprocessing(&root),
            status: root["status"].as_str().unwrap_or("Normal").to_owned(),
            init_params: init.map(|(k, v)| (k.clone(), v.clone())).collect(),
            extra: extra.map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

/// The double with the decimal digits of the float: 0.485, not 0.48500001430511475.
fn shortest(v: f32) -> f64 {
    v.to_string().parse().unwrap_or_else(|_| f64::from(v))
}

fn numbers<const N: usize>(v: &Value) -> Option<[u32; N]> {
    let list: Option<Vec<u32>> = v
        .as_array()?
        .iter()
        .map(|x| u32::try_from(x.as_u64()?).ok())
        .collect();
    list?.try_into().ok()
}

fn floats(v: &Value) -> Option<Vec<f32>> {
    let list = v.as_array()?.iter();
    list.map(|x| Some(x.as_f64()? as f32)).collect()
}

/// Finds the known transforms in PaddleX's list; what is absent keeps the library's default.
fn preprocessing(root: &Value) -> Preprocessing {
    let transforms = &root["Transforms"];
    let find = |name: &str| transforms.as_array()?.iter().find_map(|t| t.get(name));
    let side = |v: Option<&Value>| {
        v.and_then(Value::as_u64)
            .and_then(|v| u32::try_from(v).ok())
    };
    let normalize = find("Normalize");
    let channel = |key: &str| normalize.and_then(|n| floats(n.get(key)?));
    let of = |transform: &str, key: &str| side(find(transform).and_then(|t| t.get(key)));
    // Both forms occur: a side, or height and width.
    let target = || {
        let target = find("Resize")?.get("target_size")?;
        numbers(target).or_else(|| side(Some(target)).map(|side| [side, side]))
    };
    let resize = match root["_Attributes"]["model_type"].as_str() {
        Some("segmenter") => {
            let [height, width] = target().unwrap_or([512, 512]);
            Resize::Exact { height, width }
        }
        Some("detector") if find("ResizeByShort").is_some() => Resize::Capped {
            short: of("ResizeByShort", "short_size").unwrap_or(800),
            long: of("ResizeByShort", "max_size").unwrap_or(1333),
            multiple: of("Padding", "size_divisor").unwrap_or(32),
        },
        Some("detector") => {
            let [height, width] = target().unwrap_or([608, 608]);
            Resize::Cubic { height, width }
        }
        _ => Resize::ShortCrop {
            short: of("ResizeByShort", "short_size").unwrap_or(256),
            crop: of("CenterCrop", "crop_size").unwrap_or(224),
        },
    };
    let range = match (channel("min_val"), channel("max_val")) {
        (Some(min), Some(max)) => min.into_iter().zip(max).collect(),
        _ => Vec::new(),
    };
    Preprocessing {
        resize,
        mean: channel("mean").unwrap_or_else(|| vec![0.485, 0.456, 0.406]),
        std: channel("std").unwrap_or_else(|| vec![0.229, 0.224, 0.225]),
        // The range of 8 bits is said by none.
        range: if range.iter().all(|r| *r == (0.0, 255.0)) {
            Vec::new()
        } else {
            range
        },
        image_size: numbers(&root["_Attributes"]["image_size"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Python's `yaml.dump` of numpy values, as PaddleX 2.1 writes it.
    const PADDLEX: &str = include_str!("testdata/paddlex_model.yml");

    fn sample() -> ModelYml {
        ModelYml {
            model: "ResNet50_vd".into(),
            backbone: None,
            model_type: "classifier".into(),
            labels: [
                "daisy", "玫瑰", "yes", "1", "a: b #c", "", "null", "~", "- x",
            ]
            .map(String::from)
            .to_vec(),
            eval_metrics: [("acc1".to_owned(), Some(0.91)), ("acc5".to_owned(), None)]
                .into_iter()
                .collect(),
            best_accuracy: Some(0.93),
            best_model_epoch: Some(7),
            completed_epochs: 8,
            fixed_input_shape: Some([224, 192]),
            preprocessing: Preprocessing {
                resize: Resize::ShortCrop {
                    short: 256,
                    crop: 224,
                },
                mean: vec![0.485, 0.456, 0.406],
                std: vec![0.229, 0.224, 0.225],
                range: Vec::new(),
                image_size: None,
            },
            status: "Normal".into(),
            init_params: IndexMap::new(),
            extra: IndexMap::new(),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let text = sample().to_yaml().unwrap();
        assert!(text.contains("- 0.485\n"), "{text}");
        assert_eq!(ModelYml::parse(&text).unwrap(), sample());
        let mut exported = sample();
        exported
            .extra
            .insert("Inputs".into(), json!([{ "name": "image" }]));
        assert_eq!(
            ModelYml::parse(&exported.to_yaml().unwrap()).unwrap(),
            exported
        );
    }

    #[test]
    fn segmenters_have_a_size_of_their_own_and_any_channels() {
        let mut yml = sample();
        yml.model_type = "segmenter".into();
        yml.backbone = Some("MobileNetV2_x1.0".into());
        yml.preprocessing = Preprocessing {
            resize: Resize::Exact {
                height: 256,
                width: 512,
            },
            mean: vec![0.5; 6],
            std: vec![0.25; 6],
            range: vec![(0.0, 4096.0); 6],
            image_size: Some([1000, 2000]),
        };
        let text = yml.to_yaml().unwrap();
        assert_eq!(ModelYml::parse(&text).unwrap(), yml);
        assert!(
            text.contains("target_size:\n    - 256\n    - 512\n"),
            "{text}"
        );
    }

    #[test]
    fn detectors_have_their_own_transforms() {
        let mut yml = sample();
        yml.model_type = "detector".into();
        yml.init_params.insert("with_fpn".into(), json!(true));
        for resize in [
            Resize::Cubic {
                height: 608,
                width: 608,
            },
            Resize::Capped {
                short: 800,
                long: 1333,
                multiple: 32,
            },
        ] {
            yml.preprocessing.resize = resize;
            let text = yml.to_yaml().unwrap();
            assert_eq!(ModelYml::parse(&text).unwrap(), yml);
        }
        assert_eq!(yml.preprocessing.size(), [800, 1344]);
        // PaddleX writes one side.
        let text = "Model: YOLOv3\n_Attributes: {labels: [a], model_type: detector}\nTransforms: [{Resize: {target_size: 416, interp: CUBIC}}]";
        let size = ModelYml::parse(text).unwrap().preprocessing.size();
        assert_eq!(size, [416, 416]);
    }

    #[test]
    fn reads_a_file_of_paddlex_with_python_tags() {
        let yml = ModelYml::parse(PADDLEX).unwrap();
        assert_eq!(yml.model, "MobileNetV2");
        assert_eq!(yml.labels, ["daisy", "玫瑰", "yes", "1"]);
        assert_eq!(yml.best_accuracy, Some(0.9375));
        assert_eq!(yml.best_model_epoch, Some(3));
        assert_eq!(yml.eval_metrics.get("acc1"), Some(&Some(0.9375)));
        assert_eq!(yml.eval_metrics.get("acc5"), Some(&Some(1.0)));
        assert_eq!(yml.fixed_input_shape, Some([224, 224]));
        assert_eq!(yml.completed_epochs, 4);
        assert_eq!(yml.preprocessing.mean, [0.485, 0.456, 0.406]);
    }

    #[test]
    fn builds_no_objects_from_tags() {
        let evil = "Model: !!python/object/apply:os.system ['touch /tmp/oarlock-evil']\n_Attributes: {labels: [a]}";
        assert!(ModelYml::parse(evil).is_err(), "a list is no model name");
        assert!(!Path::new("/tmp/oarlock-evil").exists());
    }

    #[test]
    fn refuses_damaged_and_explosive_text() {
        let bomb: String = (0..40).fold("a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned(), |s, i| {
            s + &format!(
                "a{}: &a{} [{}]\n",
                i + 1,
                i + 1,
                vec![format!("*a{i}"); 8].join(",")
            )
        });
        for text in [
            "",
            "[",
            "Model: x",
            "Model: {}\n_Attributes: {labels: 3}",
            &bomb,
            &"[".repeat(1 << 16),
        ] {
            assert!(ModelYml::parse(text).is_err());
        }
    }

    #[test]
    fn survives_mutated_files() {
        let base = PADDLEX.as_bytes();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..2000 {
            let mut bytes = base.to_vec();
            for _ in 0..4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 20) as u8;
            }
            // Any answer will do as long as it is an answer.
            let _ = ModelYml::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
