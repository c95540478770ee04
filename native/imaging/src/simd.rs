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
