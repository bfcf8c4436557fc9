//! Small floating-point numbers in blocks with a scale each, as MLX packs them: mxfp4, nvfp4 and mxfp8
//! (<https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>).
//!
//! E2M1 has the values 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives, so twice a value plus 12 is a whole number from 0 to
//! 24: the blocks are affine ones of 5 bits, exactly. E4M3 times a power of two is a bf16 number, exactly where that is
//! above the smallest of bf16.

use super::{
    Affine, DType, Matrix, RawTensor, convert,
    folder::{Form, Packed},
    mlx::label,
    safetensors::Part,
};
use crate::config::{MlxForm, MlxMode};
use half::bf16;
use inference_core::Result;

/// Bits in which E2M1 becomes whole numbers.
const WIDE: usize = 5;

/// What `mx.quantize` divides the global scale of nvfp4 by: the largest E4M3 times the largest E2M1, so that it is the
/// largest number of the tensor.
const GLOBAL: f32 = 448.0 * 6.0;

/// A matrix in blocks.
pub(super) struct Blocks<'a> {
    form: MlxForm,
    shape: [usize; 2],
    /// U32 `[rows, cols · bits / 32]`
    weight: Part<'a>,
    /// U8 `[rows, cols / group]`
    scales: Part<'a>,
    /// Times every scale.
    global: Option<f32>,
}

impl<'a> Blocks<'a> {
    /// A matrix of this `shape`, which the caller has got from weight and scales.
    ///
    /// # Errors
    /// Scales of another type.
    pub(super) fn new(
        form: MlxForm,
        shape: [usize; 2],
        weight: Part<'a>,
        scales: Part<'a>,
        global: Option<Part<'a>>,
    ) -> Result<Self> {
        if scales.dtype() != "U8" {
            let (found, label) = (scales.dtype(), label(form));
            return Err(scales.error(format!("is stored as {found:.40}, but {label} has U8")));
        }
        let global = global.map(|part| match part.floats().map(|g| g.to_f32()) {
            Some(one) if form.mode == MlxMode::NvFp4 && one.len() == 1 => Ok(one[0] / GLOBAL),
            _ => Err(part.error(format!("is not the one number that {} can have", label(form)))),
        });
        Ok(Self { form, shape, weight, scales, global: global.transpose()? })
    }

    /// The value of every scale, checked: no NaN, and none by which a number would be infinite.
    fn scale_table(&self) -> Result<[f32; 256]> {
        let (mut table, largest) = match self.form.mode {
            MlxMode::NvFp4 => (convert::e4m3(), 6.0),
            MlxMode::MxFp4 => (convert::e8m0(), 6.0),
            // A block with a large scale may have small numbers only.
            _ => (convert::e8m0(), 1.0),
        };
        let global = self.global.unwrap_or(1.0);
        table.iter_mut().for_each(|scale| *scale *= global);
        let sound = |byte: &u8| (table[usize::from(*byte)] * largest).is_finite();
        match self.scales.bytes().iter().find(|b| !sound(b)) {
            None => Ok(table),
            Some(byte) => Err(self.scales.error(format!(
                "holds the byte {byte}, which is no scale of {}",
                label(self.form)
            ))),
        }
    }

    /// E2M1 as whole numbers of 5 bits: `value · scale = number · scale / 2 − 6 · scale`.
    fn affine(&self, table: &[f32; 256]) -> Result<Matrix> {
        let [rows, cols] = self.shape;
        // Exact in bf16, but where a global scale has all its bits.
        let dtype = if self.global.is_some() { DType::F32 } else { DType::Bf16 };
        let scales = |factor: f32| {
            let halves = self.scales.bytes().iter().map(|b| 0.5 * table[usize::from(*b)] * factor);
            let bytes: Vec<u8> = match dtype {
                DType::F32 => halves.flat_map(f32::to_le_bytes).collect(),
                _ => halves.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            };
            let shape = vec![rows, cols / self.form.group];
            RawTensor { dtype, shape, bytes: bytes.into() }
        };
        let pairs = pairs();
        let (from, to) = (cols / 2, cols * WIDE / 8);
        let mut q = vec![0; rows * to];
        convert::rows(&mut q, to, 1, |range, out| {
            let weight = &self.weight.bytes()[range.start * from..range.end * from];
            for (eight, out) in weight.chunks_exact(4).zip(out.chunks_exact_mut(WIDE)) {
                let all = eight.iter().rev().fold(0, |all, byte| {
                    (all << (2 * WIDE)) | u64::from(pairs[usize::from(*byte)])
                });
                out.copy_from_slice(&all.to_le_bytes()[..WIDE]);
            }
        });
        let (scales, biases) = (scales(1.0), scales(-12.0));
        Affine::new(WIDE as u32, self.form.group, self.shape, q.into(), scales, biases)
            .map(Matrix::Affine)
            .map_err(|reason| self.weight.error(format!("is no {}: {reason}", label(self.form))))
    }

    /// E4M3 as bf16.
    fn dense(&self, table: &[f32; 256]) -> Matrix {
        let ([rows, cols], group) = (self.shape, self.form.group);
        let numbers = convert::e4m3();
        let mut bytes = vec![0; rows * cols * 2];
        convert::rows(&mut bytes, cols * 2, 1, |range, out| {
            let weight = &self.weight.bytes()[range.start * cols..range.end * cols];
            let scales = &self.scales.bytes()[range.start * (cols / group)..];
            let blocks = weight.chunks_exact(group).zip(out.chunks_exact_mut(group * 2));
            for ((block, out), scale) in blocks.zip(scales) {
                let scale = table[usize::from(*scale)];
                for (byte, out) in block.iter().zip(out.chunks_exact_mut(2)) {
                    let x = numbers[usize::from(*byte)] * scale;
                    out.copy_from_slice(&bf16::from_f32(x).to_le_bytes());
                }
            }
        });
        Matrix::Dense(RawTensor {
            dtype: DType::Bf16,
            shape: self.shape.to_vec(),
            bytes: bytes.into(),
        })
    }
}

/// Two E2M1 numbers of a byte, the lower half first, as two whole numbers of 5 bits.
fn pairs() -> [u16; 256] {
    // Twice the value, plus 12; the sign is the highest bit.
    const NUMBERS: [u16; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
    std::array::from_fn(|byte| NUMBERS[byte & 15] | (NUMBERS[byte >> 4] << WIDE))
}

impl Packed for Blocks<'_> {
    fn form(&self) -> Form {
        let [rows, cols] = self.shape;
        let (numbers, groups) = ((rows * cols) as u64, (rows * cols / self.form.group) as u64);
        let bytes = match (self.form.mode, self.global) {
            (MlxMode::MxFp8, _) => numbers * 2,
            (_, None) => numbers * WIDE as u64 / 8 + groups * 4,
            (_, Some(_)) => numbers * WIDE as u64 / 8 + groups * 8,
        };
        Form { shape: self.shape, bits: self.form.bits, group: Some(self.form.group), bytes }
    }

    fn matrix(&self) -> Result<Matrix> {
        let table = self.scale_table()?;
        let matrix = match self.form.mode {
            MlxMode::MxFp8 => Ok(self.dense(&table)),
            _ => self.affine(&table),
        };
        // All of it is copied.
        self.weight.release();
        self.scales.release();
        matrix
    }
}
