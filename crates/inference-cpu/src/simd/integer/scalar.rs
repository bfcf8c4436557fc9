//! Sixteen columns in plain Rust, for any machine.

use super::{Columns, operations};
use crate::simd::element::f16_to_f32;
use std::array::from_fn;

#[derive(Clone, Copy)]
pub(crate) struct Plain;

/// Whole numbers, or four bytes each.
type Ints = [u32; 16];

type Floats = [f32; 16];

impl Columns for Plain {
    type Ints = Ints;
    type Floats = Floats;
    const WIDE: bool = false;
    const SPLITS: bool = false;

    operations! {
        fn zero() -> Ints { [0; 16] }
        fn load(p: *const u8) -> Ints { p.cast::<Ints>().read_unaligned() }
        fn store(p: *mut u8, v: Ints) { p.cast::<Ints>().write_unaligned(v) }
        fn splat(p: *const i8) -> Ints { [p.cast::<u32>().read_unaligned(); 16] }
        fn right(v: Ints, n: u32) -> Ints { right(v, n) }
        fn left(v: Ints, n: u32) -> Ints { left(v, n) }
        fn mask(v: Ints, mask: u8) -> Ints { and(v, u32::from_le_bytes([mask; 4])) }
        fn or(a: Ints, b: Ints) -> Ints { or(a, b) }
        fn add(a: Ints, b: Ints) -> Ints { add(a, b) }
        fn dot(sums: Ints, w: Ints, x: Ints, _eight: bool) -> Ints { dot(sums, w, x) }
        fn byte(v: Ints, n: u32) -> Floats { to_floats(and(right(v, 8 * n), 0xff)) }
        fn to_floats(v: Ints) -> Floats { to_floats(v) }
        fn splat_f32(x: f32) -> Floats { [x; 16] }
        fn load_f32(p: *const f32) -> Floats { p.cast::<Floats>().read_unaligned() }
        fn load_f16(p: *const u16) -> Floats { widen_f16(p.cast::<[u16; 16]>().read_unaligned()) }
        fn load_bf16(p: *const u16) -> Floats {
            widen_bf16(p.cast::<[u16; 16]>().read_unaligned())
        }
        fn store_f32(p: *mut f32, v: Floats) { p.cast::<Floats>().write_unaligned(v) }
        fn add_f32(a: Floats, b: Floats) -> Floats { from_fn(|i| a[i] + b[i]) }
        fn mul(a: Floats, b: Floats) -> Floats { from_fn(|i| a[i] * b[i]) }
        fn mul_add(a: Floats, b: Floats, c: Floats) -> Floats { mul_add(a, b, c) }
        fn prefetch(_p: *const u8) {}
        fn prefetch_far(_p: *const u8) {}
    }
}

/// Writes functions that are not inlined: kernels call them many times over, and they are loops.
macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {
        $(#[inline(never)] fn $name($($arg: $type),*) -> $out $body)*
    };
}

functions! {
    fn right(v: Ints, n: u32) -> Ints { v.map(|v| v >> n) }
    fn left(v: Ints, n: u32) -> Ints { v.map(|v| v << n) }
    fn and(v: Ints, mask: u32) -> Ints { v.map(|v| v & mask) }
    fn or(a: Ints, b: Ints) -> Ints { from_fn(|i| a[i] | b[i]) }
    fn add(a: Ints, b: Ints) -> Ints { from_fn(|i| a[i].wrapping_add(b[i])) }
    fn dot(sums: Ints, w: Ints, x: Ints) -> Ints {
        from_fn(|i| {
            let (w, x) = (w[i].to_le_bytes(), x[i].to_le_bytes().map(|x| x as i8));
            let dot: i32 = (0..4).map(|j| i32::from(w[j]) * i32::from(x[j])).sum();
            sums[i].wrapping_add(dot as u32)
        })
    }
    fn to_floats(v: Ints) -> Floats { v.map(|v| v as i32 as f32) }
    fn widen_f16(v: [u16; 16]) -> Floats { v.map(f16_to_f32) }
    fn widen_bf16(v: [u16; 16]) -> Floats { v.map(|b| f32::from_bits(u32::from(b) << 16)) }
    fn mul_add(a: Floats, b: Floats, c: Floats) -> Floats { from_fn(|i| a[i] * b[i] + c[i]) }
}
