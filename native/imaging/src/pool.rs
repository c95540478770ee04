//! Memory of pictures kept by each thread: fresh pages from the kernel cost as much as some transforms.

use std::cell::RefCell;

/// Buffers that a thread keeps, and the largest one that is kept.
const KEPT: usize = 4;
const LARGEST: usize = 64 << 20;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// `length` bytes of any content.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let kept = POOL.with_borrow_mut(|pool| {
        let fits = pool.iter().position(|b| b.capacity() >= length);
        fits.map(|place| pool.swap_remove(place))
    });
    let mut buffer = kept.unwrap_or_default();
    buffer.resize(length, 0);
    buffer
}

/// Keeps the memory for a later picture of this thread.
pub(crate) fn give(buffer: Vec<u8>) {
    if buffer.capacity() > LARGEST {
        return;
    }
    POOL.with_borrow_mut(|pool| {
        if pool.len() == KEPT {
            pool.remove(0);
        }
        pool.push(buffer);
    });
}
