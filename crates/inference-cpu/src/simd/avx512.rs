//! Sixteen lanes with AVX-512; with its dot products where the machine has that.

use super::{Dot, Kernel, Simd, integer::avx512 as integer, position, widening_dot};
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
    ($name:ident, $bf16:ty, $columns:ty, $($pairs:tt)*) => {
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
            unsafe fn load_i8(p: *const i8) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
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
            $($pairs)*
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
                unsafe { sum(v) }
            }
            #[inline(always)]
            unsafe fn sums<const N: usize>(v: [__m512; N], added: bool, to: *mut f32) {
                // SAFETY: see above.
                unsafe {
                    if N == 8 {
                        let v = [
                            v[0],
                            v[1 % N],
                            v[2 % N],
                            v[3 % N],
                            v[4 % N],
                            v[5 % N],
                            v[6 % N],
                            v[7 % N],
                        ];
                        return eight_sums(v, added, to);
                    }
                    for (i, v) in v.into_iter().enumerate() {
                        let sum = sum(v);
                        *to.add(i) = if added { *to.add(i) + sum } else { sum };
                    }
                }
            }
            #[inline(always)]
            unsafe fn round(x: &[f32], inverse: f32, to: &mut [i8]) -> i32 {
                // SAFETY: see above.
                unsafe { round(x, inverse, to) }
            }
            #[inline(always)]
            unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
                // SAFETY: see above.
                unsafe { transpose(from, stride, to, to_stride) }
            }
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: a prefetch of any address is harmless.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
            #[inline(always)]
            unsafe fn prefetch_far(p: *const u8) {
                // SAFETY: as above.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
            }
        }
    };
}

sixteen_lanes!(Avx512, Bf16, integer::Plain,);
sixteen_lanes!(Avx512Vnni, Bf16, integer::Vnni,);
sixteen_lanes! {
    Avx512Bf16,
    Pairs,
    integer::Vnni,
    const PAIRS: bool = true;
    #[inline(always)]
    unsafe fn dot_pairs(x: __m512, w: __m512, sums: __m512) -> __m512 {
        // SAFETY: see above; `__m512bh` is 32 bf16.
        unsafe {
            let x = std::mem::transmute::<__m512, __m512bh>(x);
            _mm512_dpbf16_ps(sums, x, std::mem::transmute::<__m512, __m512bh>(w))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: see above; `__m256bh` is 16 bf16.
        unsafe {
            let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
            _mm256_storeu_si256(p.cast(), narrow);
        }
    }
}

/// Products of bf16 pairs, summed in f32 (`vdpbf16ps`).
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

// SAFETY of all below: the caller has the features, and vouches for the pointers. `__m512bh` is 32 bf16.
impl Dot<Avx512Bf16> for Pairs {
    type X = u16;
    type W = u16;
    type P = u16;
    type Xs = __m512bh;
    type Ws = __m512bh;
    const STEP: usize = 32;

    #[inline(always)]
    unsafe fn load_x(p: *const u16) -> __m512bh {
        // SAFETY: see above; so for all below.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_w(p: *const u16) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_p(p: *mut u16, w: __m512bh) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(p.cast(), std::mem::transmute::<__m512bh, __m512i>(w)) }
    }
    #[inline(always)]
    unsafe fn load_p(p: *const u16) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn add(x: __m512bh, w: __m512bh, sums: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_dpbf16_ps(sums, x, w) }
    }
}

/// Lane `i` with lane `i + 8`, then with `i + 4`, `i + 2` and `i + 1`.
///
/// # Safety
/// The machine has AVX-512 F and DQ.
#[inline(always)]
unsafe fn sum(v: __m512) -> f32 {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
}

/// Eight times [`sum`], lanes of the same pairs: halves of two vectors are brought into one, then quarters of two of
/// those, and so on, mostly by blends, since shuffles share a port with multiply-adds.
///
/// # Safety
/// The machine has AVX-512 F, DQ and VL; eight numbers at `to`.
#[inline(always)]
unsafe fn eight_sums(v: [__m512; 8], added: bool, to: *mut f32) {
    // SAFETY: the caller vouches for the features and for `to`.
    unsafe {
        let even = quarters(halves(v[0], v[4]), halves(v[2], v[6]));
        let odd = quarters(halves(v[1], v[5]), halves(v[3], v[7]));
        // Inside of each quarter two pairs of an even vector, two of an odd one.
        let kept = _mm512_mask_blend_ps(0xcccc, even, odd);
        let v = _mm512_add_ps(kept, _mm512_shuffle_ps::<0b01_00_11_10>(even, odd));
        let v = _mm512_add_ps(v, _mm512_permute_ps::<0b10_11_00_01>(v));
        let v = _mm256_castsi256_ps(_mm512_cvtepi64_epi32(_mm512_castps_si512(v)));
        let v = if added { _mm256_add_ps(_mm256_loadu_ps(to), v) } else { v };
        _mm256_storeu_ps(to, v);
    }
}

/// The halves of `a`, added, and those of `b`.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let kept = _mm512_mask_blend_ps(0xff00, a, b);
        _mm512_add_ps(kept, _mm512_shuffle_f32x4::<0b01_00_11_10>(a, b))
    }
}

/// Of each half, the quarters of `a`, added, and those of `b`.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn quarters(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let kept = _mm512_mask_blend_ps(0xf0f0, a, b);
        let other = _mm512_mask_blend_ps(0xf0f0, b, a);
        _mm512_add_ps(kept, _mm512_shuffle_f32x4::<0b10_11_00_01>(other, other))
    }
}

/// The input that stands at each [`position`].
const INPUTS: [u8; 16] = {
    let mut inputs = [0; 16];
    let mut k = 0;
    while k < 16 {
        inputs[position(k)] = k as u8;
        k += 1;
    }
    inputs
};

/// # Safety
/// As [`Simd::round`], with AVX-512 F and AVX2.
#[inline(always)]
unsafe fn round(x: &[f32], inverse: f32, to: &mut [i8]) -> i32 {
    // SAFETY: the caller vouches for the features; all numbers are inside of both.
    unsafe {
        let inverse = _mm512_set1_ps(inverse);
        let inputs = _mm_loadu_si128(INPUTS.as_ptr().cast());
        let mut sums = _mm512_setzero_si512();
        for (x, to) in x.chunks_exact(16).zip(to.chunks_exact_mut(16)) {
            let x = _mm512_loadu_ps(x.as_ptr());
            let whole = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
            sums = _mm512_add_epi32(sums, whole);
            let bytes = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(whole), inputs);
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
        _mm512_reduce_add_epi32(sums)
    }
}

/// Columns 4q to 4q + 3 of rows r, r + 4, r + 8 and r + 12.
///
/// # Safety
/// As [`Simd::transpose`], with AVX-512 F.
#[inline(always)]
unsafe fn four_rows(from: *const f32, stride: usize, r: usize, q: usize) -> __m512 {
    // SAFETY: the caller vouches for the matrix and the features.
    unsafe {
        let from = from.add(r * stride + 4 * q);
        let v = _mm512_castps128_ps512(_mm_loadu_ps(from));
        let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(from.add(4 * stride)));
        let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(from.add(8 * stride)));
        _mm512_insertf32x4::<3>(v, _mm_loadu_ps(from.add(12 * stride)))
    }
}

/// # Safety
/// As [`Simd::transpose`], with AVX-512 F.
#[inline(always)]
unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller vouches for the matrices and the features.
    unsafe {
        for q in 0..4 {
            let (r0, r1) = (four_rows(from, stride, 0, q), four_rows(from, stride, 1, q));
            let (r2, r3) = (four_rows(from, stride, 2, q), four_rows(from, stride, 3, q));
            let a = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
            let b = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
            let c = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
            let d = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
            let to = to.add(4 * q * to_stride);
            _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)));
            _mm512_storeu_ps(to.add(to_stride), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
            _mm512_storeu_ps(to.add(2 * to_stride), _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)));
            _mm512_storeu_ps(to.add(3 * to_stride), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
        }
    }
}
