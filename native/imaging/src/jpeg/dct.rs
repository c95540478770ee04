//! The inverse DCT of 8×8 blocks: libjpeg's accurate integer one (Loeffler, Ligtenberg and Moschytz 1989, with 11
//! multiplications; 13 fractional bits, 2 more between the passes).

use std::arch::x86_64::*;

use super::entropy::LARGEST;
use super::lanes::Lanes;

/// Coefficients of a block as stored, row by row.
pub(super) type Block = [i16; 64];
/// The samples of two blocks beside each other, row by row.
pub(super) type Samples = [[u8; 16]; 8];

/// Steps of quantization, row by row.
pub(super) struct Steps {
    factors: Block,
    /// Largest coefficient that a step does not carry beyond [`LARGEST`].
    limits: Block,
}

impl Steps {
    pub fn new(quant: &[i32; 64]) -> Self {
        Self {
            factors: quant.map(|step| step as i16),
            limits: quant.map(|step| (LARGEST / step.max(1)) as i16),
        }
    }
}

/// Samples of two blocks with their steps of quantization; `None` where a coefficient is too large. `WIDE` = both at
/// once.
///
/// # Safety
/// The processor has AVX2 where `WIDE`.
#[inline(always)]
pub(super) unsafe fn samples<const WIDE: bool>(
    blocks: [&Block; 2],
    steps: [&Steps; 2],
) -> Option<Samples> {
    let mut samples = [[0; 16]; 8];
    // SAFETY: SSE2 belongs to every x86-64 processor, and the caller has AVX2 where it is asked for.
    unsafe {
        if WIDE {
            inverse::<__m256i>(blocks, steps, &mut samples)?;
        } else {
            inverse::<__m128i>([blocks[1]; 2], [steps[1]; 2], &mut samples)?;
            samples.iter_mut().for_each(|row| row.copy_within(..8, 8));
            inverse::<__m128i>([blocks[0]; 2], [steps[0]; 2], &mut samples)?;
        }
    }
    Some(samples)
}

#[inline(always)]
unsafe fn inverse<V: Lanes>(
    blocks: [&Block; 2],
    steps: [&Steps; 2],
    samples: &mut Samples,
) -> Option<()> {
    // SAFETY: the caller has the vector's instructions.
    unsafe {
        let rows = |blocks: [&Block; 2]| {
            let [first, second] = blocks.map(|b| b.as_chunks::<8>().0);
            std::array::from_fn::<V, 8, _>(|y| V::load([&first[y], &second[y]]))
        };
        let stored = rows(blocks);
        let factors = rows(steps.map(|s| &s.factors));
        let limits = rows(steps.map(|s| &s.limits));
        let mut beyond = V::zero();
        for (value, limit) in stored.into_iter().zip(limits) {
            let size = value.max16(V::zero().sub16(value));
            beyond = beyond.or(size.above16(limit));
        }
        if !beyond.is_zero() {
            return None;
        }
        let rows = std::array::from_fn(|y| stored[y].mul16(factors[y]));
        let rows = pass::<V, 11>(rows);
        let columns = pass::<V, 18>(transposed(rows));
        let rows = transposed(columns);
        let middle = V::splat32(i32::from_ne_bytes([128; 4]));
        let pairs = rows.as_chunks::<2>().0.iter();
        for ([a, b], out) in pairs.zip(samples.as_chunks_mut::<2>().0) {
            a.pack16(*b).xor(middle).store(out);
        }
    }
    Some(())
}

/// a·x + b·y of 16-bit values, as the lower and the upper four sums of 32 bits.
#[inline(always)]
unsafe fn rotated<V: Lanes>(x: V, y: V, a: i32, b: i32) -> [V; 2] {
    // SAFETY: the caller has the vector's instructions.
    unsafe {
        let factors = V::splat32(b << 16 | (a & 0xffff));
        [x.low16(y).madd(factors), x.high16(y).madd(factors)]
    }
}

/// One pass over eight columns at once; results lose `SHIFT` bits.
#[inline(always)]
unsafe fn pass<V: Lanes, const SHIFT: i32>(v: [V; 8]) -> [V; 8] {
    // SAFETY: the caller has the vector's instructions.
    unsafe {
        let add = |a: [V; 2], b: [V; 2]| [a[0].add32(b[0]), a[1].add32(b[1])];
        let sub = |a: [V; 2], b: [V; 2]| [a[0].sub32(b[0]), a[1].sub32(b[1])];
        // A 16-bit value times 2^13.
        let wide = |x: V| {
            let zero = V::zero();
            [zero.low16(x).shift32::<3>(), zero.high16(x).shift32::<3>()]
        };
        // Even part: √2·cos(6π/16) = 0.541…, and its sums with 0.765… and −1.847….
        let t2 = rotated(v[2], v[6], 4433, -10_704);
        let t3 = rotated(v[2], v[6], 10_703, 4433);
        let (t0, t1) = (wide(v[0].add16(v[4])), wide(v[0].sub16(v[4])));
        let even = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];
        // Odd part.
        let (z3, z4) = (v[7].add16(v[3]), v[5].add16(v[1]));
        let (a, b) = (rotated(z3, z4, -6436, 9633), rotated(z3, z4, 9633, 6437));
        let odd = [
            add(rotated(v[7], v[1], -7373, 4926), b),
            add(rotated(v[5], v[3], -20_995, 4177), a),
            add(rotated(v[5], v[3], -4176, -20_995), b),
            add(rotated(v[7], v[1], -4927, -7373), a),
        ];
        let half = V::splat32(1 << (SHIFT - 1));
        let narrow = |x: [V; 2]| {
            let [low, high] = [x[0].add32(half), x[1].add32(half)];
            low.shift32::<SHIFT>().pack32(high.shift32::<SHIFT>())
        };
        let [e0, e1, e2, e3] = even;
        let [o0, o1, o2, o3] = odd;
        [
            narrow(add(e0, o0)),
            narrow(add(e1, o1)),
            narrow(add(e2, o2)),
            narrow(add(e3, o3)),
            narrow(sub(e3, o3)),
            narrow(sub(e2, o2)),
            narrow(sub(e1, o1)),
            narrow(sub(e0, o0)),
        ]
    }
}

#[inline(always)]
unsafe fn transposed<V: Lanes>(v: [V; 8]) -> [V; 8] {
    // SAFETY: the caller has the vector's instructions.
    unsafe {
        let [a0, a1, a2, a3] = [
            v[0].low16(v[1]),
            v[2].low16(v[3]),
            v[4].low16(v[5]),
            v[6].low16(v[7]),
        ];
        let [b0, b1, b2, b3] = [
            v[0].high16(v[1]),
            v[2].high16(v[3]),
            v[4].high16(v[5]),
            v[6].high16(v[7]),
        ];
        let [c0, c1, c2, c3] = [a0.low32(a1), a0.high32(a1), a2.low32(a3), a2.high32(a3)];
        let [d0, d1, d2, d3] = [b0.low32(b1), b0.high32(b1), b2.low32(b3), b2.high32(b3)];
        [
            c0.low64(c2),
            c0.high64(c2),
            c1.low64(c3),
            c1.high64(c3),
            d0.low64(d2),
            d0.high64(d2),
            d1.low64(d3),
            d1.high64(d3),
        ]
    }
}
