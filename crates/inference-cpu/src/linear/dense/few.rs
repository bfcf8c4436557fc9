//! A few rows against weights where they are: memory is what bounds it.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{
    Dense,
    operand::{BLOCK, STRIDE},
    panel::Sums,
};
use crate::simd::{Dot, Simd};

/// How far ahead weights are fetched into the second-level cache, bytes; into the first it is the next row or two.
const FAR: usize = 16 << 10;

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
    /// All rows against `n` rows of the map from `first` on, one or two after the other as they lie: what fetches memory
    /// ahead follows one stream better than several.
    ///
    /// # Safety
    /// The machine has the features of `S`; `x` is as it says, and `sums` has room for all.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, D: Dot<S, X = X>>(&self, first: usize, n: usize, sums: Sums) {
        let mut column = 0;
        while column < n {
            let (w, together) = self.map.row(first + column);
            let (w, sums) = (w.cast(), sums.at(0, column));
            // SAFETY: as the caller's; the map has `together` rows from `w` on.
            column += unsafe {
                if S::WIDE && self.rows > 2 && together.min(n - column) >= 2 {
                    self.rows::<S, D, 2>(w, sums)
                } else {
                    self.rows::<S, D, 1>(w, sums)
                }
            };
        }
    }

    /// All rows against `N` rows of weights; gives `N`.
    ///
    /// # Safety
    /// As [`run`](Self::run); there are `N` rows of weights at `w`.
    #[inline(always)]
    unsafe fn rows<S: Simd, D: Dot<S, X = X>, const N: usize>(
        &self,
        w: *const D::W,
        sums: Sums,
    ) -> usize {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: as the caller's; `row` is below `rows`.
            unsafe {
                let sums = sums.at(row, 0);
                row += match self.rows - row {
                    8.. if S::WIDE => self.tile::<S, D, 8, N>(row, w, sums),
                    4.. => self.tile::<S, D, 4, N>(row, w, sums),
                    2.. => self.tile::<S, D, 2, N>(row, w, sums),
                    _ => self.tile::<S, D, 1, N>(row, w, sums),
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
            let mut ahead = w.wrapping_add(N * k).cast::<u8>();
            for start in (0..k).step_by(BLOCK) {
                // Of row `m` and weights `n` in place `m · N + n`.
                let mut sums = [S::splat(0.0); MOST];
                let end = (start + BLOCK).min(k / D::STEP * D::STEP);
                for i in (start..end).step_by(D::STEP) {
                    let mut ws = [D::load_w(w.add(i)); N];
                    for n in 1..N {
                        ws[n] = D::load_w(w.add(n * k + i));
                    }
                    if N > 1 && row == 0 {
                        // The next weights, in the order in which they lie.
                        for _ in 0..N {
                            S::prefetch(ahead);
                            S::prefetch_far(ahead.wrapping_add(FAR));
                            ahead = ahead.wrapping_add(D::STEP * size_of::<D::W>());
                        }
                    }
                    for m in 0..M {
                        let xs = D::load_x(x.add(m * stride + i));
                        for n in 0..N {
                            sums[m * N + n] = D::add(xs, ws[n], sums[m * N + n]);
                        }
                    }
                }
                if end < k && k < start + BLOCK {
                    for n in 0..N {
                        let ws = tail::<S, D>(w.add(n * k + end), k - end);
                        for m in 0..M {
                            let xs = D::load_x(x.add(m * stride + end));
                            sums[m * N + n] = D::add(xs, ws, sums[m * N + n]);
                        }
                    }
                }
                let whole = reduce::<S>(sums, M * N);
                for m in 0..M {
                    for n in 0..N {
                        let out = out.at(m, n).start;
                        let sum = whole[m * N + n];
                        *out = if start > 0 { *out + sum } else { sum };
                    }
                }
            }
        }
        M
    }
}

/// Most sums of a tile.
const MOST: usize = 16;

/// The sums of the lanes of the first `n` vectors.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
unsafe fn reduce<S: Simd>(v: [S::V; MOST], n: usize) -> [f32; MOST] {
    let mut sums = [0.0; MOST];
    // SAFETY: as the caller's; there are 16 numbers.
    unsafe {
        let (first, second) = (v.first_chunk::<8>(), v.last_chunk::<8>());
        if let (true, Some(first), Some(second)) = (n.is_multiple_of(8), first, second) {
            S::sums(*first, false, sums.as_mut_ptr());
            if n > 8 {
                S::sums(*second, false, sums.as_mut_ptr().add(8));
            }
        } else {
            for i in 0..n {
                sums[i] = S::sum(v[i]);
            }
        }
    }
    sums
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
