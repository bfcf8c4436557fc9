//! Sixteen columns in two registers of AVX2; with its dot product of bytes (AVX-VNNI) where the machine has that.

use super::{Columns, operations};
use std::arch::x86_64::*;

/// Products of bytes by way of 16-bit sums.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

/// With `vpdpbusd`.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

macro_rules! two_registers {
    ($name:ident, $splits:literal, $dot:item) => {
        impl Columns for $name {
            type Ints = [__m256i; 2];
            type Floats = [__m256; 2];
            const WIDE: bool = false;
            const SPLITS: bool = $splits;

            #[inline(always)]
            unsafe fn dot(
                sums: [__m256i; 2],
                w: [__m256i; 2],
                x: [__m256i; 2],
                eight: bool,
            ) -> [__m256i; 2] {
                $dot
                // SAFETY: the caller has the level's features.
                unsafe {
                    [half(sums[0], w[0], x[0], eight), half(sums[1], w[1], x[1], eight)]
                }
            }

            operations! {
                fn zero() -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
                fn load(p: *const u8) -> [__m256i; 2] {
                    [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())]
                }
                fn store(p: *mut u8, v: [__m256i; 2]) {
                    _mm256_storeu_si256(p.cast(), v[0]);
                    _mm256_storeu_si256(p.add(32).cast(), v[1]);
                }
                fn splat(p: *const i8) -> [__m256i; 2] {
                    [_mm256_set1_epi32(p.cast::<i32>().read_unaligned()); 2]
                }
                fn right(v: [__m256i; 2], n: u32) -> [__m256i; 2] {
                    let n = _mm256_set1_epi32(n as i32);
                    [_mm256_srlv_epi32(v[0], n), _mm256_srlv_epi32(v[1], n)]
                }
                fn left(v: [__m256i; 2], n: u32) -> [__m256i; 2] {
                    let n = _mm256_set1_epi32(n as i32);
                    [_mm256_sllv_epi32(v[0], n), _mm256_sllv_epi32(v[1], n)]
                }
                fn mask(v: [__m256i; 2], mask: u8) -> [__m256i; 2] {
                    let mask = _mm256_set1_epi8(mask as i8);
                    [_mm256_and_si256(v[0], mask), _mm256_and_si256(v[1], mask)]
                }
                fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
                    [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
                }
                fn add(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
                    [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
                }
                fn byte(v: [__m256i; 2], n: u32) -> [__m256; 2] {
                    let (low, n) = (_mm256_set1_epi32(0xff), _mm256_set1_epi32(8 * n as i32));
                    [
                        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(v[0], n), low)),
                        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(v[1], n), low)),
                    ]
                }
                fn to_floats(v: [__m256i; 2]) -> [__m256; 2] {
                    [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])]
                }
                fn splat_f32(x: f32) -> [__m256; 2] { [_mm256_set1_ps(x); 2] }
                fn load_f32(p: *const f32) -> [__m256; 2] {
                    [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))]
                }
                fn load_f16(p: *const u16) -> [__m256; 2] {
                    [
                        _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                        _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
                    ]
                }
                fn load_bf16(p: *const u16) -> [__m256; 2] {
                    let left = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    let right = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
                    [
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(left)),
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(right)),
                    ]
                }
                fn store_f32(p: *mut f32, v: [__m256; 2]) {
                    _mm256_storeu_ps(p, v[0]);
                    _mm256_storeu_ps(p.add(8), v[1]);
                }
                fn add_f32(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
                    [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
                }
                fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
                    [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
                }
                fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
                    [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
                }
                fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
                fn prefetch_far(p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
            }
        }
    };
}

two_registers!(
    Vnni,
    false,
    #[inline(always)]
    unsafe fn half(sums: __m256i, w: __m256i, x: __m256i, _eight: bool) -> __m256i {
        // SAFETY: the caller has the level's features.
        unsafe { _mm256_dpbusd_avx_epi32(sums, w, x) }
    }
);

two_registers!(
    Plain,
    true,
    #[inline(always)]
    unsafe fn half(sums: __m256i, w: __m256i, x: __m256i, eight: bool) -> __m256i {
        // SAFETY: the caller has the level's features.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            // Pairs of products of 7 by 7 bits fit into 16; the eighth bit is multiplied by itself.
            let low = if eight { _mm256_and_si256(w, _mm256_set1_epi8(0x7f)) } else { w };
            let sums =
                _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), ones));
            if !eight {
                return sums;
            }
            let high = _mm256_and_si256(_mm256_srli_epi16::<7>(w), _mm256_set1_epi8(1));
            let pairs = _mm256_maddubs_epi16(high, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(128)))
        }
    }
);
