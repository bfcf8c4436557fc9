//! Few rows: weights go from memory into registers once, and meet all rows there.
#![expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]

use super::{
    finish::Output,
    layout::{CHUNK, QUADS},
    operand::{Operand, Rows},
    pack::Packed,
    unpack,
};
use crate::simd::{Columns, LINE};

/// Most rows.
pub(super) const ROWS: usize = 8;

/// How far ahead the stream of weights is fetched, bytes.
const AHEAD: usize = 2048;

/// One tile for all `rows`, at most [`ROWS`].
///
/// # Safety
/// The machine has the features of `C`; the operand is one of this matrix, with `rows` rows; nobody else computes this
/// tile.
#[inline(always)]
pub(super) unsafe fn tile<C: Columns>(
    packed: &Packed,
    tile: usize,
    operand: &Operand,
    rows: usize,
    output: &Output<'_>,
) {
    // SAFETY: as the caller's.
    unsafe {
        match packed.layout.bits {
            2 => of::<C, 2>(packed, tile, operand, rows, output),
            3 => of::<C, 3>(packed, tile, operand, rows, output),
            4 => of::<C, 4>(packed, tile, operand, rows, output),
            5 => of::<C, 5>(packed, tile, operand, rows, output),
            6 => of::<C, 6>(packed, tile, operand, rows, output),
            _ => of::<C, 8>(packed, tile, operand, rows, output),
        }
    }
}

/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn of<C: Columns, const BITS: usize>(
    packed: &Packed,
    tile: usize,
    operand: &Operand,
    rows: usize,
    output: &Output<'_>,
) {
    // SAFETY: as the caller's; an operand has memory for more rows than it has, and those are not written.
    unsafe {
        match rows {
            1 => rows_of::<C, BITS, 1, 4>(packed, tile, operand, rows, output),
            2 => rows_of::<C, BITS, 2, 2>(packed, tile, operand, rows, output),
            3 | 4 => rows_of::<C, BITS, 4, 2>(packed, tile, operand, rows, output),
            _ => rows_of::<C, BITS, 8, 1>(packed, tile, operand, rows, output),
        }
    }
}

/// `M` rows, of which the first `rows` are written.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn rows_of<C: Columns, const BITS: usize, const M: usize, const A: usize>(
    packed: &Packed,
    tile: usize,
    operand: &Operand,
    rows: usize,
    output: &Output<'_>,
) {
    // SAFETY: as the caller's.
    unsafe {
        let sums = sums::<C, BITS, M, A>(packed, tile, operand.rows(0));
        for m in 0..M {
            if m < rows {
                output.write::<C>(m, tile, sums[m]);
            }
        }
    }
}

/// The sums of `M` rows. Whole numbers are summed in `A` registers for each row, so that products need not wait for
/// each other.
///
/// # Safety
/// As [`tile`], with memory for `M` rows.
#[inline(always)]
unsafe fn sums<C: Columns, const BITS: usize, const M: usize, const A: usize>(
    packed: &Packed,
    tile: usize,
    x: Rows,
) -> [C::Floats; M] {
    let layout = &packed.layout;
    let (mut p, mut q, mut factors) = (packed.tile(tile), x.q, x.factors);
    // SAFETY: the tile has as many blocks, and the operand as many groups; what is fetched ahead need not be there.
    unsafe {
        let mut sums = [C::splat_f32(0.0); M];
        for _ in 0..layout.blocks() {
            let header = p;
            C::prefetch(header.wrapping_add(AHEAD));
            p = p.add(layout.header());
            if layout.group < CHUNK {
                let quads = unpack::chunk::<C, BITS>(p);
                ahead::<C, BITS>(p);
                for half in 0..2 {
                    let mut ints = [C::zero(); M];
                    for i in 0..QUADS / 2 {
                        for m in 0..M {
                            let x = C::splat(q.add(m * x.stride + 4 * i));
                            ints[m] = C::dot(ints[m], quads[half * QUADS / 2 + i], x, BITS == 8);
                        }
                    }
                    let scales = unpack::factors::<C>(layout, header.add(half * 2 * layout.scales()));
                    add::<C, M>(&mut sums, ints, scales, factors);
                    q = q.add(CHUNK / 2);
                    factors = factors.add(x.factor_stride);
                }
                p = p.add(layout.chunk());
            } else {
                let mut ints = [[C::zero(); A]; M];
                for _ in 0..layout.group / CHUNK {
                    let quads = unpack::chunk::<C, BITS>(p);
                    ahead::<C, BITS>(p);
                    for i in 0..QUADS {
                        for m in 0..M {
                            let x = C::splat(q.add(m * x.stride + 4 * i));
                            ints[m][i % A] = C::dot(ints[m][i % A], quads[i], x, BITS == 8);
                        }
                    }
                    q = q.add(CHUNK);
                    p = p.add(layout.chunk());
                }
                let mut whole = [C::zero(); M];
                for m in 0..M {
                    whole[m] = ints[m][0];
                    for a in 1..A {
                        whole[m] = C::add(whole[m], ints[m][a]);
                    }
                }
                add::<C, M>(&mut sums, whole, unpack::factors::<C>(layout, header), factors);
                factors = factors.add(x.factor_stride);
            }
        }
        sums
    }
}

/// Fetches the chunk that comes some time after the one at `p`.
///
/// # Safety
/// The machine has the features of `C`.
#[inline(always)]
unsafe fn ahead<C: Columns, const BITS: usize>(p: *const u8) {
    for i in 0..BITS {
        // SAFETY: as the caller's.
        unsafe { C::prefetch(p.wrapping_add(AHEAD + i * LINE)) };
    }
}

/// Adds a group to the sums of its rows.
///
/// # Safety
/// `factors` has pairs of `M` rows; the machine has the features of `C`.
#[inline(always)]
pub(super) unsafe fn add<C: Columns, const M: usize>(
    sums: &mut [C::Floats; M],
    ints: [C::Ints; M],
    [scale, bias]: [C::Floats; 2],
    factors: *const f32,
) {
    // SAFETY: as the caller's.
    unsafe {
        for m in 0..M {
            let factor = C::mul(scale, C::splat_f32(*factors.add(2 * m)));
            sums[m] = C::mul_add(C::to_floats(ints[m]), factor, sums[m]);
            sums[m] = C::mul_add(bias, C::splat_f32(*factors.add(2 * m + 1)), sums[m]);
        }
    }
}
