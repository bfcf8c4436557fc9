//! Matrices of 8-bit floating point (E4M3) with scales for the whole, for rows or for blocks: `weight` and
//! `weight_scale_inv`, by which it is multiplied whatever the name says (DeepSeek's and Qwen's checkpoints), or
//! `weight_scale` (<https://github.com/vllm-project/compressed-tensors>).
//!
//! They become bf16, as `transformers` makes of them and as DeepSeek's own conversion does: what that rounds away is a
//! sixteenth of what E4M3 already did.

use super::{
    DType, Matrix, RawTensor, SafeTensors, convert,
    folder::{Form, Packed, Scheme},
    safetensors::Part,
};
use crate::config::Fp8;
use half::bf16;
use inference_core::Result;

/// What the safetensors format calls the type of the numbers.
const E4M3: &str = "F8_E4M3";

/// Columns of a block below which its numbers are multiplied one by one.
const NARROW: usize = 64;

/// How the name of the scales may end.
const SCALES: [&str; 2] = ["weight_scale_inv", "weight_scale"];

impl Scheme for Fp8 {
    fn holds(&self, tensors: &SafeTensors, module: &str) -> bool {
        scales_of(tensors, module).is_some()
            || tensors.part(&format!("{module}.weight")).is_some_and(|w| w.dtype() == E4M3)
    }

    fn find<'a>(&self, tensors: &'a SafeTensors, module: &str) -> Result<Box<dyn Packed + 'a>> {
        let weight = tensors.needed(&format!("{module}.weight"))?;
        let scales = match scales_of(tensors, module) {
            Some(scales) => scales,
            None => tensors.needed(&format!("{module}.{}", SCALES[0]))?,
        };
        if weight.dtype() != E4M3 {
            let found = weight.dtype();
            let reason = format!("is stored as {found:.40}, but has scales as fp8 has: {E4M3} can");
            return Err(weight.error(reason));
        }
        let [rows, cols] = weight.matrix()?;
        let grid = [rows.div_ceil(self.block[0]), cols.div_ceil(self.block[1])];
        let block = match scales.shape() {
            [] | [1] | [1, 1] => [rows, cols],
            [n] | [n, 1] if *n == rows => [1, cols],
            shape if shape == grid => self.block,
            other => {
                return Err(scales.error(format!(
                    "has shape {other:?}; fp8 of [{rows}, {cols}] in blocks of {:?} has {grid:?}, \
                     [{rows}, 1] or [1]",
                    self.block
                )));
            }
        };
        if rows == 0 || cols == 0 {
            return Err(weight.error("is empty"));
        }
        Ok(Box::new(Stored { shape: [rows, cols], block, weight, scales }))
    }
}

fn scales_of<'a>(tensors: &'a SafeTensors, module: &str) -> Option<Part<'a>> {
    SCALES.iter().find_map(|end| tensors.part(&format!("{module}.{end}")))
}

struct Stored<'a> {
    shape: [usize; 2],
    /// Rows and columns that share a scale.
    block: [usize; 2],
    weight: Part<'a>,
    /// Row-major over the blocks.
    scales: Part<'a>,
}

impl Stored<'_> {
    /// The scales, which must be finite.
    fn scales(&self) -> Result<Vec<f32>> {
        let scales = match (self.scales.floats(), self.scales.dtype()) {
            (Some(floats), _) => floats.to_f32(),
            (None, "F8_E8M0" | "U8") => {
                let table = convert::e8m0();
                self.scales.bytes().iter().map(|b| table[usize::from(*b)]).collect()
            }
            (None, other) => {
                let reason = format!("is stored as {other:.40}; F32, F16, BF16 and F8_E8M0 can be");
                return Err(self.scales.error(reason));
            }
        };
        match scales.iter().find(|s| !s.is_finite()) {
            None => Ok(scales),
            Some(wrong) => Err(self.scales.error(format!("holds {wrong}, which is no scale"))),
        }
    }
}

impl Packed for Stored<'_> {
    fn form(&self) -> Form {
        let bytes = (self.weight.bytes().len() * 2) as u64;
        Form { shape: self.shape, bits: 8, group: None, bytes }
    }

    fn matrix(&self) -> Result<Matrix> {
        let ([rows, cols], [high, wide]) = (self.shape, self.block);
        let (scales, numbers) = (self.scales()?, convert::e4m3());
        let across = cols.div_ceil(wide);
        let bf16 = |x: f32| bf16::from_f32(x).to_le_bytes();
        let mut bytes = vec![0; rows * cols * 2];
        convert::rows(&mut bytes, cols * 2, 1, |range, out| {
            // What each byte becomes, by block of the row; for narrow ones that is more work than it saves.
            let tabled = wide >= NARROW;
            let mut tables = vec![[[0; 2]; 256]; if tabled { across } else { 0 }];
            let mut of = None;
            for (row, out) in range.zip(out.chunks_exact_mut(cols * 2)) {
                let scales = &scales[row / high * across..][..across];
                if tabled && of != Some(row / high) {
                    of = Some(row / high);
                    for (table, scale) in tables.iter_mut().zip(scales) {
                        *table = numbers.map(|x| bf16(x * scale));
                    }
                }
                let weight = self.weight.bytes()[row * cols..][..cols].chunks(wide);
                for (i, (block, out)) in weight.zip(out.chunks_mut(wide * 2)).enumerate() {
                    let number = |byte: &u8| match tables.get(i) {
                        Some(table) => table[usize::from(*byte)],
                        None => bf16(numbers[usize::from(*byte)] * scales[i]),
                    };
                    let pairs = block.iter().zip(out.chunks_exact_mut(2));
                    pairs.for_each(|(byte, out)| out.copy_from_slice(&number(byte)));
                }
            }
        });
        // All of it is copied.
        self.weight.release();
        let shape = self.shape.to_vec();
        Ok(Matrix::Dense(RawTensor { dtype: DType::Bf16, shape, bytes: bytes.into() }))
    }
}
