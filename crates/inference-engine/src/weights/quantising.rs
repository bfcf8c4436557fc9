//! A checkpoint whose dense matrices are quantised when they are asked for.

use super::{DType, Kind, Matrix, RawTensor, Weights, quantise, quantise::GROUPS};
use inference_core::{Error, Quantisation, Result};
use std::{collections::HashMap, path::Path};

/// The tensors of another checkpoint, some of whose matrices are quantised: each when it is asked for, and the memory
/// of what it was made from is let go then.
pub struct Quantising<'a> {
    inner: &'a dyn Weights,
    path: &'a Path,
    planned: HashMap<String, Planned>,
    bytes: u64,
    most: Quantisation,
    threads: usize,
}

/// How a dense matrix will be quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Outputs and inputs.
    pub shape: [usize; 2],
    /// Of the numbers now, and of scales and biases then.
    pub dtype: DType,
    /// Bits of a number then.
    pub bits: u32,
    /// Columns that share a scale.
    pub group: usize,
}

impl Planned {
    /// Groups of all rows.
    pub fn groups(&self) -> usize {
        self.shape[0] * (self.shape[1] / self.group)
    }

    /// Bytes of the numbers then.
    pub fn packed_bytes(&self) -> usize {
        self.shape[0] * (self.shape[1] * self.bits as usize / 8)
    }

    /// Bytes then, with scales and biases.
    fn bytes(&self) -> u64 {
        (self.packed_bytes() + 2 * self.groups() * self.dtype.size()) as u64
    }

    /// Bytes now.
    fn dense_bytes(&self) -> u64 {
        (self.shape[0] * self.shape[1] * self.dtype.size()) as u64
    }
}

impl<'a> Quantising<'a> {
    /// Of the tensors of `inner`, which are at `path`, those of `modules` will be quantised, each to so many bits, in
    /// groups of `group` columns, or of the largest smaller one that divides them. A matrix whose columns none divides
    /// stays dense, and one that is quantised already stays as it is. Nothing is read yet.
    ///
    /// The number of `threads` changes no bit.
    ///
    /// # Errors
    /// As [`Weights::kind`]; [`Error::InvalidFile`] if not one matrix can be quantised.
    pub fn new(
        inner: &'a dyn Weights,
        path: &'a Path,
        modules: impl IntoIterator<Item = (String, u8)>,
        group: usize,
        threads: usize,
    ) -> Result<Self> {
        let mut planned = HashMap::new();
        for (module, bits) in modules {
            if !inner.has(&format!("{module}.weight")) {
                continue;
            }
            let Kind { shape, dtype, quantisation: None } = inner.kind(&module)? else { continue };
            let &[rows, cols] = shape.as_slice() else { continue };
            let fits = |g: &&usize| **g <= group && cols.is_multiple_of(**g);
            if let Some(&group) = GROUPS.iter().rev().find(fits) {
                let (shape, bits) = ([rows, cols], u32::from(bits));
                planned.insert(module, Planned { shape, dtype, bits, group });
            }
        }
        let most = most(planned.values()).ok_or_else(|| {
            Error::file(
                path,
                "not one of its matrices can be quantised: groups have 32 columns or more",
            )
        })?;
        let sum = |bytes: fn(&Planned) -> u64| planned.values().map(bytes).sum();
        let bytes = inner.bytes().saturating_sub(sum(Planned::dense_bytes)) + sum(Planned::bytes);
        Ok(Self { inner, path, planned, bytes, most, threads })
    }

    /// How the matrix of `module` will be quantised; `None`: it stays as it is.
    pub fn planned(&self, module: &str) -> Option<&Planned> {
        self.planned.get(module)
    }
}

/// How most numbers will be quantised.
fn most<'p>(planned: impl Iterator<Item = &'p Planned>) -> Option<Quantisation> {
    let mut numbers = HashMap::<_, u64>::new();
    for p in planned {
        let count = numbers.entry((p.bits, p.group)).or_default();
        *count = count.saturating_add((p.shape[0] * p.shape[1]) as u64);
    }
    let (&(bits, group), _) = numbers.iter().max_by_key(|&(form, count)| (*count, *form))?;
    Some(Quantisation { bits: bits as u8, group_size: Some(group) })
}

impl Weights for Quantising<'_> {
    fn get(&self, name: &str) -> Result<RawTensor> {
        self.inner.get(name)
    }

    fn matrix(&self, module: &str) -> Result<Matrix> {
        let matrix = self.inner.matrix(module)?;
        match (self.planned.get(module), matrix) {
            (Some(&Planned { bits, group, .. }), Matrix::Dense(raw)) => {
                let made = quantise(&raw, bits, group, self.threads).map_err(|reason| {
                    Error::file(self.path, format!("tensor `{module}.weight`: {reason}"))
                })?;
                self.inner.release(module);
                Ok(Matrix::Affine(made))
            }
            (_, matrix) => Ok(matrix),
        }
    }

    fn kind(&self, module: &str) -> Result<Kind> {
        match self.planned.get(module) {
            Some(&Planned { shape, dtype, bits, group }) => Ok(Kind {
                shape: shape.to_vec(),
                dtype,
                quantisation: Some(Quantisation { bits: bits as u8, group_size: Some(group) }),
            }),
            None => self.inner.kind(module),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.inner.has(name)
    }

    fn release(&self, module: &str) {
        self.inner.release(module);
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn parameters(&self) -> u64 {
        self.inner.parameters()
    }

    fn quantisation(&self) -> Option<Quantisation> {
        Some(self.most)
    }
}
