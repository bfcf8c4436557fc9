//! Four lanes with NEON, which every AArch64 has; with its products of bytes where the machine has them.

use super::{Kernel, Simd, element::f16_to_f32, integer::neon as integer, widening_dot};
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// The same, with the dot product of bytes.
#[derive(Clone, Copy)]
pub(crate) struct NeonDot;

/// The same, with products of matrices of bytes.
#[derive(Clone, Copy)]
pub(crate) struct NeonMatrix;

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Neon>() }
}

/// # Safety
/// As [`run`], and the dot product.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dot<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<NeonDot>() }
}

/// # Safety
/// As [`run_dot`], and products of matrices of bytes (`i8mm`).
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn run_matrix<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<NeonMatrix>() }
}

widening_dot!(Bf16, Neon, u16, load_bf16);
widening_dot!(F16, Neon, u16, load_f16);
widening_dot!(F32, Neon, f32, load);

/// Writes the same vectors for all levels; they differ in the products of bytes alone.
macro_rules! four_lanes {
    ($name:ident, $columns:ty) => {
        // SAFETY of all below: the caller has the features, and vouches for the pointers.
        impl Simd for $name {
            type V = float32x4_t;
            const LANES: usize = 4;
            // 32 registers.
            const WIDE: bool = true;
            type Bf16 = Bf16;
            type F16 = F16;
            type F32 = F32;
            type Columns = $columns;

            #[inline(always)]
            unsafe fn splat(x: f32) -> float32x4_t {
                // SAFETY: see above; so for all below.
                unsafe { vdupq_n_f32(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> float32x4_t {
                // SAFETY: see above.
                unsafe { vld1q_f32(p) }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const u16) -> float32x4_t {
                // SAFETY: see above.
                unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u16) -> float32x4_t {
                // SAFETY: see above.
                unsafe {
                    let wide = p.cast::<[u16; 4]>().read_unaligned().map(f16_to_f32);
                    vld1q_f32(wide.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn load_pairs(p: *const u16) -> [float32x4_t; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = vld1q_u32(p.cast());
                    let second = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
                    [vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)), vreinterpretq_f32_u32(second)]
                }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: float32x4_t) {
                // SAFETY: see above.
                unsafe { vst1q_f32(p, v) }
            }
            #[inline(always)]
            unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: see above.
                unsafe { vaddq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: see above.
                unsafe { vmulq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
                // SAFETY: see above.
                unsafe { vfmaq_f32(c, a, b) }
            }
            #[inline(always)]
            unsafe fn sum(v: float32x4_t) -> f32 {
                // SAFETY: see above.
                unsafe { vaddvq_f32(v) }
            }
            #[inline(always)]
            unsafe fn prefetch(_: *const u8) {}
        }
    };
}

four_lanes!(Neon, integer::Plain);
four_lanes!(NeonDot, integer::Dot);
four_lanes!(NeonMatrix, integer::Matrix);
