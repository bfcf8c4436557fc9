//! GPTQ's matrices: `qweight` `[in · bits / 32, out]`, in which each column is the bit stream of an output; `qzeros`
//! `[groups, out · bits / 32]`, each row one stream; `scales` `[groups, out]`; and `g_idx` `[in]`, the group of each
//! input (<https://github.com/AutoGPTQ/AutoGPTQ>, `qlinear_cuda_old.py`).
//!
//! In the first version of the format zeros are stored less one, modulo what their bits hold.

use super::{
    Matrix, SafeTensors,
    folder::{Form, Packed, Scheme},
    packed::{Groups, LANES, Words, tiles},
    safetensors::Part,
};
use crate::config::Gptq;
use inference_core::Result;
use std::sync::Arc;

/// Words of an output that are packed at a time: whole numbers of 2, 3, 4 and 8 bits fit.
const DEEP: usize = 24;

impl Scheme for Gptq {
    fn holds(&self, tensors: &SafeTensors, module: &str) -> bool {
        tensors.part(&format!("{module}.qweight")).is_some()
    }

    fn find<'a>(&self, tensors: &'a SafeTensors, module: &str) -> Result<Box<dyn Packed + 'a>> {
        let part = |end: &str| tensors.needed(&format!("{module}.{end}"));
        let (weight, zeros, scales) = (part("qweight")?, part("qzeros")?, part("scales")?);
        let label = self.label();
        let (words, [rows_of_words, rows]) = Words::new(&label, weight)?;
        let (zero_words, [zero_rows, zero_cols]) = Words::new(&label, zeros)?;

        // A row of zeros has one for each output: that tells the bits.
        let ratio = zero_cols.checked_mul(32).filter(|all| rows > 0 && all % rows == 0);
        let bits = ratio.map_or(0, |all| all / rows);
        let wanted = self.form.map(|form| form.bits as usize);
        if ![2, 3, 4, 8].contains(&bits) || wanted.is_some_and(|wanted| wanted != bits) {
            let reason =
                format!("has {zero_cols} words a row for {rows} outputs, which is no {label}");
            return Err(zeros.error(reason));
        }
        let cols = rows_of_words.checked_mul(32).filter(|all| all % bits == 0).map(|a| a / bits);
        let Some(cols) = cols.filter(|cols| cols.is_multiple_of(32)) else {
            let reason =
                format!("has {rows_of_words} rows, which {bits} bits don't fill in groups of 32");
            return Err(weight.error(reason));
        };
        let groups = Groups::new(&label, self.form, bits as u32, [rows, cols], scales)?;
        if zero_rows != groups.count() {
            let reason = format!("has {zero_rows} rows for {} groups", groups.count());
            return Err(zeros.error(reason));
        }
        let index = tensors.part(&format!("{module}.g_idx"));
        if let Some(index) = index.filter(|i| i.dtype() != "I32" || i.shape() != [cols]) {
            let reason = format!("must be I32 of shape [{cols}], the group of each input");
            return Err(index.error(reason));
        }
        let symmetric = self.symmetric;
        let offset = if self.exact_zeros { 0 } else { 1 };
        Ok(Box::new(Stored { groups, words, zeros: zero_words, offset, symmetric, index, weight }))
    }
}

impl Gptq {
    /// Such as `gptq of 4 bits in groups of 128`, for messages.
    fn label(&self) -> String {
        match self.form {
            None => "gptq".to_owned(),
            Some(form) => format!("gptq of {form}"),
        }
    }
}

struct Stored<'a> {
    groups: Groups,
    words: Words<'a>,
    zeros: Words<'a>,
    /// What is added to a zero.
    offset: u32,
    symmetric: bool,
    index: Option<Part<'a>>,
    weight: Part<'a>,
}

impl Stored<'_> {
    /// `[groups, out]`
    fn zeros(&self) -> Vec<u8> {
        let (bits, rows) = (self.groups.bits as usize, self.groups.shape[0]);
        let mask = (1 << bits) - 1;
        let mut zeros = Vec::with_capacity(self.groups.count() * rows);
        for group in 0..self.groups.count() {
            let number = |row| {
                let (word, shift) = (row * bits / 32, row * bits % 32);
                let low = self.zeros.get(group, word) >> shift;
                let cut = shift + bits > 32;
                low | if cut { self.zeros.get(group, word + 1) << (32 - shift) } else { 0 }
            };
            zeros.extend((0..rows).map(|row| (((number(row) & mask) + self.offset) & mask) as u8));
        }
        zeros
    }

    /// The inputs, group by group; `None`: they lie so already.
    fn order(&self) -> Result<Option<Arc<[u32]>>> {
        let Some(index) = self.index else { return Ok(None) };
        let (size, count) = (self.groups.group, self.groups.count());
        let groups: Vec<_> = index
            .bytes()
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let neighbours = |(input, group): (usize, &i32)| *group as usize == input / size;
        // Some tools never fill it in where groups are neighbours.
        if groups.iter().enumerate().all(neighbours) || groups.iter().all(|g| *g == 0) {
            return Ok(None);
        }
        let mut members = vec![Vec::with_capacity(size); count];
        for (input, group) in groups.iter().enumerate() {
            let of = usize::try_from(*group).ok().and_then(|group| members.get_mut(group));
            let Some(of) = of else {
                let reason = format!("holds group {group}, but there are {count}");
                return Err(index.error(reason));
            };
            of.push(input as u32);
        }
        if let Some(other) = members.iter().find(|of| of.len() != size) {
            let found = other.len();
            let reason = format!("has a group of {found} inputs, but groups have {size}");
            return Err(index.error(reason));
        }
        Ok(Some(members.concat().into()))
    }

    /// The bit streams of all outputs, their inputs in this order.
    fn pack(&self, order: Option<&[u32]>) -> Vec<u8> {
        let (bits, [rows, cols]) = (self.groups.bits as usize, self.groups.shape);
        let words = cols * bits / 32;
        tiles::<LANES, DEEP>([rows, words], |row, word, out| {
            let deep = DEEP.min(words - word);
            let mut packed = [[0; LANES]; DEEP];
            match order {
                // A column is the stream already.
                None => {
                    for (w, packed) in packed[..deep].iter_mut().enumerate() {
                        *packed = self.words.lanes(word + w, row);
                    }
                }
                Some(order) => {
                    let inputs = &order[word * 32 / bits..(word + deep) * 32 / bits];
                    self.gather(bits, inputs, row, &mut packed);
                }
            }
            for (w, packed) in packed.iter().enumerate() {
                out.iter_mut().zip(packed).for_each(|(out, packed)| out[w] = *packed);
            }
        })
    }

    /// The numbers of `inputs` of some outputs, as streams of `bits` bits.
    fn gather(&self, bits: usize, inputs: &[u32], row: usize, packed: &mut [[u32; LANES]; DEEP]) {
        let mask = (1 << bits) - 1;
        for (at, input) in inputs.iter().enumerate() {
            let (word, shift) = (*input as usize * bits / 32, *input as usize * bits % 32);
            let mut numbers = self.words.lanes(word, row).map(|low| low >> shift);
            if shift + bits > 32 {
                let high = self.words.lanes(word + 1, row);
                numbers.iter_mut().zip(high).for_each(|(n, high)| *n |= high << (32 - shift));
            }
            let (to, shift) = (at * bits / 32, at * bits % 32);
            packed[to].iter_mut().zip(numbers).for_each(|(to, n)| *to |= (n & mask) << shift);
            if shift + bits > 32 {
                let rest = packed[to + 1].iter_mut().zip(numbers);
                rest.for_each(|(to, n)| *to |= (n & mask) >> (32 - shift));
            }
        }
    }
}

impl Packed for Stored<'_> {
    fn form(&self) -> Form {
        let Groups { bits, group, shape, .. } = self.groups;
        Form { shape, bits, group: Some(group), bytes: self.groups.bytes(self.symmetric) }
    }

    fn matrix(&self) -> Result<Matrix> {
        let order = self.order()?;
        let q = self.pack(order.as_deref());
        // It is copied.
        self.weight.release();
        let affine = self.groups.affine(q, &self.zeros(), order);
        affine
            .map(Matrix::Affine)
            .map_err(|reason| self.weight.error(format!("is no gptq: {reason}")))
    }
}
