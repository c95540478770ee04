//! Overlaps of boxes as tensor code with gradients.

use tch::Tensor;

use crate::Result;

/// Boxes by their edges, tensors of one shape.
#[derive(Debug)]
pub(super) struct Edges {
    pub left: Tensor,
    pub top: Tensor,
    pub right: Tensor,
    pub bottom: Tensor,
}

/// What two boxes share, and what they cover together.
pub(super) struct Overlap {
    pub both: Tensor,
    pub union: Tensor,
}

impl Edges {
    /// The columns of …×4.
    pub fn of_columns(boxes: &Tensor) -> Result<Self> {
        Ok(Self {
            left: boxes.f_select(-1, 0)?,
            top: boxes.f_select(-1, 1)?,
            right: boxes.f_select(-1, 2)?,
            bottom: boxes.f_select(-1, 3)?,
        })
    }

    /// From middles and sides.
    pub fn of_middles(x: &Tensor, y: &Tensor, width: &Tensor, height: &Tensor) -> Result<Self> {
        let (half_width, half_height) = (width.f_mul_scalar(0.5)?, height.f_mul_scalar(0.5)?);
        Ok(Self {
            left: x.f_sub(&half_width)?,
            top: y.f_sub(&half_height)?,
            right: x.f_add(&half_width)?,
            bottom: y.f_add(&half_height)?,
        })
    }

    /// Each as a column or a row, for all pairs with those of the other direction.
    pub fn unsqueeze(&self, dim: i64) -> Result<Self> {
        Ok(Self {
            left: self.left.f_unsqueeze(dim)?,
            top: self.top.f_unsqueeze(dim)?,
            right: self.right.f_unsqueeze(dim)?,
            bottom: self.bottom.f_unsqueeze(dim)?,
        })
    }

    /// Width times height, 0 for boxes turned inside out.
    fn area(&self) -> Result<Tensor> {
        let width = self.right.f_sub(&self.left)?.f_clamp_min(0.0)?;
        let height = self.bottom.f_sub(&self.top)?.f_clamp_min(0.0)?;
        Ok(width.f_mul(&height)?)
    }

    /// With the boxes of `other`, one by one.
    pub fn overlap(&self, other: &Self) -> Result<Overlap> {
        let width = self
            .right
            .f_minimum(&other.right)?
            .f_sub(&self.left.f_maximum(&other.left)?)?
            .f_clamp_min(0.0)?;
        let height = self
            .bottom
            .f_minimum(&other.bottom)?
            .f_sub(&self.top.f_maximum(&other.top)?)?
            .f_clamp_min(0.0)?;
        let both = width.f_mul(&height)?;
        let union = self.area()?.f_add(&other.area()?)?.f_sub(&both)?;
        Ok(Overlap { both, union })
    }

    /// Generalised intersection over union, −1 to 1 (Rezatofighi et al. 2019).
    pub fn giou(&self, other: &Self) -> Result<Tensor> {
        const LEAST: f64 = 1e-10;
        let Overlap { both, union } = self.overlap(other)?;
        let union = union.f_add_scalar(LEAST)?;
        let width = self
            .right
            .f_maximum(&other.right)?
            .f_sub(&self.left.f_minimum(&other.left)?)?;
        let height = self
            .bottom
            .f_maximum(&other.bottom)?
            .f_sub(&self.top.f_minimum(&other.top)?)?;
        let hull = width.f_mul(&height)?.f_add_scalar(LEAST)?;
        let empty = hull.f_sub(&union)?.f_div(&hull)?;
        Ok(both.f_div(&union)?.f_sub(&empty)?)
    }
}
