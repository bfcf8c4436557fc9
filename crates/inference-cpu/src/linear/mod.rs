//! Linear maps: stacks of matrices, each kind with its own kernels.

mod affine;
mod dense;

use crate::{
    math,
    pool::{Disjoint, Pool},
    simd::Level,
    tensor::Arena,
};
use affine::Affine;
use dense::Dense;
use inference_core::Result;
use inference_engine::{
    arch::Activation,
    weights::Matrix,
};
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
    /// Some of the product's columns of a row.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    unsafe fn slice(&self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        let at = row * self.stride + self.first;
        // SAFETY: as the caller's.
        unsafe { self.out.slice(at + columns.start..at + columns.end) }
    }
}

impl Linear {
    /// The stack of `parts`, whose shapes the decoder has checked.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(pool: &Pool, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Self> {
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
                Stack::Affine(Affine::new(pool, &affine)?)
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

/// `x·Wᵀ + b`, `[rows, map.cols] → [rows, map.rows]`; with a `gate`, `gate(left half) ⊙ right half` of that.
#[expect(clippy::too_many_arguments, reason = "it is what a product depends on")]
pub(crate) fn product(
    level: Level,
    pool: &Pool,
    arena: &Arena,
    scratch: &mut Scratch,
    x: &[f32],
    map: &Linear,
    gate: Option<Activation>,
    out: &mut [f32],
) {
    let rows = x.len() / map.cols;
    let columns = if gate.is_some() { map.rows / 2 } else { map.rows };
    assert!(x.len() == rows * map.cols && out.len() == rows * columns);
    let in_one = map.stacks.len() == 1 && map.stacks[0].has_halves();
    if let (Some(activation), false) = (gate, in_one) {
        // The halves are not alike: whole rows first, then the gate.
        let mut whole = arena.tensor(rows, map.rows);
        product(level, pool, arena, scratch, x, map, None, &mut whole.data);
        let whole = &whole.data;
        pool.rows(out, columns, 1, |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                let (left, right) = whole[row * map.rows..][..map.rows].split_at(columns);
                out.copy_from_slice(left);
                math::gate(activation, out, right);
            }
        });
        return;
    }
    let (out, mut first) = (Disjoint::new(out), 0);
    for stack in &map.stacks {
        let bias = map.bias.as_ref().map(|b| &b[first..first + stack.rows()]);
        let target = Target { out, stride: columns, first, bias };
        match stack {
            Stack::Dense(dense) => {
                dense::product(level, pool, &mut scratch.dense, x, dense, gate, target);
            }
            Stack::Affine(affine) => {
                affine::product(level, pool, &mut scratch.affine, x, affine, gate, target);
            }
        }
        first += stack.rows();
    }
}
