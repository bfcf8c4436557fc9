//! Where parameters come from. Every checkpoint format ends here as named tensors in Hugging Face's layout.

mod affine;
mod awq;
mod convert;
mod folder;
mod fp8;
pub(crate) mod gguf;
mod gptq;
mod header;
mod mapped;
mod microscaling;
mod mlx;
mod packed;
mod quantise;
mod quantising;
mod safetensors;
mod writer;

pub use self::{
    affine::{Affine, Matrix},
    folder::Folder,
    gguf::GgufWeights,
    quantise::quantise,
    quantising::{Planned, Quantising},
    safetensors::SafeTensors,
};
pub(crate) use self::{
    safetensors::Part,
    writer::{Entry, Writer},
};

use bytes::Bytes;
use half::{bf16, f16};
use inference_core::{Quantisation, Result};

/// How the numbers of a tensor are stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// The upper half of a 32-bit IEEE number.
    Bf16,
}

impl DType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor as it lies in a file. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct RawTensor {
    /// How its numbers are stored.
    pub dtype: DType,
    /// `[out, in]` of a matrix, row-major; `[n]` of a vector.
    pub shape: Vec<usize>,
    /// `shape.product() · dtype.size()` bytes; not necessarily aligned.
    pub bytes: Bytes,
}

impl RawTensor {
    /// The numbers, widened.
    pub fn to_f32(&self) -> Vec<f32> {
        let pairs = || self.bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self.dtype {
            DType::F32 => self
                .bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }
}

/// What is known of a matrix before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// `[out, in]`; a damaged file may have anything here.
    pub shape: Vec<usize>,
    /// The type of its numbers, or of its scales.
    pub dtype: DType,
    /// `None`: it is dense.
    pub quantisation: Option<Quantisation>,
}

/// A checkpoint's tensors, by the names they have in Hugging Face's layout.
pub trait Weights {
    /// The tensor called `name`, of one floating-point number each.
    ///
    /// # Errors
    /// [`Error::MissingTensor`](inference_core::Error::MissingTensor), or `InvalidFile` for a type we can't compute with.
    fn get(&self, name: &str) -> Result<RawTensor>;

    /// The matrix of `module`: its `weight`, with what belongs to it where it is quantised.
    ///
    /// # Errors
    /// As [`get`](Self::get), naming the tensor and the format.
    fn matrix(&self, module: &str) -> Result<Matrix> {
        self.get(&format!("{module}.weight")).map(Matrix::Dense)
    }

    /// What the matrix of `module` is, for those who don't need its numbers yet.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    fn kind(&self, module: &str) -> Result<Kind> {
        self.matrix(module).map(|matrix| matrix.kind())
    }

    /// Whether there is a tensor called `name`, or, for the `weight` of a module, a matrix in some other form.
    fn has(&self, name: &str) -> bool;

    /// Lets the memory of a module's matrix go, where that can be read again.
    fn release(&self, module: &str);

    /// Bytes of all tensors.
    fn bytes(&self) -> u64;

    /// Numbers in all tensors, those of quantised matrices counted once each.
    fn parameters(&self) -> u64;

    /// How most matrices are quantised; `None`: they are not.
    fn quantisation(&self) -> Option<Quantisation> {
        None
    }
}
