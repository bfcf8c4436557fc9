//! Some columns of a product: tiles of a few rows by a few weights, whose sums stay in registers.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{
    Dense,
    operand::{Operand, STRIDE},
};
use crate::{
    linear::Target,
    math,
    simd::{Dot, Kernel, Simd},
};
use inference_engine::{arch::Activation, weights::DType};
use std::ops::Range;

/// A multiple of the columns of every level's tile.
pub(super) const TILE_COLUMNS: usize = 12;

/// Some columns of a product, for all rows.
pub(super) struct Panel<'a> {
    pub(super) map: &'a Dense,
    pub(super) operand: &'a Operand<'a>,
    pub(super) rows: usize,
    pub(super) columns: Range<usize>,
    pub(super) gate: Option<Activation>,
    pub(super) target: Target<'a>,
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the operand was made for this level and these weights by `Scratch::operand`, with one row of
        // `stride` elements for each of `rows`.
        unsafe {
            match (self.operand, self.map.dtype) {
                (Operand::Bf16 { data, stride }, _) => {
                    // `Bf16::X` is `u16` at the one level that makes such operands.
                    self.compute::<S, S::Bf16>(data.as_ptr().cast(), *stride);
                }
                (Operand::F32 { data, stride }, DType::F32) => {
                    self.compute::<S, S::F32>(data.as_ptr().cast(), *stride);
                }
                (Operand::F32 { data, stride }, DType::F16) => {
                    self.compute::<S, S::F16>(data.as_ptr().cast(), *stride);
                }
                (Operand::F32 { data, stride }, _) => {
                    self.compute::<S, S::Bf16>(data.as_ptr().cast(), *stride);
                }
            }
        }
    }
}

impl Panel<'_> {
    /// # Safety
    /// `x` has `rows` rows of `stride` elements, which is at least the map's columns and a multiple of `D::STEP`.
    #[inline(always)]
    unsafe fn compute<S: Simd, D: Dot>(&self, x: *const D::X, stride: usize) {
        let n = self.columns.len();
        // SAFETY: as the caller's; the halves of a gated map have `n` rows each at these places.
        unsafe {
            let Some(activation) = self.gate else {
                let mut write =
                    |row: usize, column: usize, value: f32| self.put(row, column, value);
                return self.tiles::<S, D>(x, stride, self.columns.start, n, &mut write);
            };
            let half = self.map.rows / 2;
            let mut up = vec![0.0f32; self.rows * n];
            let mut write = |row: usize, column: usize, value: f32| self.put(row, column, value);
            self.tiles::<S, D>(x, stride, self.columns.start, n, &mut write);
            let mut write = |row: usize, column: usize, value: f32| up[row * n + column] = value;
            self.tiles::<S, D>(x, stride, half + self.columns.start, n, &mut write);
            for row in 0..self.rows {
                let gate = self.target.slice(row, self.columns.clone());
                math::gate(activation, gate, &up[row * n..][..n]);
            }
        }
    }

    /// # Safety
    /// No other thread writes these columns.
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: f32) {
        let at = self.columns.start + column;
        // SAFETY: as the caller's.
        unsafe { self.target.slice(row, at..at + 1)[0] = value };
    }

    /// All rows against `n` rows of the map from `first` on; `write(row, column, value)`, columns from 0.
    ///
    /// # Safety
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn tiles<S: Simd, D: Dot>(
        &self,
        x: *const D::X,
        stride: usize,
        first: usize,
        n: usize,
        write: &mut impl FnMut(usize, usize, f32),
    ) {
        // SAFETY: as the caller's.
        unsafe {
            if S::WIDE {
                self.tiles_of::<S, D, 4, 6>(x, stride, first, n, write);
            } else {
                self.tiles_of::<S, D, 2, 4>(x, stride, first, n, write);
            }
        }
    }

    /// # Safety
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn tiles_of<S: Simd, D: Dot, const M: usize, const N: usize>(
        &self,
        x: *const D::X,
        stride: usize,
        first: usize,
        n: usize,
        write: &mut impl FnMut(usize, usize, f32),
    ) {
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            // SAFETY: as the caller's; `row` is below `rows`.
            unsafe {
                let x = x.add(row * stride);
                row += if left >= M {
                    self.strip::<S, D, M, N>(x, stride, row, first, n, write)
                } else if left >= 2 {
                    self.strip::<S, D, 2, N>(x, stride, row, first, n, write)
                } else {
                    self.strip::<S, D, 1, N>(x, stride, row, first, n, write)
                };
            }
        }
    }

    /// `M` rows against `n` rows of the map; gives `M`.
    ///
    /// # Safety
    /// As [`compute`](Self::compute), for `M` rows from `x` on.
    #[inline(always)]
    unsafe fn strip<S: Simd, D: Dot, const M: usize, const N: usize>(
        &self,
        x: *const D::X,
        stride: usize,
        row: usize,
        first: usize,
        n: usize,
        write: &mut impl FnMut(usize, usize, f32),
    ) -> usize {
        let k = self.map.cols;
        let mut column = 0;
        while column < n {
            let (w, together) = self.map.row(first + column);
            // SAFETY: the map has `together` rows of `k` weights from `w` on, and `x` is the caller's.
            unsafe {
                if together.min(n - column) >= N {
                    let sums = tile::<S, D, M, N>(x, stride, w.cast(), k);
                    self.finish::<M, N>(sums, row, first, column, write);
                    column += N;
                } else {
                    let sums = tile::<S, D, M, 1>(x, stride, w.cast(), k);
                    self.finish::<M, 1>(sums, row, first, column, write);
                    column += 1;
                }
            }
        }
        M
    }

    #[inline(always)]
    fn finish<const M: usize, const N: usize>(
        &self,
        sums: [[f32; N]; M],
        row: usize,
        first: usize,
        column: usize,
        write: &mut impl FnMut(usize, usize, f32),
    ) {
        for (m, sums) in sums.into_iter().enumerate() {
            for (i, sum) in sums.into_iter().enumerate() {
                let bias = self.target.bias.map_or(0.0, |b| b[first + column + i]);
                write(row + m, column + i, sum + bias);
            }
        }
    }
}

/// `M` rows of activations times `N` rows of weights.
///
/// # Safety
/// `x` has `M` rows of `stride` elements, a multiple of `D::STEP` and at least `k`, zero beyond `k`; `w` has `N` rows of
/// `k` weights; the machine has the features of `S`.
#[inline(always)]
unsafe fn tile<S: Simd, D: Dot, const M: usize, const N: usize>(
    x: *const D::X,
    stride: usize,
    w: *const D::W,
    k: usize,
) -> [[f32; N]; M] {
    // SAFETY: reads stay inside the rows; the tail of the weights is copied to where a whole step may be read.
    unsafe {
        let mut sums = [[D::zero(); N]; M];
        let whole = k / D::STEP * D::STEP;
        let mut i = 0;
        while i < whole {
            let mut ws = [D::load_w(w.add(i)); N];
            for n in 1..N {
                ws[n] = D::load_w(w.add(n * k + i));
            }
            if M == 1 {
                // One row is as fast as memory is: fetch the same columns of the next tile.
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
        if whole < k {
            for n in 0..N {
                let mut tail = [D::W::default(); STRIDE];
                for j in 0..k - whole {
                    tail[j] = w.add(n * k + whole + j).read_unaligned();
                }
                let ws = D::load_w(tail.as_ptr());
                for m in 0..M {
                    sums[m][n] = D::add(D::load_x(x.add(m * stride + whole)), ws, sums[m][n]);
                }
            }
        }
        let mut out = [[0.0; N]; M];
        for m in 0..M {
            for n in 0..N {
                out[m][n] = D::sum(sums[m][n]);
            }
        }
        out
    }
}
