//! Decoded images kept in memory within a budget.

/// Decoded images of a dataset, shared by the loaders of all epochs.
#[derive(Debug)]
pub struct ImageCache {
    budget: usize,
}

impl ImageCache {
    /// An empty cache that never holds more than `budget` bytes of pixels.
    pub fn new(budget: usize) -> Self {
        Self { budget }
    }

    /// The budget in bytes.
    pub fn budget(&self) -> usize {
        self.budget
    }
}
