//! Numbers as they are stored: `f32`, `f16`, `bf16`.

use super::Simd;
use half::{bf16, f16};

/// A stored number. `bf16` activations are `u16`.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    /// Rounded to nearest, ties to even.
    fn from_f32(x: f32) -> Self;

    /// Loads `S::LANES` of them, widened.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller vouches for `p`.
        unsafe { S::load(p) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_bits(u16::from_f32(x))
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller vouches for `p`; a `bf16` is its bits.
        unsafe { S::load_bf16(p.cast()) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller vouches for `p`; an `f16` is its bits.
        unsafe { S::load_f16(p.cast()) }
    }
}

/// The bits of a `bf16`.
impl Element for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        (if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }) as Self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller vouches for `p`.
        unsafe { S::load_bf16(p) }
    }
}

/// Widens an `f16` by integer arithmetic, which the compiler can vectorise.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = (bits & 0x7fff) << 13;
    // 2¹¹² moves the exponent's bias from 15 to 127; it makes subnormals right as well.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let value = if bits & 0x7c00 == 0x7c00 { special } else { scaled };
    f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(
                got == want && got.is_sign_negative() == want.is_sign_negative()
                    || got.is_nan() && want.is_nan()
            );
        }
    }

    #[test]
    fn bf16_is_rounded_to_nearest() {
        for x in [0.0f32, -0.0, 1.0, 1.003_906_2, 1.011_718_8, -3.3e38, 1e-40, f32::INFINITY] {
            assert_eq!(u16::from_f32(x), bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(bf16::from_bits(u16::from_f32(f32::NAN)).is_nan());
    }
}
