//! Eight lanes in plain Rust, for any machine.

use super::{Simd, element::f16_to_f32, integer::scalar::Plain, widening_dot};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

const LANES: usize = 8;

widening_dot!(Bf16, Scalar, u16, load_bf16);
widening_dot!(F16, Scalar, u16, load_f16);
widening_dot!(F32, Scalar, f32, load);

// SAFETY of all loads and stores: the caller vouches for the pointer.
impl Simd for Scalar {
    type V = [f32; LANES];
    const LANES: usize = LANES;
    const WIDE: bool = false;
    const FUSED: bool = false;
    type Bf16 = Bf16;
    type F16 = F16;
    type F32 = F32;
    type Columns = Plain;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for `p`.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller vouches for `p`.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: the caller vouches for `p`.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(f16_to_f32)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for `p`.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let half: [f32; 4] = std::array::from_fn(|i| v[i] + v[i + 4]);
        (half[0] + half[2]) + (half[1] + half[3])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
