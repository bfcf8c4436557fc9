//! Products with activations as they are: weights are dequantised in registers.
#![expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]

use super::{
    layout::{CHUNK, QUADS},
    operand::Exact,
    pack::Packed,
    unpack,
};
use crate::simd::{Columns, LINE};

/// Rows at a time.
const M: usize = 4;

/// The sums of one tile for all `rows`; to `out`, `[rows, stride]`.
///
/// # Safety
/// The machine has the features of `C`; the operand is one of this matrix, with `rows` rows; `out` has room.
#[inline(always)]
pub(super) unsafe fn tile<C: Columns>(
    packed: &Packed,
    tile: usize,
    operand: &Exact,
    rows: usize,
    out: *mut f32,
    stride: usize,
) {
    for row in (0..rows).step_by(M) {
        // SAFETY: as the caller's; an operand has memory for more rows than it has.
        unsafe {
            let x = operand.x[row * operand.stride..].as_ptr();
            let sums = sums::<C>(packed, packed.tile(tile), x, operand.stride);
            for m in 0..M.min(rows - row) {
                C::store_f32(out.add((row + m) * stride), sums[m]);
            }
        }
    }
}

/// The sums of `M` rows. Each of the four bytes of a quad is summed by itself, so that sums need not wait for each
/// other.
///
/// # Safety
/// As [`tile`], with memory for `M` rows.
#[inline(always)]
unsafe fn sums<C: Columns>(
    packed: &Packed,
    tile: *const u8,
    mut x: *const f32,
    stride: usize,
) -> [C::Floats; M] {
    let (layout, mut p) = (&packed.layout, tile);
    let mut bytes = [0u8; QUADS * LINE];
    // SAFETY: the tile has as many blocks, and the rows have as many numbers.
    unsafe {
        let mut sums = [[C::splat_f32(0.0); 4]; M];
        for _ in 0..layout.blocks() {
            let header = p;
            p = p.add(layout.header());
            for chunk in 0..layout.block_cols() / CHUNK {
                let quads = unpack::chunk::<C>(layout.bits, p);
                for i in 0..QUADS {
                    C::store(bytes.as_mut_ptr().add(i * LINE), quads[i]);
                }
                p = p.add(layout.chunk());
                for i in 0..QUADS {
                    let group = (chunk * CHUNK + 4 * i) / layout.group;
                    let factors = header.add(2 * group * layout.scales());
                    let [scale, bias] = unpack::factors::<C>(layout, factors);
                    let quad = C::load(bytes.as_ptr().add(i * LINE));
                    for byte in 0..4 {
                        let w = C::mul_add(C::byte(quad, byte as u32), scale, bias);
                        for m in 0..M {
                            let x = C::splat_f32(*x.add(m * stride));
                            sums[m][byte] = C::mul_add(w, x, sums[m][byte]);
                        }
                        x = x.add(1);
                    }
                }
            }
        }
        let mut whole = [C::splat_f32(0.0); M];
        for m in 0..M {
            let [a, b, c, d] = sums[m];
            whole[m] = C::add_f32(C::add_f32(a, b), C::add_f32(c, d));
        }
        whole
    }
}
