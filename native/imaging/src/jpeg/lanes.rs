//! Eight 16-bit values beside each other, once or twice: what the inverse DCT computes with.

use std::arch::x86_64::*;

/// A vector of one or two halves of 8 values of 16 bits. Operations stay within their half.
pub(super) trait Lanes: Copy {
    /// Both rows, or the first where there is one half.
    ///
    /// # Safety
    /// The processor has the vector's instructions; this holds for every function here.
    unsafe fn load(rows: [&[i16; 8]; 2]) -> Self;
    unsafe fn splat32(value: i32) -> Self;
    unsafe fn zero() -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn add16(self, other: Self) -> Self;
    unsafe fn sub16(self, other: Self) -> Self;
    unsafe fn mul16(self, other: Self) -> Self;
    unsafe fn max16(self, other: Self) -> Self;
    unsafe fn above16(self, other: Self) -> Self;
    unsafe fn add32(self, other: Self) -> Self;
    unsafe fn sub32(self, other: Self) -> Self;
    unsafe fn shift32<const BY: i32>(self) -> Self;
    /// Sums of products of neighbours.
    unsafe fn madd(self, other: Self) -> Self;
    unsafe fn low16(self, other: Self) -> Self;
    unsafe fn high16(self, other: Self) -> Self;
    unsafe fn low32(self, other: Self) -> Self;
    unsafe fn high32(self, other: Self) -> Self;
    unsafe fn low64(self, other: Self) -> Self;
    unsafe fn high64(self, other: Self) -> Self;
    /// 32 bits to 16, cut to the range.
    unsafe fn pack32(self, other: Self) -> Self;
    /// 16 bits to 8 with a sign, cut to the range.
    unsafe fn pack16(self, other: Self) -> Self;
    unsafe fn is_zero(self) -> bool;
    /// Two rows of 8 bytes a half become rows `y` and `y + 1`, the first half left of the second.
    unsafe fn store(self, rows: &mut [[u8; 16]; 2]);
}

macro_rules! lanes {
    ($vector:ty, $($name:ident: $instruction:ident),* $(,)?) => {
        $(#[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            // SAFETY: the caller has the instruction.
            unsafe { $instruction(self, other) }
        })*
    };
}

impl Lanes for __m128i {
    #[inline(always)]
    unsafe fn load([row, _]: [&[i16; 8]; 2]) -> Self {
        // SAFETY: eight values are read where eight are.
        unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn splat32(value: i32) -> Self {
        // SAFETY: SSE2 belongs to every x86-64 processor; so below.
        unsafe { _mm_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm_setzero_si128() }
    }
    lanes! {
        __m128i,
        or: _mm_or_si128, xor: _mm_xor_si128,
        add16: _mm_add_epi16, sub16: _mm_sub_epi16, mul16: _mm_mullo_epi16, max16: _mm_max_epi16,
        above16: _mm_cmpgt_epi16, add32: _mm_add_epi32, sub32: _mm_sub_epi32, madd: _mm_madd_epi16,
        low16: _mm_unpacklo_epi16, high16: _mm_unpackhi_epi16,
        low32: _mm_unpacklo_epi32, high32: _mm_unpackhi_epi32,
        low64: _mm_unpacklo_epi64, high64: _mm_unpackhi_epi64,
        pack32: _mm_packs_epi32, pack16: _mm_packs_epi16,
    }
    #[inline(always)]
    unsafe fn shift32<const BY: i32>(self) -> Self {
        unsafe { _mm_srai_epi32::<BY>(self) }
    }
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self, _mm_setzero_si128())) == 0xffff }
    }
    #[inline(always)]
    unsafe fn store(self, [first, second]: &mut [[u8; 16]; 2]) {
        unsafe {
            _mm_storel_epi64(first.as_mut_ptr().cast(), self);
            _mm_storel_epi64(second.as_mut_ptr().cast(), _mm_unpackhi_epi64(self, self));
        }
    }
}

impl Lanes for __m256i {
    #[inline(always)]
    unsafe fn load([first, second]: [&[i16; 8]; 2]) -> Self {
        // SAFETY: eight values are read where eight are; the caller has AVX2; so below.
        unsafe { _mm256_loadu2_m128i(second.as_ptr().cast(), first.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn splat32(value: i32) -> Self {
        unsafe { _mm256_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_si256() }
    }
    lanes! {
        __m256i,
        or: _mm256_or_si256, xor: _mm256_xor_si256,
        add16: _mm256_add_epi16, sub16: _mm256_sub_epi16, mul16: _mm256_mullo_epi16, max16: _mm256_max_epi16,
        above16: _mm256_cmpgt_epi16, add32: _mm256_add_epi32, sub32: _mm256_sub_epi32, madd: _mm256_madd_epi16,
        low16: _mm256_unpacklo_epi16, high16: _mm256_unpackhi_epi16,
        low32: _mm256_unpacklo_epi32, high32: _mm256_unpackhi_epi32,
        low64: _mm256_unpacklo_epi64, high64: _mm256_unpackhi_epi64,
        pack32: _mm256_packs_epi32, pack16: _mm256_packs_epi16,
    }
    #[inline(always)]
    unsafe fn shift32<const BY: i32>(self) -> Self {
        unsafe { _mm256_srai_epi32::<BY>(self) }
    }
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        unsafe { _mm256_testz_si256(self, self) == 1 }
    }
    #[inline(always)]
    unsafe fn store(self, [first, second]: &mut [[u8; 16]; 2]) {
        unsafe {
            let rows = _mm256_permute4x64_epi64::<0b11_01_10_00>(self);
            _mm256_storeu2_m128i(second.as_mut_ptr().cast(), first.as_mut_ptr().cast(), rows);
        }
    }
}
