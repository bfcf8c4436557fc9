//! Keys and values as whole numbers of 8 bits, with a scale for each token of a head.
//!
//! `x ≈ scale · q`, `scale = max|x| / 127` over the head, `q` rounded to nearest, ties to even, so from −127 to 127. A
//! block is widened to bf16 before it is multiplied, so the products are those of a cache of bf16.

use super::{BLOCK, cache::Kept};
use crate::simd::Simd;
use half::bf16;

/// A head whose numbers are all smaller is taken for zeros: 127 divided by them would not be finite.
const LEAST: f32 = 1e-30;

/// Numbers that have the same scales as the next so many.
const RUN: usize = 2 * BLOCK;

impl Kept for i8 {
    type Number = bf16;
    const SCALES: usize = BLOCK * size_of::<f32>();

    #[inline(always)]
    fn write_key(piece: &mut [i8], width: usize, to: usize, key: &[f32], room: &mut [f32]) {
        let (keys, scales) = apart(piece);
        let q = &mut bytemuck::cast_slice_mut::<f32, i8>(room)[..width];
        q[key.len()..].fill(0);
        scales[to] = quantise(key, q);
        let (keys, _) = keys.as_chunks_mut::<2>();
        for (to, pair) in keys[to..].iter_mut().step_by(BLOCK).zip(q.as_chunks().0) {
            *to = *pair;
        }
    }

    #[inline(always)]
    fn write_values(piece: &mut [i8], width: usize, to: usize, v: &[f32], room: &mut [f32]) {
        let (values, scales) = apart(piece);
        let q = &mut bytemuck::cast_slice_mut::<f32, i8>(room)[..v.len()];
        scales[to] = quantise(v, q);
        let values = &mut values[to / 2 * 2 * width..][..2 * width];
        for (to, x) in values[to % 2..].iter_mut().step_by(2).zip(q) {
            *to = *x;
        }
    }

    #[inline(always)]
    unsafe fn keys<S: Simd>(piece: &[i8], room: *mut bf16) -> *const bf16 {
        let (keys, of_tokens) = apart_ref(piece);
        let mut scales = [0.0; RUN];
        for (scales, scale) in scales.as_chunks_mut::<2>().0.iter_mut().zip(of_tokens) {
            *scales = [*scale; 2];
        }
        for at in (0..keys.len()).step_by(RUN) {
            // SAFETY: as the caller's; a block has whole runs.
            unsafe { widen::<S>(&keys[at..at + RUN], &scales, room.add(at)) };
        }
        room
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(piece: &[i8], room: *mut bf16) -> *const bf16 {
        let (values, of_tokens) = apart_ref(piece);
        let two_rows = values.len() / (BLOCK / 2);
        for (pair, scales) in of_tokens.as_chunks::<2>().0.iter().enumerate() {
            let scales = std::array::from_fn(|i| scales[i % 2]);
            for at in (pair * two_rows..(pair + 1) * two_rows).step_by(RUN) {
                // SAFETY: as the caller's; a head is a multiple of 32 wide, so two rows are whole runs.
                unsafe { widen::<S>(&values[at..at + RUN], &scales, room.add(at)) };
            }
        }
        room
    }
}

/// A head's numbers of a block, and the scales of its tokens.
#[inline(always)]
fn apart(piece: &mut [i8]) -> (&mut [i8], &mut [f32]) {
    let (numbers, scales) = piece.split_at_mut(piece.len() - i8::SCALES);
    (numbers, bytemuck::cast_slice_mut(scales))
}

/// The same, to be read.
#[inline(always)]
fn apart_ref(piece: &[i8]) -> (&[i8], &[f32]) {
    let (numbers, scales) = piece.split_at(piece.len() - i8::SCALES);
    (numbers, bytemuck::cast_slice(scales))
}

/// Quantises a head; gives its scale, which is not a number where one of `x` is not finite.
#[inline(always)]
fn quantise(x: &[f32], q: &mut [i8]) -> f32 {
    // As integers, magnitudes have the order of the numbers, and NaN is above infinity.
    let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    let most = f32::from_bits(most);
    if !most.is_finite() {
        q.fill(1);
        return f32::NAN;
    }
    let inverse = if most < LEAST { 0.0 } else { 127.0 / most };
    for (x, q) in x.iter().zip(q) {
        *q = (x * inverse).round_ties_even() as i8;
    }
    most / 127.0
}

/// Rounds a run of numbers, each times its scale, to bf16.
///
/// # Safety
/// The machine has the features of `S`; there is room for as many.
#[inline(always)]
unsafe fn widen<S: Simd>(from: &[i8], scales: &[f32; RUN], to: *mut bf16) {
    for at in (0..RUN).step_by(S::LANES) {
        // SAFETY: as the caller's; a run is whole vectors.
        unsafe {
            let x = S::mul(S::load_i8(from.as_ptr().add(at)), S::load(scales.as_ptr().add(at)));
            S::store_bf16(to.add(at).cast(), x);
        }
    }
}
