//! A few rows against weights where they are: memory is what bounds it.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{
    Dense,
    operand::{BLOCK, STRIDE},
    panel::Sums,
};
use crate::simd::{Dot, Simd};

/// Rows of activations.
pub(super) struct Few<'a, X> {
    pub(super) map: &'a Dense,
    /// `[rows, stride]`
    pub(super) x: *const X,
    pub(super) rows: usize,
    /// A multiple of [`STRIDE`], at least the map's columns; what is beyond them is 0.
    pub(super) stride: usize,
}

impl<X: Copy> Few<'_, X> {
    /// All rows against `n` rows of the map from `first` on.
    ///
    /// # Safety
    /// The machine has the features of `S`; `x` is as it says, and `sums` has room for all.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, D: Dot<S, X = X>>(&self, first: usize, n: usize, sums: Sums) {
        // SAFETY: as the caller's.
        unsafe {
            if S::WIDE {
                self.strips::<S, D, 4, 6>(first, n, sums);
            } else {
                self.strips::<S, D, 2, 4>(first, n, sums);
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn strips<S: Simd, D: Dot<S, X = X>, const M: usize, const N: usize>(
        &self,
        first: usize,
        n: usize,
        sums: Sums,
    ) {
        let mut column = 0;
        while column < n {
            let (w, together) = self.map.row(first + column);
            // SAFETY: as the caller's; the map has `together` rows from `w` on.
            unsafe {
                let sums = sums.at(0, column);
                column += if together.min(n - column) >= N {
                    self.rows::<S, D, M, N>(w.cast(), sums)
                } else {
                    self.rows::<S, D, M, 1>(w.cast(), sums)
                };
            }
        }
    }

    /// All rows against `N` rows of weights; gives `N`.
    ///
    /// # Safety
    /// As [`run`](Self::run); there are `N` rows of weights at `w`.
    #[inline(always)]
    unsafe fn rows<S: Simd, D: Dot<S, X = X>, const M: usize, const N: usize>(
        &self,
        w: *const D::W,
        sums: Sums,
    ) -> usize {
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            // SAFETY: as the caller's; `row` is below `rows`.
            unsafe {
                let sums = sums.at(row, 0);
                row += if left >= M {
                    self.tile::<S, D, M, N>(row, w, sums)
                } else if left >= 2 {
                    self.tile::<S, D, 2, N>(row, w, sums)
                } else {
                    self.tile::<S, D, 1, N>(row, w, sums)
                };
            }
        }
        N
    }

    /// `M` rows from `row` on against `N` rows of weights; gives `M`.
    ///
    /// # Safety
    /// As [`rows`](Self::rows).
    #[inline(always)]
    unsafe fn tile<S: Simd, D: Dot<S, X = X>, const M: usize, const N: usize>(
        &self,
        row: usize,
        w: *const D::W,
        out: Sums,
    ) -> usize {
        let (k, stride) = (self.map.cols, self.stride);
        // SAFETY: reads stay inside the rows; the tail of the weights is copied to where a whole step may be read.
        unsafe {
            let x = self.x.add(row * stride);
            for start in (0..k).step_by(BLOCK) {
                let mut sums = [[S::splat(0.0); N]; M];
                let end = (start + BLOCK).min(k / D::STEP * D::STEP);
                let mut i = start;
                while i < end {
                    let mut ws = [D::load_w(w.add(i)); N];
                    for n in 1..N {
                        ws[n] = D::load_w(w.add(n * k + i));
                    }
                    if row == 0 {
                        // Memory is what bounds it: fetch the same columns of the next weights.
                        for n in 0..N {
                            S::prefetch(w.wrapping_add((N + n) * k + i).cast());
                        }
                    }
                    for m in 0..M {
                        let xs = D::load_x(x.add(m * stride + i));
                        for n in 0..N {
                            sums[m][n] = D::add(xs, ws[n], sums[m][n]);
                        }
                    }
                    i += D::STEP;
                }
                if end < k && k < start + BLOCK {
                    for n in 0..N {
                        let ws = tail::<S, D>(w.add(n * k + end), k - end);
                        for m in 0..M {
                            sums[m][n] = D::add(D::load_x(x.add(m * stride + end)), ws, sums[m][n]);
                        }
                    }
                }
                for m in 0..M {
                    S::sums(sums[m], start > 0, out.at(m, 0).start);
                }
            }
        }
        M
    }
}

/// The last `n` weights of a row, fewer than a step, filled up with 0.
///
/// # Safety
/// There are as many at `w`, and the machine has the features of `S`.
#[inline(always)]
pub(super) unsafe fn tail<S: Simd, D: Dot<S>>(w: *const D::W, n: usize) -> D::Ws {
    // SAFETY: as the caller's; the buffer holds a step.
    unsafe {
        let mut tail = [D::W::default(); STRIDE];
        for (j, tail) in tail.iter_mut().enumerate().take(n) {
            *tail = w.add(j).read_unaligned();
        }
        D::load_w(tail.as_ptr())
    }
}
