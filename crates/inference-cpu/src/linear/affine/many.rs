//! Many rows: some weights are unpacked into the first-level cache, and all rows pass over them before the next ones.
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

/// Inputs of a panel, a multiple of every block: it stays in the first-level cache with some rows beside it.
const INPUTS: usize = 512;

/// Unpacked tiles, some inputs of them.
#[derive(Clone, Copy)]
struct Panel {
    /// `[tiles, inputs / 4]`: a line for every quad; two as [`Columns::pair`] has them where there are products of
    /// matrices.
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
    let layout = &packed.layout;
    let step = INPUTS / layout.block_cols();
    for start in (0..layout.blocks()).step_by(step) {
        let blocks = start..(start + step).min(layout.blocks());
        let (input, group) = (start * layout.block_cols(), start * layout.groups_per_block());
        let place = Place { input, group, out, stride };
        // What is unpacked next: more inputs, or else the next tiles.
        let next = if blocks.end < layout.blocks() {
            step * layout.block()
        } else {
            TILES * layout.tile() - start * layout.block()
        };
        // SAFETY: as the caller's.
        unsafe {
            let w = unpack::<C>(packed, tiles.clone(), blocks, next, space);
            if C::SPLITS && layout.bits == 8 {
                all_rows::<C, true>(w, tiles.len(), operand, rows, place);
            } else {
                all_rows::<C, false>(w, tiles.len(), operand, rows, place);
            }
        }
    }
}

/// Where a panel lies in its matrix, and where its sums go.
#[derive(Clone, Copy)]
struct Place {
    /// The first input.
    input: usize,
    /// Its group.
    group: usize,
    out: *mut f32,
    stride: usize,
}

/// Unpacks some blocks, and fetches those that begin `next` bytes behind.
///
/// # Safety
/// The machine has the features of `C`.
#[inline(always)]
unsafe fn unpack<C: Columns>(
    packed: &Packed,
    tiles: Range<usize>,
    blocks: Range<usize>,
    next: usize,
    space: &mut Space,
) -> Panel {
    let layout = &packed.layout;
    let groups = blocks.len() * layout.groups_per_block();
    let (quads, factors) = (blocks.len() * layout.block_cols() / 4, 2 * groups);
    let panel = Panel {
        quads: space.quads(tiles.len() * quads).cast_const(),
        factors: space.factors(tiles.len() * factors).cast_const(),
        quad_stride: quads * LINE,
        factor_stride: factors * COLUMNS,
        groups,
        group: layout.group,
    };
    let (mut q, mut f) = (panel.quads.cast_mut(), panel.factors.cast_mut());
    // SAFETY: the tiles have as many blocks, and the panel a line for every quad and factor of them.
    unsafe {
        for tile in tiles {
            let mut p = packed.tile(tile).add(blocks.start * layout.block());
            for _ in blocks.clone() {
                for i in 0..layout.groups_per_block() {
                    let [scale, bias] =
                        unpack::factors::<C>(layout, p.add(i * 2 * layout.scales()));
                    C::store_f32(f, scale);
                    C::store_f32(f.add(COLUMNS), bias);
                    f = f.add(2 * COLUMNS);
                }
                for i in 0..layout.header().div_ceil(LINE) {
                    C::prefetch_far(p.wrapping_add(next + i * LINE));
                }
                p = p.add(layout.header());
                for _ in 0..layout.block_cols() / CHUNK {
                    let quads = unpack::chunk::<C>(layout.bits, p);
                    for i in 0..layout.bits {
                        C::prefetch_far(p.wrapping_add(next + i * LINE));
                    }
                    for i in 0..QUADS / 2 {
                        let mut two = [quads[2 * i], quads[2 * i + 1]];
                        if C::MATRIX {
                            two = C::pair(two);
                        }
                        C::store(q.add(2 * i * LINE), two[0]);
                        C::store(q.add((2 * i + 1) * LINE), two[1]);
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
    place: Place,
) {
    let mut row = 0;
    while row < rows {
        // SAFETY: as the caller's.
        unsafe {
            let x = operand.rows(row).from(place.input, place.group);
            let place = Place { out: place.out.add(row * place.stride), ..place };
            row += match (C::WIDE, tiles, rows - row) {
                (true, 2, 6..) => sums::<C, EIGHT, 6, 2>(w, x, place),
                (true, 2, 4..) => sums::<C, EIGHT, 4, 2>(w, x, place),
                (true, 2, 2..) => sums::<C, EIGHT, 2, 2>(w, x, place),
                (_, _, left) => {
                    // One tile after the other. Products of matrices take rows in twos, also beyond the last.
                    let n = if C::MATRIX { left.min(3).next_multiple_of(2) } else { left.min(2) };
                    for tile in 0..tiles {
                        let w = Panel {
                            quads: w.quads.add(tile * w.quad_stride),
                            factors: w.factors.add(tile * w.factor_stride),
                            ..w
                        };
                        let place = Place { out: place.out.add(tile * COLUMNS), ..place };
                        match n {
                            4 if C::MATRIX => sums::<C, EIGHT, 4, 1>(w, x, place),
                            2 => sums::<C, EIGHT, 2, 1>(w, x, place),
                            _ => sums::<C, EIGHT, 1, 1>(w, x, place),
                        };
                    }
                    n
                }
            }
        };
    }
}

/// The sums of `M` rows by `T` tiles, added to those of the inputs before; gives `M`.
///
/// # Safety
/// There are so many, and room for their sums; the machine has the features of `C`.
#[inline(always)]
unsafe fn sums<C: Columns, const EIGHT: bool, const M: usize, const T: usize>(
    w: Panel,
    x: Rows,
    place: Place,
) -> usize {
    let (mut p, mut q, mut weights, mut factors) = (w.quads, x.q, w.factors, x.factors);
    // SAFETY: the panel has a line for every quad, and so has the operand.
    unsafe {
        let mut sums = [[C::splat_f32(0.0); M]; T];
        if place.input > 0 {
            for t in 0..T {
                for m in 0..M {
                    sums[t][m] = C::load_f32(place.out.add(m * place.stride + t * COLUMNS));
                }
            }
        }
        for _ in 0..w.groups {
            let mut ints = [[C::zero(); M]; T];
            for _ in 0..w.group / 16 {
                if C::MATRIX {
                    for i in 0..2 {
                        for t in 0..T {
                            let w = p.add(t * w.quad_stride + 2 * i * LINE);
                            let w = [C::load(w), C::load(w.add(LINE))];
                            for m in 0..M / 2 {
                                let first = q.add(2 * m * x.stride + 8 * i);
                                let two = [ints[t][2 * m], ints[t][2 * m + 1]];
                                let two = C::dot_rows(two, w, [first, first.add(x.stride)]);
                                ints[t][2 * m] = two[0];
                                ints[t][2 * m + 1] = two[1];
                            }
                        }
                    }
                } else {
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
                }
                p = p.add(4 * LINE);
                q = q.add(16);
            }
            for t in 0..T {
                if C::MATRIX {
                    for m in 0..M / 2 {
                        let two = C::rows([ints[t][2 * m], ints[t][2 * m + 1]]);
                        ints[t][2 * m] = two[0];
                        ints[t][2 * m + 1] = two[1];
                    }
                }
                let scale = C::load_f32(weights.add(t * w.factor_stride));
                let bias = C::load_f32(weights.add(t * w.factor_stride + COLUMNS));
                super::few::add::<C, M>(&mut sums[t], ints[t], [scale, bias], factors);
            }
            weights = weights.add(2 * COLUMNS);
            factors = factors.add(x.factor_stride);
        }
        for t in 0..T {
            for m in 0..M {
                C::store_f32(place.out.add(m * place.stride + t * COLUMNS), sums[t][m]);
            }
        }
    }
    M
}
