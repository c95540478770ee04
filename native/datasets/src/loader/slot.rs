//! One batch while several threads fill it.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use crate::pipeline::{Canvas, Layout, Size};

/// What became of one image: its target, or why there is none.
pub(super) type Outcome<T> = Result<T, String>;

/// An image of its own size.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub height: usize,
    pub width: usize,
    pub bytes: Vec<u8>,
}

/// One batch in work: each image's part of the memory is filled by the one thread that claimed it.
pub(super) struct Slot<T> {
    pub layout: Layout,
    images: Plain,
    maps: Plain,
    own: Vec<Mutex<Own>>,
    claimed: Vec<AtomicBool>,
    left: AtomicUsize,
    outcomes: Mutex<Vec<Option<Outcome<T>>>>,
}

/// A buffer of equal parts.
struct Plain {
    buffer: UnsafeCell<Buffer>,
    /// Start of the buffer's memory, which does not move while the slot is filled.
    base: *mut u8,
    part: usize,
}

/// What a completed slot holds; images of one size with skipped ones closed up.
pub(super) struct Filled<T> {
    pub images: Buffer,
    pub maps: Vec<u8>,
    pub own: Vec<Own>,
    pub outcomes: Vec<Outcome<T>>,
}

// SAFETY: the buffers are only reached through `fill`, which hands every part to one thread at most
// (checked by `claimed`), and through `take`, which needs the completed slot (checked by `left`).
unsafe impl<T: Send> Sync for Slot<T> {}
// SAFETY: `base` points into the buffer that the slot owns; nothing is bound to a thread.
unsafe impl<T: Send> Send for Slot<T> {}

impl Plain {
    fn new(part: usize, mut buffer: Buffer) -> Self {
        Self {
            base: buffer.as_mut_ptr(),
            buffer: UnsafeCell::new(buffer),
            part,
        }
    }

    /// # Safety
    /// `item` lies inside, nobody else has this part, and `take` is not called meanwhile.
    #[allow(clippy::mut_from_ref)] // parts are disjoint, which is the caller's promise
    unsafe fn part(&self, item: usize) -> &mut [u8] {
        // SAFETY: inside the buffer and not shared, by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(item * self.part), self.part) }
    }

    /// # Safety
    /// No part is in use.
    unsafe fn take(&self, kept: &[bool]) -> Buffer {
        // SAFETY: no part is in use, by the contract.
        let mut buffer = std::mem::take(unsafe { &mut *self.buffer.get() });
        let mut count = 0;
        for (item, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            if count != item {
                let from = item * self.part;
                buffer.copy_within(from..from + self.part, count * self.part);
            }
            count += 1;
        }
        buffer.resized(count * self.part)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Slot<T> {
    /// A slot of `images` parts in memory given by `memory` for a number of bytes.
    pub fn new(images: usize, layout: Layout, memory: impl FnOnce(usize) -> Buffer) -> Self {
        let part = layout.image_bytes().unwrap_or(0);
        let map = layout.map_bytes();
        let ragged = layout.image_bytes().is_none();
        Self {
            images: Plain::new(part, memory(images * part)),
            maps: Plain::new(map, vec![0; images * map].into()),
            own: (0..if ragged { images } else { 0 })
                .map(|_| Mutex::default())
                .collect(),
            claimed: (0..images).map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(images),
            outcomes: Mutex::new((0..images).map(|_| None).collect()),
            layout,
        }
    }

    /// Lets `work` make image number `item`; may be called once an item.
    pub fn fill(
        &self,
        item: usize,
        work: impl FnOnce(&mut Canvas<'_>) -> Outcome<T>,
    ) -> Option<String> {
        assert!(
            !self.claimed[item].swap(true, Ordering::AcqRel),
            "an image is made only once"
        );
        let outcome = match self.layout.size {
            Size::Fixed { height, width, .. } => {
                // SAFETY: the parts belong to the caller alone because `claimed[item]` was false, and
                // item < claimed.len() keeps them inside; `take` waits for `left`.
                let (image, map) = unsafe { (self.images.part(item), self.maps.part(item)) };
                work(&mut Canvas::fixed(height, width, image, map))
            }
            Size::Largest { .. } => {
                let mut own = locked(&self.own[item]);
                let pixel = self.layout.pixel_bytes();
                let Own {
                    height,
                    width,
                    bytes,
                } = &mut *own;
                work(&mut Canvas::own(pixel, height, width, bytes))
            }
        };
        let reason = outcome.as_ref().err().cloned();
        locked(&self.outcomes)[item] = Some(outcome);
        reason
    }

    /// Counts one image as done; true when it was the last.
    pub fn finish_one(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Everything made. Only after the last `finish_one`, once.
    pub fn take(&self) -> Filled<T> {
        assert_eq!(
            self.left.load(Ordering::Acquire),
            0,
            "the batch is complete"
        );
        let outcomes: Vec<Outcome<T>> = std::mem::take(&mut *locked(&self.outcomes))
            .into_iter()
            .map(|o| o.unwrap_or_else(|| Err("it was not made".to_owned())))
            .collect();
        let kept: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        let own = self.own.iter().zip(&kept).filter(|(_, kept)| **kept);
        // SAFETY: every part was claimed and is finished (`left` is 0), so nobody else touches them.
        let (images, maps) = unsafe { (self.images.take(&kept), self.maps.take(&kept)) };
        Filled {
            images,
            maps: maps.into_vec(),
            own: own
                .map(|(own, _)| std::mem::take(&mut *locked(own)))
                .collect(),
            outcomes,
        }
    }
}
