//! Decoded images kept in memory within a budget.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oarlock_imaging::Image;

const SHARDS: usize = 16;

/// A decoded image and the size it has on disk.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub image: Image,
    /// (width, height) as displayed, before any scaling by the decoder.
    pub full: (usize, usize),
}

/// Images of one file, by the size that the decode had to cover.
type Versions = Vec<((usize, usize), Arc<Decoded>)>;

/// Decoded images of a dataset, shared by the loaders of all epochs.
///
/// Nothing is ever thrown out: a training walks through all images once an epoch, and for such
/// cyclic reading any eviction order keeps fewer hits than keeping what is there.
#[derive(Debug)]
pub struct ImageCache {
    budget: usize,
    used: AtomicUsize,
    shards: Vec<Mutex<HashMap<PathBuf, Versions>>>,
}

impl ImageCache {
    /// An empty cache that never holds more than `budget` bytes of pixels.
    pub fn new(budget: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            budget,
            used: AtomicUsize::new(0),
            shards,
        }
    }

    /// A cache that may take `share` (0–1) of the memory that is free now.
    pub fn within_free_memory(share: f64) -> Self {
        Self::new((free_memory() as f64 * share.clamp(0.0, 1.0)) as usize)
    }

    /// The budget in bytes.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes of pixels held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn shard(&self, path: &Path) -> &Mutex<HashMap<PathBuf, Versions>> {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(path);
        &self.shards[hash as usize % SHARDS]
    }

    pub(crate) fn get(&self, path: &Path, cover: (usize, usize)) -> Option<Arc<Decoded>> {
        let shard = self
            .shard(path)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard
            .get(path)?
            .iter()
            .find(|(c, _)| *c == cover)
            .map(|(_, image)| image.clone())
    }

    /// Whether an image of so many bytes would still fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.budget
    }

    /// Keeps the image if it fits.
    pub(crate) fn insert(&self, path: &Path, cover: (usize, usize), decoded: &Arc<Decoded>) {
        let bytes = decoded.image.data().len();
        let reserved = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.budget)
            });
        if reserved.is_err() {
            return;
        }
        let mut shard = self
            .shard(path)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let versions = shard.entry(path.to_owned()).or_default();
        if versions.iter().any(|(c, _)| *c == cover) {
            self.used.fetch_sub(bytes, Ordering::Relaxed); // another thread was first
        } else {
            versions.push((cover, decoded.clone()));
        }
    }
}

/// Bytes that can be taken without swapping: MemAvailable, or what this process's control groups leave.
fn free_memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: String| read(&path)?.trim().parse::<u64>().ok();
    let available = read("/proc/meminfo")
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib * 1024);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let left = groups.lines().flat_map(|line| {
        // Version 2 has one line `0::/path`; version 1 one a controller, `9:memory:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (kind, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (root, limit, used) = match kind {
            "" => ("", "memory.max", "memory.current"),
            k if k.split(',').any(|k| k == "memory") => {
                ("/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => return Vec::new(),
        };
        // The limit of every group above counts as well.
        let above = Path::new(path).ancestors().map(|p| p.display().to_string());
        above
            .filter_map(|path| {
                let folder = format!("/sys/fs/cgroup{root}{}", path.trim_end_matches('/'));
                let limit = number(format!("{folder}/{limit}"))?;
                Some(limit.saturating_sub(number(format!("{folder}/{used}"))?))
            })
            .collect()
    });
    left.min().map_or(available, |left| left.min(available))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_the_budget_and_keeps_what_it_has() {
        let cache = ImageCache::new(3 * 10 * 10 * 2 + 5);
        let image = || {
            Arc::new(Decoded {
                image: Image::filled(10, 10, [1; 3]),
                full: (10, 10),
            })
        };
        for name in ["a", "b", "c"] {
            cache.insert(Path::new(name), (8, 8), &image());
        }
        cache.insert(Path::new("a"), (8, 8), &image());
        assert_eq!(cache.used(), 600);
        assert!(cache.get(Path::new("a"), (8, 8)).is_some());
        assert!(cache.get(Path::new("a"), (9, 8)).is_none());
        assert!(cache.get(Path::new("c"), (8, 8)).is_none());
        assert!(ImageCache::within_free_memory(0.25).budget() > 1 << 20);
    }
}
