//! In which order and how often samples are used.

use std::collections::BTreeMap;

use oarlock_imaging::Rng;

use crate::Sample;

/// Sample index of each place of an epoch: list order, or shuffled by (seed, epoch) alone.
pub fn epoch_order(samples: usize, shuffle_seed: Option<u64>, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples).collect();
    if let Some(seed) = shuffle_seed {
        Rng::of(&[seed, epoch, 0x6f7264]).shuffle(&mut order);
    }
    order
}

/// The samples with those of rare classes repeated until every class occurs as often as the most
/// frequent one. Order: list order, then the repetitions class by class.
pub fn balance_classes(samples: &[Sample]) -> Vec<Sample> {
    let mut classes: BTreeMap<i64, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        classes.entry(sample.label).or_default().push(sample);
    }
    let most = classes.values().map(Vec::len).max().unwrap_or(0);
    let mut out = samples.to_vec();
    for members in classes.values() {
        out.extend(
            members
                .iter()
                .cycle()
                .skip(members.len())
                .take(most - members.len())
                .map(|s| (*s).clone()),
        );
    }
    out
}
