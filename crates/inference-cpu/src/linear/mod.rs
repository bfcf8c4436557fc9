//! Linear maps: stacks of matrices, each kind with its own kernels.

mod affine;
mod dense;
mod lines;

use crate::{
    math,
    memory::Store,
    pool::{Disjoint, Pool},
    simd::Level,
    tensor::Arena,
};
use affine::Affine;
use dense::Dense;
use inference_core::Result;
use inference_engine::{arch::Activation, weights::Matrix};
use std::ops::Range;

/// `y = x·Wᵀ + b`
#[derive(Debug)]
pub struct Linear {
    /// From the first row to the last, neighbours of one kind together.
    stacks: Vec<Stack>,
    /// Outputs.
    rows: usize,
    /// Inputs.
    cols: usize,
    /// `[rows]`
    bias: Option<Vec<f32>>,
}

/// Matrices that one kernel reads as one.
#[derive(Debug)]
enum Stack {
    Dense(Dense),
    Affine(Affine),
}

impl Stack {
    fn rows(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.rows(),
            Self::Affine(affine) => affine.rows(),
        }
    }

    /// Whether one call computes both halves with a gate.
    fn has_halves(&self) -> bool {
        match self {
            Self::Dense(_) => true,
            Self::Affine(affine) => affine.has_halves(),
        }
    }
}

/// Where activations are prepared for products; kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    dense: dense::Scratch,
    affine: affine::Scratch,
}

/// Where a product goes: some columns of a matrix.
#[derive(Clone, Copy)]
struct Target<'a> {
    /// `[rows, stride]`
    out: Disjoint<'a, f32>,
    stride: usize,
    /// The first column.
    first: usize,
    /// Added; one for each output of the map.
    bias: Option<&'a [f32]>,
}

impl<'a> Target<'a> {
    /// Where one of the product's columns of a row is.
    fn at(&self, row: usize, column: usize) -> *const f32 {
        self.out.at(row * self.stride + self.first + column)
    }

    /// Some of the product's columns of a row.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    unsafe fn slice(&self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        let at = row * self.stride + self.first;
        // SAFETY: as the caller's.
        unsafe { self.out.slice(at + columns.start..at + columns.end) }
    }

    /// Makes the result of a row's sums, those of `columns`: adds the bias, gates them by those of the `right` half where
    /// that is asked for, and writes them.
    ///
    /// # Safety
    /// Nobody else uses these columns of the row.
    #[inline(always)]
    unsafe fn finish(
        &self,
        finish: Finish,
        row: usize,
        columns: Range<usize>,
        left: &mut [f32],
        right: Option<&mut [f32]>,
    ) {
        // SAFETY: as the caller's.
        let out = unsafe { self.slice(row, columns.clone()) };
        if let Some(bias) = self.bias {
            math::add(left, &bias[columns.clone()]);
        }
        if let (Finish::Gate(activation), Some(right)) = (finish, right) {
            if let Some(bias) = self.bias {
                math::add(right, &bias[bias.len() / 2..][columns]);
            }
            math::gate(activation, left, right);
        }
        match finish {
            Finish::Add => math::add(out, left),
            _ => out.copy_from_slice(left),
        }
    }
}

impl Linear {
    /// The stack of `parts`, whose shapes the decoder has checked.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(
        pool: &Pool,
        store: &Store,
        parts: &[Matrix],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let alike = |a: &Matrix, b: &Matrix| match (a, b) {
            (Matrix::Dense(a), Matrix::Dense(b)) => a.dtype == b.dtype,
            (Matrix::Affine(_), Matrix::Affine(_)) => true,
            _ => false,
        };
        let mut stacks = Vec::new();
        for parts in parts.chunk_by(alike) {
            let (mut dense, mut affine) = (Vec::new(), Vec::new());
            for part in parts {
                match part {
                    Matrix::Dense(raw) => dense.push(raw),
                    Matrix::Affine(matrix) => affine.push(matrix),
                }
            }
            stacks.push(if affine.is_empty() {
                Stack::Dense(Dense::new(&dense))
            } else {
                Stack::Affine(Affine::new(pool, store, &affine)?)
            });
        }
        let rows = stacks.iter().map(Stack::rows).sum();
        Ok(Self { stacks, rows, cols: parts[0].shape()[1], bias: bias.map(<[f32]>::to_vec) })
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Whether all of it stays where the checkpoint has it.
    pub(crate) fn is_shared(&self) -> bool {
        self.stacks.iter().all(|s| matches!(s, Stack::Dense(_)))
    }

    /// Row `row` as `f32`, times `scale`.
    pub(crate) fn widen_row(&self, level: Level, mut row: usize, scale: f32, out: &mut [f32]) {
        for stack in &self.stacks {
            if row < stack.rows() {
                return match stack {
                    Stack::Dense(dense) => dense.widen_row(level, row, scale, out),
                    Stack::Affine(affine) => affine.widen_row(row, scale, out),
                };
            }
            row -= stack.rows();
        }
        panic!("a map of {} rows has no row {}", self.rows, self.rows + row);
    }
}

/// What follows a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finish {
    /// Nothing: it is the result.
    Store,
    /// `activation(left half) ⊙ right half` is the result.
    Gate(Activation),
    /// The result, which holds numbers already, becomes the sum of both.
    Add,
}

impl Finish {
    /// Columns of the result of a map with `rows` outputs.
    pub(crate) fn columns(self, rows: usize) -> usize {
        if matches!(self, Self::Gate(_)) { rows / 2 } else { rows }
    }
}

/// `x·Wᵀ + b`, `[rows, map.cols] → [rows, map.rows]`, and what follows.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) level: Level,
    pub(crate) pool: &'a Pool,
    pub(crate) arena: &'a Arena,
    /// Whether activations are multiplied as they are, whatever the weights.
    pub(crate) exact: bool,
    /// `[rows, map.cols]`
    pub(crate) x: &'a [f32],
    pub(crate) map: &'a Linear,
    pub(crate) finish: Finish,
}

impl Product<'_> {
    pub(crate) fn run(&self, scratch: &mut Scratch, out: &mut [f32]) {
        let Self { level, pool, x, map, finish, .. } = *self;
        let rows = x.len() / map.cols;
        let columns = finish.columns(map.rows);
        assert!(x.len() == rows * map.cols && out.len() == rows * columns);
        if rows == 0 {
            return;
        }
        let together = match finish {
            Finish::Store | Finish::Add => true,
            Finish::Gate(_) => map.stacks.len() == 1 && map.stacks[0].has_halves(),
        };
        if !together {
            return self.run_apart(scratch, out);
        }
        let (out, mut first) = (Disjoint::new(out), 0);
        for stack in &map.stacks {
            let bias = map.bias.as_ref().map(|b| &b[first..first + stack.rows()]);
            let target = Target { out, stride: columns, first, bias };
            match stack {
                Stack::Dense(dense) => {
                    let level = if self.exact { level.without_rounding() } else { level };
                    let product = dense::Product { level, pool, x, map: dense, finish, target };
                    product.run(&mut scratch.dense);
                }
                Stack::Affine(affine) => {
                    let product = affine::Product { level, pool, x, map: affine, finish, target };
                    product.run(&mut scratch.affine, self.exact);
                }
            }
            first += stack.rows();
        }
    }

    /// The product first, and then what follows it.
    fn run_apart(&self, scratch: &mut Scratch, out: &mut [f32]) {
        let n = self.map.rows;
        let mut whole = self.arena.tensor(self.x.len() / self.map.cols, n);
        Product { finish: Finish::Store, ..*self }.run(scratch, &mut whole.data);
        let (whole, finish, columns) = (&whole.data, self.finish, self.finish.columns(n));
        self.pool.rows(out, columns, 1, |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                let whole = &whole[row * n..][..n];
                match finish {
                    Finish::Store => out.copy_from_slice(whole),
                    Finish::Gate(activation) => {
                        let (left, right) = whole.split_at(columns);
                        out.copy_from_slice(left);
                        math::gate(activation, out, right);
                    }
                    Finish::Add => math::add(out, whole),
                }
            }
        });
    }
}
