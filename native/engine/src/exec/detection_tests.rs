//! The operations of detectors against torchvision's, against finite differences and against closed forms.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::deform::deform_conv;
use super::regions::roi_align;
use super::{deform, regions};
use crate::Result;
use crate::ffi::{self, Pooling};

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

    fn run(&self, form: DeformForm) -> Tensor {
        let [x, offset, mask, weight, bias] = &self.inputs[..] else {
            unreachable!()
        };
        form([x, offset, mask], weight, Some(bias), &self.conv).unwrap()
    }
}

type DeformForm = fn([&Tensor; 3], &Tensor, Option<&Tensor>, &ffi::Conv) -> Result<Tensor>;
type RegionsForm = fn(&Tensor, &[&Tensor], &Pooling) -> Result<Tensor>;

#[test]
fn deformable_convolutions_equal_torchvisions() {
    let forms: [(DeformForm, Kind, f64); 3] = [
        (deform_conv, Kind::Float, 1e-5),
        (deform::composed, Kind::Float, 1e-5),
        (deform_conv, Kind::Double, 1e-7),
    ];
    for (f, (form, kind, tolerance)) in forms.into_iter().enumerate() {
        for (i, r) in records("deform").iter().enumerate() {
            let call = Deform::of(r, kind);
            let y = call.run(form);
            close(
                &format!("deform {i}, form {f}"),
                &y,
                &floats(&r["y"]),
                tolerance,
            );
            let inputs: Vec<&Tensor> = call.inputs.iter().collect();
            let theirs = r["grads"].as_array().unwrap();
            for (j, (ours, theirs)) in gradients(&y, &inputs).iter().zip(theirs).enumerate() {
                let what = format!("deform {i} gradient {j}, form {f}");
                close(&what, ours, &floats(theirs), tolerance);
            }
        }
    }
}

/// bf16 maps: what they give in fp32, rounded; offsets and factors may be of either type.
#[test]
fn bf16_keeps_its_digits() {
    for r in &records("deform") {
        let half = Deform::of(r, Kind::BFloat16);
        let mut full = Deform::of(r, Kind::BFloat16);
        full.inputs
            .iter_mut()
            .for_each(|t| *t = leaf(t.detach(), Kind::Float));
        let (y, exact) = (half.run(deform_conv), full.run(deform_conv));
        assert_eq!(y.kind(), Kind::BFloat16);
        close(
            "bf16 deform",
            &y,
            &exact.detach().to_kind(Kind::Double).contiguous(),
            0.03,
        );
        let ours = gradients(&y, &half.inputs.iter().collect::<Vec<_>>());
        let theirs = gradients(&exact, &full.inputs.iter().collect::<Vec<_>>());
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!(a.kind(), Kind::BFloat16);
            close(
                "bf16 deform gradient",
                a,
                &b.to_kind(Kind::Double).contiguous(),
                0.06,
            );
        }
    }
    for r in &records("regions") {
        let half = maps(r, Kind::BFloat16);
        let full: Vec<Tensor> = half.iter().map(|t| leaf(t.detach(), Kind::Float)).collect();
        let (y, exact) = (pool(roi_align, r, &half), pool(roi_align, r, &full));
        assert_eq!(y.kind(), Kind::BFloat16);
        close(
            "bf16 regions",
            &y,
            &exact.detach().to_kind(Kind::Double).contiguous(),
            0.01,
        );
        let ours = gradients(&y, &half.iter().collect::<Vec<_>>());
        let theirs = gradients(&exact, &full.iter().collect::<Vec<_>>());
        for (a, b) in ours.iter().zip(&theirs) {
            close(
                "bf16 regions gradient",
                a,
                &b.to_kind(Kind::Double).contiguous(),
                0.02,
            );
        }
    }
}

/// Along random directions, in double precision.
#[test]
fn gradients_equal_finite_differences() {
    let along = |loss: &dyn Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]| {
        let at = |step: f64| {
            let moved = inputs.iter().enumerate().map(|(i, t)| {
                let direction = unit(&format!("direction{i}"), &t.size());
                (t.detach() + direction * step).set_requires_grad(true)
            });
            moved.collect::<Vec<_>>()
        };
        let inputs = at(0.0);
        let list: Vec<&Tensor> = inputs.iter().collect();
        let grads = Tensor::run_backward(&[loss(&inputs)], &list, false, false);
        let slope: f64 = (grads.iter().enumerate())
            .map(|(i, g)| (g * unit(&format!("direction{i}"), &g.size())).sum(Kind::Double))
            .map(|t| t.double_value(&[]))
            .sum();
        let h = 1e-6;
        let [low, high] = [-h, h].map(|h| loss(&at(h)).double_value(&[]));
        let measured = (high - low) / (2.0 * h);
        assert!(
            (slope - measured).abs() < 1e-6 * slope.abs().max(1.0),
            "{slope}, {measured}"
        );
    };
    for r in &records("deform") {
        let call = Deform::of(r, Kind::Double);
        let loss = |inputs: &[Tensor]| {
            let [x, o, f, w, b] = inputs else {
                unreachable!()
            };
            let y = deform_conv([x, o, f], w, Some(b), &call.conv).unwrap();
            (&y * unit("grad", &y.size())).sum(Kind::Double)
        };
        along(&loss, &call.inputs);
    }
    for r in &records("regions") {
        let loss = |maps: &[Tensor]| {
            let y = pool(roi_align, r, maps);
            (&y * unit("grad", &y.size())).sum(Kind::Double)
        };
        along(&loss, &maps(r, Kind::Double));
    }
}

/// Larger than the recorded ones, with channels that are no multiple of a vector: both forms, forward and backward.
#[test]
fn both_forms_agree_at_odd_sizes() {
    let conv = ffi::Conv {
        stride: [2, 1],
        padding: [1, 2],
        dilation: [1, 2],
        groups: 1,
    };
    for channels in [1, 16, 77, 150] {
        let shapes = [
            vec![2, channels, 13, 17],
            vec![2, 18, 7, 17],
            vec![2, 9, 7, 17],
            vec![21, channels, 3, 3],
        ];
        let forms: [DeformForm; 2] = [deform_conv, deform::composed];
        let [ours, theirs] = forms.map(|form| {
            let inputs = shapes.iter().enumerate();
            let inputs = inputs.map(|(i, s)| leaf(unit(&format!("in{i}"), s) * 3.0, Kind::Float));
            let inputs: Vec<Tensor> = inputs.collect();
            let [x, o, f, w] = &inputs[..] else {
                unreachable!()
            };
            let y = form([x, o, f], w, None, &conv).unwrap();
            let mut all = gradients(&y, &inputs.iter().collect::<Vec<_>>());
            all.push(y);
            all
        });
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            let b = b.detach().to_kind(Kind::Double).contiguous();
            close(&format!("{channels} channels, {i}"), a, &b, 1e-4);
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

fn recorded_rois(r: &Value) -> Tensor {
    let rois = r["rois"].as_array().unwrap().iter();
    Tensor::stack(&rois.map(floats).collect::<Vec<_>>(), 0)
}

fn pool(form: RegionsForm, r: &Value, maps: &[Tensor]) -> Tensor {
    pool_from(form, r, &recorded_rois(r), maps)
}

fn pool_from(form: RegionsForm, r: &Value, rois: &Tensor, maps: &[Tensor]) -> Tensor {
    let strides: Vec<usize> = ints(&r["strides"]).iter().map(|&s| s as usize).collect();
    let pooling = Pooling {
        size: pair(&r["size"]),
        sampling: r["sampling"].as_i64().unwrap(),
        strides: &strides,
        aligned: r["aligned"].as_bool().unwrap(),
    };
    form(rois, &maps.iter().collect::<Vec<_>>(), &pooling).unwrap()
}

#[test]
fn pooled_regions_equal_torchvisions() {
    let forms: [(RegionsForm, Kind, f64); 3] = [
        (roi_align, Kind::Float, 1e-5),
        (regions::composed, Kind::Float, 1e-5),
        (roi_align, Kind::Double, 1e-7),
    ];
    for (f, (form, kind, tolerance)) in forms.into_iter().enumerate() {
        for (i, r) in records("regions").iter().enumerate() {
            let maps = maps(r, kind);
            let y = pool(form, r, &maps);
            close(
                &format!("regions {i}, form {f}"),
                &y,
                &floats(&r["y"]),
                tolerance,
            );
            let theirs = r["grads"].as_array().unwrap();
            let ours = gradients(&y, &maps.iter().collect::<Vec<_>>());
            for (j, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                let what = format!("regions {i} gradient {j}, form {f}");
                close(&what, ours, &floats(theirs), tolerance);
            }
        }
    }
}

#[test]
fn without_regions_there_are_no_rows_and_no_gradient() {
    for r in &records("regions") {
        for kind in [Kind::Float, Kind::BFloat16] {
            let maps = maps(r, kind);
            let none = Tensor::zeros([0, 5], (Kind::Float, Device::Cpu));
            let y = pool_from(roi_align, r, &none, &maps);
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
    let huge = Tensor::from_slice(&[7f32, -1e9, -1e9, 1e9, 1e9]).reshape([1, 5]);
    let forms: [RegionsForm; 2] = [roi_align, regions::composed];
    for form in forms {
        let y = pool_from(form, r, &rois, &maps);
        assert_eq!(y.size()[0], 1);
        let y = pool_from(form, r, &huge, &maps);
        assert!(y.abs().max().double_value(&[]).is_finite());
    }
    let call = Deform::of(&records("deform")[0], Kind::Float);
    let mut inputs: Vec<Tensor> = call.inputs.iter().map(|t| t.detach()).collect();
    inputs[1] = inputs[1].full_like(f64::NAN);
    let [x, o, f, w, b] = &inputs[..] else {
        unreachable!()
    };
    let y = deform_conv([x, o, f], w, Some(b), &call.conv).unwrap();
    assert_eq!(y.isnan().any().int64_value(&[]), 0);
}

#[test]
fn dropped_blocks_are_squares_and_keep_the_mean() {
    let ones = Tensor::ones([2, 64, 24, 31], (Kind::Float, Device::Cpu));
    let y = ffi::drop_block(&ones, 3, 0.9, 5).unwrap();
    let same = ffi::drop_block(&ones, 3, 0.9, 5).unwrap();
    assert_eq!((&y - same).abs().max().double_value(&[]), 0.0);
    let other = ffi::drop_block(&ones, 3, 0.9, 6).unwrap();
    assert!((&y - other).abs().max().double_value(&[]) > 0.5);
    assert!((y.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-4);
    let kept = y.ne(0.0).to_kind(Kind::Float);
    let share = kept.mean(Kind::Float).double_value(&[]);
    assert!((share - 0.9).abs() < 0.02, "{share}");
    // Every zero belongs to a 3×3 square of zeros.
    let dropped: Tensor = 1.0 - &kept;
    let squares = dropped
        .avg_pool2d([3, 3], [1, 1], [0, 0], false, true, None)
        .ge(0.999);
    let grown = squares.to_kind(Kind::Float).constant_pad_nd([2, 2, 2, 2]);
    let grown = grown.max_pool2d([3, 3], [1, 1], [0, 0], [1, 1], false);
    assert_eq!((grown - dropped).abs().max().double_value(&[]), 0.0);
    for size in [[1, 1], [2, 7]] {
        let small = Tensor::ones([1, 3, size[0], size[1]], (Kind::BFloat16, Device::Cpu));
        let y = ffi::drop_block(&small, 5, 0.5, 1).unwrap();
        assert_eq!((y.size(), y.kind()), (small.size(), Kind::BFloat16));
    }
}
