//! Products with weights that stay where they are: row-major, in the mapped file.
//!
//! Every output is one dot product along the weight's row, summed in the same order whatever the tile it is computed
//! in; so a row of the result has the same bits alone, in a batch, and in a chunk of a prompt.

use crate::{
    math,
    pool::{Disjoint, Pool},
    simd::{Dot, Element, Kernel, Level, Simd},
};
use bytes::Bytes;
use inference_engine::{
    arch::Activation,
    weights::{DType, RawTensor},
};
use std::ops::Range;

/// `y = x·Wᵀ + b`
#[derive(Debug)]
pub struct Linear {
    parts: Vec<Part>,
    /// Outputs.
    rows: usize,
    /// Inputs.
    cols: usize,
    dtype: DType,
    /// `[rows]`
    bias: Option<Vec<f32>>,
}

/// Some rows of the map, as they lie in the file.
#[derive(Debug)]
struct Part {
    /// The first row's place in the stack.
    first: usize,
    /// `[rows, cols]`
    bytes: Bytes,
}

impl Linear {
    /// The stack of `parts`, whose shapes the decoder has checked. Parts of different types are widened to f32;
    /// everything else is shared with the file.
    pub(crate) fn new(parts: &[RawTensor], bias: Option<&[f32]>) -> Self {
        let same = parts.iter().all(|p| p.dtype == parts[0].dtype);
        let dtype = if same { parts[0].dtype } else { DType::F32 };
        let (mut rows, cols) = (0, parts[0].shape[1]);
        let parts: Vec<_> = parts
            .iter()
            .map(|p| {
                let bytes = if same {
                    p.bytes.clone()
                } else {
                    Bytes::from_owner(Widened(p.to_f32()))
                };
                rows += p.shape[0];
                Part { first: rows - p.shape[0], bytes }
            })
            .collect();
        Self { parts, rows, cols, dtype, bias: bias.map(<[f32]>::to_vec) }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Where row `row` begins, and how many rows follow it without a gap, itself included.
    fn row(&self, row: usize) -> (*const u8, usize) {
        let next = self.parts.partition_point(|p| p.first <= row);
        let end = self.parts.get(next).map_or(self.rows, |p| p.first);
        let part = &self.parts[next - 1];
        let at = (row - part.first) * self.cols * self.dtype.size();
        (part.bytes[at..].as_ptr(), end - row)
    }

    /// Row `row` as `f32`, times `scale`.
    pub(crate) fn widen_row(&self, level: Level, row: usize, scale: f32, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        level.run(Widen { from: self.row(row).0, dtype: self.dtype, scale, out });
    }
}

/// Numbers that own their bytes.
struct Widened(Vec<f32>);

impl AsRef<[u8]> for Widened {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

struct Widen<'a> {
    /// `out.len()` numbers.
    from: *const u8,
    dtype: DType,
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, scale) = (self.out.len(), self.scale);
        // SAFETY: `from` has `n` numbers of the type, and so has `out`.
        unsafe {
            match self.dtype {
                DType::F32 => widen::<S, f32>(self.from.cast(), n, scale, self.out),
                DType::F16 => widen::<S, half::f16>(self.from.cast(), n, scale, self.out),
                _ => widen::<S, half::bf16>(self.from.cast(), n, scale, self.out),
            }
        }
    }
}

/// # Safety
/// `from` has `n` numbers, not necessarily aligned, and so has `out`; the machine has the features of `S`.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(from: *const E, n: usize, scale: f32, out: &mut [f32]) {
    let whole = n / S::LANES * S::LANES;
    // SAFETY: the caller vouches for the lengths; the tail is copied to where a whole vector may be read.
    unsafe {
        let factor = S::splat(scale);
        for i in (0..whole).step_by(S::LANES) {
            S::store(out.as_mut_ptr().add(i), S::mul(E::load::<S>(from.add(i)), factor));
        }
        let mut tail = [E::from_f32(0.0); 16];
        let mut wide = [0.0; 16];
        for i in whole..n {
            tail[i - whole] = from.add(i).read_unaligned();
        }
        S::store(wide.as_mut_ptr(), S::mul(E::load::<S>(tail.as_ptr()), factor));
        out[whole..n].copy_from_slice(&wide[..n - whole]);
    }
}

/// Activations as a level's dot product wants them: `[rows, stride]`, where the stride is a multiple of its step and
/// what is beyond the columns is 0.
pub(crate) enum Operand<'a> {
    F32 { data: &'a [f32], stride: usize },
    Bf16 { data: &'a [u16], stride: usize },
}

/// Where operands are prepared; kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    wide: Vec<f32>,
    narrow: Vec<u16>,
}

/// A multiple of every level's step.
const STRIDE: usize = 32;

/// Rows of activations that one thread prepares at a time.
const PREPARE_ROWS: usize = 8;

impl Scratch {
    /// `x`, `[rows, cols]`, for a product with weights of `dtype`.
    fn operand<'a>(
        &'a mut self,
        level: Level,
        pool: &Pool,
        x: &'a [f32],
        cols: usize,
        dtype: DType,
    ) -> Operand<'a> {
        let stride = cols.next_multiple_of(STRIDE);
        let len = x.len() / cols * stride;
        if level == Level::Avx512Bf16 && dtype == DType::Bf16 {
            let data = fit(&mut self.narrow, len);
            pool.rows(data, stride, PREPARE_ROWS, |rows, out| {
                level.run(Narrow { x: &x[rows.start * cols..rows.end * cols], cols, stride, out });
            });
            Operand::Bf16 { data, stride }
        } else if stride == cols {
            Operand::F32 { data: x, stride }
        } else {
            let data = fit(&mut self.wide, len);
            for (out, row) in data.chunks_exact_mut(stride).zip(x.chunks_exact(cols)) {
                out[..cols].copy_from_slice(row);
                out[cols..].fill(0.0);
            }
            Operand::F32 { data, stride }
        }
    }
}

fn fit<T: Copy + Default>(data: &mut Vec<T>, len: usize) -> &mut [T] {
    if data.len() < len {
        data.resize(len, T::default());
    }
    &mut data[..len]
}

struct Narrow<'a> {
    x: &'a [f32],
    cols: usize,
    stride: usize,
    out: &'a mut [u16],
}

impl Kernel for Narrow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.out.chunks_exact_mut(self.stride).zip(self.x.chunks_exact(self.cols));
        for (out, row) in rows {
            for (o, x) in out.iter_mut().zip(row) {
                *o = u16::from_f32(*x);
            }
            out[self.cols..].fill(0);
        }
    }
}

/// Bytes of weights that a thread takes at a time: they stay in its second-level cache while all rows pass.
const PANEL_BYTES: usize = 128 << 10;

/// `x·Wᵀ + b`, `[rows, map.cols] → [rows, map.rows]`; with a `gate`, `gate(left half) ⊙ right half` of that.
pub(crate) fn product(
    level: Level,
    pool: &Pool,
    scratch: &mut Scratch,
    x: &[f32],
    map: &Linear,
    gate: Option<Activation>,
    out: &mut [f32],
) {
    let rows = x.len() / map.cols;
    let columns = if gate.is_some() { map.rows / 2 } else { map.rows };
    assert!(x.len() == rows * map.cols && out.len() == rows * columns);
    let operand = scratch.operand(level, pool, x, map.cols, map.dtype);
    // Small panels for few rows, so that the threads end together; a multiple of every tile's width.
    let bytes = map.cols * map.dtype.size() * if gate.is_some() { 2 } else { 1 };
    let fair = columns.div_ceil(4 * pool.threads());
    let panel = (PANEL_BYTES / bytes).min(fair).max(1).next_multiple_of(TILE_COLUMNS);
    let out = Disjoint::new(out);
    pool.ranges(columns, panel, |columns| {
        level.run(Panel { map, operand: &operand, rows, columns, gate, out });
    });
}

/// A multiple of the columns of every level's tile.
const TILE_COLUMNS: usize = 12;

/// Some columns of a product, for all rows.
struct Panel<'a> {
    map: &'a Linear,
    operand: &'a Operand<'a>,
    rows: usize,
    columns: Range<usize>,
    gate: Option<Activation>,
    out: Disjoint<'a, f32>,
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
                let mut write = |row: usize, column: usize, value: f32| self.put(row, column, value);
                return self.tiles::<S, D>(x, stride, self.columns.start, n, &mut write);
            };
            let half = self.map.rows / 2;
            let mut up = vec![0.0f32; self.rows * n];
            let mut write = |row: usize, column: usize, value: f32| self.put(row, column, value);
            self.tiles::<S, D>(x, stride, self.columns.start, n, &mut write);
            let mut write = |row: usize, column: usize, value: f32| up[row * n + column] = value;
            self.tiles::<S, D>(x, stride, half + self.columns.start, n, &mut write);
            for row in 0..self.rows {
                let at = row * half;
                let gate = self.out.slice(at + self.columns.start..at + self.columns.end);
                math::gate(activation, gate, &up[row * n..][..n]);
            }
        }
    }

    /// # Safety
    /// No other thread writes these columns.
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: f32) {
        let columns = if self.gate.is_some() { self.map.rows / 2 } else { self.map.rows };
        let at = row * columns + self.columns.start + column;
        // SAFETY: as the caller's.
        unsafe { self.out.slice(at..at + 1)[0] = value };
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
    #[expect(clippy::too_many_arguments, reason = "it is what a strip is")]
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
                let bias = self.map.bias.as_ref().map_or(0.0, |b| b[first + column + i]);
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
