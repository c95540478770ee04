//! Operations that depend on the size of a map: interpolation to the size of another one, `SAME` padding.

use super::lower::{Lowering, int, text};
use crate::{GraphError, same_padding};

impl Lowering<'_> {
    /// Bilinear interpolation of `x` to the size of `like`: with a scale where both sizes are known, which
    /// leaves the batch open, else with the size as it is at run time.
    pub fn resize(&mut self, id: usize, align_corners: bool, [x, like]: [&str; 2], out: &str) {
        let coordinates = if align_corners {
            "align_corners"
        } else {
            "half_pixel"
        };
        let attributes = vec![
            text("mode", "linear"),
            text("coordinate_transformation_mode", coordinates),
        ];
        let [source, target] = [self.inputs(id)[0], id].map(|id| self.size(id));
        if let (Some(from), Some(to)) = (source, target) {
            let [height, width] = [0, 1].map(|i| scale(from[i], to[i]));
            let scales = [1.0, 1.0, height, width];
            let scales = self.floats(format!("{out}.scales"), &[4], &scales);
            self.emit("Resize", &[x, "", &scales], out, attributes);
            return;
        }
        let part = |name: &str| format!("{out}.{name}");
        let (batch, size, sizes) = (part("batch"), part("size"), part("sizes"));
        self.emit("Shape", &[x], &batch, vec![int("start", 0), int("end", 2)]);
        self.emit(
            "Shape",
            &[like],
            &size,
            vec![int("start", 2), int("end", 4)],
        );
        self.emit("Concat", &[&batch, &size], &sizes, vec![int("axis", 0)]);
        self.emit("Resize", &[x, "", "", &sizes], out, attributes);
    }

    /// Zeros around `x`; their number depends on its size.
    pub fn same_pad(
        &mut self,
        id: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        x: &str,
        out: &str,
    ) -> Result<(), GraphError> {
        let Some(size) = self.size(self.inputs(id)[0]) else {
            return Err(self.error("its `SAME` padding needs a fixed image size: give one"));
        };
        let [[top, bottom], [left, right]] =
            [0, 1].map(|i| same_padding(size[i], kernel[i], stride[i]));
        let pads = [0, 0, top, left, 0, 0, bottom, right];
        let pads = self.ints(format!("{out}.pads"), &pads);
        self.emit("Pad", &[x, &pads], out, Vec::new());
        Ok(())
    }
}

/// The scale from which runtimes compute `to` = ⌊`from` · scale⌋, in single precision as they do.
fn scale(from: usize, to: usize) -> f32 {
    let mut scale = to as f32 / from as f32;
    while ((scale * from as f32) as usize) < to {
        scale = scale.next_up();
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn scales_give_the_wanted_size() {
        for from in 1..200 {
            for to in 1..1100 {
                let scale = scale(from, to);
                assert_eq!((scale * from as f32) as usize, to, "{from} to {to}");
                let exact = to as f64 / from as f64;
                assert!((f64::from(scale) / exact - 1.0).abs() < 2e-7);
            }
        }
    }
}
