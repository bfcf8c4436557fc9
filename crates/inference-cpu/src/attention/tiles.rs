//! The products of attention with AMX: queries and weights are rounded to bf16, as keys and values are.

use super::{
    BLOCK, ROW,
    products::{Products, fetch},
};
use crate::simd::{
    Simd,
    amx::{ROWS, Shape, Tiles},
};
use half::bf16;

/// Tiles of up to 32 queries. Registers 0 to 3 are sums, of up to 16 queries each; 4 and 5 queries or weights; 6 and 7
/// keys or values.
pub(super) struct Amx {
    tiles: Tiles,
    /// There are more than 16 queries.
    two: bool,
}

/// Bytes of a row of 32 pairs of bf16, or of 16 numbers.
const ROW_OF_KEYS: usize = 4 * BLOCK;

impl<S: Simd> Products<S, bf16> for Amx {
    type X = u16;

    #[inline(always)]
    unsafe fn new(queries: usize) -> Self {
        let rows = |rows: usize| Shape { rows, bytes: if rows == 0 { 0 } else { 64 } };
        let (first, second) = (rows(queries.min(ROWS)), rows(queries.saturating_sub(ROWS)));
        let whole = rows(ROWS);
        let shapes = [first, first, second, second, first, second, whole, whole];
        // SAFETY: the caller's.
        Self { tiles: unsafe { Tiles::configure(shapes) }, two: queries > ROWS }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u16, v: S::V) {
        // SAFETY: as the caller's.
        unsafe { S::store_bf16(to, v) }
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        q: *const u16,
        width: usize,
        keys: *const bf16,
        ahead: *const bf16,
        out: *mut f32,
    ) {
        let Self { tiles, two } = self;
        self.zero();
        for c in (0..width).step_by(32) {
            // SAFETY: as the caller's; the width is a multiple of 32.
            unsafe {
                let (q, keys) = (q.add(c), keys.add(c * BLOCK).cast::<u8>());
                tiles.load::<4>(q.cast(), 2 * width);
                tiles.load::<6>(keys, ROW_OF_KEYS);
                tiles.dot_bf16::<0, 4, 6>();
                tiles.load::<7>(keys.add(64), ROW_OF_KEYS);
                tiles.dot_bf16::<1, 4, 7>();
                if *two {
                    tiles.load::<5>(q.add(ROWS * width).cast(), 2 * width);
                    tiles.dot_bf16::<2, 5, 6>();
                    tiles.dot_bf16::<3, 5, 7>();
                }
                if !ahead.is_null() {
                    fetch::<S, bf16>(ahead.wrapping_add(c * BLOCK), 32 * BLOCK);
                }
            }
        }
        // SAFETY: as the caller's.
        unsafe { self.store_sums(out, ROW) }
    }

    #[inline(always)]
    unsafe fn sums(
        &self,
        weights: *const u16,
        width: usize,
        values: &[*const bf16],
        ahead: *const bf16,
        fresh: bool,
        out: *mut f32,
        stride: usize,
    ) {
        let Self { tiles, two } = self;
        for c in (0..width).step_by(32) {
            // SAFETY: as the caller's; the width is a multiple of 32.
            unsafe {
                if fresh {
                    self.zero();
                } else {
                    self.load_sums(out.add(c), stride);
                }
                for (b, values) in values.iter().enumerate() {
                    let (weights, values) =
                        (weights.add(b * BLOCK), values.add(2 * c).cast::<u8>());
                    tiles.load::<4>(weights.cast(), 2 * ROW);
                    tiles.load::<6>(values, 4 * width);
                    tiles.dot_bf16::<0, 4, 6>();
                    tiles.load::<7>(values.add(64), 4 * width);
                    tiles.dot_bf16::<1, 4, 7>();
                    if *two {
                        tiles.load::<5>(weights.add(ROWS * ROW).cast(), 2 * ROW);
                        tiles.dot_bf16::<2, 5, 6>();
                        tiles.dot_bf16::<3, 5, 7>();
                    }
                }
                if !ahead.is_null() {
                    fetch::<S, bf16>(ahead.wrapping_add(c * BLOCK), 32 * BLOCK);
                }
                self.store_sums(out.add(c), stride);
            }
        }
    }
}

impl Amx {
    #[inline(always)]
    fn zero(&self) {
        self.tiles.zero::<0>();
        self.tiles.zero::<1>();
        if self.two {
            self.tiles.zero::<2>();
            self.tiles.zero::<3>();
        }
    }

    /// Stores the sums, 32 columns of every query.
    ///
    /// # Safety
    /// The rows, `stride` numbers apart, have room.
    #[inline(always)]
    unsafe fn store_sums(&self, out: *mut f32, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.tiles.store::<0>(out.cast(), 4 * stride);
            self.tiles.store::<1>(out.add(16).cast(), 4 * stride);
            if self.two {
                let out = out.add(ROWS * stride);
                self.tiles.store::<2>(out.cast(), 4 * stride);
                self.tiles.store::<3>(out.add(16).cast(), 4 * stride);
            }
        }
    }

    /// Loads what [`store_sums`](Self::store_sums) stored.
    ///
    /// # Safety
    /// The numbers are there.
    #[inline(always)]
    unsafe fn load_sums(&self, out: *const f32, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.tiles.load::<0>(out.cast(), 4 * stride);
            self.tiles.load::<1>(out.add(16).cast(), 4 * stride);
            if self.two {
                let out = out.add(ROWS * stride);
                self.tiles.load::<2>(out.cast(), 4 * stride);
                self.tiles.load::<3>(out.add(16).cast(), 4 * stride);
            }
        }
    }
}
