//! Batch norm and optimizer steps on hard values: large means beside small variances, undefined and infinite ones.

use oarlock_graph::Act;
use tch::{Device, Kind, Tensor};

use super::kernel_tests::{CPU, KINDS, again, double, map, same};
use crate::ffi;

/// Weights of 1, shifts of 0 and fresh running statistics.
struct Parameters {
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl Parameters {
    fn new(channels: i64) -> Self {
        Self {
            gamma: Tensor::ones([channels], CPU),
            beta: Tensor::zeros([channels], CPU),
            mean: Tensor::zeros([channels], CPU),
            var: Tensor::zeros([channels], CPU),
        }
    }

    /// With a momentum of 1: the running statistics become those of the batch.
    fn norm(&self) -> ffi::Norm<'_> {
        ffi::Norm {
            gamma: &self.gamma,
            beta: &self.beta,
            running_mean: &self.mean,
            running_var: &self.var,
            train: true,
            momentum: 1.0,
            eps: 1e-12,
        }
    }
}

/// Largest relative difference.
fn relative(ours: &Tensor, theirs: &Tensor) -> f64 {
    ((double(ours) - theirs).abs() / theirs.abs())
        .max()
        .double_value(&[])
}

#[test]
fn small_variances_beside_large_means_keep_their_digits() {
    let (n, c, h, w) = (3, 37, 29, 31);
    let spread = Tensor::randn([n, c, h, w], (Kind::Double, Device::Cpu));
    for (mean, std) in [
        (0.0, 1.0),
        (1e3, 1.0),
        (-1e4, 1.0),
        (1e-3, 1e-6),
        (3e5, 10.0),
    ] {
        for corner in [false, true] {
            let x = (&spread * std + mean).to_kind(Kind::Float);
            if corner {
                // The first and the last row of channels far from all others, as in a padded corner.
                let _ = x.narrow(0, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).fill_(0.0);
                let _ = x
                    .narrow(0, n - 1, 1)
                    .narrow(2, h - 1, 1)
                    .narrow(3, w - 1, 1)
                    .fill_(2.0 * mean);
            }
            let x = ffi::to_channels_last(&x).unwrap();
            let p = Parameters::new(c);
            let y = ffi::norm_act(&x, &p.norm(), None, None).unwrap();
            let exact = double(&x);
            let dims = &[0i64, 2, 3][..];
            let (var, centre) = exact.var_mean_correction(dims, 1, true);
            let what = format!("mean {mean}, deviation {std}, corner {corner}");
            let error = relative(&p.var, &var.flatten(0, -1));
            // One row far from its neighbours costs the digits of sixteen.
            let digits = if corner { 4e-6 } else { 1e-6 };
            assert!(error <= digits, "{what}: variance off by {error}");
            let size = centre.flatten(0, -1).abs() + var.flatten(0, -1).sqrt();
            let error = ((double(&p.mean) - centre.flatten(0, -1)) / size)
                .abs()
                .max()
                .double_value(&[]);
            assert!(error <= 1e-7, "{what}: mean off by {error}");
            // The result cannot be finer than the map's own digits.
            let biased = &exact.var_mean_correction(dims, 0, true).0 + 1e-12;
            let wanted = (&exact - &centre) / biased.sqrt();
            let digits = 2e-7 * (mean.abs() / std).max(1.0) + 1e-6;
            let off = (double(&y) - &wanted).abs();
            let error = (off / (wanted.abs() + 1.0)).max().double_value(&[]);
            assert!(error <= digits, "{what}: result off by {error}");
        }
    }
}

#[test]
fn undefined_and_infinite_values_pass_a_batch_norm_as_they_pass_libtorchs() {
    let acts = [
        None,
        Some(Act::Relu),
        Some(Act::Relu6),
        Some(Act::LeakyRelu { slope: 0.1 }),
        Some(Act::HardSwish),
    ];
    for kind in KINDS {
        for (act, residual) in acts
            .into_iter()
            .flat_map(|a| [(a, false), (a, true)])
            .filter(|case| *case != (Some(Act::HardSwish), true))
        {
            let what = format!("{act:?}, sum {residual}, {kind:?}");
            let x = map([2, 21, 5, 7], kind);
            let _ = x.get(0).get(2).get(1).get(3).fill_(f64::NAN);
            let _ = x.get(1).get(20).get(0).get(0).fill_(f64::INFINITY);
            let other = map([2, 21, 5, 7], kind);
            let _ = other.get(0).get(5).get(4).get(6).fill_(f64::NAN);
            let x = x.set_requires_grad(true);
            let other = other.set_requires_grad(true);
            let p = Parameters::new(21);
            let y = ffi::norm_act(&x, &p.norm(), residual.then_some(&other), act).unwrap();

            let (xd, otherd) = (
                double(&x).set_requires_grad(true),
                double(&other).set_requires_grad(true),
            );
            let q = Parameters::new(21);
            let [gamma, beta, mean, var] =
                [&q.gamma, &q.beta, &q.mean, &q.var].map(|t| t.to_kind(Kind::Double));
            let mut theirs = xd.batch_norm(
                Some(&gamma),
                Some(&beta),
                Some(&mean),
                Some(&var),
                true,
                1.0,
                1e-12,
                false,
            );
            if residual {
                theirs += &otherd;
            }
            if let Some(act) = act {
                theirs = ffi::activation(&theirs, act, false).unwrap();
            }
            same(&what, &y, &theirs);
            assert!(
                p.var.isnan().equal(&var.isnan()),
                "{what}: other statistics"
            );

            let g = map([2, 21, 5, 7], kind);
            let _ = g.get(1).get(11).get(2).get(2).fill_(f64::NEG_INFINITY);
            let wanted = [&x, &other];
            let ours = ffi::gradients(&y, &g, &wanted[..=usize::from(residual)]).unwrap();
            let wanted = [&xd, &otherd];
            let theirs =
                ffi::gradients(&theirs, &double(&g), &wanted[..=usize::from(residual)]).unwrap();
            for (ours, theirs) in ours.iter().zip(&theirs) {
                undefined_alike(&what, ours, theirs);
            }
        }
    }
}

/// What is undefined or infinite in libtorch's result is so in ours, and nothing else.
fn undefined_alike(what: &str, ours: &Tensor, theirs: &Tensor) {
    let lost = |t: &Tensor| t.isfinite().logical_not();
    assert!(
        lost(ours).equal(&lost(theirs)),
        "{what}: {} values are not finite instead of {}",
        lost(ours).sum(Kind::Int64).int64_value(&[]),
        lost(theirs).sum(Kind::Int64).int64_value(&[])
    );
}

#[test]
fn undefined_and_infinite_gradients_reach_weights_as_they_reach_libtorchs() {
    const LENGTH: i64 = 83;
    for kind in KINDS {
        for adam in [false, true] {
            let grad = Tensor::randn([LENGTH], CPU).to_kind(kind);
            for (at, value) in [(0, f64::NAN), (17, f64::INFINITY), (82, f64::NEG_INFINITY)] {
                let _ = grad.get(at).fill_(value);
            }
            let master = Tensor::randn([LENGTH], CPU);
            let state: Vec<Tensor> = (0..=i64::from(adam))
                .map(|_| Tensor::zeros([LENGTH], CPU))
                .collect();
            let compute = if kind == Kind::Float {
                master.shallow_clone()
            } else {
                master.to_kind(kind)
            };
            let run = |master: &Tensor, compute: &Tensor, state: &[Tensor]| {
                let params = [ffi::StepTensors {
                    master,
                    compute,
                    grad: &grad,
                    state,
                }];
                if adam {
                    let rates = ffi::Adam {
                        lr: 1e-2,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 1e-4,
                        step: 1,
                    };
                    ffi::adam_step(&params, &rates).unwrap();
                } else {
                    ffi::sgd_step(&params, 1e-2, 0.9, 1e-4).unwrap();
                }
            };
            // Rates as libtorch's: g = grad + decay · w.
            let (w, g) = (
                double(&master),
                double(&grad) + double(&master) * f64::from(1e-4f32),
            );
            let theirs = if adam {
                let root = (&g * &g * 1e-3).sqrt() / (1e-3f64).sqrt() + 1e-8;
                &w - &g * 0.1 / 0.1 * 1e-2 / root
            } else {
                &w - &g * 1e-2
            };
            run(&master, &compute, &state);
            let what = format!("adam {adam}, {kind:?}");
            same(&what, &master, &theirs);
            same(&what, &compute, &master);
            assert!(state[0].isfinite().equal(&grad.isfinite()), "{what}: state");
        }
    }
}

#[test]
fn hard_values_are_the_same_on_every_instruction_set() {
    for set in ["base", "avx2", "avx512"] {
        for test in [
            "small_variances_beside_large_means_keep_their_digits",
            "undefined_and_infinite_values_pass_a_batch_norm_as_they_pass_libtorchs",
            "undefined_and_infinite_gradients_reach_weights_as_they_reach_libtorchs",
        ] {
            let (passed, text) =
                again("OARLOCK_KERNELS", set, &format!("exec::norm_tests::{test}"));
            assert!(passed, "{set}: {text}");
        }
    }
}
