//! Activations as the products read them: bytes with a scale for each group of a row.
//!
//! `x ≈ scale · q`, `scale = max|x| / 127` over the group, `q` rounded to nearest, ties to even, so from −127 to 127.

use super::layout::{CHUNK, position};
use crate::{
    pool::{Disjoint, Pool},
    simd::{Kernel, Level, Simd},
};
use std::sync::Arc;

/// How the operand of a matrix is made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    /// Inputs of a group.
    pub(super) group: usize,
    /// The input of each column; `None`: its own.
    pub(super) order: Option<Arc<[u32]>>,
}

/// Where operands are prepared; kept from call to call.
#[derive(Debug, Default)]
pub(in crate::linear) struct Scratch {
    quantised: Vec<Operand>,
    exact: Vec<Exact>,
}

/// Activations in every form that a stack needs.
#[derive(Clone, Copy)]
pub(super) enum Operands<'a> {
    Quantised(&'a [Operand]),
    Exact(&'a [Exact]),
}

/// Activations `[rows, cols]` as they are, but in the order of [`position`]. There is memory for rows up to a multiple
/// of [`ROWS`].
#[derive(Debug, Default)]
pub(super) struct Exact {
    /// `[rows, stride]`; zero beyond the columns.
    pub(super) x: Vec<f32>,
    /// Numbers from a row to the next.
    pub(super) stride: usize,
}

/// Activations `[rows, cols]`, quantised. There is memory for rows up to a multiple of [`ROWS`]; what it holds is not
/// said.
#[derive(Debug, Default)]
pub(super) struct Operand {
    /// `[rows, stride]`, in the order of [`position`]; zero beyond the columns.
    q: Vec<i8>,
    /// `[groups, factor_rows]` pairs of a row's scale, and that times the sum of its `q`.
    factors: Vec<f32>,
    /// Bytes from a row to the next.
    stride: usize,
    /// Numbers from the factors of a group to those of the next.
    factor_stride: usize,
}

/// Some rows of an [`Operand`].
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) q: *const i8,
    pub(super) stride: usize,
    pub(super) factors: *const f32,
    pub(super) factor_stride: usize,
}

impl Rows {
    /// From an input, the first of a group, on.
    #[inline(always)]
    pub(super) fn from(self, input: usize, group: usize) -> Self {
        Self {
            q: self.q.wrapping_add(input),
            factors: self.factors.wrapping_add(group * self.factor_stride),
            ..self
        }
    }
}

/// Rows that are there in multiples.
pub(super) const ROWS: usize = 16;

/// Numbers that a thread quantises at a time.
const GRAIN: usize = 16 << 10;

/// A group whose numbers are all smaller is taken for zeros: 127 divided by them would not be finite.
const LEAST: f32 = 1e-30;

impl Scratch {
    /// `x`, `[rows, cols]`, in every one of `kinds`; `exact`, or quantised.
    pub(super) fn operands(
        &mut self,
        level: Level,
        pool: &Pool,
        x: &[f32],
        cols: usize,
        kinds: &[Kind],
        exact: bool,
    ) -> Operands<'_> {
        if exact {
            grow(&mut self.exact, kinds.len());
            for (operand, kind) in self.exact.iter_mut().zip(kinds) {
                operand.place(x, cols, kind);
            }
            return Operands::Exact(&self.exact[..kinds.len()]);
        }
        grow(&mut self.quantised, kinds.len());
        for (operand, kind) in self.quantised.iter_mut().zip(kinds) {
            operand.quantise(level, pool, x, cols, kind);
        }
        Operands::Quantised(&self.quantised[..kinds.len()])
    }
}

impl Exact {
    fn place(&mut self, x: &[f32], cols: usize, kind: &Kind) {
        self.stride = cols.next_multiple_of(kind.group.max(CHUNK));
        grow(&mut self.x, (x.len() / cols).next_multiple_of(ROWS) * self.stride);
        for (row, out) in x.chunks_exact(cols).zip(self.x.chunks_exact_mut(self.stride)) {
            for k in 0..cols {
                let input = kind.order.as_ref().map_or(k, |order| order[k] as usize);
                out[position(k)] = row[input];
            }
            // Columns come in multiples of 16, and positions move numbers inside of 8.
            out[cols..].fill(0.0);
        }
    }
}

impl Operand {
    fn quantise(&mut self, level: Level, pool: &Pool, x: &[f32], cols: usize, kind: &Kind) {
        let rows = x.len() / cols;
        let padded = rows.next_multiple_of(ROWS);
        // A stride of a power of two would put the factors of all groups into few sets of the cache.
        self.factor_stride = 2 * (padded + ROWS);
        self.stride = cols.next_multiple_of(2 * CHUNK);
        let groups = cols.next_multiple_of(kind.group.max(CHUNK)) / kind.group;
        grow(&mut self.q, padded * self.stride);
        grow(&mut self.factors, groups * self.factor_stride);
        let stride = self.stride;
        let factors =
            Factors { data: Disjoint::new(&mut self.factors), stride: self.factor_stride };
        pool.rows(&mut self.q[..rows * stride], stride, GRAIN.div_ceil(cols), |range, q| {
            level.run(Quantise { x, cols, kind, first: range.start, q, stride, factors });
        });
    }

    /// The rows from `first` on.
    pub(super) fn rows(&self, first: usize) -> Rows {
        Rows {
            q: self.q[first * self.stride..].as_ptr(),
            stride: self.stride,
            factors: self.factors[2 * first..].as_ptr(),
            factor_stride: self.factor_stride,
        }
    }
}

fn grow<T: Default>(data: &mut Vec<T>, len: usize) {
    if data.len() < len {
        data.resize_with(len, T::default);
    }
}

struct Quantise<'a> {
    /// `[all rows, cols]`
    x: &'a [f32],
    cols: usize,
    kind: &'a Kind,
    /// The first row of `q`.
    first: usize,
    /// `[rows, stride]`
    q: &'a mut [i8],
    stride: usize,
    factors: Factors<'a>,
}

/// The factors of all rows, of which each thread writes some.
#[derive(Clone, Copy)]
struct Factors<'a> {
    data: Disjoint<'a, f32>,
    stride: usize,
}

impl Kernel for Quantise<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut gathered = vec![0.0; if self.kind.order.is_some() { self.cols } else { 0 }];
        for (i, q) in self.q.chunks_exact_mut(self.stride).enumerate() {
            let row = self.first + i;
            let mut x = &self.x[row * self.cols..][..self.cols];
            if let Some(order) = &self.kind.order {
                for (to, from) in gathered.iter_mut().zip(order.iter()) {
                    *to = x[*from as usize];
                }
                x = &gathered;
            }
            q[self.cols..].fill(0);
            let (x, q) = (x.chunks_exact(self.kind.group), q.chunks_mut(self.kind.group));
            let groups = x.len();
            for (group, (x, q)) in x.zip(q).enumerate() {
                // SAFETY: the machine has the features of `S`.
                let pair = unsafe { quantise::<S>(x, q) };
                // SAFETY: every row has its own pairs, and every row is quantised once.
                unsafe { self.factors.pair(group, row) }.copy_from_slice(&pair);
            }
            for group in groups..groups.next_multiple_of(CHUNK.div_ceil(self.kind.group)) {
                // SAFETY: as above.
                unsafe { self.factors.pair(group, row) }.fill(0.0);
            }
        }
    }
}

impl<'a> Factors<'a> {
    /// # Safety
    /// Nobody else uses this row's factors.
    #[inline(always)]
    unsafe fn pair(&self, group: usize, row: usize) -> &'a mut [f32] {
        let at = group * self.stride + 2 * row;
        // SAFETY: as the caller's.
        unsafe { self.data.slice(at..at + 2) }
    }
}

/// Quantises one group; gives its factors.
///
/// A number that is not finite makes the scale infinite or NaN, and so the products.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
unsafe fn quantise<S: Simd>(x: &[f32], q: &mut [i8]) -> [f32; 2] {
    // As integers, magnitudes have the order of the numbers, and NaN is above infinity.
    let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    let most = f32::from_bits(most);
    if most < LEAST {
        q.fill(0);
        return [0.0; 2];
    }
    let (scale, inverse) = (most / 127.0, 127.0 / most);
    // SAFETY: the caller vouches for the features; a group is a multiple of 16.
    let sum = unsafe { S::round(x, inverse, q) };
    [scale, scale * sum as f32]
}
