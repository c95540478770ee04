//! Losses of segmenters against PaddleX's own values and gradients.

use oarlock_engine::train::losses::PixelLoss;
use oarlock_jobs::{LossKind, LossTerm};
use serde_json::Value;
use tch::{Kind, Tensor};

fn numbers(v: &Value) -> Vec<f64> {
    let list = v.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Channels innermost, as the executor hands them over.
fn logits(file: &Value) -> Tensor {
    let shape: Vec<i64> = numbers(&file["shape"]).iter().map(|&d| d as i64).collect();
    let [n, c, h, w] = shape[..] else { panic!() };
    let tensor = Tensor::from_slice(&numbers(&file["logits"]))
        .to_kind(Kind::Float)
        .reshape([n, c, h, w]);
    let tensor = tensor.permute([0, 2, 3, 1]).contiguous();
    tensor.permute([0, 3, 1, 2]).set_requires_grad(true)
}

fn map(labels: &[f64], size: &[i64]) -> Tensor {
    Tensor::from_slice(labels)
        .to_kind(Kind::Int64)
        .reshape([size[0], size[2], size[3]])
}

fn term(kind: LossKind, weight: f64) -> LossTerm {
    LossTerm { kind, weight }
}

#[test]
fn losses_and_gradients_are_those_of_paddlex() {
    // `record_paddleseg_losses.py` made it; the file names the releases.
    let file: Value = serde_json::from_str(include_str!("data/paddleseg_losses.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let kind: LossKind = serde_json::from_value(case["kind"].clone()).unwrap();
        let weights = numbers(&case["class_weights"]);
        let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
        let x = logits(&file);
        let target = map(&numbers(&case["labels"]), &x.size());
        // An auxiliary head of the same logits at weight 0.5, and a term of weight 2: three times the loss.
        let loss = PixelLoss::new(&[term(kind, 2.0)], &weights, 3).unwrap();
        let outputs = [x.shallow_clone(), x.shallow_clone()];
        let value = loss.of_outputs(&outputs, &[1.0, 0.5], &target).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        let got = value.double_value(&[]) / 3.0;
        assert!((got - expected).abs() < 1e-5, "{kind:?}: {got} {expected}");
        value.backward();
        let gradient = x.grad().contiguous() / 3.0;
        let expected = Tensor::from_slice(&numbers(&case["gradient"]))
            .to_kind(Kind::Float)
            .reshape_as(&gradient);
        let off = (gradient - expected).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{kind:?}: the gradient is off by {off}");
    }
}

#[test]
fn a_batch_of_ignored_pixels_teaches_nothing() {
    let file: Value = serde_json::from_str(include_str!("data/paddleseg_losses.json")).unwrap();
    for kind in [
        LossKind::CrossEntropy,
        LossKind::Dice,
        LossKind::Lovasz,
        LossKind::Bce,
    ] {
        let x = logits(&file);
        let target = map(&[255.0; 40], &x.size());
        let loss = PixelLoss::new(&[term(kind, 1.0)], &[], 3).unwrap();
        let value = loss
            .of_outputs(&[x.shallow_clone()], &[1.0], &target)
            .unwrap();
        assert!(value.double_value(&[]).is_finite(), "{kind:?}");
        value.backward();
        assert_eq!(x.grad().abs().max().double_value(&[]), 0.0, "{kind:?}");
    }
}
