//! The memory of one batch while several threads fill it.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// One batch in work: each image's part of the buffer is filled by the one thread that claimed it.
pub(crate) struct Slot {
    buffer: UnsafeCell<Vec<u8>>,
    /// Start of the buffer's memory, which does not move while the slot is filled.
    base: *mut u8,
    image_bytes: usize,
    claimed: Vec<AtomicBool>,
    left: AtomicUsize,
    skips: Mutex<BTreeMap<usize, String>>,
}

// SAFETY: the buffer is only reached through `fill`, which hands every part to one thread at most
// (checked by `claimed`), and through `take`, which needs the completed slot (checked by `left`).
unsafe impl Sync for Slot {}
// SAFETY: `base` points into the buffer that the slot owns; nothing is bound to a thread.
unsafe impl Send for Slot {}

impl Slot {
    /// A slot of `images` parts; `buffer`'s memory is reused if it is large enough.
    pub fn new(images: usize, image_bytes: usize, mut buffer: Vec<u8>) -> Self {
        buffer.resize(images * image_bytes, 0);
        Self {
            base: buffer.as_mut_ptr(),
            buffer: UnsafeCell::new(buffer),
            image_bytes,
            claimed: (0..images).map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(images),
            skips: Mutex::default(),
        }
    }

    /// Lets `work` write image number `item`; may be called once an item.
    pub fn fill<T>(&self, item: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        assert!(
            !self.claimed[item].swap(true, Ordering::AcqRel),
            "an image is made only once"
        );
        // SAFETY: the vector is not touched while parts are left; this part belongs to the caller
        // alone because `claimed[item]` was false, and item < claimed.len() keeps it inside.
        let part = unsafe {
            std::slice::from_raw_parts_mut(self.base.add(item * self.image_bytes), self.image_bytes)
        };
        work(part)
    }

    /// Marks image number `item` as unreadable.
    pub fn skip(&self, item: usize, reason: String) {
        self.skips
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(item, reason);
    }

    /// Counts one image as done; true when it was the last.
    pub fn finish_one(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The pixels with skipped images closed up, and the skips. Only after the last `finish_one`.
    pub fn take(&self) -> (Vec<u8>, BTreeMap<usize, String>) {
        assert_eq!(
            self.left.load(Ordering::Acquire),
            0,
            "the batch is complete"
        );
        let skips = std::mem::take(&mut *self.skips.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: every part was claimed and is finished (`left` is 0), so nobody else touches it.
        let mut buffer = std::mem::take(unsafe { &mut *self.buffer.get() });
        let mut kept = 0;
        for item in 0..self.claimed.len() {
            if skips.contains_key(&item) {
                continue;
            }
            if kept != item {
                let from = item * self.image_bytes;
                buffer.copy_within(from..from + self.image_bytes, kept * self.image_bytes);
            }
            kept += 1;
        }
        buffer.truncate(kept * self.image_bytes);
        (buffer, skips)
    }
}
