//! Loops compiled twice: for every processor, and for AVX2, taken where it is there.

/// Defines a function whose body is compiled a second time for AVX2. Results are the same: nothing is
/// contracted or reordered.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$t:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$t: $bound>)? ($($arg: $ty),*) {
            #[inline(always)]
            fn body $(<$t: $bound>)? ($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide $(<$t: $bound>)? ($($arg: $ty),*) {
                    body($($arg),*)
                }
                if std::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { wide($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

pub(crate) use vectorised;

/// `value` cut to 0–`limit` and rounded down; what is no number becomes 0. Unlike `as`, this is one
/// instruction for a whole vector.
#[inline(always)]
#[allow(clippy::manual_clamp)] // clamp would let NaN through
pub(crate) fn cut(value: f32, limit: f32) -> i32 {
    let value = value.max(0.0).min(limit);
    // SAFETY: a number from 0 to `limit`, which callers keep far below the largest i32.
    unsafe { value.to_int_unchecked() }
}

/// Pixels that are taken apart into planes at a time: the compiler turns loops over planes into vector
/// instructions, and loops over interleaved pixels not.
pub(crate) const BLOCK: usize = 64;

/// Red, green and blue of a block of pixels.
pub(crate) type Planes<T> = [[T; BLOCK]; 3];

/// Takes a block of RGB pixels apart; of a shorter one only so many levels are written.
#[inline(always)]
pub(crate) fn apart(block: &[u8], planes: &mut Planes<u8>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(block) = block.as_array()
        && std::is_x86_feature_detected!("ssse3")
    {
        // SAFETY: SSSE3 is there.
        return unsafe { shuffle::apart(block, planes) };
    }
    for (i, p) in block.as_chunks::<3>().0.iter().enumerate() {
        (planes[0][i], planes[1][i], planes[2][i]) = (p[0], p[1], p[2]);
    }
}

/// Puts planes together to RGB pixels, as many as `block` has.
#[inline(always)]
pub(crate) fn together(planes: &Planes<u8>, block: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("ssse3")
        && let Some(block) = block.as_mut_array()
    {
        // SAFETY: SSSE3 is there.
        return unsafe { shuffle::together(planes, block) };
    }
    for (i, p) in block.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *p = [planes[0][i], planes[1][i], planes[2][i]];
    }
}

#[cfg(target_arch = "x86_64")]
mod shuffle {
    use std::arch::x86_64::*;

    use super::{BLOCK, Planes};

    /// Which places of part `from` (16 of 48 bytes) go to the 16 of plane `to`.
    const fn places_apart(to: usize, from: usize) -> [u8; 16] {
        let mut places = [0x80; 16];
        let mut i = 0;
        while i < 16 {
            let at = i * 3 + to;
            if at / 16 == from {
                places[i] = (at % 16) as u8;
            }
            i += 1;
        }
        places
    }

    /// Which places of plane `from` go to part `to`.
    const fn places_together(to: usize, from: usize) -> [u8; 16] {
        let mut places = [0x80; 16];
        let mut i = 0;
        while i < 16 {
            let at = to * 16 + i;
            if at % 3 == from {
                places[i] = (at / 3) as u8;
            }
            i += 1;
        }
        places
    }

    static APART: [[[u8; 16]; 3]; 3] = table(true);
    static TOGETHER: [[[u8; 16]; 3]; 3] = table(false);

    const fn table(apart: bool) -> [[[u8; 16]; 3]; 3] {
        let mut table = [[[0; 16]; 3]; 3];
        let mut i = 0;
        while i < 9 {
            let (to, from) = (i / 3, i % 3);
            table[to][from] = if apart {
                places_apart(to, from)
            } else {
                places_together(to, from)
            };
            i += 1;
        }
        table
    }

    #[target_feature(enable = "ssse3")]
    fn shuffled(parts: [&[u8]; 3], table: &[[[u8; 16]; 3]; 3]) -> [__m128i; 3] {
        let load = |bytes: &[u8]| {
            let bytes = &bytes[..16];
            // SAFETY: sixteen bytes.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        };
        let [a, b, c] = [load(parts[0]), load(parts[1]), load(parts[2])];
        let mixed = |places: &[[u8; 16]; 3]| {
            let a = _mm_shuffle_epi8(a, load(&places[0]));
            let b = _mm_shuffle_epi8(b, load(&places[1]));
            let c = _mm_shuffle_epi8(c, load(&places[2]));
            _mm_or_si128(_mm_or_si128(a, b), c)
        };
        [mixed(&table[0]), mixed(&table[1]), mixed(&table[2])]
    }

    #[target_feature(enable = "ssse3")]
    pub fn apart(block: &[u8; BLOCK * 3], planes: &mut Planes<u8>) {
        for (i, part) in block.as_chunks::<48>().0.iter().enumerate() {
            let levels = shuffled([&part[..16], &part[16..32], &part[32..]], &APART);
            for (plane, levels) in planes.iter_mut().zip(levels) {
                let place = &mut plane[i * 16..i * 16 + 16];
                // SAFETY: sixteen bytes.
                unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), levels) };
            }
        }
    }

    #[target_feature(enable = "ssse3")]
    pub fn together(planes: &Planes<u8>, block: &mut [u8; BLOCK * 3]) {
        let [red, green, blue] = planes;
        for (i, part) in block.as_chunks_mut::<48>().0.iter_mut().enumerate() {
            let from = i * 16;
            let parts = shuffled([&red[from..], &green[from..], &blue[from..]], &TOGETHER);
            for (place, bytes) in part.as_chunks_mut::<16>().0.iter_mut().zip(parts) {
                // SAFETY: sixteen bytes.
                unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), bytes) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_taken_apart_and_put_together() {
        for count in [1, 17, BLOCK] {
            let pixels: Vec<u8> = (0..count * 3).map(|i| (i * 7 % 251) as u8).collect();
            let mut planes = [[0; BLOCK]; 3];
            apart(&pixels, &mut planes);
            for (i, pixel) in pixels.chunks(3).enumerate() {
                assert_eq!(pixel, [planes[0][i], planes[1][i], planes[2][i]]);
            }
            let mut again = vec![0; count * 3];
            together(&planes, &mut again);
            assert_eq!(again, pixels);
        }
    }
}
