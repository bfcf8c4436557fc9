//! Sixteen columns in one register of AVX-512; with its dot product of bytes (VNNI) where the machine has that.

use super::{Columns, operations};
use std::arch::x86_64::*;

/// Products of bytes by way of 16-bit sums.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

/// With `vpdpbusd`.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

macro_rules! one_register {
    ($name:ident, $splits:literal, $dot:item) => {
        impl Columns for $name {
            type Ints = __m512i;
            type Floats = __m512;
            const WIDE: bool = true;
            const SPLITS: bool = $splits;

            $dot

            operations! {
                fn zero() -> __m512i { _mm512_setzero_si512() }
                fn load(p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
                fn store(p: *mut u8, v: __m512i) { _mm512_storeu_si512(p.cast(), v) }
                fn splat(p: *const i8) -> __m512i {
                    _mm512_set1_epi32(p.cast::<i32>().read_unaligned())
                }
                fn right(v: __m512i, n: u32) -> __m512i {
                    _mm512_srlv_epi32(v, _mm512_set1_epi32(n as i32))
                }
                fn left(v: __m512i, n: u32) -> __m512i {
                    _mm512_sllv_epi32(v, _mm512_set1_epi32(n as i32))
                }
                fn mask(v: __m512i, mask: u8) -> __m512i {
                    _mm512_and_si512(v, _mm512_set1_epi8(mask as i8))
                }
                fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
                fn add(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
                fn byte(v: __m512i, n: u32) -> __m512 {
                    let low = _mm512_set1_epi32(0xff);
                    let shift = _mm512_set1_epi32(8 * n as i32);
                    _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srlv_epi32(v, shift), low))
                }
                fn to_floats(v: __m512i) -> __m512 { _mm512_cvtepi32_ps(v) }
                fn splat_f32(x: f32) -> __m512 { _mm512_set1_ps(x) }
                fn load_f32(p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
                fn load_f16(p: *const u16) -> __m512 {
                    _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
                }
                fn load_bf16(p: *const u16) -> __m512 {
                    let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
                }
                fn store_f32(p: *mut f32, v: __m512) { _mm512_storeu_ps(p, v) }
                fn add_f32(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
                fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
                fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
                fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
                fn prefetch_far(p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
            }
        }
    };
}

one_register!(
    Vnni,
    false,
    #[inline(always)]
    unsafe fn dot(sums: __m512i, w: __m512i, x: __m512i, _eight: bool) -> __m512i {
        // SAFETY: the caller has the level's features.
        unsafe { _mm512_dpbusd_epi32(sums, w, x) }
    }
);

one_register!(
    Plain,
    true,
    #[inline(always)]
    unsafe fn dot(sums: __m512i, w: __m512i, x: __m512i, eight: bool) -> __m512i {
        // SAFETY: the caller has the level's features.
        unsafe {
            let ones = _mm512_set1_epi16(1);
            // Pairs of products of 7 by 7 bits fit into 16; the eighth bit is multiplied by itself.
            let low = if eight { _mm512_and_si512(w, _mm512_set1_epi8(0x7f)) } else { w };
            let sums =
                _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(low, x), ones));
            if !eight {
                return sums;
            }
            let high = _mm512_and_si512(_mm512_srli_epi16::<7>(w), _mm512_set1_epi8(1));
            let pairs = _mm512_maddubs_epi16(high, x);
            _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(128)))
        }
    }
);
