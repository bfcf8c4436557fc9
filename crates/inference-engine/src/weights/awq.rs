//! AWQ's matrices, as AutoAWQ stores them for its kernel `gemm`: `qweight` `[in, out / 8]`, `qzeros` `[groups, out / 8]`
//! and `scales` `[groups, out]`. A word has eight neighbouring outputs of 4 bits, first those with an even place
//! (<https://github.com/casper-hansen/AutoAWQ>, `modules/linear/gemm.py`).

use super::{
    Matrix, SafeTensors,
    folder::{Form, Packed, Scheme},
    packed::{Groups, LANES, Words, tiles},
    safetensors::Part,
};
use crate::config::Awq;
use inference_core::Result;

/// Which of a word's outputs each of its numbers is of, from the lowest bits on.
const OUTPUTS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Outputs that are packed at a time.
const ACROSS: usize = 8 * LANES;

/// Words of an output that are packed at a time.
const DEEP: usize = 16;

impl Scheme for Awq {
    fn holds(&self, tensors: &SafeTensors, module: &str) -> bool {
        tensors.part(&format!("{module}.qweight")).is_some()
    }

    fn find<'a>(&self, tensors: &'a SafeTensors, module: &str) -> Result<Box<dyn Packed + 'a>> {
        let part = |end: &str| tensors.needed(&format!("{module}.{end}"));
        let (weight, zero_part, scales) = (part("qweight")?, part("qzeros")?, part("scales")?);
        let label = format!("awq of {}", self.form);
        let (words, [cols, words_across]) = Words::new(&label, weight)?;
        let (zeros, zero_shape) = Words::new(&label, zero_part)?;
        let Some(rows) = words_across.checked_mul(8).filter(|_| cols.is_multiple_of(8)) else {
            let reason = format!("has {cols} rows; {label} has a multiple of 8");
            return Err(weight.error(reason));
        };
        let groups = Groups::new(&label, Some(self.form), 4, [rows, cols], scales)?;
        if zero_shape != [groups.count(), words_across] {
            let wanted = [groups.count(), words_across];
            let reason = format!("has shape {zero_shape:?}, but must have {wanted:?}");
            return Err(zero_part.error(reason));
        }
        Ok(Box::new(Stored { groups, words, zeros, weight }))
    }
}

struct Stored<'a> {
    groups: Groups,
    words: Words<'a>,
    zeros: Words<'a>,
    weight: Part<'a>,
}

impl Stored<'_> {
    /// `[groups, out]`
    fn zeros(&self) -> Vec<u8> {
        let rows = self.groups.shape[0];
        let mut zeros = vec![0; self.groups.count() * rows];
        for (group, zeros) in zeros.chunks_exact_mut(rows).enumerate() {
            for (col, zeros) in zeros.chunks_exact_mut(8).enumerate() {
                let word = self.zeros.get(group, col);
                for (i, output) in OUTPUTS.into_iter().enumerate() {
                    zeros[output] = (word >> (4 * i)) as u8 & 15;
                }
            }
        }
        zeros
    }

    /// The bit streams of all outputs.
    fn pack(&self) -> Vec<u8> {
        let [rows, cols] = self.groups.shape;
        let words = cols / 8;
        tiles::<ACROSS, DEEP>([rows, words], |row, word, out| {
            for w in 0..DEEP.min(words - word) {
                let inputs: [_; 8] =
                    std::array::from_fn(|k| self.words.lanes((word + w) * 8 + k, row / 8));
                for (i, output) in OUTPUTS.into_iter().enumerate() {
                    let mut packed = [0; LANES];
                    for (k, input) in inputs.iter().enumerate() {
                        let numbers = packed.iter_mut().zip(input);
                        numbers.for_each(|(p, input)| *p |= ((input >> (4 * i)) & 15) << (4 * k));
                    }
                    for (out, packed) in out.chunks_exact_mut(8).zip(packed) {
                        out[output][w] = packed;
                    }
                }
            }
        })
    }
}

impl Packed for Stored<'_> {
    fn form(&self) -> Form {
        let Groups { bits, group, shape, .. } = self.groups;
        Form { shape, bits, group: Some(group), bytes: self.groups.bytes(false) }
    }

    fn matrix(&self) -> Result<Matrix> {
        let q = self.pack();
        // It is copied.
        self.weight.release();
        let affine = self.groups.affine(q, &self.zeros(), None);
        affine
            .map(Matrix::Affine)
            .map_err(|reason| self.weight.error(format!("is no awq: {reason}")))
    }
}
