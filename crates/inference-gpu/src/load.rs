//! Matrices as the kernels want them, made of a checkpoint's.

use crate::{
    driver::Driver,
    gpu::{Gpu, Tensor},
    source::Module,
};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::weights::{Affine, DType, Matrix, RawTensor};
use std::{cell::Cell, rc::Rc, sync::Arc};

/// Columns that rows of matrices are filled up to a multiple of, with zeros.
pub(crate) const STEP: usize = 32;

/// How numbers are stored; the same as in `portable.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F32 = 0,
    F16 = 1,
    Bf16 = 2,
}

impl Stored {
    pub(crate) fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Of the names of kernels that are written for each, this one's.
    pub(crate) fn of<T>(self, [f32, f16, bf16]: [T; 3]) -> T {
        match self {
            Self::F32 => f32,
            Self::F16 => f16,
            Self::Bf16 => bf16,
        }
    }
}

impl TryFrom<DType> for Stored {
    type Error = Error;

    fn try_from(dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::F16 => Ok(Self::F16),
            DType::Bf16 => Ok(Self::Bf16),
            other => Err(Error::unsupported(format!("weights of type {other:?}"), "gpu")),
        }
    }
}

impl TryFrom<CacheDtype> for Stored {
    type Error = Error;

    fn try_from(dtype: CacheDtype) -> Result<Self> {
        match dtype {
            CacheDtype::F32 => Ok(Self::F32),
            CacheDtype::F16 => Ok(Self::F16),
            CacheDtype::Bf16 => Ok(Self::Bf16),
            other => Err(Error::unsupported(format!("a cache of type {other:?}"), "gpu")),
        }
    }
}

/// Memory of the driver's that lives as long as the model, and is counted.
pub(crate) struct Kept<D: Driver> {
    driver: Rc<D>,
    buffer: D::Buffer,
    bytes: u64,
    held: Rc<Held>,
}

/// Bytes of all [`Kept`], and how often some were given back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Cell<u64>,
    freed: Cell<u64>,
}

impl Held {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Grows whenever something is freed.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.get()
    }
}

impl<D: Driver> Kept<D> {
    pub(crate) fn address(&self) -> u64 {
        self.driver.address(&self.buffer)
    }
}

impl<D: Driver> Drop for Kept<D> {
    fn drop(&mut self) {
        self.held.bytes.set(self.held.bytes.get() - self.bytes);
        self.held.freed.set(self.held.freed.get() + 1);
    }
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One number each.
    Dense(Stored),
    /// `bits` bits each, with scales and biases of a type for each `1 << shift` columns.
    Affine { bits: u32, shift: u32, groups: Stored },
}

/// Rows of a linear map that are stored alike.
pub(crate) struct Segment<D: Driver> {
    pub(crate) form: Form,
    /// `[rows, stride]` numbers, or `[rows, stride / 32 * bits]` words.
    pub(crate) weights: Kept<D>,
    /// `[rows, stride >> shift]` pairs of scale and bias, where the form has them.
    pub(crate) groups: Option<Kept<D>>,
    /// The input of each column, where that is not its own.
    pub(crate) order: Option<Kept<D>>,
    /// Where its outputs begin.
    pub(crate) first: usize,
    /// Outputs.
    pub(crate) rows: usize,
}

/// `y = x·Wᵀ + b` on a [`Gpu`].
pub struct Linear<D: Driver> {
    pub(crate) segments: Vec<Segment<D>>,
    pub(crate) bias: Option<Tensor<D>>,
    /// Outputs of all segments.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    /// Columns of a stored row.
    pub(crate) stride: usize,
}

fn form(matrix: &Matrix) -> Result<Form> {
    Ok(match matrix {
        Matrix::Dense(raw) => Form::Dense(raw.dtype.try_into()?),
        Matrix::Affine(affine) => Form::Affine {
            bits: affine.bits(),
            shift: affine.group().trailing_zeros(),
            groups: affine.scales().dtype.try_into()?,
        },
    })
}

fn order(matrix: &Matrix) -> Option<&Arc<[u32]>> {
    match matrix {
        Matrix::Dense(_) => None,
        Matrix::Affine(affine) => affine.order(),
    }
}

impl<D: Driver> Gpu<D> {
    /// Room for `bytes` bytes as long as the model lives.
    pub(crate) fn keep(&self, bytes: usize) -> Result<Kept<D>> {
        let buffer = self.driver.alloc(bytes.max(1))?;
        let bytes = bytes.max(1) as u64;
        self.held.bytes.set(self.held.bytes.get() + bytes);
        Ok(Kept { driver: self.driver.clone(), buffer, bytes, held: self.held.clone() })
    }

    fn put(&self, bytes: &[u8]) -> Result<Kept<D>> {
        let kept = self.keep(bytes.len())?;
        self.driver.upload(&kept.buffer, 0, bytes)?;
        Ok(kept)
    }

    /// The map of `parts`, neighbours of the same form together.
    pub(crate) fn load(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Linear<D>> {
        let cols = parts.first().map_or(0, |p| p.shape()[1]);
        let stride = cols.next_multiple_of(STEP);
        let same = |a: &Matrix, b: &Matrix| {
            matches!((form(a), form(b)), (Ok(a), Ok(b)) if a == b) && order(a) == order(b)
        };
        let mut segments: Vec<Segment<D>> = Vec::new();
        let mut first = 0;
        for parts in parts.chunk_by(same) {
            let segment = self.segment(parts, first, stride)?;
            first += segment.rows;
            segments.push(segment);
        }
        // A head has far more outputs than inputs, and few rows.
        if first <= 32 * cols {
            self.widest.set(self.widest.get().max(4 * (first + cols)));
        }
        let bias = bias.map(|b| self.parameter(b)).transpose()?;
        Ok(Linear { segments, bias, rows: first, cols, stride })
    }

    /// A vector that stays.
    pub(crate) fn parameter(&self, values: &[f32]) -> Result<Tensor<D>> {
        let piece = self.parameters.lend(values.len() * 4)?;
        piece.upload(0, bytemuck::cast_slice(values))?;
        Ok(Tensor { piece, rows: 1, cols: values.len() })
    }

    fn segment(&self, parts: &[Matrix], first: usize, stride: usize) -> Result<Segment<D>> {
        let form = form(&parts[0])?;
        let rows: usize = parts.iter().map(|p| p.shape()[0]).sum();
        let cols = parts[0].shape()[1];
        if rows.checked_mul(stride).is_none() || rows > i32::MAX as usize {
            return Err(Error::Device { reason: format!("a matrix of {rows} rows is too large") });
        }
        let (row, filled) = match form {
            Form::Dense(stored) => (cols * stored.size(), stride * stored.size()),
            Form::Affine { bits, .. } => {
                (cols * bits as usize / 8, stride / STEP * bits as usize * 4)
            }
        };
        let modules: &[Module] = match form {
            Form::Dense(Stored::F32) => &[Module::DenseGemv],
            Form::Dense(_) => &[Module::DenseGemv, Module::DenseGemm],
            Form::Affine { bits, .. } => &[Module::AffineGemv(bits), Module::AffineGemm(bits)],
        };
        for module in modules {
            self.kernels.load(*module)?;
        }
        let weights = self.keep(rows * filled)?;
        let mut at = 0;
        for part in parts {
            let bytes = match part {
                Matrix::Dense(raw) => &raw.bytes,
                Matrix::Affine(affine) => affine.q(),
            };
            if row == filled {
                self.driver.upload(&weights.buffer, at, bytes)?;
                at += bytes.len();
                continue;
            }
            let fill = |row: &[u8]| {
                let mut all = row.to_vec();
                all.resize(filled, 0);
                all
            };
            let bytes: Vec<u8> = bytes.chunks_exact(row.max(1)).flat_map(fill).collect();
            self.driver.upload(&weights.buffer, at, &bytes)?;
            at += bytes.len();
        }
        let affine: Vec<&Affine> = parts
            .iter()
            .filter_map(|p| match p {
                Matrix::Affine(affine) => Some(affine),
                Matrix::Dense(_) => None,
            })
            .collect();
        let groups = match form {
            Form::Affine { .. } => {
                let pairs = affine.iter().map(|a| pairs(a, stride));
                Some(self.put(&pairs.collect::<Vec<_>>().concat())?)
            }
            Form::Dense(_) => None,
        };
        let order = affine.first().and_then(|a| a.order());
        let order = order.map(|o| self.put(bytemuck::cast_slice(o))).transpose()?;
        Ok(Segment { form, weights, groups, order, first, rows })
    }
}

/// Scales and biases beside each other, rows filled up with zeros.
fn pairs(affine: &Affine, stride: usize) -> Vec<u8> {
    let size = affine.scales().dtype.size();
    let groups = affine.cols() / affine.group();
    let filled = stride.div_ceil(affine.group());
    let rows = |raw: &RawTensor| raw.bytes.clone();
    let (scales, biases) = (rows(affine.scales()), rows(affine.biases()));
    let mut all = Vec::with_capacity(affine.rows() * filled * 2 * size);
    for r in 0..affine.rows() {
        for g in r * groups..(r + 1) * groups {
            all.extend_from_slice(&scales[g * size..][..size]);
            all.extend_from_slice(&biases[g * size..][..size]);
        }
        all.resize(all.len() + (filled - groups) * 2 * size, 0);
    }
    all
}
