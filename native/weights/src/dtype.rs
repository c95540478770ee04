//! Number formats of stored tensors and their conversion to fp32.

use half::{bf16, f16};
use oarlock_graph::HostTensor;

/// Most dimensions a stored tensor may have.
pub(crate) const MAX_RANK: usize = 16;

/// Number format of stored elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// Signed 8 bit.
    I8,
    /// Signed 16 bit.
    I16,
    /// Signed 32 bit.
    I32,
    /// Signed 64 bit.
    I64,
    /// Unsigned 8 bit.
    U8,
    /// Unsigned 16 bit.
    U16,
    /// Unsigned 32 bit.
    U32,
    /// Unsigned 64 bit.
    U64,
    /// One byte, 0 or 1.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The element at `bytes` (exactly [`Dtype::size`] bytes, little-endian).
    pub(crate) fn read(self, b: &[u8]) -> f64 {
        fn le<const N: usize>(b: &[u8]) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&b[..N]);
            out
        }
        match self {
            Self::F16 => f16::from_le_bytes(le(b)).to_f64(),
            Self::Bf16 => bf16::from_le_bytes(le(b)).to_f64(),
            Self::F32 => f64::from(f32::from_le_bytes(le(b))),
            Self::F64 => f64::from_le_bytes(le(b)),
            Self::I8 => f64::from(b[0] as i8),
            Self::I16 => f64::from(i16::from_le_bytes(le(b))),
            Self::I32 => f64::from(i32::from_le_bytes(le(b))),
            Self::I64 => i64::from_le_bytes(le(b)) as f64,
            Self::U8 => f64::from(b[0]),
            Self::U16 => f64::from(u16::from_le_bytes(le(b))),
            Self::U32 => f64::from(u32::from_le_bytes(le(b))),
            Self::U64 => u64::from_le_bytes(le(b)) as f64,
            Self::Bool => f64::from(u8::from(b[0] != 0)),
        }
    }

    /// All elements of a contiguous little-endian buffer as fp32.
    pub(crate) fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Self::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| f16::from_le_bytes(*b).to_f32())
                .collect(),
            Self::Bf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| bf16::from_le_bytes(*b).to_f32())
                .collect(),
            _ => bytes
                .chunks_exact(self.size())
                .map(|b| self.read(b) as f32)
                .collect(),
        }
    }
}

/// Number of elements of a shape, `None` when it does not fit or has too many dimensions.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK {
        return None;
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// How many elements conversions may produce in all, so that a small file whose entries share
/// one buffer cannot fill the memory.
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    /// A budget for a file of `file_bytes`: eight times its size in elements is far beyond any real
    /// sharing of buffers (fp8 would be one element a byte).
    pub(crate) fn for_file(file_bytes: usize) -> Self {
        Self {
            left: file_bytes.saturating_mul(8).saturating_add(1 << 16),
        }
    }

    /// Takes `elements` from the budget.
    pub(crate) fn take(&mut self, elements: usize) -> Result<(), String> {
        if elements > self.left {
            return Err("its tensors unpack to far more numbers than the file can hold".into());
        }
        self.left -= elements;
        Ok(())
    }
}

/// A strided view into stored elements.
pub(crate) struct Strided<'a> {
    /// Little-endian elements of the whole storage.
    pub storage: &'a [u8],
    /// Their format.
    pub dtype: Dtype,
    /// First element of the view.
    pub offset: usize,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Element strides by dimension.
    pub stride: Vec<usize>,
}

impl Strided<'_> {
    /// Strides of a dense row-major tensor.
    pub(crate) fn dense(shape: &[usize]) -> Vec<usize> {
        let mut stride = vec![1usize; shape.len()];
        for i in (1..shape.len()).rev() {
            stride[i - 1] = stride[i].saturating_mul(shape[i]);
        }
        stride
    }

    /// Strides of a dense column-major (Fortran) tensor.
    pub(crate) fn column_major(shape: &[usize]) -> Vec<usize> {
        let mut stride = vec![1usize; shape.len()];
        for i in 1..shape.len() {
            stride[i] = stride[i - 1].saturating_mul(shape[i - 1]);
        }
        stride
    }

    /// Gathers the view into a dense fp32 tensor.
    ///
    /// # Errors
    /// When the view reaches beyond its storage or the budget is used up.
    pub(crate) fn gather(self, budget: &mut Budget) -> Result<HostTensor, String> {
        let Self {
            storage,
            dtype,
            offset,
            shape,
            stride,
        } = self;
        if shape.len() != stride.len() {
            return Err(format!(
                "{} sizes but {} strides",
                shape.len(),
                stride.len()
            ));
        }
        let count = element_count(&shape).ok_or_else(|| format!("impossible shape {shape:?}"))?;
        budget.take(count)?;
        if count == 0 {
            return Ok(HostTensor {
                shape,
                data: Vec::new(),
            });
        }
        let stored = storage.len() / dtype.size();
        let last = shape.iter().zip(&stride).try_fold(offset, |at, (&d, &s)| {
            at.checked_add((d - 1).checked_mul(s)?)
        });
        if last.is_none_or(|last| last >= stored) {
            return Err(format!(
                "a tensor of shape {shape:?} reaches beyond its {stored} stored elements"
            ));
        }
        let size = dtype.size();
        if stride == Self::dense(&shape) {
            let data = dtype.to_f32(&storage[offset * size..(offset + count) * size]);
            return Ok(HostTensor { shape, data });
        }
        let mut data = Vec::with_capacity(count);
        let mut index = vec![0usize; shape.len()];
        let mut at = offset;
        for _ in 0..count {
            data.push(dtype.read(&storage[at * size..(at + 1) * size]) as f32);
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                // Wrapping: a dimension of size 1 may carry any stride, which cancels out here.
                at = at.wrapping_add(stride[d]);
                if index[d] < shape[d] {
                    break;
                }
                at = at.wrapping_sub(stride[d].wrapping_mul(shape[d]));
                index[d] = 0;
            }
        }
        Ok(HostTensor { shape, data })
    }
}
