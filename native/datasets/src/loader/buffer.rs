//! The memory of a batch's images: the heap, or what the trainer's device copies fastest from.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Bytes of a batch.
pub struct Buffer {
    memory: Memory,
    length: usize,
}

enum Memory {
    Heap(Vec<u8>),
    Foreign {
        base: *mut u8,
        owner: Box<dyn Any + Send>,
    },
}

// SAFETY: a foreign owner is Send itself, and `base` points into memory that it alone holds.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference only gives the bytes and, for owners that are Sync, the owner.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `length` bytes that belong to something else, e.g. page-locked memory of a device's runtime.
    /// They are never reused by the loader: dropping the buffer drops `owner`.
    ///
    /// # Safety
    /// `base` points to `length` initialised bytes that stay valid, at the same place and touched by
    /// nobody else, until `owner` is dropped; moving `owner` does not move them.
    pub unsafe fn foreign(base: *mut u8, length: usize, owner: Box<dyn Any + Send>) -> Self {
        Self {
            memory: Memory::Foreign { base, owner },
            length,
        }
    }

    /// Takes the owner out, if the bytes belong to a `T`; they stay valid as long as it lives.
    pub fn into_owner<T: Any>(self) -> Result<T, Self> {
        match self.memory {
            Memory::Foreign { base, owner } => match owner.downcast::<T>() {
                Ok(owner) => Ok(*owner),
                Err(owner) => Err(Self {
                    memory: Memory::Foreign { base, owner },
                    length: self.length,
                }),
            },
            memory => Err(Self { memory, ..self }),
        }
    }

    /// Whether another batch can be made in this memory.
    pub(super) fn reusable(&self) -> bool {
        matches!(self.memory, Memory::Heap(_))
    }

    /// The bytes on the heap.
    pub(super) fn into_vec(self) -> Vec<u8> {
        match self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Foreign { .. } => self.to_vec(),
        }
    }

    /// The buffer with another length; new bytes are of any content.
    pub(super) fn resized(self, length: usize) -> Self {
        match self.memory {
            Memory::Heap(mut bytes) => {
                bytes.resize(length, 0);
                bytes.into()
            }
            // Foreign memory does not grow.
            Memory::Foreign { .. } if length > self.length => vec![0; length].into(),
            memory => Self { memory, length },
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len(),
            memory: Memory::Heap(bytes),
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            // SAFETY: valid for `length` bytes as long as the owner lives, by `foreign`'s contract.
            Memory::Foreign { base, .. } => unsafe {
                std::slice::from_raw_parts(*base, self.length)
            },
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(bytes) => bytes,
            // SAFETY: as above, and nobody else touches them.
            Memory::Foreign { base, .. } => unsafe {
                std::slice::from_raw_parts_mut(*base, self.length)
            },
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer of {} bytes", self.length)
    }
}

/// Where the memory of batches comes from; called by the loader's threads.
#[derive(Clone)]
pub struct BatchMemory(Arc<dyn Fn(usize) -> Option<Buffer> + Send + Sync>);

impl BatchMemory {
    /// `take` gives so many bytes, or `None` when it has no more: then the heap serves.
    pub fn new(take: impl Fn(usize) -> Option<Buffer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(super) fn take(&self, length: usize) -> Option<Buffer> {
        (self.0)(length).filter(|buffer| buffer.len() == length)
    }
}

impl std::fmt::Debug for BatchMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchMemory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_memory_is_used_and_given_back_with_its_owner() {
        let mut owner = vec![1u8, 2, 3, 4];
        let base = owner.as_mut_ptr();
        // SAFETY: a vector's bytes stay where they are while the vector is only moved.
        let mut buffer = unsafe { Buffer::foreign(base, 4, Box::new(owner)) };
        buffer[1] = 9;
        assert!(!buffer.reusable());
        let buffer = buffer.resized(3);
        assert_eq!(&*buffer, [1, 9, 3]);
        let buffer = buffer.into_owner::<String>().unwrap_err();
        assert_eq!(buffer.into_owner::<Vec<u8>>().unwrap(), [1, 9, 3, 4]);
        assert!(Buffer::from(vec![7]).into_owner::<Vec<u8>>().is_err());
    }
}
