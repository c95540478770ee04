//! Parts of dense tensors.

use crate::HostTensor;

/// The slices `indices` of `tensor` along `axis`, in that order.
pub(super) fn select(tensor: &HostTensor, axis: usize, indices: &[usize]) -> HostTensor {
    let len = tensor.shape[axis];
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let outer: usize = tensor.shape[..axis].iter().product();
    let mut shape = tensor.shape.clone();
    shape[axis] = indices.len();
    let mut data = Vec::with_capacity(outer * indices.len() * inner);
    for block in 0..outer {
        for &index in indices {
            let start = (block * len + index) * inner;
            data.extend_from_slice(&tensor.data[start..start + inner]);
        }
    }
    HostTensor { shape, data }
}

/// Sets the slices `rows` along the first axis to zero.
pub(super) fn zero_rows(tensor: &mut HostTensor, rows: &[usize]) {
    let len: usize = tensor.shape[1..].iter().product();
    for &row in rows {
        tensor.data[row * len..(row + 1) * len].fill(0.0);
    }
}
