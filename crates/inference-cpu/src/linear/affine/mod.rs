//! Products with quantised weights, which are packed once at load.
//!
//! For group `g` of a row `x ≈ s·q` and a column `w = u·p + b` (`q`, `p` whole numbers), the product is
//! `Σ_g (Σ q·p)·(s·u) + (s·Σq)·b`. The inner sums are whole numbers of at most 32 bits; the outer one is computed in
//! `f32`, group after group, by the same operations in every kernel. So a row of the result has the same bits
//! alone, in a batch, and in a chunk of a prompt, whichever kernel computes it.

mod exact;
mod few;
mod finish;
mod layout;
mod many;
mod operand;
mod pack;
mod space;
mod unpack;

pub(super) use operand::Scratch;

use super::{Finish, Target};
use crate::{
    memory::Store,
    pool::Pool,
    simd::{COLUMNS, Kernel, LINE, Level, Simd},
};
use finish::Sums;
use inference_core::Result;
use inference_engine::weights;
use operand::{Kind, Operands};
use pack::Packed;
use space::Space;
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
    pub(super) fn new(pool: &Pool, store: &Store, parts: &[&weights::Affine]) -> Result<Self> {
        let mut stack =
            Self { parts: Vec::new(), kinds: Vec::new(), rows: 0, cols: parts[0].cols(), tiles: 0 };
        for part in parts {
            let kind = Kind { group: part.group(), order: part.order().cloned() };
            let at = stack.kinds.iter().position(|k| *k == kind).unwrap_or_else(|| {
                stack.kinds.push(kind);
                stack.kinds.len() - 1
            });
            let packed = Packed::new(pool, store, part)?;
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
        match &self.parts[..] {
            [one] => one.packed.rows % (2 * COLUMNS) == 0,
            [left, right] => left.packed.rows == right.packed.rows,
            _ => false,
        }
    }

    /// The part that has tile `tile`.
    fn part(&self, tile: usize) -> &Part {
        let next = self.parts.partition_point(|p| p.first_tile <= tile);
        &self.parts[next - 1]
    }
}

/// `x·Wᵀ + b` of a stack, and what follows; for a gate, of a stack that has halves.
pub(super) struct Product<'a> {
    pub(super) level: Level,
    pub(super) pool: &'a Pool,
    /// `[rows, map.cols]`
    pub(super) x: &'a [f32],
    pub(super) map: &'a Affine,
    pub(super) finish: Finish,
    pub(super) target: Target<'a>,
}

/// Tiles that a thread takes at a time where there are many rows: as many as stay in its cache while those pass.
const MANY_TILES: usize = 8;

/// Bytes of weights that it takes at a time where there are few.
const FEW_BYTES: usize = 32 << 10;

/// Parts of a product for each thread, at least, so that all end at about the same time: where there are few rows, and
/// where there are many, with which a part takes longer.
const PARTS: [usize; 2] = [8, 16];

impl Product<'_> {
    /// Computes; `exact`ly, or with quantised activations.
    pub(super) fn run(&self, scratch: &mut Scratch, exact: bool) {
        let Self { level, pool, x, map, finish, target } = *self;
        let rows = x.len() / map.cols;
        let operands = scratch.operands(level, pool, x, map.cols, &map.kinds, exact);
        let tiles = finish.columns(map.tiles);
        let bytes = map.parts.iter().map(|p| p.packed.layout.tile()).max().unwrap_or(1);
        let [few, many] = PARTS;
        let (most, parts) =
            if rows <= level.run(MostFew) { (FEW_BYTES / bytes, few) } else { (MANY_TILES, many) };
        let grain = most.min(tiles.div_ceil(parts * pool.threads())).max(1);
        let all = Tiles { level, map, operands, rows, finish, target };
        // SAFETY: `ranges` hands out every tile once.
        pool.ranges(tiles, grain, |tiles| unsafe { all.compute(tiles) });
    }
}

/// Up to how many rows weights are read as one stream.
struct MostFew;

impl Kernel for MostFew {
    type Output = usize;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        few::most_rows::<S::Columns>()
    }
}

/// Some tiles of a product, for all rows.
struct Tiles<'a> {
    level: Level,
    map: &'a Affine,
    operands: Operands<'a>,
    rows: usize,
    finish: Finish,
    target: Target<'a>,
}

impl Tiles<'_> {
    /// # Safety
    /// Nobody else computes these tiles.
    unsafe fn compute(&self, tiles: Range<usize>) {
        let mut space = Space::take();
        let mut tile = tiles.start;
        while tile < tiles.end {
            // SAFETY: as the caller's.
            tile += unsafe { self.some(tile, tiles.end - tile, &mut space) };
        }
        space.back();
    }

    /// Computes at most `most` tiles from `tile` on, of one part, and for a gate as many of the right half; gives how
    /// many.
    ///
    /// # Safety
    /// Nobody else computes these tiles.
    unsafe fn some(&self, tile: usize, most: usize, space: &mut Space) -> usize {
        let (level, operands, rows, stride) =
            (self.level, self.operands, self.rows, most * COLUMNS);
        let gates = matches!(self.finish, Finish::Gate(_));
        // Kernels may write rows beyond the last.
        let len = rows.next_multiple_of(few::ROWS) * stride;
        let out = space.sums((1 + usize::from(gates)) * len * size_of::<f32>() / LINE);
        let mut half = |tile: usize, out: *mut f32| {
            let part = self.map.part(tile);
            let first = tile - part.first_tile;
            let tiles = first..(first + most).min(part.packed.tiles());
            let space = &mut *space;
            // SAFETY: the space has room for each half, and nobody else has it.
            let sums = unsafe {
                level.run(Sum { part, tiles: tiles.clone(), operands, rows, space, out, stride });
                std::slice::from_raw_parts_mut(out, rows * stride)
            };
            Sums { part, tiles, sums, stride }
        };
        let left = half(tile, out);
        let right = gates.then(|| half(tile + self.map.tiles / 2, out.wrapping_add(len)));
        let n = left.tiles.len();
        level.run(Write { left, right, of: self });
        n
    }
}

/// The sums of some tiles of a part.
struct Sum<'a> {
    part: &'a Part,
    tiles: Range<usize>,
    operands: Operands<'a>,
    rows: usize,
    space: &'a mut Space,
    /// `[rows, stride]`
    out: *mut f32,
    stride: usize,
}

impl Kernel for Sum<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { part, tiles, operands, rows, space, out, stride } = self;
        let packed = &part.packed;
        // SAFETY: the operands have `rows` rows for this part's groups, and `out` has room for as many.
        unsafe {
            match operands {
                Operands::Exact(operands) => {
                    for (i, tile) in tiles.enumerate() {
                        let (x, out) = (&operands[part.kind], out.add(i * COLUMNS));
                        exact::tile::<S::Columns>(packed, tile, x, rows, out, stride);
                    }
                }
                Operands::Quantised(operands) if rows <= few::most_rows::<S::Columns>() => {
                    for (i, tile) in tiles.enumerate() {
                        let (x, out) = (&operands[part.kind], out.add(i * COLUMNS));
                        few::tile::<S::Columns>(packed, tile, x, rows, out, stride);
                    }
                }
                Operands::Quantised(operands) => {
                    let (x, mut out) = (&operands[part.kind], out);
                    for start in tiles.clone().step_by(many::TILES) {
                        let some = start..(start + many::TILES).min(tiles.end);
                        many::tiles::<S::Columns>(packed, some, x, rows, space, out, stride);
                        out = out.add(many::TILES * COLUMNS);
                    }
                }
            }
        }
    }
}

/// Writes sums to the result, with what follows the product; for a gate, those of both halves.
struct Write<'a> {
    left: Sums<'a>,
    right: Option<Sums<'a>>,
    of: &'a Tiles<'a>,
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { left, right, of } = self;
        // SAFETY: nobody else uses these columns, as the caller of `Tiles::some` vouches.
        unsafe { left.write::<S>(right, of.rows, &of.target, of.finish) }
    }
}

#[cfg(test)]
mod tests;
