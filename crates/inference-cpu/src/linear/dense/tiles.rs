//! Products of bf16 in tiles: sixteen weights by up to sixteen rows of activations, 32 inputs at a time.
//!
//! Weights are the left operand, whose rows lie in a tile as they lie in the file. Each sum runs along the inputs in
//! order, however many rows there are.

use super::{
    Dense,
    operand::STRIDE,
    panel::{Sums, Workspace},
};
use crate::simd::{
    Simd,
    amx::{Shape, Tiles},
};

/// Rows of activations in a unit, at most; outputs of a tile.
pub(super) const WIDTH: usize = 16;

/// Inputs of which some weights stay in the first-level cache while activations pass by.
const BLOCK: usize = 512;

/// Numbers in a tile of sums, and in a tile of weights with all its rows.
const SUMS: usize = WIDTH * WIDTH;
const WEIGHTS: usize = WIDTH * STRIDE;

/// What a tile's row of weights holds.
type Step = [u16; STRIDE];

/// Activations in tiles.
pub(super) struct Product<'a> {
    pub(super) map: &'a Dense,
    /// `[unit, pair of inputs, width, 2]`
    pub(super) x: *const u16,
    pub(super) units: usize,
    /// Rows of a unit.
    pub(super) width: usize,
    /// Inputs, a multiple of [`STRIDE`]; what is beyond the map's columns is 0.
    pub(super) stride: usize,
}

impl Product<'_> {
    /// All units against `n` rows of the map from `first` on.
    ///
    /// # Safety
    /// The machine has AMX and the features of `S`; `x` is as it says, and `sums` has room for all.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(
        &self,
        first: usize,
        n: usize,
        space: &mut Workspace,
        sums: Sums,
    ) {
        let c = Shape { rows: WIDTH, bytes: 4 * self.width };
        let (a, b) = (Shape { rows: WIDTH, bytes: 2 * STRIDE }, c);
        // SAFETY: the caller vouches for AMX; tiles are released before this function returns.
        unsafe {
            let tiles = Tiles::configure([c, c, c, c, a, a, b, b]);
            if self.units == 1 {
                self.few::<S>(&tiles, first, n, space, sums);
            } else {
                self.many::<S>(&tiles, first, n, space, sums);
            }
        }
    }

    /// Where sixteen rows of weights lie together, whole tiles of them; else `None`.
    fn whole(&self, first: usize, n: usize) -> Option<*const u8> {
        let (w, together) = self.map.row(first);
        (n >= WIDTH && together >= WIDTH && self.map.cols.is_multiple_of(STRIDE)).then_some(w)
    }

    /// Copies up to sixteen rows of weights to `[step, 16, 32]`, for inputs `start..start + len`; what is missing is 0.
    ///
    /// # Safety
    /// There are as many rows, and `to` has room.
    #[inline(always)]
    unsafe fn copy(&self, first: usize, n: usize, start: usize, len: usize, to: *mut u16) {
        let whole = len.min((self.map.cols - start) / STRIDE * STRIDE);
        for r in 0..WIDTH {
            // SAFETY: reads stay inside the row, writes inside of `to`.
            unsafe {
                let to = to.add(r * STRIDE);
                if r >= n {
                    for i in (0..len).step_by(STRIDE) {
                        to.add(i * WIDTH).cast::<Step>().write_unaligned([0; STRIDE]);
                    }
                    continue;
                }
                let from = self.map.row(first + r).0.cast::<u16>().add(start);
                for i in (0..whole).step_by(STRIDE) {
                    let step = from.add(i).cast::<Step>().read_unaligned();
                    to.add(i * WIDTH).cast::<Step>().write_unaligned(step);
                }
                if whole < len {
                    let mut step = [0u16; STRIDE];
                    let left = self.map.cols - start - whole;
                    step.as_mut_ptr().copy_from_nonoverlapping(from.add(whole), left);
                    to.add(whole * WIDTH).cast::<Step>().write_unaligned(step);
                }
            }
        }
    }

    /// One unit of rows.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn few<S: Simd>(
        &self,
        tiles: &Tiles,
        first: usize,
        n: usize,
        space: &mut Workspace,
        sums: Sums,
    ) {
        let packed = space.packed(WIDTH * self.stride);
        let (mut out, mut turned) = ([0.0f32; SUMS], [0.0f32; SUMS]);
        for column in (0..n).step_by(WIDTH) {
            let (first, n) = (first + column, WIDTH.min(n - column));
            // SAFETY: as the caller's.
            unsafe {
                tiles.zero::<0>();
                let (mut w, step, stride) = match self.whole(first, n) {
                    Some(w) => (w, 2 * STRIDE, 2 * self.map.cols),
                    None => {
                        self.copy(first, n, 0, self.stride, packed);
                        (packed.cast_const().cast(), 2 * WEIGHTS, 2 * STRIDE)
                    }
                };
                let mut x = self.x;
                for _ in 0..self.stride / STRIDE {
                    for r in 0..WIDTH {
                        S::prefetch(w.wrapping_add((WIDTH + r) * stride));
                    }
                    tiles.load::<4>(w, stride);
                    tiles.load::<6>(x.cast(), 4 * self.width);
                    tiles.dot_bf16::<0, 4, 6>();
                    w = w.wrapping_add(step);
                    x = x.add(self.width * STRIDE);
                }
                tiles.store::<0>(out.as_mut_ptr().cast(), 4 * WIDTH);
                S::transpose(out.as_ptr(), WIDTH, turned.as_mut_ptr(), WIDTH);
                for (row, turned) in turned.chunks_exact(WIDTH).take(self.width).enumerate() {
                    let to = sums.at(row, column).start;
                    to.copy_from_nonoverlapping(turned.as_ptr(), WIDTH);
                }
            }
        }
    }

    /// Units of sixteen rows.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn many<S: Simd>(
        &self,
        tiles: &Tiles,
        first: usize,
        n: usize,
        space: &mut Workspace,
        sums: Sums,
    ) {
        let pairs = self.units.div_ceil(2);
        let row_bytes = 2 * self.map.cols;
        let partial = space.partial(pairs * 4 * SUMS);
        let packed = space.packed::<u16>(2 * WIDTH * BLOCK);
        let w = [packed.cast_const(), packed.wrapping_add(WIDTH * BLOCK)];
        for column in (0..n).step_by(2 * WIDTH) {
            // SAFETY: as the caller's.
            unsafe {
                for start in (0..self.stride).step_by(BLOCK) {
                    let len = BLOCK.min(self.stride - start);
                    let left = n - column;
                    for half in 0..2 {
                        let rows = left.saturating_sub(half * WIDTH).min(WIDTH);
                        let to = packed.add(half * WIDTH * BLOCK);
                        self.copy(first + column + half * WIDTH, rows, start, len, to);
                    }
                    // The next block; beyond the last one, nothing is lost.
                    let (row, input) = match start + BLOCK < self.stride {
                        true => (first + column, start + BLOCK),
                        false => ((first + column + 2 * WIDTH).min(self.map.rows - 1), 0),
                    };
                    let next = self.map.row(row).0.wrapping_add(2 * input);
                    for pair in 0..pairs {
                        let x0 = self.x.add((2 * pair * self.stride + start) * WIDTH);
                        // The last unit may be alone; then its sums are computed twice.
                        let second = usize::from(2 * pair + 1 < self.units);
                        let x = [x0, x0.add(second * self.stride * WIDTH)];
                        let share = 2 * WIDTH / pairs + 1;
                        let ahead = Ahead {
                            from: next.wrapping_add(pair * share * row_bytes),
                            row_bytes,
                            rows: share,
                        };
                        let out = partial.add(pair * 4 * SUMS);
                        square::<S>(tiles, w, x, len, start > 0, out, ahead);
                    }
                }
                for i in 0..pairs * 4 {
                    let (column, unit) = (column + i % 4 / 2 * WIDTH, i / 4 * 2 + i % 2);
                    if column < n && unit < self.units {
                        let to = sums.at(unit * WIDTH, column);
                        S::transpose(partial.add(i * SUMS), WIDTH, to.start, to.stride);
                    }
                }
            }
        }
    }
}

/// Weights that are fetched into the second-level cache meanwhile.
#[derive(Clone, Copy)]
struct Ahead {
    /// It need not be valid.
    from: *const u8,
    /// From a row to the next.
    row_bytes: usize,
    rows: usize,
}

/// 32 weights by 32 rows, `len` inputs of each: four tiles of sums, in place of those at `out` or `added` to them.
///
/// # Safety
/// There are as many at the pointers, and the tiles are configured for them.
#[inline(always)]
unsafe fn square<S: Simd>(
    tiles: &Tiles,
    w: [*const u16; 2],
    x: [*const u16; 2],
    len: usize,
    added: bool,
    out: *mut f32,
    ahead: Ahead,
) {
    let at = |i: usize| out.wrapping_add(i * SUMS).cast::<u8>();
    // SAFETY: as the caller's.
    unsafe {
        if added {
            tiles.load::<0>(at(0), 4 * WIDTH);
            tiles.load::<1>(at(1), 4 * WIDTH);
            tiles.load::<2>(at(2), 4 * WIDTH);
            tiles.load::<3>(at(3), 4 * WIDTH);
        } else {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
        }
        for i in (0..len).step_by(STRIDE) {
            tiles.load::<4>(w[0].add(i * WIDTH).cast(), 2 * STRIDE);
            tiles.load::<6>(x[0].add(i * WIDTH).cast(), 2 * STRIDE);
            tiles.load::<5>(w[1].add(i * WIDTH).cast(), 2 * STRIDE);
            tiles.load::<7>(x[1].add(i * WIDTH).cast(), 2 * STRIDE);
            tiles.dot_bf16::<0, 4, 6>();
            tiles.dot_bf16::<2, 5, 6>();
            tiles.dot_bf16::<1, 4, 7>();
            tiles.dot_bf16::<3, 5, 7>();
            for r in 0..ahead.rows {
                S::prefetch_far(ahead.from.wrapping_add(r * ahead.row_bytes + 2 * i));
            }
        }
        tiles.store::<0>(at(0), 4 * WIDTH);
        tiles.store::<1>(at(1), 4 * WIDTH);
        tiles.store::<2>(at(2), 4 * WIDTH);
        tiles.store::<3>(at(3), 4 * WIDTH);
    }
}
