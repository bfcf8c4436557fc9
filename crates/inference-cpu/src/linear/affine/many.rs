//! Many rows: a panel of weights is unpacked once into the core's cache, and all rows pass over it.
#![expect(clippy::needless_range_loop, reason = "registers are indexed, all alike")]

use super::{
    finish::Output,
    layout::{CHUNK, QUADS},
    operand::{Operand, Rows},
    pack::Packed,
    unpack,
};
use crate::simd::{COLUMNS, Columns, LINE};
use std::{cell::RefCell, ops::Range};

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "it is written and read by its address")] [u8; LINE]);

/// A thread's panel; kept from call to call.
#[derive(Default)]
struct Panel {
    /// `[tiles, cols / 4]`: a line for every quad.
    quads: Vec<Line>,
    /// `[tiles, groups, 2]`: scales and biases, widened; a line each.
    factors: Vec<Line>,
}

thread_local! {
    static PANEL: RefCell<Panel> = RefCell::default();
}

/// Unpacked tiles of one width.
#[derive(Clone, Copy)]
struct Unpacked {
    quads: *const u8,
    factors: *const f32,
    /// Bytes from a tile's quads to the next tile's.
    quad_stride: usize,
    /// Numbers from a tile's factors to the next tile's.
    factor_stride: usize,
    groups: usize,
    /// Inputs of a group.
    group: usize,
}

/// At most two tiles for all rows.
///
/// # Safety
/// The machine has the features of `C`; the operand is one of this matrix, with `rows` rows; nobody else computes these
/// tiles.
#[inline(always)]
pub(super) unsafe fn tiles<C: Columns>(
    packed: &Packed,
    tiles: Range<usize>,
    operand: &Operand,
    rows: usize,
    output: &Output<'_>,
) {
    // Taken and put back, since what is inside a closure need not be compiled with the level's features.
    let mut panel = PANEL.take();
    // SAFETY: as the caller's.
    unsafe {
        let unpacked = match packed.layout.bits {
            2 => panel.unpack::<C, 2>(packed, tiles.clone()),
            3 => panel.unpack::<C, 3>(packed, tiles.clone()),
            4 => panel.unpack::<C, 4>(packed, tiles.clone()),
            5 => panel.unpack::<C, 5>(packed, tiles.clone()),
            6 => panel.unpack::<C, 6>(packed, tiles.clone()),
            _ => panel.unpack::<C, 8>(packed, tiles.clone()),
        };
        if packed.layout.bits == 8 {
            all_rows::<C, true>(unpacked, tiles, operand, rows, output);
        } else {
            all_rows::<C, false>(unpacked, tiles, operand, rows, output);
        }
    }
    PANEL.set(panel);
}

impl Panel {
    /// # Safety
    /// The machine has the features of `C`.
    #[inline(always)]
    unsafe fn unpack<C: Columns, const BITS: usize>(
        &mut self,
        packed: &Packed,
        tiles: Range<usize>,
    ) -> Unpacked {
        let layout = &packed.layout;
        let (quads, factors) = (layout.blocks() * layout.block_cols() / 4, 2 * layout.groups());
        let empty = Line([0; LINE]);
        if self.quads.len() < tiles.len() * quads {
            self.quads.resize(tiles.len() * quads, empty);
        }
        if self.factors.len() < tiles.len() * factors {
            self.factors.resize(tiles.len() * factors, empty);
        }
        let (mut q, mut f) =
            (self.quads.as_mut_ptr().cast::<u8>(), self.factors.as_mut_ptr().cast::<f32>());
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
                        let quads = unpack::chunk::<C, BITS>(p);
                        for i in 0..QUADS {
                            C::store(q.add(i * LINE), quads[i]);
                        }
                        q = q.add(QUADS * LINE);
                        p = p.add(layout.chunk());
                    }
                }
            }
        }
        Unpacked {
            quads: self.quads.as_ptr().cast(),
            factors: self.factors.as_ptr().cast(),
            quad_stride: quads * LINE,
            factor_stride: factors * COLUMNS,
            groups: layout.groups(),
            group: layout.group,
        }
    }
}

/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn all_rows<C: Columns, const EIGHT: bool>(
    w: Unpacked,
    tiles: Range<usize>,
    operand: &Operand,
    rows: usize,
    output: &Output<'_>,
) {
    let mut row = 0;
    while row < rows {
        // SAFETY: as the caller's.
        row += unsafe {
            match (C::WIDE, rows - row) {
                (true, 6..) => strip::<C, EIGHT, 6, 2>(w, tiles.clone(), operand, row, output),
                (true, 4..) => strip::<C, EIGHT, 4, 2>(w, tiles.clone(), operand, row, output),
                (_, 2..) => strip::<C, EIGHT, 2, 1>(w, tiles.clone(), operand, row, output),
                _ => strip::<C, EIGHT, 1, 1>(w, tiles.clone(), operand, row, output),
            }
        };
    }
}

/// `M` rows by all tiles, at most `T` at a time; gives `M`.
///
/// # Safety
/// As [`tiles`], for the `M` rows from `row` on.
#[inline(always)]
unsafe fn strip<C: Columns, const EIGHT: bool, const M: usize, const T: usize>(
    w: Unpacked,
    tiles: Range<usize>,
    operand: &Operand,
    row: usize,
    output: &Output<'_>,
) -> usize {
    let mut at = 0;
    while at < tiles.len() {
        // SAFETY: as the caller's.
        unsafe {
            let x = operand.rows(row);
            let w = Unpacked {
                quads: w.quads.add(at * w.quad_stride),
                factors: w.factors.add(at * w.factor_stride),
                ..w
            };
            if tiles.len() - at >= T {
                let sums = sums::<C, EIGHT, M, T>(w, x);
                for t in 0..T {
                    for m in 0..M {
                        output.write::<C>(row + m, tiles.start + at + t, sums[t][m]);
                    }
                }
                at += T;
            } else {
                let sums = sums::<C, EIGHT, M, 1>(w, x);
                for m in 0..M {
                    output.write::<C>(row + m, tiles.start + at, sums[0][m]);
                }
                at += 1;
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
    w: Unpacked,
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
