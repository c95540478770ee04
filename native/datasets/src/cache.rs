//! Decoded images kept in memory within a budget.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oarlock_imaging::{DecodePlan, Image, ImageInfo, Plane};

const SHARDS: usize = 16;

/// What is kept of one file.
#[derive(Debug, Default)]
struct Kept {
    info: Option<ImageInfo>,
    /// Whole pictures by the denominator of their decode.
    pictures: Vec<(usize, Arc<Image>)>,
    map: Option<Arc<Plane>>,
}

type Shard = HashMap<PathBuf, Kept>;

/// Decoded pictures and label maps of a dataset, shared by the loaders of all epochs.
///
/// Nothing is ever thrown out: a training walks through all images once an epoch, and for such
/// cyclic reading any eviction order keeps fewer hits than keeping what is there.
#[derive(Debug)]
pub struct ImageCache {
    budget: usize,
    used: AtomicUsize,
    shards: Vec<Mutex<Shard>>,
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

    fn shard(&self, path: &Path) -> MutexGuard<'_, Shard> {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(path);
        self.shards[hash as usize % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The header of a picture that is kept.
    pub(crate) fn info(&self, path: &Path) -> Option<ImageInfo> {
        self.shard(path).get(path)?.info
    }

    pub(crate) fn picture(&self, path: &Path, denominator: usize) -> Option<Arc<Image>> {
        let shard = self.shard(path);
        let mut versions = shard.get(path)?.pictures.iter();
        versions
            .find(|(d, _)| *d == denominator)
            .map(|(_, image)| image.clone())
    }

    pub(crate) fn map(&self, path: &Path) -> Option<Arc<Plane>> {
        self.shard(path).get(path)?.map.clone()
    }

    /// Whether an image of so many bytes would still fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.budget
    }

    /// Keeps a whole picture decoded by this plan, if it fits.
    pub(crate) fn insert_picture(&self, path: &Path, plan: &DecodePlan, image: &Arc<Image>) {
        self.insert(path, image.data().len(), |kept| {
            if kept.pictures.iter().any(|(d, _)| *d == plan.denominator) {
                return false;
            }
            kept.info = Some(plan.info);
            kept.pictures.push((plan.denominator, image.clone()));
            true
        });
    }

    /// Keeps a label map, if it fits.
    pub(crate) fn insert_map(&self, path: &Path, map: &Arc<Plane>) {
        self.insert(path, map.data().len(), |kept| {
            let first = kept.map.is_none();
            if first {
                kept.map = Some(map.clone());
            }
            first
        });
    }

    /// Reserves the bytes, then lets `keep` put them in; false = another thread was first.
    fn insert(&self, path: &Path, bytes: usize, keep: impl FnOnce(&mut Kept) -> bool) {
        let reserved = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.budget)
            });
        if reserved.is_err() {
            return;
        }
        if !keep(self.shard(path).entry(path.to_owned()).or_default()) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
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
        let cache = ImageCache::new(3 * 10 * 10 * 2 + 105);
        let image = Arc::new(Image::filled(10, 10, [1; 3]));
        let png = oarlock_imaging::encode_png(&image).unwrap();
        let plan = oarlock_imaging::plan(&png, &Default::default(), None).unwrap();
        for name in ["a", "b", "c", "a"] {
            cache.insert_picture(Path::new(name), &plan, &image);
        }
        let map = Arc::new(Plane::filled(10, 10, 1));
        for name in ["m", "n", "m"] {
            cache.insert_map(Path::new(name), &map);
        }
        assert_eq!(cache.used(), 700);
        assert!(cache.picture(Path::new("a"), 1).is_some());
        assert!(cache.picture(Path::new("a"), 2).is_none());
        assert!(cache.picture(Path::new("c"), 1).is_none());
        assert_eq!(cache.info(Path::new("b")), Some(plan.info));
        assert!(cache.map(Path::new("m")).is_some() && cache.map(Path::new("n")).is_none());
        assert!(ImageCache::within_free_memory(0.25).budget() > 1 << 20);
    }
}
