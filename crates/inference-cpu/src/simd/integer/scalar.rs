//! Sixteen columns in plain Rust, for any machine.

use super::{Columns, operations};
use crate::simd::element::f16_to_f32;
use std::array::from_fn;

#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Columns for Plain {
    type Ints = [u32; 16];
    type Floats = [f32; 16];
    const WIDE: bool = false;

    operations! {
        fn zero() -> [u32; 16] { [0; 16] }
        fn load(p: *const u8) -> [u32; 16] {
            p.cast::<[u32; 16]>().read_unaligned()
        }
        fn store(p: *mut u8, v: [u32; 16]) {
            p.cast::<[u32; 16]>().write_unaligned(v);
        }
        fn splat(p: *const i8) -> [u32; 16] {
            [p.cast::<u32>().read_unaligned(); 16]
        }
        fn right(v: [u32; 16], n: u32) -> [u32; 16] { v.map(|v| v >> n) }
        fn left(v: [u32; 16], n: u32) -> [u32; 16] { v.map(|v| v << n) }
        fn mask(v: [u32; 16], mask: u8) -> [u32; 16] {
            v.map(|v| v & u32::from_le_bytes([mask; 4]))
        }
        fn or(a: [u32; 16], b: [u32; 16]) -> [u32; 16] { from_fn(|i| a[i] | b[i]) }
        fn add(a: [u32; 16], b: [u32; 16]) -> [u32; 16] { from_fn(|i| a[i].wrapping_add(b[i])) }
        fn dot(sums: [u32; 16], w: [u32; 16], x: [u32; 16], _eight: bool) -> [u32; 16] {
            from_fn(|i| {
                let (w, x) = (w[i].to_le_bytes(), x[i].to_le_bytes().map(|x| x as i8));
                let dot: i32 = (0..4).map(|j| i32::from(w[j]) * i32::from(x[j])).sum();
                sums[i].wrapping_add(dot as u32)
            })
        }
        fn byte(v: [u32; 16], n: u32) -> [f32; 16] {
            v.map(|v| f32::from((v >> (8 * n)) as u8))
        }
        fn to_floats(v: [u32; 16]) -> [f32; 16] { v.map(|v| v as i32 as f32) }
        fn splat_f32(x: f32) -> [f32; 16] { [x; 16] }
        fn load_f32(p: *const f32) -> [f32; 16] {
            p.cast::<[f32; 16]>().read_unaligned()
        }
        fn load_f16(p: *const u16) -> [f32; 16] {
            p.cast::<[u16; 16]>().read_unaligned().map(f16_to_f32)
        }
        fn load_bf16(p: *const u16) -> [f32; 16] {
            let bits = p.cast::<[u16; 16]>().read_unaligned();
            bits.map(|b| f32::from_bits(u32::from(b) << 16))
        }
        fn store_f32(p: *mut f32, v: [f32; 16]) {
            p.cast::<[f32; 16]>().write_unaligned(v);
        }
        fn add_f32(a: [f32; 16], b: [f32; 16]) -> [f32; 16] { from_fn(|i| a[i] + b[i]) }
        fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] { from_fn(|i| a[i] * b[i]) }
        fn mul_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
            from_fn(|i| a[i] * b[i] + c[i])
        }
        fn prefetch(_p: *const u8) {}
    }
}
