//! Sixteen columns in four registers of NEON; with its products of bytes where the machine has them.

use super::{Columns, operations};
use crate::simd::element::f16_to_f32;
use std::arch::{aarch64::*, asm};

/// Products of bytes by way of 16-bit sums.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

/// With `sdot`.
#[derive(Clone, Copy)]
pub(crate) struct Dot;

/// With `usdot` and `usmmla`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix;

macro_rules! four_registers {
    ($name:ident, $dot:ident, splits: $splits:literal $(, $($more:item)*)?) => {
        impl Columns for $name {
            type Ints = [uint8x16_t; 4];
            type Floats = [float32x4_t; 4];
            const WIDE: bool = false;
            const SPLITS: bool = $splits;
            $($($more)*)?

            operations! {
                fn zero() -> [uint8x16_t; 4] { [vdupq_n_u8(0); 4] }
                fn load(p: *const u8) -> [uint8x16_t; 4] {
                    [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))]
                }
                fn store(p: *mut u8, v: [uint8x16_t; 4]) {
                    vst1q_u8(p, v[0]);
                    vst1q_u8(p.add(16), v[1]);
                    vst1q_u8(p.add(32), v[2]);
                    vst1q_u8(p.add(48), v[3]);
                }
                fn splat(p: *const i8) -> [uint8x16_t; 4] {
                    [vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())); 4]
                }
                fn right(v: [uint8x16_t; 4], n: u32) -> [uint8x16_t; 4] {
                    let n = vdupq_n_s32(-(n as i32));
                    [shift(v[0], n), shift(v[1], n), shift(v[2], n), shift(v[3], n)]
                }
                fn left(v: [uint8x16_t; 4], n: u32) -> [uint8x16_t; 4] {
                    let n = vdupq_n_s32(n as i32);
                    [shift(v[0], n), shift(v[1], n), shift(v[2], n), shift(v[3], n)]
                }
                fn mask(v: [uint8x16_t; 4], mask: u8) -> [uint8x16_t; 4] {
                    let mask = vdupq_n_u8(mask);
                    [
                        vandq_u8(v[0], mask),
                        vandq_u8(v[1], mask),
                        vandq_u8(v[2], mask),
                        vandq_u8(v[3], mask),
                    ]
                }
                fn or(a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
                    [
                        vorrq_u8(a[0], b[0]),
                        vorrq_u8(a[1], b[1]),
                        vorrq_u8(a[2], b[2]),
                        vorrq_u8(a[3], b[3]),
                    ]
                }
                fn add(a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
                    [sum(a[0], b[0]), sum(a[1], b[1]), sum(a[2], b[2]), sum(a[3], b[3])]
                }
                fn dot(
                    sums: [uint8x16_t; 4],
                    w: [uint8x16_t; 4],
                    x: [uint8x16_t; 4],
                    eight: bool
                ) -> [uint8x16_t; 4] {
                    [
                        $dot(sums[0], w[0], x[0], eight),
                        $dot(sums[1], w[1], x[1], eight),
                        $dot(sums[2], w[2], x[2], eight),
                        $dot(sums[3], w[3], x[3], eight),
                    ]
                }
                fn byte(v: [uint8x16_t; 4], n: u32) -> [float32x4_t; 4] {
                    let n = vdupq_n_s32(-8 * n as i32);
                    [byte_of(v[0], n), byte_of(v[1], n), byte_of(v[2], n), byte_of(v[3], n)]
                }
                fn to_floats(v: [uint8x16_t; 4]) -> [float32x4_t; 4] {
                    [
                        vcvtq_f32_s32(vreinterpretq_s32_u8(v[0])),
                        vcvtq_f32_s32(vreinterpretq_s32_u8(v[1])),
                        vcvtq_f32_s32(vreinterpretq_s32_u8(v[2])),
                        vcvtq_f32_s32(vreinterpretq_s32_u8(v[3])),
                    ]
                }
                fn splat_f32(x: f32) -> [float32x4_t; 4] { [vdupq_n_f32(x); 4] }
                fn load_f32(p: *const f32) -> [float32x4_t; 4] {
                    [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]
                }
                fn load_f16(p: *const u16) -> [float32x4_t; 4] {
                    let wide = p.cast::<[u16; 16]>().read_unaligned().map(f16_to_f32);
                    Self::load_f32(wide.as_ptr())
                }
                fn load_bf16(p: *const u16) -> [float32x4_t; 4] {
                    [
                        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))),
                        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(4)))),
                        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(8)))),
                        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(12)))),
                    ]
                }
                fn store_f32(p: *mut f32, v: [float32x4_t; 4]) {
                    vst1q_f32(p, v[0]);
                    vst1q_f32(p.add(4), v[1]);
                    vst1q_f32(p.add(8), v[2]);
                    vst1q_f32(p.add(12), v[3]);
                }
                fn add_f32(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
                    [
                        vaddq_f32(a[0], b[0]),
                        vaddq_f32(a[1], b[1]),
                        vaddq_f32(a[2], b[2]),
                        vaddq_f32(a[3], b[3]),
                    ]
                }
                fn mul(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
                    [
                        vmulq_f32(a[0], b[0]),
                        vmulq_f32(a[1], b[1]),
                        vmulq_f32(a[2], b[2]),
                        vmulq_f32(a[3], b[3]),
                    ]
                }
                fn mul_add(
                    a: [float32x4_t; 4],
                    b: [float32x4_t; 4],
                    c: [float32x4_t; 4]
                ) -> [float32x4_t; 4] {
                    [
                        vfmaq_f32(c[0], a[0], b[0]),
                        vfmaq_f32(c[1], a[1], b[1]),
                        vfmaq_f32(c[2], a[2], b[2]),
                        vfmaq_f32(c[3], a[3], b[3]),
                    ]
                }
                fn prefetch(_p: *const u8) {}
                fn prefetch_far(_p: *const u8) {}
            }
        }
    };
}

four_registers!(Plain, plain_dot, splits: true);
four_registers!(Dot, sdot, splits: true);
four_registers!(Matrix, usdot, splits: false,
    const MATRIX: bool = true;

    /// Registers of two columns each, eight bytes of one beside those of the other.
    #[inline(always)]
    unsafe fn pair(quads: [Self::Ints; 2]) -> [Self::Ints; 2] {
        let [a, b] = quads;
        // SAFETY: the caller has the level's features; so for all below.
        unsafe {
            let [[c0, c1], [c2, c3], [c4, c5], [c6, c7]] =
                [zip(a[0], b[0]), zip(a[1], b[1]), zip(a[2], b[2]), zip(a[3], b[3])];
            [[c0, c1, c2, c3], [c4, c5, c6, c7]]
        }
    }
    /// A register has both rows of one column, then both of the next.
    #[inline(always)]
    unsafe fn dot_rows(
        sums: [Self::Ints; 2],
        w: [Self::Ints; 2],
        x: [*const i8; 2],
    ) -> [Self::Ints; 2] {
        // SAFETY: see above; the caller vouches for eight bytes of each row.
        unsafe {
            let x = vcombine_u8(vld1_u8(x[0].cast()), vld1_u8(x[1].cast()));
            let [a, b] = sums;
            [
                [
                    usmmla(a[0], w[0][0], x),
                    usmmla(a[1], w[0][1], x),
                    usmmla(a[2], w[0][2], x),
                    usmmla(a[3], w[0][3], x),
                ],
                [
                    usmmla(b[0], w[1][0], x),
                    usmmla(b[1], w[1][1], x),
                    usmmla(b[2], w[1][2], x),
                    usmmla(b[3], w[1][3], x),
                ],
            ]
        }
    }
    #[inline(always)]
    unsafe fn rows(sums: [Self::Ints; 2]) -> [Self::Ints; 2] {
        let [a, b] = sums;
        // SAFETY: see above.
        unsafe {
            let [[p0, q0], [p1, q1], [p2, q2], [p3, q3]] =
                [unzip(a[0], a[1]), unzip(a[2], a[3]), unzip(b[0], b[1]), unzip(b[2], b[3])];
            [[p0, p1, p2, p3], [q0, q1, q2, q3]]
        }
    }
);

operations! {
    fn shift(v: uint8x16_t, n: int32x4_t) -> uint8x16_t {
        vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(v), n))
    }
    fn sum(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        vreinterpretq_u8_u32(vaddq_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)))
    }
    fn byte_of(v: uint8x16_t, n: int32x4_t) -> float32x4_t {
        vcvtq_f32_u32(vandq_u32(vreinterpretq_u32_u8(shift(v, n)), vdupq_n_u32(0xff)))
    }
    fn plain_dot(sums: uint8x16_t, w: uint8x16_t, x: uint8x16_t, eight: bool) -> uint8x16_t {
        let x = vreinterpretq_s8_u8(x);
        // Pairs of products of 7 by 7 bits fit into 16; the eighth bit is multiplied by itself.
        let low = vreinterpretq_s8_u8(if eight { vandq_u8(w, vdupq_n_u8(0x7f)) } else { w });
        let mut sums = vpadalq_s16(vreinterpretq_s32_u8(sums), pairs(low, x));
        if eight {
            let high = vreinterpretq_s8_u8(vshrq_n_u8::<7>(w));
            sums = vpadalq_s16(sums, vshlq_n_s16::<7>(pairs(high, x)));
        }
        vreinterpretq_u8_s32(sums)
    }
    fn pairs(w: int8x16_t, x: int8x16_t) -> int16x8_t {
        vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x))
    }
    fn sdot(sums: uint8x16_t, w: uint8x16_t, x: uint8x16_t, eight: bool) -> uint8x16_t {
        if !eight {
            return signed_dot(sums, w, x);
        }
        // The eighth bit is worth 128, which is twice what fits into a signed byte beside it.
        let high = vshrq_n_u8::<1>(vandq_u8(w, vdupq_n_u8(0x80)));
        let sums = signed_dot(sums, vandq_u8(w, vdupq_n_u8(0x7f)), x);
        signed_dot(signed_dot(sums, high, x), high, x)
    }
    fn signed_dot(sums: uint8x16_t, w: uint8x16_t, x: uint8x16_t) -> uint8x16_t {
        let mut sums = sums;
        asm!(".arch_extension dotprod", "sdot {s:v}.4s, {w:v}.16b, {x:v}.16b",
            s = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
        sums
    }
    fn usdot(sums: uint8x16_t, w: uint8x16_t, x: uint8x16_t, _eight: bool) -> uint8x16_t {
        let mut sums = sums;
        asm!(".arch_extension i8mm", "usdot {s:v}.4s, {w:v}.16b, {x:v}.16b",
            s = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
        sums
    }
    fn usmmla(sums: uint8x16_t, w: uint8x16_t, x: uint8x16_t) -> uint8x16_t {
        let mut sums = sums;
        asm!(".arch_extension i8mm", "usmmla {s:v}.4s, {w:v}.16b, {x:v}.16b",
            s = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
        sums
    }
    fn zip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
    }
    fn unzip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vuzp1q_u32(a, b)), vreinterpretq_u8_u32(vuzp2q_u32(a, b))]
    }
}
