//! Other pixel layouts to 8-bit RGB.
//!
//! 16-bit samples keep their high byte and alpha is left out, both as OpenCV's colour reading does.

/// Layout of samples that a decoder gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.
    pub channels: usize,
    /// Bytes of one sample, 1 or 2 (native byte order).
    pub bytes: usize,
}

/// Appends `row` to `out` as RGB.
pub fn append_rgb(row: &[u8], layout: Layout, out: &mut Vec<u8>) {
    // Native order: the high byte is the second one on little-endian machines.
    let high = if layout.bytes == 2 && cfg!(target_endian = "little") {
        1
    } else {
        0
    };
    let step = layout.bytes;
    match (layout.channels, layout.bytes) {
        (3, 1) => out.extend_from_slice(row),
        (1 | 2, _) => {
            for pixel in row.chunks_exact(layout.channels * step) {
                out.extend_from_slice(&[pixel[high]; 3]);
            }
        }
        _ => {
            for pixel in row.chunks_exact(layout.channels * step) {
                out.extend_from_slice(&[pixel[high], pixel[step + high], pixel[2 * step + high]]);
            }
        }
    }
}

/// A whole buffer as RGB; no copy when it is RGB already.
pub fn to_rgb(data: Vec<u8>, layout: Layout) -> Vec<u8> {
    if layout
        == (Layout {
            channels: 3,
            bytes: 1,
        })
    {
        return data;
    }
    let mut out = Vec::with_capacity(data.len() / (layout.channels * layout.bytes) * 3);
    append_rgb(&data, layout, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_becomes_rgb() {
        let wide = |samples: &[u16]| {
            samples
                .iter()
                .flat_map(|s| s.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        let layout = |channels, bytes| Layout { channels, bytes };
        assert_eq!(to_rgb(vec![7, 8], layout(1, 1)), [7, 7, 7, 8, 8, 8]);
        assert_eq!(to_rgb(vec![7, 255, 8, 0], layout(2, 1)), [7, 7, 7, 8, 8, 8]);
        assert_eq!(to_rgb(vec![1, 2, 3], layout(3, 1)), [1, 2, 3]);
        assert_eq!(to_rgb(vec![1, 2, 3, 0], layout(4, 1)), [1, 2, 3]);
        assert_eq!(to_rgb(wide(&[0x12ff]), layout(1, 2)), [0x12; 3]);
        assert_eq!(to_rgb(wide(&[0x12ff, 0xffff]), layout(2, 2)), [0x12; 3]);
        assert_eq!(
            to_rgb(wide(&[0x12ff, 0x3401, 0x5600]), layout(3, 2)),
            [0x12, 0x34, 0x56]
        );
        assert_eq!(
            to_rgb(wide(&[0x12ff, 0x3401, 0x5600, 9]), layout(4, 2)),
            [0x12, 0x34, 0x56]
        );
    }
}
