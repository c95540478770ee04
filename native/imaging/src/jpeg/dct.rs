//! The inverse DCT of 8×8 blocks: libjpeg's accurate integer one (Loeffler, Ligtenberg and Moschytz 1989, with 11
//! multiplications; 13 fractional bits, 2 more between the passes).

use std::arch::x86_64::*;

/// Writes the samples of a block of coefficients, row by row, into rows that lie `stride` apart.
#[inline(never)]
pub(super) fn inverse(block: &[i16; 64], out: &mut [u8], stride: usize) {
    assert!(
        out.len() >= 7 * stride + 8,
        "the block reaches beyond its plane"
    );
    // SAFETY: SSE2 belongs to every x86-64 processor. Loads read the 64 coefficients; stores of 8 bytes at rows 0 to 7 lie
    // within `out`, as just checked.
    unsafe {
        let row = |y: usize| _mm_loadu_si128(block.as_ptr().add(y * 8).cast());
        let rows = std::array::from_fn(row);
        let rows = pass::<11>(rows);
        let columns = transposed(rows);
        let columns = pass::<18>(columns);
        let rows = transposed(columns);
        let middle = _mm_set1_epi8(-128);
        for (y, pair) in rows.as_chunks::<2>().0.iter().enumerate() {
            let bytes = _mm_xor_si128(_mm_packs_epi16(pair[0], pair[1]), middle);
            _mm_storel_epi64(out.as_mut_ptr().add(2 * y * stride).cast(), bytes);
            let second = _mm_unpackhi_epi64(bytes, bytes);
            _mm_storel_epi64(out.as_mut_ptr().add((2 * y + 1) * stride).cast(), second);
        }
    }
}

/// a·x + b·y of 16-bit values, as the lower and the upper four sums of 32 bits.
#[inline(always)]
fn rotated(x: __m128i, y: __m128i, a: i32, b: i32) -> [__m128i; 2] {
    // SAFETY: SSE2 belongs to every x86-64 processor.
    unsafe {
        let factors = _mm_set1_epi32(b << 16 | (a & 0xffff));
        let low = _mm_madd_epi16(_mm_unpacklo_epi16(x, y), factors);
        let high = _mm_madd_epi16(_mm_unpackhi_epi16(x, y), factors);
        [low, high]
    }
}

/// One pass over eight columns at once; results lose `SHIFT` bits.
#[inline(always)]
fn pass<const SHIFT: i32>(v: [__m128i; 8]) -> [__m128i; 8] {
    // SAFETY: SSE2 belongs to every x86-64 processor.
    unsafe {
        let add = |a: [__m128i; 2], b: [__m128i; 2]| [0, 1].map(|i| _mm_add_epi32(a[i], b[i]));
        let sub = |a: [__m128i; 2], b: [__m128i; 2]| [0, 1].map(|i| _mm_sub_epi32(a[i], b[i]));
        // A 16-bit value times 2^13.
        let wide = |x: __m128i| {
            let zero = _mm_setzero_si128();
            let high = [_mm_unpacklo_epi16(zero, x), _mm_unpackhi_epi16(zero, x)];
            high.map(|x| _mm_srai_epi32::<3>(x))
        };
        // Even part: √2·cos(6π/16) = 0.541…, and its sums with 0.765… and −1.847….
        let t2 = rotated(v[2], v[6], 4433, -10_704);
        let t3 = rotated(v[2], v[6], 10_703, 4433);
        let (t0, t1) = (
            wide(_mm_add_epi16(v[0], v[4])),
            wide(_mm_sub_epi16(v[0], v[4])),
        );
        let even = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];
        // Odd part.
        let (z3, z4) = (_mm_add_epi16(v[7], v[3]), _mm_add_epi16(v[5], v[1]));
        let (a, b) = (rotated(z3, z4, -6436, 9633), rotated(z3, z4, 9633, 6437));
        let odd = [
            add(rotated(v[7], v[1], -7373, 4926), b),
            add(rotated(v[5], v[3], -20_995, 4177), a),
            add(rotated(v[5], v[3], -4176, -20_995), b),
            add(rotated(v[7], v[1], -4927, -7373), a),
        ];
        let half = _mm_set1_epi32(1 << (SHIFT - 1));
        let narrow = |x: [__m128i; 2]| {
            let x = x.map(|x| _mm_srai_epi32::<SHIFT>(_mm_add_epi32(x, half)));
            _mm_packs_epi32(x[0], x[1])
        };
        std::array::from_fn(|i| {
            if i < 4 {
                narrow(add(even[i], odd[i]))
            } else {
                narrow(sub(even[7 - i], odd[7 - i]))
            }
        })
    }
}

#[inline(always)]
fn transposed(v: [__m128i; 8]) -> [__m128i; 8] {
    // SAFETY: SSE2 belongs to every x86-64 processor.
    unsafe {
        let low = |a: usize, b: usize| _mm_unpacklo_epi16(v[a], v[b]);
        let high = |a: usize, b: usize| _mm_unpackhi_epi16(v[a], v[b]);
        let a = [low(0, 1), low(2, 3), low(4, 5), low(6, 7)];
        let b = [high(0, 1), high(2, 3), high(4, 5), high(6, 7)];
        let quarter = |p: [__m128i; 4]| {
            let (l, h) = (
                _mm_unpacklo_epi32(p[0], p[1]),
                _mm_unpackhi_epi32(p[0], p[1]),
            );
            let (m, n) = (
                _mm_unpacklo_epi32(p[2], p[3]),
                _mm_unpackhi_epi32(p[2], p[3]),
            );
            [
                _mm_unpacklo_epi64(l, m),
                _mm_unpackhi_epi64(l, m),
                _mm_unpacklo_epi64(h, n),
                _mm_unpackhi_epi64(h, n),
            ]
        };
        let ([a, b, c, d], [e, f, g, h]) = (quarter(a), quarter(b));
        [a, b, c, d, e, f, g, h]
    }
}
