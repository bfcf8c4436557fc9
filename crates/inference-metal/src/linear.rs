//! Matrices as the kernels want them, made of a checkpoint's.

use crate::{
    device::fault,
    operations::{Operations, Part},
};
use bytes::Bytes;
use candle_core::{DType, Tensor};
use inference_core::{Error, Result};
use inference_engine::weights::{self, Affine, Matrix};
use std::{borrow::Cow, sync::Arc};

/// Columns that rows of matrices are filled up to a multiple of, with zeros.
const STEP: usize = 32;

/// `y = x·Wᵀ + b` on a [`Candle`](crate::Candle).
#[derive(Debug)]
pub struct Linear {
    /// The rows of W, those that are stored alike together.
    pub segments: Vec<Segment>,
    /// `[rows]`
    pub bias: Option<Tensor>,
    /// Outputs of all segments.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Columns of a stored row.
    pub stride: usize,
}

/// Rows of a linear map that are stored alike.
#[derive(Debug)]
pub struct Segment {
    /// `[rows, stride]` numbers, or `[rows, stride / 32 · bits]` words.
    pub weights: Tensor,
    /// What the words mean; `None`: they are numbers.
    pub groups: Option<Groups>,
    /// The input of each column, where that is not its own.
    pub order: Option<Tensor>,
    /// Where its outputs begin.
    pub first: usize,
    /// Outputs.
    pub rows: usize,
}

/// `w[r, c] = q[r, c] · scales[r, c / group] + biases[r, c / group]`
#[derive(Debug)]
pub struct Groups {
    /// Bits of a number; number `c` of a row has the bits `c·bits..(c+1)·bits`.
    pub bits: u32,
    /// log2 of the columns of a group.
    pub shift: u32,
    /// `[rows, ⌈stride / group⌉]`
    pub scales: Tensor,
    /// `[rows, ⌈stride / group⌉]`, of the type of the scales.
    pub biases: Tensor,
}

fn affine(matrix: &Matrix) -> Option<&Affine> {
    match matrix {
        Matrix::Affine(affine) => Some(affine),
        Matrix::Dense(_) => None,
    }
}

fn order(matrix: &Matrix) -> Option<&Arc<[u32]>> {
    affine(matrix).and_then(Affine::order)
}

fn alike(a: &Matrix, b: &Matrix) -> bool {
    let form = |m: &Matrix| (m.dtype(), m.kind().quantisation);
    form(a) == form(b) && order(a) == order(b)
}

fn dtype(dtype: weights::DType) -> Result<DType> {
    match dtype {
        weights::DType::F32 => Ok(DType::F32),
        weights::DType::F16 => Ok(DType::F16),
        weights::DType::Bf16 => Ok(DType::BF16),
        other => Err(Error::unsupported(format!("weights of type {other:?}"), crate::NAME)),
    }
}

impl Linear {
    /// The map of `parts`, neighbours of the same form together.
    pub(crate) fn new<O: Operations>(
        parts: &[Matrix],
        bias: Option<&[f32]>,
        operations: &O,
    ) -> Result<Self> {
        let cols = parts.first().map_or(0, |p| p.shape()[1]);
        let stride = cols.next_multiple_of(STEP);
        let mut segments: Vec<Segment> = Vec::new();
        let mut first = 0;
        for parts in parts.chunk_by(alike) {
            let segment = Segment::new(parts, first, stride, operations)?;
            operations.prepare(Part::Segment(&segment)).map_err(fault)?;
            first += segment.rows;
            segments.push(segment);
        }
        let bias = bias.map(|b| place(operations, bytemuck::cast_slice(b), DType::F32, &[first]));
        Ok(Self { segments, bias: bias.transpose()?, rows: first, cols, stride })
    }

    /// Whether a gate can be applied where its products are made: both halves have the same form.
    pub(crate) fn gates(&self) -> bool {
        self.segments.len() == 1 && self.rows.is_multiple_of(2)
    }
}

impl Segment {
    fn new<O: Operations>(
        parts: &[Matrix],
        first: usize,
        stride: usize,
        operations: &O,
    ) -> Result<Self> {
        let rows: usize = parts.iter().map(|p| p.shape()[0]).sum();
        if rows.checked_mul(stride).is_none() || rows > i32::MAX as usize {
            return Err(Error::Device { reason: format!("a matrix of {rows} rows is too large") });
        }
        let stored = dtype(parts[0].dtype())?;
        // `[rows, numbers]`, of which the parts have fewer in a row.
        let stack = |parts: &[&[u8]], numbers: usize, dtype: DType| {
            let bytes = filled(parts, rows, numbers * dtype.size_in_bytes());
            place(operations, &bytes, dtype, &[rows, numbers])
        };
        let all: Vec<&Affine> = parts.iter().filter_map(affine).collect();
        let Some(form) = all.first() else {
            let dense = parts.iter().filter_map(|part| match part {
                Matrix::Dense(raw) => Some(&raw.bytes[..]),
                Matrix::Affine(_) => None,
            });
            let weights = stack(&dense.collect::<Vec<_>>(), stride, stored)?;
            return Ok(Self { weights, groups: None, order: None, first, rows });
        };
        let (bits, group) = (form.bits(), form.group());
        let of = |bytes: &dyn Fn(&Affine) -> &Bytes, numbers: usize, dtype: DType| {
            stack(&all.iter().map(|a| &bytes(a)[..]).collect::<Vec<_>>(), numbers, dtype)
        };
        let weights = of(&|a| a.q(), stride / STEP * bits as usize, DType::U32)?;
        let scales = of(&|a| &a.scales().bytes, stride.div_ceil(group), stored)?;
        let biases = of(&|a| &a.biases().bytes, stride.div_ceil(group), stored)?;
        let order = form.order().map(|order| {
            place(operations, bytemuck::cast_slice(order), DType::U32, &[order.len()])
        });
        let groups = Some(Groups { bits, shift: group.trailing_zeros(), scales, biases });
        Ok(Self { weights, groups, order: order.transpose()?, first, rows })
    }
}

fn place<O: Operations>(
    operations: &O,
    bytes: &[u8],
    dtype: DType,
    shape: &[usize],
) -> Result<Tensor> {
    operations.place(bytes, dtype, shape).map_err(fault)
}

/// The bytes of `parts` one after the other, with zeros behind each of their `rows` rows up to `row` bytes.
fn filled<'a>(parts: &[&'a [u8]], rows: usize, row: usize) -> Cow<'a, [u8]> {
    let bytes: usize = parts.iter().map(|p| p.len()).sum();
    match parts {
        [one] if bytes == rows * row => return Cow::Borrowed(one),
        _ if bytes == rows * row => return Cow::Owned(parts.concat()),
        _ => {}
    }
    let mut all = Vec::with_capacity(rows * row);
    for from in parts.iter().flat_map(|part| part.chunks_exact(bytes / rows)) {
        all.extend_from_slice(from);
        all.resize(all.len() + row - from.len(), 0);
    }
    Cow::Owned(all)
}
