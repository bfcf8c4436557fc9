//! GGUF files (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): tensors under the names and in the order
//! of Hugging Face's layout, dense ones as they lie in the file, quantised ones as [`Affine`](super::Affine).

mod blocks;
mod convert;
mod names;
mod pack;
#[cfg(test)]
mod tests;

use super::{DType, Kind, Matrix, RawTensor, Weights, mapped::Mapped};
use blocks::Layout;
use bytes::Bytes;
use inference_core::{Error, Quantisation, Result};
use inference_text::gguf::{GgmlType, Gguf, Tensor};
use names::{Place, Turned};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// The tensors of a file or of all its parts, mapped into memory: nothing is read before it is asked for.
#[derive(Debug)]
pub struct GgufWeights {
    files: Vec<(PathBuf, Mapped)>,
    /// By the names of Hugging Face's layout.
    tensors: HashMap<String, Stored>,
    bytes: u64,
    parameters: u64,
    quantisation: Option<Quantisation>,
    exact: bool,
}

/// A tensor in a file.
#[derive(Debug)]
struct Stored {
    /// Its name there.
    name: String,
    ty: GgmlType,
    /// Outermost first.
    shape: Vec<usize>,
    file: usize,
    bytes: Bytes,
    turned: Option<Turned>,
}

impl GgufWeights {
    /// Maps the files of `gguf`.
    ///
    /// # Errors
    /// [`Error::Io`] if one can't be mapped; [`Error::InvalidFile`] for a tensor that has no place in the model, or a
    /// type that can't be computed with; as [`families`](crate::families) for metadata.
    pub fn open(gguf: &Gguf) -> Result<Self> {
        let map = |path: &PathBuf| Ok((path.clone(), Mapped::open(path)?));
        let files = gguf.parts().iter().map(map).collect::<Result<Vec<_>>>()?;
        let places = names::Places::new(gguf)?;
        let mut weights = Self {
            files,
            tensors: HashMap::new(),
            bytes: 0,
            parameters: 0,
            quantisation: gguf.quantisation(),
            exact: false,
        };
        for tensor in gguf.tensors() {
            let (path, mapped) = &weights.files[tensor.part];
            let wrong =
                |reason: &str| Error::file(path, format!("tensor `{}` {reason}", tensor.name));
            match places.of(tensor) {
                Place::Named(name, turned) => {
                    let bytes = bytes(mapped, tensor)
                        .ok_or_else(|| wrong("ends behind the end of the file"))?;
                    let stored = Stored::new(tensor, bytes, turned).map_err(|e| wrong(&e))?;
                    weights.bytes += stored.loaded_bytes();
                    weights.parameters = weights.parameters.saturating_add(tensor.numbers());
                    weights.tensors.insert(name, stored);
                }
                Place::Read => {}
                Place::Nothing if is_nothing(mapped, tensor) => {}
                _ => return Err(wrong("has no place in this model")),
            }
        }
        Ok(weights)
    }

    /// The same, with the scales of K-quants as they are in the file: products of a number of 16 and one of 6 or 8 bits,
    /// which take 32 bits. Else they are rounded to 16.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| {
            let (name, path) = (name.to_owned(), self.files[0].0.clone());
            Error::MissingTensor { name, path }
        })
    }

    fn path(&self, stored: &Stored) -> &Path {
        &self.files[stored.file].0
    }
}

impl Weights for GgufWeights {
    fn get(&self, name: &str) -> Result<RawTensor> {
        let stored = self.stored(name)?;
        let raw = stored.dense().ok_or_else(|| {
            let reason = format!(
                "tensor `{}` is stored as {}, but `{name}` can't be quantised",
                stored.name, stored.ty
            );
            Error::file(self.path(stored), reason)
        })?;
        if stored.turned.is_some() {
            // It is a copy, in another order.
            self.files[stored.file].1.release(&stored.bytes);
        }
        Ok(raw)
    }

    fn matrix(&self, module: &str) -> Result<Matrix> {
        let stored = self.stored(&format!("{module}.weight"))?;
        let (Some(layout), &[rows, cols]) = (Layout::of(stored.ty), &stored.shape[..]) else {
            return self.get(&format!("{module}.weight")).map(Matrix::Dense);
        };
        let affine =
            convert::affine(layout, &stored.bytes, [rows, cols], stored.turned, self.exact);
        // What was read is not needed any more.
        self.files[stored.file].1.release(&stored.bytes);
        let wrong = |reason| format!("tensor `{}` ({}): {reason}", stored.name, stored.ty);
        affine.map(Matrix::Affine).map_err(|e| Error::file(self.path(stored), wrong(e)))
    }

    fn kind(&self, module: &str) -> Result<Kind> {
        let stored = self.stored(&format!("{module}.weight"))?;
        let shape = stored.shape.clone();
        if let Some(dtype) = dtype(stored.ty) {
            return Ok(Kind { shape, dtype, quantisation: None });
        }
        let bits = stored.ty.quantised_bits().unwrap_or_default();
        let quantisation = Some(Quantisation { bits, group_size: stored.ty.group_len() });
        Ok(Kind { shape, dtype: DType::F16, quantisation })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn release(&self, module: &str) {
        if let Some(stored) = self.tensors.get(&format!("{module}.weight")) {
            self.files[stored.file].1.release(&stored.bytes);
        }
    }

    /// As the matrices are handed out: a little more than they take in the file.
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn quantisation(&self) -> Option<Quantisation> {
        self.quantisation
    }
}

impl Stored {
    fn new(tensor: &Tensor, bytes: Bytes, turned: Option<Turned>) -> Result<Self, String> {
        let size = |&dim: &u64| usize::try_from(dim).map_err(|_| format!("is too large: {dim}"));
        let shape = tensor.dims.iter().rev().map(size).collect::<Result<Vec<_>, _>>()?;
        let ty = tensor.ty;
        if dtype(ty).is_none() && Layout::of(ty).is_none() {
            let known =
                GgmlType::ALL.iter().filter(|t| dtype(**t).is_some() || Layout::of(**t).is_some());
            let known: Vec<_> = known.map(|t| t.name()).collect();
            return Err(format!(
                "is stored as {ty}, which can't be computed with; {} can",
                known.join(", ")
            ));
        }
        if let Some(turned) = turned
            && turned.rows > shape[0]
        {
            return Err(format!("has shape {shape:?}, but {} rows of heads", turned.rows));
        }
        let (name, file) = (tensor.name.clone(), tensor.part);
        Ok(Self { name, ty, shape, file, bytes, turned })
    }

    /// The tensor, if it has one floating-point number each.
    fn dense(&self) -> Option<RawTensor> {
        let dtype = dtype(self.ty)?;
        let bytes = match self.turned {
            None => self.bytes.clone(),
            Some(turned) => {
                let row = self.bytes.len() / self.shape[0].max(1);
                let rows = (0..self.shape[0]).map(|r| &self.bytes[turned.row(r) * row..][..row]);
                rows.collect::<Vec<_>>().concat().into()
            }
        };
        Some(RawTensor { dtype, shape: self.shape.clone(), bytes })
    }

    fn loaded_bytes(&self) -> u64 {
        match Layout::of(self.ty) {
            Some(layout) => layout.loaded_bytes(self.shape.iter().product()),
            None => self.bytes.len() as u64,
        }
    }
}

/// The type that our own tensors have for it.
fn dtype(ty: GgmlType) -> Option<DType> {
    match ty {
        GgmlType::F32 => Some(DType::F32),
        GgmlType::F16 => Some(DType::F16),
        GgmlType::BF16 => Some(DType::Bf16),
        _ => None,
    }
}

/// A tensor's bytes; the header was read before the file was mapped.
fn bytes(mapped: &Mapped, tensor: &Tensor) -> Option<Bytes> {
    let begin = usize::try_from(tensor.begin).ok()?;
    let end = begin.checked_add(usize::try_from(tensor.bytes).ok()?)?;
    (end <= mapped.bytes().len()).then(|| mapped.bytes().slice(begin..end))
}

/// Whether a tensor of logarithms stands for zeros.
fn is_nothing(mapped: &Mapped, tensor: &Tensor) -> bool {
    let nothing = f32::NEG_INFINITY.to_le_bytes();
    let all = bytes(mapped, tensor).filter(|_| tensor.ty == GgmlType::F32);
    all.is_some_and(|all| all.chunks_exact(4).all(|number| number == nothing))
}

/// The numbers of the file's vector `name`, if it is there.
///
/// # Errors
/// [`Error::InvalidFile`] for one that is no vector of f32.
pub(crate) fn vector(gguf: &Gguf, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = gguf.tensors().iter().find(|t| t.name == name) else { return Ok(None) };
    let path = &gguf.parts()[tensor.part];
    let mapped = Mapped::open(path)?;
    match (tensor.ty, &tensor.dims[..], bytes(&mapped, tensor)) {
        (GgmlType::F32, [len], Some(bytes)) => {
            let shape = vec![*len as usize];
            Ok(Some(RawTensor { dtype: DType::F32, shape, bytes }.to_f32()))
        }
        _ => Err(Error::file(path, format!("tensor `{name}` is no vector of F32"))),
    }
}
