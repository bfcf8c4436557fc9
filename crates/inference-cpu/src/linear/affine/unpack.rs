//! From packed numbers to bytes, in registers.

use super::layout::{Layout, QUADS};
use crate::simd::{Columns, LINE};

/// The quads of the chunk at `p`.
///
/// # Safety
/// `p` has a chunk of `BITS` bits; the machine has the features of `C`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]
pub(super) unsafe fn chunk<C: Columns, const BITS: usize>(p: *const u8) -> [C::Ints; QUADS] {
    // SAFETY: the caller vouches for `p`, whose planes follow each other.
    unsafe {
        let mut quads = [C::zero(); QUADS];
        for i in 0..QUADS {
            quads[i] = match BITS {
                2 => field::<C>(p, 2, i, 0),
                3 => C::or(field::<C>(p, 2, i, 0), field::<C>(p.add(2 * LINE), 1, i, 2)),
                4 => field::<C>(p, 4, i, 0),
                5 => C::or(field::<C>(p, 4, i, 0), field::<C>(p.add(4 * LINE), 1, i, 4)),
                6 => C::or(field::<C>(p, 4, i, 0), field::<C>(p.add(4 * LINE), 2, i, 4)),
                _ => C::load(p.add(i * LINE)),
            };
        }
        quads
    }
}

/// Quad `i` of the plane of `width` bits at `plane`, moved to the bits from `to` on.
///
/// # Safety
/// `plane` has one; the machine has the features of `C`.
#[inline(always)]
unsafe fn field<C: Columns>(plane: *const u8, width: usize, i: usize, to: usize) -> C::Ints {
    let together = 8 / width;
    // SAFETY: the caller vouches for `plane`, of `width` lines.
    unsafe {
        let word = C::load(plane.add(i / together * LINE));
        let from = i % together * width;
        let moved = if from > to {
            C::right(word, (from - to) as u32)
        } else if from < to {
            C::left(word, (to - from) as u32)
        } else {
            word
        };
        C::mask(moved, (((1 << width) - 1) << to) as u8)
    }
}

/// The scales and biases of a group, whose scales are at `p`.
///
/// # Safety
/// `p` has scales and biases of the layout's type; the machine has the features of `C`.
#[inline(always)]
pub(super) unsafe fn factors<C: Columns>(layout: &Layout, p: *const u8) -> [C::Floats; 2] {
    use inference_engine::weights::DType;
    // SAFETY: the caller vouches for `p`.
    unsafe {
        let biases = p.add(layout.scales());
        match layout.dtype {
            DType::F32 => [C::load_f32(p.cast()), C::load_f32(biases.cast())],
            DType::F16 => [C::load_f16(p.cast()), C::load_f16(biases.cast())],
            _ => [C::load_bf16(p.cast()), C::load_bf16(biases.cast())],
        }
    }
}
