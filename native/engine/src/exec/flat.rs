//! Tensors that lie one behind the other in one buffer, so that an optimizer step is one walk through memory.

use tch::{Kind, Tensor};

use crate::Result;

/// Values that a tensor's place is rounded up to: a cache line of fp32.
const ALIGN: i64 = 16;

/// Zero tensors with the shapes and memory orders of `like`, all in one buffer of type `kind`. They are views of it
/// without gradient.
///
/// # Errors
/// Out of memory.
pub(crate) fn zeros_like(like: &[&Tensor], kind: Kind) -> Result<Vec<Tensor>> {
    let Some(first) = like.first() else {
        return Ok(Vec::new());
    };
    let _guard = tch::no_grad_guard();
    let place = |t: &Tensor| (t.numel() as i64 + ALIGN - 1) / ALIGN * ALIGN;
    let total: i64 = like.iter().map(|t| place(t)).sum();
    let buffer = Tensor::f_zeros([total], (kind, first.device()))?;
    let mut at = 0;
    like.iter()
        .map(|t| {
            let view = buffer.f_as_strided(t.size(), t.stride(), at)?;
            at += place(t);
            Ok(view)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::ffi;

    #[test]
    fn views_keep_shapes_and_orders_and_never_overlap() {
        let options = (Kind::Float, Device::Cpu);
        let a = ffi::to_channels_last(&Tensor::zeros([5, 3, 2, 2], options)).unwrap();
        let (b, c) = (Tensor::zeros([7], options), Tensor::zeros([4, 6], options));
        let views = zeros_like(&[&a, &b, &c], Kind::Float).unwrap();
        for (i, (view, like)) in views.iter().zip([&a, &b, &c]).enumerate() {
            assert_eq!((view.size(), view.stride()), (like.size(), like.stride()));
            assert_eq!(
                view.data_ptr() as usize % 64,
                views[0].data_ptr() as usize % 64
            );
            let _ = view.shallow_clone().fill_(i as f64 + 1.0);
        }
        for (i, view) in views.iter().enumerate() {
            assert!(view.eq(i as f64 + 1.0).all().int64_value(&[]) == 1);
        }
    }
}
