//! Eight lanes with AVX2, FMA and F16C.

use super::{Kernel, Simd, integer::avx2 as integer, widening_dot};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// The same, with the dot product of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Vnni;

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Avx2>() }
}

/// # Safety
/// As [`run`], and AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Avx2Vnni>() }
}

widening_dot!(Bf16, Avx2, u16, load_bf16);
widening_dot!(F16, Avx2, u16, load_f16);
widening_dot!(F32, Avx2, f32, load);

/// Writes the same vectors for both levels; they differ in the dot product of bytes alone.
macro_rules! eight_lanes {
    ($name:ident, $columns:ty) => {
        // SAFETY of all below: the caller has the features, and vouches for the pointers.
        impl Simd for $name {
            type V = __m256;
            const LANES: usize = 8;
            const WIDE: bool = false;
            type Bf16 = Bf16;
            type F16 = F16;
            type F32 = F32;
            type Columns = $columns;

            #[inline(always)]
            unsafe fn splat(x: f32) -> __m256 {
                // SAFETY: see above; so for all below.
                unsafe { _mm256_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const u16) -> __m256 {
                // SAFETY: see above.
                unsafe {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u16) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i8(p: *const i8) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
            }
            #[inline(always)]
            unsafe fn load_pairs(p: *const u16) -> [__m256; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = _mm256_loadu_si256(p.cast());
                    let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32 as i32));
                    [_mm256_slli_epi32::<16>(pairs), second].map(|v| _mm256_castsi256_ps(v))
                }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: __m256) {
                // SAFETY: see above.
                unsafe { _mm256_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn add(a: __m256, b: __m256) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m256, b: __m256) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
                // SAFETY: see above.
                unsafe { _mm256_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn sum(v: __m256) -> f32 {
                // SAFETY: see above.
                unsafe {
                    let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
                    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
                }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: a prefetch of any address is harmless.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}

eight_lanes!(Avx2, integer::Plain);
eight_lanes!(Avx2Vnni, integer::Vnni);
