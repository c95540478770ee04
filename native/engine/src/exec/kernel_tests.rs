//! The shim's own CPU kernels against libtorch's operators in double precision and against finite differences. They run
//! on every instruction set that the processor has.
//!
//! Tolerances, relative to the largest value: 1e-4 in fp32, 2e-2 in bf16 (8 bits of mantissa, sums in fp32).

use oarlock_graph::Act;
use tch::{Device, Kind, Tensor};

use crate::ffi;

pub(super) const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
pub(super) const KINDS: [Kind; 2] = [Kind::Float, Kind::BFloat16];

pub(super) fn map(size: [i64; 4], kind: Kind) -> Tensor {
    ffi::to_channels_last(&Tensor::randn(size, CPU).to_kind(kind)).unwrap()
}

pub(super) fn double(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Double).contiguous()
}

/// `ours` equals `theirs` within the tolerance of its type, infinite and undefined values at the same places.
pub(super) fn same(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let tolerance = if ours.kind() == Kind::Float {
        1e-4
    } else {
        2e-2
    };
    let (ours, theirs) = (double(ours), double(theirs));
    for (name, mask) in [
        ("NaN", Tensor::isnan as fn(&Tensor) -> Tensor),
        ("Inf", Tensor::isinf),
    ] {
        assert!(mask(&ours).equal(&mask(&theirs)), "{what}: other {name}");
    }
    let finite = |t: &Tensor| t.nan_to_num(0.0, 0.0, 0.0);
    let (ours, theirs) = (finite(&ours), finite(&theirs));
    let scale = theirs.abs().max().double_value(&[]).max(1e-3);
    let difference = (ours - theirs).abs().max().double_value(&[]);
    assert!(
        difference <= tolerance * scale,
        "{what}: {difference} of {scale}"
    );
}

struct Depthwise {
    channels: i64,
    size: [i64; 2],
    kernel: i64,
    numbers: ffi::Conv,
}

fn depthwise_cases() -> Vec<Depthwise> {
    let mut cases = Vec::new();
    for (channels, kernel) in [(16, 3), (67, 3), (43, 5), (3, 5), (35, 7)] {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (2, 3), (3, 1)] {
            for size in [[1, 1], [13, 7], [2, 21], [5, 3], [9, 8]] {
                let numbers = ffi::Conv {
                    stride: [stride; 2],
                    padding: [dilation * (kernel - 1) / 2; 2],
                    dilation: [dilation; 2],
                    groups: channels,
                };
                cases.push(Depthwise {
                    channels,
                    size,
                    kernel,
                    numbers,
                });
            }
        }
    }
    // No padding, more padding than the kernel is wide, unequal steps.
    for (padding, stride) in [([0, 0], [1, 1]), ([4, 3], [1, 1]), ([1, 2], [2, 1])] {
        let numbers = ffi::Conv {
            stride,
            padding,
            dilation: [1, 1],
            groups: 20,
        };
        cases.push(Depthwise {
            channels: 20,
            size: [7, 18],
            kernel: 3,
            numbers,
        });
    }
    cases
}

fn conv64(x: &Tensor, w: &Tensor, b: &Tensor, n: &ffi::Conv) -> Tensor {
    double(x).conv2d(
        &double(w),
        Some(&double(b)),
        n.stride,
        n.padding,
        n.dilation,
        n.groups,
    )
}

#[test]
fn depthwise_convolutions_equal_libtorchs() {
    for kind in KINDS {
        for case in depthwise_cases() {
            let Depthwise {
                channels,
                size: [h, w],
                kernel,
                numbers,
            } = case;
            let x = map([2, channels, h, w], kind);
            let weight = map([channels, 1, kernel, kernel], kind);
            let bias = Tensor::randn([channels], CPU).to_kind(kind);
            let what =
                format!("{channels} channels {h}×{w}, kernel {kernel}, {numbers:?}, {kind:?}");
            let theirs = conv64(&x, &weight, &bias, &numbers);
            let _guard = tch::no_grad_guard();
            same(
                &what,
                &ffi::conv(&x, &weight, Some(&bias), &numbers).unwrap(),
                &theirs,
            );
            // For inference, with what may follow inside.
            let packed = ffi::conv_pack(&x, &weight, &numbers).unwrap();
            assert!(
                packed.dim() == 3 || kind == Kind::BFloat16,
                "{what}: libtorch's kernel"
            );
            let other = ffi::to_channels_last(&theirs.to_kind(kind).copy()).unwrap();
            for act in [
                None,
                Some(Act::Relu),
                Some(Act::Relu6),
                Some(Act::HardSwish),
                Some(Act::LeakyRelu { slope: 0.1 }),
                Some(Act::Swish),
            ] {
                let ours = ffi::conv_act(&x, &packed, Some(&bias), &numbers, None, act).unwrap();
                let wanted = act.map_or_else(
                    || theirs.copy(),
                    |act| ffi::activation(&theirs, act, false).unwrap(),
                );
                same(&format!("{what} {act:?}"), &ours, &wanted);
            }
            let ours = ffi::conv_act(
                &x,
                &packed,
                Some(&bias),
                &numbers,
                Some(&other),
                Some(Act::Relu),
            )
            .unwrap();
            same(
                &format!("{what}, sum"),
                &ours,
                &(&theirs + double(&other)).relu(),
            );
        }
    }
}

#[test]
fn undefined_and_infinite_pixels_reach_what_they_reach_in_libtorch() {
    for kind in KINDS {
        for stride in [1, 2] {
            let numbers = ffi::Conv {
                stride: [stride; 2],
                padding: [1, 1],
                dilation: [1, 1],
                groups: 19,
            };
            let x = map([1, 19, 11, 12], kind);
            let (weight, bias) = (
                map([19, 1, 3, 3], kind),
                Tensor::zeros([19], CPU).to_kind(kind),
            );
            let _ = x.get(0).get(3).get(5).get(4).fill_(f64::NAN);
            let _ = x.get(0).get(18).get(0).get(11).fill_(f64::INFINITY);
            let _ = x.get(0).get(1).get(10).get(0).fill_(f64::NEG_INFINITY);
            let _guard = tch::no_grad_guard();
            let ours = ffi::conv(&x, &weight, Some(&bias), &numbers).unwrap();
            same("depthwise", &ours, &conv64(&x, &weight, &bias, &numbers));
            same(
                "pool",
                &ffi::global_pool(&x).unwrap(),
                &double(&x).adaptive_avg_pool2d([1, 1]),
            );
            let gate = map([1, 19, 1, 1], kind);
            let _ = gate.get(0).get(7).fill_(f64::NAN);
            let ours = ffi::excite(&x, &gate, None, Some(Act::Sigmoid)).unwrap();
            same("gate", &ours, &(double(&x) * double(&gate).sigmoid()));
        }
    }
}

/// Pool, one 1×1 convolution, gate: gradients of all inputs. `link` lets the pool write the map's whole gradient.
fn excite_ours(x: &Tensor, w: &Tensor, act: Act, link: bool) -> Tensor {
    let pooled = ffi::global_pool(x).unwrap();
    let z = pooled.conv2d::<&Tensor>(w, None, 1, 0, 1, 1);
    ffi::excite(x, &z, link.then_some(&pooled), Some(act)).unwrap()
}

fn excite64(x: &Tensor, w: &Tensor, act: Act) -> Tensor {
    let z = x
        .mean_dim(&[2i64, 3][..], true, None)
        .conv2d::<&Tensor>(w, None, 1, 0, 1, 1);
    x * ffi::activation(&z, act, false).unwrap()
}

#[test]
fn squeeze_excite_and_its_gradients_equal_libtorchs_and_finite_differences() {
    let hard = Act::HardSigmoid {
        slope: 0.2,
        offset: 0.5,
    };
    for kind in KINDS {
        // Rounding to bf16 may carry a value over a kink of the hard sigmoid: stay between them.
        let spread = if kind == Kind::Float { 0.3 } else { 0.03 };
        for (channels, size) in [(16, [1, 1]), (67, [5, 7]), (3, [19, 30]), (130, [2, 3])] {
            for (act, link) in [(hard, true), (hard, false), (Act::Sigmoid, true)] {
                let x = map([3, channels, size[0], size[1]], kind).set_requires_grad(true);
                let w = (map([channels, channels, 1, 1], kind) * spread)
                    .detach()
                    .set_requires_grad(true);
                let (xd, wd) = (
                    double(&x).set_requires_grad(true),
                    double(&w).set_requires_grad(true),
                );
                let (ours, theirs) = (excite_ours(&x, &w, act, link), excite64(&xd, &wd, act));
                let what = format!("{channels} channels {size:?}, {act:?}, link {link}, {kind:?}");
                same(&what, &ours, &theirs);
                let g = Tensor::randn(theirs.size(), CPU).to_kind(kind);
                let ours = Tensor::f_run_backward(
                    &[(&ours * &g).sum(Kind::Float)],
                    &[&x, &w],
                    false,
                    false,
                )
                .unwrap();
                let g = double(&g);
                let theirs = Tensor::f_run_backward(
                    &[(theirs * &g).sum(Kind::Double)],
                    &[&xd, &wd],
                    false,
                    false,
                )
                .unwrap();
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    same(&what, ours, theirs);
                }
                if kind == Kind::Float {
                    let f = |x: &Tensor| (excite64(x, &wd, act) * &g).sum(Kind::Double);
                    derivative(&what, &ours[0], &xd, f);
                }
            }
        }
    }
}

/// The slope of `f` along a direction, by central differences in double precision, against the gradient.
fn derivative(what: &str, gradient: &Tensor, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    let _guard = tch::no_grad_guard();
    let step = Tensor::randn(x.size(), (Kind::Double, Device::Cpu)) * 1e-6;
    let slope = (f(&(x + &step)) - f(&(x - &step))).double_value(&[]) / 2e-6;
    let ours = (double(gradient) * &step)
        .sum(Kind::Double)
        .double_value(&[])
        / 1e-6;
    let scale = double(gradient).norm().double_value(&[]).max(1e-3);
    assert!(
        (ours - slope).abs() <= 1e-4 * scale,
        "{what}: {ours} instead of {slope}, of {scale}"
    );
}

#[test]
fn depthwise_gradients_equal_finite_differences() {
    for case in depthwise_cases().into_iter().step_by(3) {
        let Depthwise {
            channels,
            size: [h, w],
            kernel,
            numbers,
        } = case;
        let x = map([2, channels, h, w], Kind::Float).set_requires_grad(true);
        let weight = map([channels, 1, kernel, kernel], Kind::Float).set_requires_grad(true);
        let bias = Tensor::zeros([channels], CPU);
        let y = ffi::conv(&x, &weight, Some(&bias), &numbers).unwrap();
        let g = Tensor::randn(y.size(), CPU);
        let ours =
            Tensor::f_run_backward(&[(&y * &g).sum(Kind::Float)], &[&x, &weight], false, false)
                .unwrap();
        let g = double(&g);
        let what = format!("{channels} channels {h}×{w}, kernel {kernel}, {numbers:?}");
        derivative(&what, &ours[0], &double(&x), |x| {
            (conv64(x, &weight, &bias, &numbers) * &g).sum(Kind::Double)
        });
        derivative(&what, &ours[1], &double(&weight), |w| {
            (conv64(&x, w, &bias, &numbers) * &g).sum(Kind::Double)
        });
    }
}

/// Runs this file's tests again, in a process with `variable` set.
pub(super) fn again(variable: &str, value: &str, test: &str) -> (bool, String) {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(variable, value)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    (run.status.success() && text.contains("1 passed"), text)
}

#[test]
fn kernels_are_the_same_on_every_instruction_set() {
    for set in ["base", "avx2", "avx512"] {
        for test in [
            "depthwise_convolutions_equal_libtorchs",
            "undefined_and_infinite_pixels_reach_what_they_reach_in_libtorch",
            "squeeze_excite_and_its_gradients_equal_libtorchs_and_finite_differences",
            "depthwise_gradients_equal_finite_differences",
        ] {
            let (passed, text) = again(
                "OARLOCK_KERNELS",
                set,
                &format!("exec::kernel_tests::{test}"),
            );
            assert!(passed, "{set}: {text}");
        }
    }
}

#[test]
fn switched_off_kernels_leave_the_work_to_libtorch() {
    if std::env::var_os("OARLOCK_DISABLE_KERNELS").is_none() {
        let test = "exec::kernel_tests::switched_off_kernels_leave_the_work_to_libtorch";
        let (passed, text) = again("OARLOCK_DISABLE_KERNELS", "depthwise, se", test);
        assert!(passed, "{text}");
        let (passed, text) = again("OARLOCK_DISABLE_KERNELS", "depthwize", test);
        assert!(
            !passed && text.contains("unknown kernel `depthwize`; known: depthwise"),
            "{text}"
        );
        return;
    }
    let numbers = ffi::Conv {
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        groups: 8,
    };
    let (x, w) = (
        map([1, 8, 4, 4], Kind::Float),
        map([8, 1, 3, 3], Kind::Float),
    );
    assert_eq!(ffi::conv_pack(&x, &w, &numbers).unwrap().dim(), 4);
}
