//! Random numbers that never depend on a library's version or on a thread.

/// xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// A stream of its own for every tuple of keys, e.g. (seed, epoch, sample index).
    pub fn of(keys: &[u64]) -> Self {
        let mut mixed = 0x006f_6172_6c6f_636b; // any constant: an empty key list must not be all zero
        for &key in keys {
            mixed = splitmix(&mut mixed) ^ key;
        }
        let mut next = || splitmix(&mut mixed);
        Self {
            state: [next(), next(), next(), next()],
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n (0 for n = 0), by Lemire's multiplication; the bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma distribution of this shape, scale 1 (Marsaglia and Tsang, 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        let shape = shape.max(1e-3);
        if shape < 1.0 {
            let power = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    /// Beta distribution, in (0, 1): the share of mixup.
    pub fn beta(&mut self, alpha: f64, beta: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(beta));
        if a + b > 0.0 { a / (a + b) } else { 0.5 }
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < f64::from(probability)
    }

    /// Fisher–Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_xoshiro_sequence() {
        // First outputs of the reference C code for the state 1, 2, 3, 4 (also in rand_xoshiro's tests).
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
        ];
        assert_eq!(expected.map(|_| rng.bits()), expected);
    }

    #[test]
    fn streams_differ_by_every_key_and_repeat() {
        let first = |keys: &[u64]| Rng::of(keys).bits();
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        let all = [
            first(&[1, 2, 3]),
            first(&[1, 3, 2]),
            first(&[2, 1, 3]),
            first(&[1, 2]),
            first(&[]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn draws_are_uniform() {
        let mut rng = Rng::of(&[7]);
        let mut counts = [0usize; 10];
        (0..100_000).for_each(|_| counts[rng.below(10)] += 1);
        assert!(
            counts.iter().all(|&c| (9_600..10_400).contains(&c)),
            "{counts:?}"
        );
        let mean = (0..100_000).map(|_| rng.uniform(-1.0, 3.0)).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn beta_has_its_mean_and_variance() {
        for (a, b) in [(1.5, 1.5), (2.0, 5.0), (0.4, 0.4), (8.0, 1.0)] {
            let mut rng = Rng::of(&[11]);
            let draws: Vec<f64> = (0..100_000).map(|_| rng.beta(a, b)).collect();
            let mean = draws.iter().sum::<f64>() / 1e5;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 1e5;
            let s: f64 = a + b;
            assert!((mean - a / s).abs() < 0.005, "{a} {b}: {mean}");
            assert!(
                (variance - a * b / (s * s * (s + 1.0))).abs() < 0.002,
                "{a} {b}: {variance}"
            );
        }
    }
}
