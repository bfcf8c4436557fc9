//! Many rows: a panel of weights is unpacked once into the core's cache, and all rows pass over it.
#![expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]

use super::{
    layout::{CHUNK, QUADS},
    operand::{Operand, Rows},
    pack::Packed,
    space::Space,
    unpack,
};
use crate::simd::{COLUMNS, Columns, LINE};
use std::ops::Range;

/// Most tiles of a panel.
pub(super) const TILES: usize = 2;

/// Unpacked tiles.
#[derive(Clone, Copy)]
struct Panel {
    /// `[tiles, cols / 4]`: a line for every quad.
    quads: *const u8,
    /// `[tiles, groups, 2]`: scales and biases, widened; a line each.
    factors: *const f32,
    /// Bytes from a tile's quads to the next tile's.
    quad_stride: usize,
    /// Numbers from a tile's factors to the next tile's.
    factor_stride: usize,
    groups: usize,
    /// Inputs of a group.
    group: usize,
}

/// The sums of at most [`TILES`] tiles for all rows; to `out`, `[rows, stride]`, a tile beside the other.
///
/// # Safety
/// The machine has the features of `C`; the operand is one of this matrix, with `rows` rows; `out` has room.
#[inline(always)]
pub(super) unsafe fn tiles<C: Columns>(
    packed: &Packed,
    tiles: Range<usize>,
    operand: &Operand,
    rows: usize,
    space: &mut Space,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller's.
    unsafe {
        let w = unpack::<C>(packed, tiles.clone(), space);
        if C::SPLITS && packed.layout.bits == 8 {
            all_rows::<C, true>(w, tiles.len(), operand, rows, out, stride);
        } else {
            all_rows::<C, false>(w, tiles.len(), operand, rows, out, stride);
        }
    }
}

/// # Safety
/// The machine has the features of `C`.
#[inline(always)]
unsafe fn unpack<C: Columns>(packed: &Packed, tiles: Range<usize>, space: &mut Space) -> Panel {
    let layout = &packed.layout;
    let (quads, factors) = (layout.blocks() * layout.block_cols() / 4, 2 * layout.groups());
    let panel = Panel {
        quads: space.quads(tiles.len() * quads).cast_const(),
        factors: space.factors(tiles.len() * factors).cast_const(),
        quad_stride: quads * LINE,
        factor_stride: factors * COLUMNS,
        groups: layout.groups(),
        group: layout.group,
    };
    let (mut q, mut f) = (panel.quads.cast_mut(), panel.factors.cast_mut());
    // SAFETY: the tiles have as many blocks, and the panel a line for every quad and factor of them.
    unsafe {
        for tile in tiles {
            let mut p = packed.tile(tile);
            for _ in 0..layout.blocks() {
                for i in 0..layout.groups_per_block() {
                    let [scale, bias] =
                        unpack::factors::<C>(layout, p.add(i * 2 * layout.scales()));
                    C::store_f32(f, scale);
                    C::store_f32(f.add(COLUMNS), bias);
                    f = f.add(2 * COLUMNS);
                }
                p = p.add(layout.header());
                for _ in 0..layout.block_cols() / CHUNK {
                    let quads = unpack::chunk::<C>(layout.bits, p);
                    for i in 0..QUADS {
                        C::store(q.add(i * LINE), quads[i]);
                    }
                    q = q.add(QUADS * LINE);
                    p = p.add(layout.chunk());
                }
            }
        }
    }
    panel
}

/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn all_rows<C: Columns, const EIGHT: bool>(
    w: Panel,
    tiles: usize,
    operand: &Operand,
    rows: usize,
    out: *mut f32,
    stride: usize,
) {
    let mut row = 0;
    while row < rows {
        // SAFETY: as the caller's.
        unsafe {
            let (x, out) = (operand.rows(row), out.add(row * stride));
            row += match (C::WIDE, tiles, rows - row) {
                (true, 2, 6..) => store::<C, EIGHT, 6, 2>(w, x, out, stride),
                (true, 2, 2..) => store::<C, EIGHT, 2, 2>(w, x, out, stride),
                (_, 1, 2..) => store::<C, EIGHT, 2, 1>(w, x, out, stride),
                (_, 1, _) => store::<C, EIGHT, 1, 1>(w, x, out, stride),
                (_, _, left) => {
                    // One tile after the other.
                    let n = left.min(2);
                    let second = Panel {
                        quads: w.quads.add(w.quad_stride),
                        factors: w.factors.add(w.factor_stride),
                        ..w
                    };
                    for (w, out) in [(w, out), (second, out.add(COLUMNS))] {
                        if n == 2 {
                            store::<C, EIGHT, 2, 1>(w, x, out, stride);
                        } else {
                            store::<C, EIGHT, 1, 1>(w, x, out, stride);
                        }
                    }
                    n
                }
            }
        };
    }
}

/// Stores the sums of `M` rows by `T` tiles; gives `M`.
///
/// # Safety
/// As [`sums`]; `out` has room for `M` rows.
#[inline(always)]
unsafe fn store<C: Columns, const EIGHT: bool, const M: usize, const T: usize>(
    w: Panel,
    x: Rows,
    out: *mut f32,
    stride: usize,
) -> usize {
    // SAFETY: as the caller's.
    unsafe {
        let sums = sums::<C, EIGHT, M, T>(w, x);
        for t in 0..T {
            for m in 0..M {
                C::store_f32(out.add(m * stride + t * COLUMNS), sums[t][m]);
            }
        }
    }
    M
}

/// The sums of `M` rows by `T` tiles.
///
/// # Safety
/// There are so many; the machine has the features of `C`.
#[inline(always)]
unsafe fn sums<C: Columns, const EIGHT: bool, const M: usize, const T: usize>(
    w: Panel,
    x: Rows,
) -> [[C::Floats; M]; T] {
    let (mut p, mut q, mut weights, mut factors) = (w.quads, x.q, w.factors, x.factors);
    // SAFETY: the panel has a line for every quad, and so has the operand.
    unsafe {
        let mut sums = [[C::splat_f32(0.0); M]; T];
        for _ in 0..w.groups {
            let mut ints = [[C::zero(); M]; T];
            for _ in 0..w.group / 16 {
                for i in 0..4 {
                    let mut ws = [C::zero(); T];
                    for t in 0..T {
                        ws[t] = C::load(p.add(t * w.quad_stride + i * LINE));
                    }
                    for m in 0..M {
                        let xs = C::splat(q.add(m * x.stride + 4 * i));
                        for t in 0..T {
                            ints[t][m] = C::dot(ints[t][m], ws[t], xs, EIGHT);
                        }
                    }
                }
                p = p.add(4 * LINE);
                q = q.add(16);
            }
            for t in 0..T {
                let scale = C::load_f32(weights.add(t * w.factor_stride));
                let bias = C::load_f32(weights.add(t * w.factor_stride + COLUMNS));
                super::few::add::<C, M>(&mut sums[t], ints[t], [scale, bias], factors);
            }
            weights = weights.add(2 * COLUMNS);
            factors = factors.add(x.factor_stride);
        }
        sums
    }
}
