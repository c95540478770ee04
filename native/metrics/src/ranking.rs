//! Measures that look at the order of scores.

/// Index of the greatest score, the first of equals; scores that are no number never win.
/// 0 for an empty row.
pub fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (i, &s) in scores.iter().enumerate() {
        if s > scores[best] || (scores[best].is_nan() && !s.is_nan()) {
            best = i;
        }
    }
    best
}

/// Whether `label` is among the `k` greatest scores; among equals the lower index goes first, so
/// that `k = 1` agrees with [`argmax`]. A score that is no number is never a hit.
pub fn in_top_k(scores: &[f32], label: usize, k: usize) -> bool {
    let Some(&own) = scores.get(label) else {
        return false;
    };
    if own.is_nan() {
        return false;
    }
    let before = scores
        .iter()
        .enumerate()
        .filter(|&(i, &s)| s > own || (s == own && i < label))
        .take(k)
        .count();
    before < k
}

/// Share of rows whose label is among the `k` greatest scores; 0 without rows.
///
/// `scores` holds one row of `classes` values for each label.
pub fn top_k_accuracy(scores: &[f32], classes: usize, labels: &[u32], k: usize) -> f64 {
    if labels.is_empty() {
        return 0.0;
    }
    let rows = scores.chunks_exact(classes.max(1));
    let hits = rows
        .zip(labels)
        .filter(|&(row, &l)| in_top_k(row, l as usize, k))
        .count();
    hits as f64 / labels.len() as f64
}

/// Area under the ROC curve of `scores` against `positive`, by the rank sum of Mann and Whitney
/// with middle ranks for equals, which is what the trapezoidal rule gives.
///
/// `None` without positives or without negatives, or when a score is no number.
pub fn auc(scores: impl Iterator<Item = f32>, positive: impl Iterator<Item = bool>) -> Option<f64> {
    let mut pairs: Vec<(f32, bool)> = scores.zip(positive).collect();
    if pairs.iter().any(|(s, _)| s.is_nan()) {
        return None;
    }
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let positives = pairs.iter().filter(|(_, p)| *p).count() as f64;
    let negatives = pairs.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut start = 0;
    // `==` and not the order of bits: 0.0 and -0.0 are one score.
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let middle = start as f64 + (group.len() as f64 + 1.0) / 2.0;
        rank_sum += middle * group.iter().filter(|(_, p)| *p).count() as f64;
        start += group.len();
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals_and_skips_nan() {
        assert_eq!(argmax(&[0.1, 0.9, 0.9]), 1);
        assert_eq!(argmax(&[f32::NAN, 0.2, 0.1]), 1);
        assert_eq!(argmax(&[0.2, f32::NAN]), 0);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn top_k_agrees_with_argmax_on_ties() {
        let row = [0.5, 0.5, 0.5, 0.1];
        assert!(in_top_k(&row, 0, 1));
        assert!(!in_top_k(&row, 1, 1));
        assert!(in_top_k(&row, 1, 2));
        assert!(!in_top_k(&row, 3, 3));
        assert!(in_top_k(&row, 3, 4));
        assert!(!in_top_k(&row, 4, 5), "a label that has no score");
        assert!(!in_top_k(&[f32::NAN, 0.0], 0, 2));
        assert!(!in_top_k(&row, 0, 0));
        assert_eq!(top_k_accuracy(&[], 4, &[], 1), 0.0);
    }

    #[test]
    fn auc_is_undefined_without_both_kinds() {
        let auc = |s: &[f32], p: &[bool]| super::auc(s.iter().copied(), p.iter().copied());
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auc(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(auc(&[], &[]), None);
        assert_eq!(auc(&[0.1, f32::NAN], &[true, false]), None);
        assert_eq!(auc(&[0.1, 0.2], &[false, true]), Some(1.0));
        assert_eq!(auc(&[0.2, 0.2], &[false, true]), Some(0.5));
        assert_eq!(auc(&[0.0, -0.0], &[false, true]), Some(0.5));
    }
}
