//! Products and embeddings, over weights as they are stored.

use super::{
    dot,
    operand::{Operand, operand, write},
};
use crate::{
    linear::Segment,
    operations::{Epilogue, Product},
};
use candle_core::{Result, Tensor};
use inference_engine::naive::activate;

/// The rows of a segment, one at a time.
struct Rows<'a> {
    weights: Operand<'a>,
    /// Numbers or words of a row.
    stride: usize,
    groups: Option<Groups<'a>>,
}

struct Groups<'a> {
    bits: usize,
    shift: u32,
    scales: Operand<'a>,
    biases: Operand<'a>,
    /// Of a row.
    count: usize,
}

impl<'a> Rows<'a> {
    fn of(segment: &'a Segment) -> Result<Self> {
        let groups = segment.groups.as_ref().map(|g| -> Result<_> {
            Ok(Groups {
                bits: g.bits as usize,
                shift: g.shift,
                scales: operand(&g.scales)?,
                biases: operand(&g.biases)?,
                count: g.scales.dim(1)?,
            })
        });
        let weights = operand(&segment.weights)?;
        Ok(Self { weights, stride: segment.weights.dim(1)?, groups: groups.transpose()? })
    }

    /// The numbers of row `row`, in the order of the columns.
    fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let Some(groups) = &self.groups else {
            return self.weights.widen(row * self.stride, out);
        };
        let mut affine = vec![0.0; 2 * groups.count];
        let (scales, biases) = affine.split_at_mut(groups.count);
        groups.scales.widen(row * groups.count, scales)?;
        groups.biases.widen(row * groups.count, biases)?;
        let words = &self.weights.words()?[row * self.stride..][..self.stride];
        let bits = groups.bits;
        for (c, out) in out.iter_mut().enumerate() {
            let (word, shift) = (c * bits / 32, c * bits % 32);
            // A number may begin in one word and end in the next.
            let next = words.get(word + 1).copied().unwrap_or(0);
            let both = u64::from(words[word]) | u64::from(next) << 32;
            let q = (both >> shift) as u32 & ((1 << bits) - 1);
            let group = c >> groups.shift;
            *out = q as f32 * scales[group] + biases[group];
        }
        Ok(())
    }
}

/// See [`Operations::product`](crate::operations::Operations::product).
pub(super) fn product(a: &Product<'_>) -> Result<()> {
    let (rows, cols) = a.x.dims2()?;
    let (x, weights) = (operand(a.x)?, Rows::of(a.segment)?);
    let x = x.floats()?;
    let bias = a.map.bias.as_ref().map(operand).transpose()?;
    let bias = bias.as_ref().map(Operand::floats).transpose()?;
    let n = a.segment.rows;
    let (mut row, mut products) = (vec![0.0; cols], vec![0.0; rows * n]);
    for o in 0..n {
        weights.read(o, &mut row)?;
        let bias = bias.map_or(0.0, |b| b[a.segment.first + o]);
        for (x, products) in x.chunks_exact(cols).zip(products.chunks_exact_mut(n)) {
            products[o] = dot(x, &row) + bias;
        }
    }
    let (outputs, y_stride) = (a.outputs(), a.y.dim(1)?);
    write(a.y, |y| {
        for (products, y) in products.chunks_exact(n).zip(y.chunks_exact_mut(y_stride)) {
            let y = &mut y[a.segment.first..][..outputs];
            for (o, y) in y.iter_mut().enumerate() {
                *y = match a.epilogue.activation() {
                    Some(activation) => activate(products[o], activation) * products[outputs + o],
                    None if a.epilogue == Epilogue::Add => *y + products[o],
                    None => products[o],
                };
            }
        }
        Ok(())
    })
}

/// See [`Operations::embed`](crate::operations::Operations::embed).
pub(super) fn embed(y: &Tensor, table: &Segment, tokens: &Tensor, scale: f32) -> Result<()> {
    let (weights, tokens, cols) = (Rows::of(table)?, operand(tokens)?, y.dim(1)?);
    let tokens = tokens.words()?;
    write(y, |y| {
        for (y, &token) in y.chunks_exact_mut(cols).zip(tokens) {
            weights.read(token as usize, y)?;
            y.iter_mut().for_each(|y| *y *= scale);
        }
        Ok(())
    })
}
