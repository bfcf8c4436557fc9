//! Products with quantised weights, which are packed once at load.
//!
//! For group `g` of a row `x ≈ s·q` and a column `w = u·p + b` (`q`, `p` whole numbers), the product is
//! `Σ_g (Σ q·p)·(s·u) + (s·Σq)·b`. The inner sums are whole numbers of at most 32 bits; the outer one is computed in
//! `f32`, group after group, by the same operations in every kernel. So a row of the result has the same bits
//! alone, in a batch, and in a chunk of a prompt, whichever kernel computes it.

mod few;
mod finish;
mod layout;
mod many;
mod operand;
mod pack;
mod unpack;

pub(super) use operand::Scratch;

use super::Target;
use crate::{
    pool::Pool,
    simd::{COLUMNS, Columns, Kernel, Level, Simd},
};
use finish::{Finish, Output};
use inference_core::Result;
use inference_engine::{arch::Activation, weights};
use operand::{Kind, Operand};
use pack::Packed;
use std::ops::Range;

/// A stack of quantised matrices.
#[derive(Debug)]
pub(super) struct Affine {
    parts: Vec<Part>,
    /// Operands that the parts need.
    kinds: Vec<Kind>,
    /// Outputs.
    rows: usize,
    /// Inputs.
    cols: usize,
    tiles: usize,
}

/// One matrix of a stack.
#[derive(Debug)]
struct Part {
    packed: Packed,
    /// The first row's place in the stack.
    first: usize,
    /// The first tile's place in the stack.
    first_tile: usize,
    /// Which operand it multiplies.
    kind: usize,
}

impl Affine {
    /// The stack of `parts`, packed.
    pub(super) fn new(pool: &Pool, parts: &[&weights::Affine]) -> Result<Self> {
        let mut stack = Self {
            parts: Vec::new(),
            kinds: Vec::new(),
            rows: 0,
            cols: parts[0].cols(),
            tiles: 0,
        };
        for part in parts {
            let kind = Kind { group: part.group(), order: part.order().cloned() };
            let at = stack.kinds.iter().position(|k| *k == kind).unwrap_or_else(|| {
                stack.kinds.push(kind);
                stack.kinds.len() - 1
            });
            let packed = Packed::new(pool, part)?;
            let (first, first_tile) = (stack.rows, stack.tiles);
            stack.rows += packed.rows;
            stack.tiles += packed.tiles();
            stack.parts.push(Part { packed, first, first_tile, kind: at });
        }
        Ok(stack)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row` as `f32`, times `scale`.
    pub(super) fn widen_row(&self, row: usize, scale: f32, out: &mut [f32]) {
        let next = self.parts.partition_point(|p| p.first <= row);
        let part = &self.parts[next - 1];
        match &self.kinds[part.kind].order {
            None => part.packed.widen_row(row - part.first, out),
            Some(order) => {
                let mut columns = vec![0.0; self.cols];
                part.packed.widen_row(row - part.first, &mut columns);
                for (value, input) in columns.into_iter().zip(order.iter()) {
                    out[*input as usize] = value;
                }
            }
        }
        out.iter_mut().for_each(|out| *out *= scale);
    }

    /// Whether its left and its right half have the same tiles.
    pub(super) fn has_halves(&self) -> bool {
        let half = self.tiles / 2;
        self.rows % 2 == 0
            && self.tiles % 2 == 0
            && (0..half).all(|tile| {
                let (left, right) = (self.columns(tile), self.columns(half + tile));
                right.start == left.start + self.rows / 2 && right.len() == left.len()
            })
    }

    /// The part that has tile `tile`.
    fn part(&self, tile: usize) -> &Part {
        let next = self.parts.partition_point(|p| p.first_tile <= tile);
        &self.parts[next - 1]
    }

    /// The columns of the product that tile `tile` has.
    fn columns(&self, tile: usize) -> Range<usize> {
        let part = self.part(tile);
        let first = (tile - part.first_tile) * COLUMNS;
        let end = (first + COLUMNS).min(part.packed.rows);
        part.first + first..part.first + end
    }
}

/// `x·Wᵀ + b`, `[rows, map.cols] → [rows, map.rows]`; with a `gate`, `gate(left half) ⊙ right half` of that, for a map
/// that has halves.
pub(super) fn product(
    level: Level,
    pool: &Pool,
    scratch: &mut Scratch,
    x: &[f32],
    map: &Affine,
    gate: Option<Activation>,
    target: Target<'_>,
) {
    let rows = x.len() / map.cols;
    let operands = scratch.operands(level, pool, x, map.cols, &map.kinds);
    let tiles = if gate.is_some() { map.tiles / 2 } else { map.tiles };
    // Few rows are read at the speed of memory: long streams. Many rows: as much as stays in a core's cache.
    let fair = tiles.div_ceil(4 * pool.threads());
    let grain = if rows <= few::ROWS { fair } else { fair.min(MANY_TILES) };
    pool.ranges(tiles, grain, |tiles| {
        level.run(Tiles { map, operands, rows, tiles, gate, target });
    });
}

/// Tiles that a thread takes at a time for many rows.
const MANY_TILES: usize = 8;

/// Some tiles of a product, for all rows.
struct Tiles<'a> {
    map: &'a Affine,
    operands: &'a [Operand],
    rows: usize,
    tiles: Range<usize>,
    gate: Option<Activation>,
    target: Target<'a>,
}

impl Kernel for Tiles<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let half = self.map.tiles / 2;
        let mut tile = self.tiles.start;
        while tile < self.tiles.end {
            let left = self.tiles.end - tile;
            // SAFETY: the machine has the features of `S`; nobody else computes these tiles.
            tile += unsafe {
                match self.gate {
                    None => self.some::<S::Columns>(tile, left, 0, Finish::Store),
                    Some(activation) => {
                        let left = self.some::<S::Columns>(tile, left, 0, Finish::Store);
                        let right = half + tile;
                        self.some::<S::Columns>(right, left, self.map.rows / 2, Finish::Gate(activation))
                    }
                }
            };
        }
    }
}

impl Tiles<'_> {
    /// Computes at most `most` tiles from `tile` on, of one part; gives how many. Their columns are written `shift` to
    /// the left.
    ///
    /// # Safety
    /// The machine has the features of `C`, and nobody else computes these tiles.
    #[inline(always)]
    unsafe fn some<C: Columns>(&self, tile: usize, most: usize, shift: usize, finish: Finish) -> usize {
        let part = self.map.part(tile);
        let first = tile - part.first_tile;
        let output = Output {
            target: self.target,
            first: part.first - shift,
            bias: self.target.bias.map(|bias| &bias[part.first..part.first + part.packed.rows]),
            columns: part.packed.rows,
            finish,
        };
        let operand = &self.operands[part.kind];
        // SAFETY: the operand has `rows` rows for this part's groups.
        unsafe {
            if self.rows <= few::ROWS {
                few::tile::<C>(&part.packed, first, operand, self.rows, &output);
                1
            } else {
                let tiles = first..(first + most.min(2)).min(part.packed.tiles());
                many::tiles::<C>(&part.packed, tiles.clone(), operand, self.rows, &output);
                tiles.len()
            }
        }
    }
}
