//! Sixteen lanes with AVX-512; with its dot products where the machine has that.

use super::{Dot, Kernel, Simd, integer::avx512 as integer, widening_dot};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// The same, with the dot product of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni;

/// The same, with the dot product of bf16 pairs as well.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;

/// # Safety
/// The machine has AVX-512 F, BW, DQ and VL, and what AVX2 has.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Avx512>() }
}

/// # Safety
/// As [`run`], and AVX-512 VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Avx512Vnni>() }
}

/// # Safety
/// As [`run_vnni`], and AVX-512 BF16.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    unsafe { kernel.run::<Avx512Bf16>() }
}

widening_dot!(Bf16, Avx512, u16, load_bf16);
widening_dot!(F16, Avx512, u16, load_f16);
widening_dot!(F32, Avx512, f32, load);

/// Writes the same vectors for all levels; they differ in their dot products alone.
macro_rules! sixteen_lanes {
    ($name:ident, $bf16:ty, $columns:ty, $($store_bf16:tt)*) => {
        // SAFETY of all below: the caller has the features, and vouches for the pointers.
        impl Simd for $name {
            type V = __m512;
            const LANES: usize = 16;
            const WIDE: bool = true;
            type Bf16 = $bf16;
            type F16 = F16;
            type F32 = F32;
            type Columns = $columns;

            #[inline(always)]
            unsafe fn splat(x: f32) -> __m512 {
                // SAFETY: see above; so for all below.
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const u16) -> __m512 {
                // SAFETY: see above.
                unsafe {
                    let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
                }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u16) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_pairs(p: *const u16) -> [__m512; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = _mm512_loadu_si512(p.cast());
                    let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000u32 as i32));
                    [
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                        _mm512_castsi512_ps(second),
                    ]
                }
            }
            $($store_bf16)*
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: __m512) {
                // SAFETY: see above.
                unsafe { _mm512_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn sum(v: __m512) -> f32 {
                // SAFETY: see above.
                unsafe { _mm512_reduce_add_ps(v) }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: a prefetch of any address is harmless.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
        }
    };
}

sixteen_lanes!(Avx512, Bf16, integer::Plain,);
sixteen_lanes!(Avx512Vnni, Bf16, integer::Vnni,);
sixteen_lanes!(
    Avx512Bf16,
    Pairs,
    integer::Vnni,
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: see above; `__m256bh` is 16 bf16.
        unsafe {
            let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
            _mm256_storeu_si256(p.cast(), narrow);
        }
    }
);

/// Products of bf16 pairs, summed in f32 (`vdpbf16ps`).
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

// SAFETY of all below: the caller has the features, and vouches for the pointers. `__m512bh` is 32 bf16.
impl Dot for Pairs {
    type X = u16;
    type W = u16;
    type Xs = __m512bh;
    type Ws = __m512bh;
    type Sums = __m512;
    const STEP: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: see above; so for all below.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load_x(p: *const u16) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_w(p: *const u16) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn add(x: __m512bh, w: __m512bh, sums: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_dpbf16_ps(sums, x, w) }
    }
    #[inline(always)]
    unsafe fn sum(sums: __m512) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(sums) }
    }
}
