//! The random changes of a classifier's training on a batch of images on the device, a few operations for all of them:
//! what `oarlock_imaging` makes of each on the CPU, in the same numbers.

use oarlock_datasets::{ClassifyChanges, ColourKind};
use tch::{Kind, Tensor};

use crate::Result;

/// Most changes of colour of one image.
const COLOURS: usize = 4;

/// Images (N × H × W × 3 bytes) with the changes that were drawn for each: flips, colours, rotation. All but the rotation
/// are the CPU's to the last bit.
///
/// # Errors
/// Out of memory; failures of the device.
pub(super) fn changed(images: Tensor, changes: &[&ClassifyChanges]) -> Result<Tensor> {
    let plain = ClassifyChanges::default();
    if changes.iter().all(|c| **c == plain) {
        return Ok(images);
    }
    let mut x = images.f_to_kind(Kind::Float)?;
    let places = |wanted: &dyn Fn(&ClassifyChanges) -> bool| -> Vec<i64> {
        let all = changes.iter().enumerate();
        all.filter(|(_, c)| wanted(c))
            .map(|(i, _)| i as i64)
            .collect()
    };
    let flip = |dim: i64| move |part: &Tensor| -> Result<Tensor> { Ok(part.f_flip([dim])?) };
    on(&mut x, &places(&|c| c.horizontal_flip), flip(2))?;
    on(&mut x, &places(&|c| c.vertical_flip), flip(1))?;
    for turn in 0..COLOURS {
        for kind in [
            ColourKind::Brightness,
            ColourKind::Contrast,
            ColourKind::Saturation,
            ColourKind::Hue,
        ] {
            let drawn = changes.iter().enumerate().filter_map(|(i, c)| {
                let (own, amount) = *c.colours.changes().get(turn)?;
                (own == kind).then_some((i as i64, amount))
            });
            let (places, amounts): (Vec<i64>, Vec<f32>) = drawn.unzip();
            on(&mut x, &places, |part| match kind {
                ColourKind::Brightness => brightness(part, &amounts),
                ColourKind::Contrast => contrast(part, &amounts),
                ColourKind::Saturation => saturation(part, &amounts),
                ColourKind::Hue => hue(part, &amounts),
            })?;
        }
    }
    let turned = changes.iter().enumerate();
    let (places, degrees): (Vec<i64>, Vec<f32>) = turned
        .filter_map(|(i, c)| Some((i as i64, c.degrees?)))
        .unzip();
    on(&mut x, &places, |part| rotated(part, &degrees))?;
    Ok(x.f_to_kind(Kind::Uint8)?)
}

/// Replaces the images at `places` by what `change` makes of them.
fn on(
    x: &mut Tensor,
    places: &[i64],
    change: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let places = Tensor::f_from_slice(places)?.f_to_device(x.device())?;
    let part = change(&x.f_index_select(0, &places)?)?;
    *x = x.f_index_copy(0, &places, &part)?;
    Ok(())
}

/// One value an image, to be used with N × H × W × 3.
fn each<T: tch::kind::Element>(values: &[T], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?
        .f_to_device(like.device())?
        .f_reshape([-1, 1, 1, 1])?)
}

/// Grey values of N × H × W × 3, N × H × W × 1 integers (ITU-R BT.601 in 16 fractional bits).
fn luma(x: &Tensor) -> Result<Tensor> {
    let factors = Tensor::f_from_slice(&[19_595i32, 38_470, 7471])?.f_to_device(x.device())?;
    let sum = x
        .f_to_kind(Kind::Int)?
        .f_mul(&factors)?
        .f_sum_dim_intlist(-1, true, Kind::Int)?;
    Ok(sum
        .f_add_scalar(0x8000)?
        .f_bitwise_right_shift_tensor_scalar(16)?)
}

/// `centre` + (value − `centre`) · factor in 16 fractional bits.
fn scaled(x: &Tensor, centres: &[f32], amounts: &[f32]) -> Result<Tensor> {
    let slope = |amount: &f32| ((1.0 + amount).clamp(-64.0, 64.0) * 65_536.0).round();
    let start = |(centre, amount): (&f32, &f32)| {
        (centre * (65_536.0 - slope(amount)) + 32.0).round() as i32
    };
    let slopes: Vec<i32> = amounts.iter().map(|a| slope(a) as i32).collect();
    let starts: Vec<i32> = centres.iter().zip(amounts).map(start).collect();
    let sum = x
        .f_to_kind(Kind::Int)?
        .f_mul(&each(&slopes, x)?)?
        .f_add(&each(&starts, x)?)?;
    Ok(sum
        .f_bitwise_right_shift_tensor_scalar(16)?
        .f_clamp(0, 255)?
        .f_to_kind(Kind::Float)?)
}

fn brightness(x: &Tensor, amounts: &[f32]) -> Result<Tensor> {
    scaled(x, &vec![0.0; amounts.len()], amounts)
}

fn contrast(x: &Tensor, amounts: &[f32]) -> Result<Tensor> {
    let means = luma(x)?.f_to_kind(Kind::Double)?.f_mean_dim(
        Some([1i64, 2, 3].as_slice()),
        false,
        Kind::Double,
    )?;
    let means = Vec::<f64>::try_from(means)?;
    let centres: Vec<f32> = means.iter().map(|m| (m + 0.5).floor() as f32).collect();
    scaled(x, &centres, amounts)
}

fn saturation(x: &Tensor, amounts: &[f32]) -> Result<Tensor> {
    let factor = |amount: &f32| ((1.0 + amount) * 256.0).round();
    let factors: Vec<f32> = amounts.iter().map(factor).collect();
    let grey = luma(x)?.f_to_kind(Kind::Float)?;
    let apart = x.f_sub(&grey)?.f_mul(&each(&factors, x)?)?;
    Ok(apart
        .f_div_scalar(256.0)?
        .f_floor()?
        .f_add(&grey)?
        .f_clamp(0.0, 255.0)?)
}

fn hue(x: &Tensor, degrees: &[f32]) -> Result<Tensor> {
    let shifts: Vec<f32> = degrees.iter().map(|d| (d / 60.0).rem_euclid(6.0)).collect();
    let channel = |c: i64| x.f_narrow(-1, c, 1);
    let (r, g, b) = (channel(0)?, channel(1)?, channel(2)?);
    let high = x.f_amax([-1i64].as_slice(), true)?;
    let chroma = high.f_sub(&x.f_amin([-1i64].as_slice(), true)?)?;
    let inverse = chroma.f_clamp_min(1.0)?.f_reciprocal()?;
    let sector = |from: &Tensor, less: &Tensor, place: f64| -> Result<Tensor> {
        Ok(from.f_sub(less)?.f_mul(&inverse)?.f_add_scalar(place)?)
    };
    let below_red =
        sector(&b, &r, 2.0)?.f_where_self(&high.f_eq_tensor(&g)?, &sector(&r, &g, 4.0)?)?;
    let sector = sector(&g, &b, 0.0)?.f_where_self(&high.f_eq_tensor(&r)?, &below_red)?;
    // f(n) = V − C·max(0, min(k, 4 − k, 1)), k = (n + h) mod 6, n = 5, 3, 1 (HSV to RGB).
    let starts = Tensor::f_from_slice(&[5f32, 3.0, 1.0])?.f_to_device(x.device())?;
    let mut k = starts.f_add(&sector)?.f_add(&each(&shifts, x)?)?;
    for _ in 0..2 {
        let lower = k.f_sub_scalar(6.0)?;
        k = lower.f_where_self(&k.f_ge(6.0)?, &k)?;
    }
    let other = k.f_neg()?.f_add_scalar(4.0)?;
    let share = k.f_minimum(&other)?.f_clamp(0.0, 1.0)?;
    Ok(high
        .f_sub(&chroma.f_mul(&share)?)?
        .f_add_scalar(0.5)?
        .f_clamp(0.0, 255.0)?
        .f_floor()?)
}

/// Turns counter-clockwise around the centre, bilinear, black outside.
fn rotated(x: &Tensor, degrees: &[f32]) -> Result<Tensor> {
    let [n, h, w] = [0, 1, 2].map(|dim| x.size()[dim]);
    let radians: Vec<f32> = degrees.iter().map(|d| d.to_radians()).collect();
    let angle = each(&radians, x)?.f_squeeze_dim(-1)?;
    let (sin, cos) = (angle.f_sin()?, angle.f_cos()?);
    let centred = |count: i64| -> Result<Tensor> {
        let places = Tensor::f_arange(count, (Kind::Float, x.device()))?;
        Ok(places.f_sub_scalar((count - 1) as f64 / 2.0)?)
    };
    let (dx, dy) = (
        centred(w)?.f_reshape([1, 1, w])?,
        centred(h)?.f_reshape([1, h, 1])?,
    );
    let at_x = cos.f_mul(&dx)?.f_sub(&sin.f_mul(&dy)?)?;
    let at_y = sin.f_mul(&dx)?.f_add(&cos.f_mul(&dy)?)?;
    let at_x = at_x.f_add_scalar((w - 1) as f64 / 2.0)?;
    let at_y = at_y.f_add_scalar((h - 1) as f64 / 2.0)?;
    let pixels = x.f_reshape([n, h * w, 3])?;
    let (left, upper) = (at_x.f_floor()?, at_y.f_floor()?);
    let (share_x, share_y) = (at_x.f_sub(&left)?, at_y.f_sub(&upper)?);
    let mut sum = x.f_zeros_like()?;
    for (right, lower) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let weight = |share: &Tensor, second: i64| -> Result<Tensor> {
            Ok(match second {
                0 => share.f_neg()?.f_add_scalar(1.0)?,
                _ => share.shallow_clone(),
            })
        };
        let (px, py) = (left.f_add_scalar(right)?, upper.f_add_scalar(lower)?);
        let inside = px
            .f_ge(0)?
            .f_logical_and(&px.f_lt(w)?)?
            .f_logical_and(&py.f_ge(0)?)?
            .f_logical_and(&py.f_lt(h)?)?;
        let weight = weight(&share_x, right)?
            .f_mul(&weight(&share_y, lower)?)?
            .f_mul(&inside.f_to_kind(Kind::Float)?)?;
        let place = py
            .f_clamp(0, h - 1)?
            .f_mul_scalar(w)?
            .f_add(&px.f_clamp(0, w - 1)?)?
            .f_to_kind(Kind::Int64)?
            .f_reshape([n, h * w, 1])?
            .f_expand([n, h * w, 3], false)?;
        let values = pixels.f_gather(1, &place, false)?.f_reshape([n, h, w, 3])?;
        sum = sum.f_add(&values.f_mul(&weight.f_unsqueeze(-1)?)?)?;
    }
    Ok(sum.f_round()?)
}

#[cfg(test)]
#[path = "device_augment_tests.rs"]
mod tests;
