//! The operations of detectors against torchvision's, against finite differences and against closed forms.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::deform::deform_conv;
use super::regions::{Pooling, roi_align};
use crate::ffi;

/// The hash of `data/record_torchvision_ops.py`: numbers in [-0.5, 0.5).
fn unit(name: &str, shape: &[i64]) -> Tensor {
    let s: u64 = name.bytes().map(u64::from).sum();
    let numbers: Vec<f64> = (0..shape.iter().product::<i64>() as u64)
        .map(|i| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(s * 40503) & 0xffff_ffff;
            x ^= x >> 16;
            x = x.wrapping_mul(0x45d_9f3b) & 0xffff_ffff;
            x ^= x >> 16;
            x as f64 / 4_294_967_296.0 - 0.5
        })
        .collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn ints(v: &Value) -> Vec<i64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect()
}

fn pair(v: &Value) -> [i64; 2] {
    ints(v).try_into().unwrap()
}

fn floats(v: &Value) -> Tensor {
    let values: Vec<f64> = v
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    Tensor::from_slice(&values)
}

fn close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f64) {
    assert_eq!(ours.numel(), theirs.numel(), "{what}");
    if theirs.numel() == 0 {
        return;
    }
    let ours = ours
        .detach()
        .to_kind(Kind::Double)
        .contiguous()
        .reshape([-1]);
    let theirs = theirs.reshape([-1]);
    let scale = theirs.abs().clamp_min(1.0);
    let worst = ((&ours - &theirs) / scale).abs().max().double_value(&[]);
    assert!(
        worst <= tolerance,
        "{what}: differs by {worst} at {}",
        (&ours - &theirs).abs().argmax(None, false).int64_value(&[])
    );
}

/// An input of the given number format, in the memory order that maps have.
fn leaf(t: Tensor, kind: Kind) -> Tensor {
    let t = t.to_kind(kind);
    let t = if t.dim() == 4 {
        ffi::to_channels_last(&t).unwrap()
    } else {
        t
    };
    t.set_requires_grad(true)
}

fn gradients(y: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    let loss = (y.to_kind(Kind::Double) * unit("grad", &y.size())).sum(Kind::Double);
    Tensor::run_backward(&[loss], inputs, false, false)
}

fn records(op: &str) -> Vec<Value> {
    let lines = include_str!("data/torchvision_ops.jsonl").lines();
    let all = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = all.filter(|r| r["op"] == op).collect();
    assert!(found.len() > 4);
    found
}

struct Deform {
    inputs: Vec<Tensor>,
    conv: ffi::Conv,
}

impl Deform {
    fn of(r: &Value, kind: Kind) -> Self {
        let (x, kernel, [oh, ow]) = (ints(&r["x"]), pair(&r["kernel"]), pair(&r["size"]));
        let (taps, out) = (kernel[0] * kernel[1], r["out"].as_i64().unwrap());
        let reach = r["reach"].as_f64().unwrap();
        let inputs = [
            unit("x", &x),
            unit("offset", &[x[0], 2 * taps, oh, ow]) * reach,
            unit("mask", &[x[0], taps, oh, ow]) + 0.5,
            unit("weight", &[out, x[1], kernel[0], kernel[1]]),
            unit("bias", &[out]),
        ];
        Self {
            inputs: inputs.map(|t| leaf(t, kind)).into(),
            conv: ffi::Conv {
                stride: pair(&r["stride"]),
                padding: pair(&r["padding"]),
                dilation: pair(&r["dilation"]),
                groups: 1,
            },
        }
    }

    fn run(&self) -> Tensor {
        let [x, offset, mask, weight, bias] = &self.inputs[..] else {
            unreachable!()
        };
        deform_conv([x, offset, mask], weight, Some(bias), &self.conv).unwrap()
    }
}

#[test]
fn deformable_convolutions_equal_torchvisions() {
    for (kind, tolerance) in [(Kind::Double, 1e-7), (Kind::Float, 1e-5)] {
        for (i, r) in records("deform").iter().enumerate() {
            let call = Deform::of(r, kind);
            let y = call.run();
            close(
                &format!("deform {i} {kind:?}"),
                &y,
                &floats(&r["y"]),
                tolerance,
            );
            let inputs: Vec<&Tensor> = call.inputs.iter().collect();
            let grads = gradients(&y, &inputs);
            for (j, (ours, theirs)) in grads.iter().zip(r["grads"].as_array().unwrap()).enumerate()
            {
                close(
                    &format!("deform {i} gradient {j} {kind:?}"),
                    ours,
                    &floats(theirs),
                    tolerance,
                );
            }
        }
    }
}

fn maps(r: &Value, kind: Kind) -> Vec<Tensor> {
    let (n, c) = (r["n"].as_i64().unwrap(), r["c"].as_i64().unwrap());
    let levels = r["levels"].as_array().unwrap().iter().enumerate();
    levels
        .map(|(i, hw)| {
            let [h, w] = pair(hw);
            leaf(unit(&format!("level{i}"), &[n, c, h, w]), kind)
        })
        .collect()
}

fn pool(r: &Value, rois: &Tensor, maps: &[Tensor]) -> Tensor {
    let strides: Vec<usize> = ints(&r["strides"]).iter().map(|&s| s as usize).collect();
    let pooling = Pooling {
        size: pair(&r["size"]),
        sampling: r["sampling"].as_i64().unwrap(),
        strides: &strides,
        aligned: r["aligned"].as_bool().unwrap(),
    };
    roi_align(rois, &maps.iter().collect::<Vec<_>>(), &pooling).unwrap()
}

#[test]
fn pooled_regions_equal_torchvisions() {
    for (kind, tolerance) in [(Kind::Double, 1e-7), (Kind::Float, 1e-5)] {
        for (i, r) in records("regions").iter().enumerate() {
            let rois = r["rois"]
                .as_array()
                .unwrap()
                .iter()
                .map(floats)
                .collect::<Vec<_>>();
            let rois = Tensor::stack(&rois, 0).to_kind(kind);
            let maps = maps(r, kind);
            let y = pool(r, &rois, &maps);
            close(
                &format!("regions {i} {kind:?}"),
                &y,
                &floats(&r["y"]),
                tolerance,
            );
            let grads = gradients(&y, &maps.iter().collect::<Vec<_>>());
            for (j, (ours, theirs)) in grads.iter().zip(r["grads"].as_array().unwrap()).enumerate()
            {
                close(
                    &format!("regions {i} gradient {j} {kind:?}"),
                    ours,
                    &floats(theirs),
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn without_regions_there_are_no_rows_and_no_gradient() {
    for r in &records("regions") {
        for kind in [Kind::Float, Kind::BFloat16] {
            let maps = maps(r, kind);
            let y = pool(r, &Tensor::zeros([0, 5], (Kind::Float, Device::Cpu)), &maps);
            let [h, w] = pair(&r["size"]);
            assert_eq!(y.size(), [0, r["c"].as_i64().unwrap(), h, w]);
            for grad in gradients(&y, &maps.iter().collect::<Vec<_>>()) {
                assert_eq!(grad.abs().max().double_value(&[]), 0.0);
            }
        }
    }
}

#[test]
fn regions_without_numbers_read_nothing_outside() {
    let r = &records("regions")[0];
    let maps = maps(r, Kind::Float);
    let rois = Tensor::from_slice(&[f32::NAN, f32::INFINITY, f32::NAN, -f32::INFINITY, 1e30])
        .reshape([1, 5]);
    assert_eq!(pool(r, &rois, &maps).size()[0], 1);
    let huge = Tensor::from_slice(&[7f32, -1e9, -1e9, 1e9, 1e9]).reshape([1, 5]);
    assert!(
        pool(r, &huge, &maps)
            .abs()
            .max()
            .double_value(&[])
            .is_finite()
    );
}
