//! Convolutions with own backward passes against libtorch's.

use tch::{Device, Kind, Tensor};

use crate::ffi;

/// Gradients of depthwise and pointwise convolutions against libtorch's own, at sizes that are no multiple of anything.
#[test]
fn own_convolution_gradients_equal_libtorchs() {
    struct Case {
        channels: i64,
        size: [i64; 2],
        out: i64,
        kernel: i64,
        stride: i64,
        dilation: i64,
        depthwise: bool,
    }
    let case = |channels, size, out, kernel, stride, dilation, depthwise| Case {
        channels,
        size,
        out,
        kernel,
        stride,
        dilation,
        depthwise,
    };
    let mut cases = vec![
        case(40, [9, 11], 24, 1, 1, 1, false),
        case(7, [8, 5], 3, 1, 2, 1, false),
        case(64, [1, 1], 19, 1, 1, 1, false),
    ];
    for (channels, kernel) in [(16, 3), (72, 5), (43, 3), (96, 7), (3, 5), (33, 5)] {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)] {
            for size in [[1, 1], [13, 7], [2, 19]] {
                cases.push(case(
                    channels, size, channels, kernel, stride, dilation, true,
                ));
            }
        }
    }
    tch::manual_seed(7);
    for c in cases {
        for kind in [Kind::Float, Kind::BFloat16] {
            let cpu = (Kind::Float, Device::Cpu);
            let make = |shape: &[i64]| Tensor::randn(shape, cpu).to_kind(kind);
            let x = make(&[3, c.channels, c.size[0], c.size[1]]);
            let x = ffi::to_channels_last(&x).unwrap().set_requires_grad(true);
            let inner = if c.depthwise { 1 } else { c.channels };
            let w = make(&[c.out, inner, c.kernel, c.kernel]).set_requires_grad(true);
            let b = make(&[c.out]).set_requires_grad(true);
            let padding = c.dilation * (c.kernel - 1) / 2;
            let numbers = ffi::Conv {
                stride: [c.stride; 2],
                padding: [padding; 2],
                dilation: [c.dilation; 2],
                groups: if c.depthwise { c.channels } else { 1 },
            };
            let y = ffi::conv(&x, &w, Some(&b), &numbers).unwrap();
            // The reference in double precision.
            let [xd, wd, bd] = [&x, &w, &b].map(|t| {
                t.detach()
                    .to_kind(Kind::Double)
                    .contiguous()
                    .set_requires_grad(true)
            });
            let yd = xd.conv2d(
                &wd,
                Some(&bd),
                numbers.stride,
                numbers.padding,
                numbers.dilation,
                numbers.groups,
            );
            let g = Tensor::randn(yd.size(), cpu).to_kind(kind);
            let ours =
                Tensor::f_run_backward(&[(&y * &g).sum(Kind::Float)], &[&x, &w, &b], false, false)
                    .unwrap();
            let theirs = Tensor::f_run_backward(
                &[(&yd * g.to_kind(Kind::Double)).sum(Kind::Double)],
                &[&xd, &wd, &bd],
                false,
                false,
            )
            .unwrap();
            let tolerance = if kind == Kind::Float { 1e-4 } else { 2e-2 };
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours.size(), theirs.size());
                let scale = theirs.abs().max().double_value(&[]).max(1e-3);
                let difference = (ours.to_kind(Kind::Double) - theirs)
                    .abs()
                    .max()
                    .double_value(&[]);
                assert!(
                    difference <= tolerance * scale,
                    "{} channels {:?}, kernel {}, stride {}, dilation {}, {kind:?}: {difference} of {scale}",
                    c.channels,
                    c.size,
                    c.kernel,
                    c.stride,
                    c.dilation,
                );
            }
        }
    }
}

/// The same with the instruction sets of older processors.
#[test]
fn gradients_are_the_same_on_every_instruction_set() {
    for set in ["base", "avx2", "avx512"] {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "exec::conv_tests::own_convolution_gradients_equal_libtorchs",
            ])
            .env("OARLOCK_KERNELS", set)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && text.contains("1 passed"),
            "{set}: {text}"
        );
    }
}

/// Inference convolutions with a sum and an activation inside, also of a single pixel, channel or image, where memory
/// layouts cannot be told apart.
#[test]
fn sums_inside_convolutions_equal_separate_ones() {
    tch::manual_seed(9);
    for (n, channels, out, size) in [
        (2, 16, 24, [5, 7]),
        (2, 8, 1, [32, 32]),
        (2, 1, 1, [6, 6]),
        (1, 1, 8, [4, 4]),
        (3, 40, 8, [1, 1]),
        (1, 1, 1, [1, 1]),
        (2, 3, 1, [1, 9]),
    ] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let make = |shape: &[i64]| Tensor::randn(shape, (kind, Device::Cpu));
            let map = |c: i64| ffi::to_channels_last(&make(&[n, c, size[0], size[1]])).unwrap();
            let (x, other) = (map(channels), map(out));
            let (w, b) = (make(&[out, channels, 1, 1]), make(&[out]));
            let numbers = ffi::Conv {
                stride: [1; 2],
                padding: [0; 2],
                dilation: [1; 2],
                groups: 1,
            };
            let packed = ffi::conv_pack(&x, &w, &numbers).unwrap();
            let act = Some(oarlock_graph::Act::Relu);
            let ours = ffi::conv_act(&x, &packed, Some(&b), &numbers, Some(&other), act).unwrap();
            let [xd, wd, bd, od] = [&x, &w, &b, &other].map(|t| t.to_kind(Kind::Double));
            let theirs = (xd.conv2d(&wd, Some(&bd), 1, 0, 1, 1) + od).relu();
            let scale = theirs.abs().max().double_value(&[]).max(1e-3);
            let apart = (ours.to_kind(Kind::Double) - theirs).abs().max();
            let tolerance = if kind == Kind::Float { 1e-5 } else { 2e-2 };
            assert!(
                apart.double_value(&[]) <= tolerance * scale,
                "{n}×{channels}→{out}×{size:?} {kind:?}: {apart:?} of {scale}"
            );
        }
    }
}
