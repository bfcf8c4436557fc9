//! Few rows: weights go from memory into registers, and meet up to eight rows there; more rows take them once more from
//! the cache, where they still are. They are one stream: for one row, the hardware fetches it ahead better than
//! our own instructions do; for more it falls behind, so a part is fetched into the second-level cache long before it is
//! needed, and a smaller one into the first.
#![expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]

use super::{
    layout::{CHUNK, QUADS},
    operand::{Operand, Rows},
    pack::Packed,
    unpack,
};
use crate::simd::{Columns, LINE};

/// Most rows whose sums are in registers at a time, at any level.
pub(super) const ROWS: usize = 8;

/// Most rows where so many sums are: with more, it is quicker to unpack weights once for all.
const MOST: usize = 32;

/// How far ahead the stream of weights is fetched into the first-level cache, bytes.
const NEAR: usize = 4 << 10;

/// The same, into the second-level cache.
const FAR: usize = 32 << 10;

/// Most rows of a level.
pub(super) fn most_rows<C: Columns>() -> usize {
    if C::WIDE { MOST } else { 2 }
}

/// The sums of one tile for all `rows`, at most [`most_rows`]; to `out`, `[rows, stride]`.
///
/// # Safety
/// The machine has the features of `C`; the operand is one of this matrix, with `rows` rows; `out` has room.
#[inline(always)]
pub(super) unsafe fn tile<C: Columns>(
    packed: &Packed,
    tile: usize,
    operand: &Operand,
    rows: usize,
    out: *mut f32,
    stride: usize,
) {
    for first in (0..rows).step_by(ROWS) {
        let (x, some) = (operand.rows(first), ROWS.min(rows - first));
        // SAFETY: as the caller's.
        unsafe { pass::<C>(packed, packed.tile(tile), x, some, out.add(first * stride), stride) };
    }
}

/// The same for the rows from `x` on, at most [`ROWS`].
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn pass<C: Columns>(
    packed: &Packed,
    tile: *const u8,
    x: Rows,
    rows: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller's.
    unsafe {
        if rows == 1 {
            let [sums] = match packed.layout.bits {
                4 => sums::<C, false, 4, 1, 4>(packed, tile, x),
                8 if C::SPLITS => sums::<C, true, 8, 1, 4>(packed, tile, x),
                8 => sums::<C, false, 8, 1, 4>(packed, tile, x),
                _ => sums::<C, false, 0, 1, 4>(packed, tile, x),
            };
            C::store_f32(out, sums);
        } else if C::SPLITS && packed.layout.bits == 8 {
            some::<C, true>(packed, tile, x, rows, out, stride);
        } else {
            some::<C, false>(packed, tile, x, rows, out, stride);
        }
    }
}

/// Two rows or more.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn some<C: Columns, const EIGHT: bool>(
    packed: &Packed,
    tile: *const u8,
    x: Rows,
    rows: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller's; an operand has memory for more rows than it has.
    unsafe {
        let mut all = [C::splat_f32(0.0); ROWS];
        match rows {
            2 => all[..2].copy_from_slice(&sums::<C, EIGHT, 0, 2, 2>(packed, tile, x)),
            3 | 4 if C::WIDE => {
                all[..4].copy_from_slice(&sums::<C, EIGHT, 0, 4, 2>(packed, tile, x));
            }
            _ if C::WIDE => all = sums::<C, EIGHT, 0, ROWS, 1>(packed, tile, x),
            _ => {}
        }
        for row in 0..rows {
            C::store_f32(out.add(row * stride), all[row]);
        }
    }
}

/// The sums of `M` rows. Whole numbers are summed in `A` registers for each row, so that products need not wait for
/// each other. `BITS` is 0 where it is not known.
///
/// # Safety
/// As [`tile`], with memory for `M` rows.
#[inline(always)]
unsafe fn sums<C: Columns, const EIGHT: bool, const BITS: usize, const M: usize, const A: usize>(
    packed: &Packed,
    tile: *const u8,
    x: Rows,
) -> [C::Floats; M] {
    let layout = &packed.layout;
    let bits = if BITS == 0 { layout.bits } else { BITS };
    let (mut p, mut q, mut factors) = (tile, x.q, x.factors);
    // SAFETY: the tile has as many blocks, and the operand as many groups; what is fetched ahead need not be
    // there.
    unsafe {
        let mut sums = [C::splat_f32(0.0); M];
        for _ in 0..layout.blocks() {
            let header = p;
            p = p.add(layout.header());
            let mut ints = [[C::zero(); A]; M];
            for _ in 0..layout.block_cols() / CHUNK {
                let quads = unpack::chunk::<C>(bits, p);
                for i in (0..bits).filter(|_| M > 1) {
                    C::prefetch(p.wrapping_add(NEAR + i * LINE));
                    C::prefetch_far(p.wrapping_add(FAR + i * LINE));
                }
                for i in 0..QUADS {
                    if i == QUADS / 2 && layout.group < CHUNK {
                        // Groups of half a chunk: this is the second.
                        let scales = unpack::factors::<C>(layout, header);
                        add::<C, M>(&mut sums, whole::<C, M, A>(&mut ints), scales, factors);
                        factors = factors.add(x.factor_stride);
                    }
                    for m in 0..M {
                        let x = C::splat(q.add(m * x.stride + 4 * i));
                        ints[m][i % A] = C::dot(ints[m][i % A], quads[i], x, EIGHT);
                    }
                }
                q = q.add(CHUNK);
                p = p.add(layout.chunk());
            }
            let last = header.add(layout.header() - 2 * layout.scales());
            let scales = unpack::factors::<C>(layout, last);
            add::<C, M>(&mut sums, whole::<C, M, A>(&mut ints), scales, factors);
            factors = factors.add(x.factor_stride);
        }
        sums
    }
}

/// Adds up the sums of each row, which are zero then.
///
/// # Safety
/// The machine has the features of `C`.
#[inline(always)]
unsafe fn whole<C: Columns, const M: usize, const A: usize>(
    ints: &mut [[C::Ints; A]; M],
) -> [C::Ints; M] {
    // SAFETY: as the caller's.
    unsafe {
        let mut whole = [C::zero(); M];
        for m in 0..M {
            whole[m] = ints[m][0];
            for a in 1..A {
                whole[m] = C::add(whole[m], ints[m][a]);
            }
            ints[m] = [C::zero(); A];
        }
        whole
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
