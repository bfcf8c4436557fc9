//! Many rows against weights that are widened and laid out once for all of them: arithmetic is what bounds it.
//!
//! Some weights ([`BLOCK`] inputs of a group of them) stay in the first-level cache while strips of activations pass by
//! from the second.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{Dense, few::tail, operand::BLOCK, panel::Sums};
use crate::simd::{Dot, Simd};

/// Rows of a strip.
pub(super) const ROWS: usize = 3;

/// Weights of a group, at most.
pub(super) const GROUP: usize = 8;

/// Strips that pass one group after the other, so that they stay in the second-level cache.
const STRIPS: usize = 32;

/// Strips of activations.
pub(super) struct Many<'a, X> {
    pub(super) map: &'a Dense,
    /// `[strip, step, ROWS, STEP]`
    pub(super) x: *const X,
    pub(super) strips: usize,
    /// A multiple of every step, at least the map's columns; what is beyond them is 0.
    pub(super) stride: usize,
}

impl<X: Copy> Many<'_, X> {
    /// All strips against `n` rows of the map from `first` on. `packed` holds them, `n` a multiple of [`GROUP`] of a
    /// block.
    ///
    /// # Safety
    /// The machine has the features of `S`; `x` is as it says, and `sums` has room for all.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, D: Dot<S, X = X>>(
        &self,
        first: usize,
        n: usize,
        packed: *mut D::P,
        sums: Sums,
    ) {
        // SAFETY: as the caller's.
        unsafe {
            if S::WIDE {
                self.groups::<S, D, GROUP>(first, n, packed, sums);
            } else {
                self.groups::<S, D, 4>(first, n, packed, sums);
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn groups<S: Simd, D: Dot<S, X = X>, const N: usize>(
        &self,
        first: usize,
        n: usize,
        packed: *mut D::P,
        sums: Sums,
    ) {
        for start in (0..self.map.cols).step_by(BLOCK) {
            let len = BLOCK.min(self.map.cols - start).next_multiple_of(D::STEP);
            for strip in (0..self.strips).step_by(STRIPS) {
                let strips = strip..(strip + STRIPS).min(self.strips);
                for column in (0..n).step_by(N) {
                    // SAFETY: as the caller's.
                    unsafe {
                        let packed = packed.add(column * len);
                        if strip == 0 {
                            let rows = N.min(n - column);
                            self.pack::<S, D, N>(first + column, rows, start, len, packed);
                        }
                        for strip in strips.clone() {
                            let x = self.x.add((strip * self.stride + start) * ROWS);
                            let out = sums.at(strip * ROWS, column);
                            tile::<S, D, N>(x, packed, len, start > 0, out);
                        }
                    }
                }
            }
        }
    }

    /// Lays out `rows` rows of the map from `first` on: `[step, N, STEP]` of the inputs from `start` on.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn pack<S: Simd, D: Dot<S>, const N: usize>(
        &self,
        first: usize,
        rows: usize,
        start: usize,
        len: usize,
        packed: *mut D::P,
    ) {
        let k = self.map.cols;
        for n in 0..N {
            // A missing row is laid out as the last one; nobody reads its sums.
            let (w, _) = self.map.row(first + n.min(rows - 1));
            // SAFETY: reads stay inside the row; `packed` has room for `N` times `len`.
            unsafe {
                let w = w.cast::<D::W>().add(start);
                let packed = packed.add(n * D::STEP);
                let whole = len.min((k - start) / D::STEP * D::STEP);
                for i in (0..whole).step_by(D::STEP) {
                    D::store_p(packed.add(i * N), D::load_w(w.add(i)));
                }
                if whole < len {
                    let ws = tail::<S, D>(w.add(whole), k - start - whole);
                    D::store_p(packed.add(whole * N), ws);
                }
            }
        }
    }
}

/// [`ROWS`] rows of activations times `N` rows of weights, both laid out by steps, `len` inputs.
///
/// # Safety
/// There are as many, and the machine has the features of `S`.
#[inline(always)]
unsafe fn tile<S: Simd, D: Dot<S>, const N: usize>(
    x: *const D::X,
    w: *const D::P,
    len: usize,
    added: bool,
    out: Sums,
) {
    // SAFETY: as the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; ROWS];
        let (mut x, mut w) = (x, w);
        for _ in 0..len / D::STEP {
            let mut xs = [D::load_x(x); ROWS];
            for m in 1..ROWS {
                xs[m] = D::load_x(x.add(m * D::STEP));
            }
            for n in 0..N {
                let ws = D::load_p(w.add(n * D::STEP));
                for m in 0..ROWS {
                    sums[m][n] = D::add(xs[m], ws, sums[m][n]);
                }
            }
            x = x.add(ROWS * D::STEP);
            w = w.add(N * D::STEP);
        }
        for m in 0..ROWS {
            S::sums(sums[m], added, out.at(m, 0).start);
        }
    }
}
