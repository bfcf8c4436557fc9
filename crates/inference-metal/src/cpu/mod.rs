//! The operations in Rust, on candle's CPU device: what the kernels compute, for tests everywhere.

mod attention;
mod operand;
mod products;

use crate::linear::Segment;
use crate::operations::{Append, Attend, Gather, Layer, Norm, Operations, Product};
use candle_core::{DType, Device, Result, Tensor};
use inference_engine::{arch::Activation, naive::activate};
use operand::{operand, write};
use std::{cell::Cell, ops::Range};

/// Bytes that it says it has.
const LIMIT: u64 = 1 << 32;

/// The operations on candle's CPU device.
///
/// Weights are read as they are stored, a row at a time; sums are f32 and have one order.
#[derive(Debug, Default)]
pub struct OnCpu {
    /// Bytes of parameters and caches that were placed.
    placed: Cell<u64>,
}

impl OnCpu {
    fn placed(&self, tensor: Tensor) -> Tensor {
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.placed.set(self.placed.get() + bytes as u64);
        tensor
    }
}

/// The sum of the products, in sixteen sums of which each has an order.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a16.zip(b16) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `y ← norm(x) · weight`
fn norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for (y, (x, w)) in y.iter_mut().zip(x.iter().zip(weight)) {
        *y = x * scale * w;
    }
}

impl Operations for OnCpu {
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor> {
        // What nobody has written must not be read.
        Tensor::full(f32::NAN, (rows, cols), &Device::Cpu)?.contiguous()
    }

    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        Ok(self.placed(Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?))
    }

    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor> {
        let room = Tensor::full(f32::NAN, numbers, &Device::Cpu)?;
        Ok(self.placed(room.to_dtype(dtype)?.contiguous()?))
    }

    fn memory(&self) -> (u64, u64) {
        (self.placed.get(), LIMIT)
    }

    fn rms_norm(&self, a: &Norm<'_>) -> Result<()> {
        if let Some(y) = a.add {
            self.add(a.x, y)?;
        }
        let (x, weight) = (operand(a.x)?, operand(a.weight)?);
        let (x, weight) = (x.floats()?, weight.floats()?);
        write(a.h, |h| {
            for (x, h) in x.chunks_exact(weight.len()).zip(h.chunks_exact_mut(weight.len())) {
                norm(x, weight, a.eps, h);
            }
            Ok(())
        })
    }

    fn gate(&self, y: &Tensor, x: &Tensor, activation: Activation) -> Result<()> {
        let n = y.dim(1)?;
        let x = operand(x)?;
        let x = x.floats()?;
        write(y, |y| {
            for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(2 * n)) {
                let (gates, ups) = x.split_at(n);
                for (y, (g, u)) in y.iter_mut().zip(gates.iter().zip(ups)) {
                    *y = activate(*g, activation) * u;
                }
            }
            Ok(())
        })
    }

    fn add(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let y = operand(y)?;
        let y = y.floats()?;
        write(x, |x| {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            Ok(())
        })
    }

    fn softcap(&self, x: &Tensor, cap: f32) -> Result<()> {
        write(x, |x| {
            x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
            Ok(())
        })
    }

    fn gather(&self, y: &Tensor, x: &Tensor, index: &Tensor, how: Gather) -> Result<()> {
        let (x, index, cols) = (operand(x)?, operand(index)?, y.dim(1)?);
        let (x, index) = (x.floats()?, index.words()?);
        write(y, |y| {
            for (r, y) in y.chunks_exact_mut(cols).enumerate() {
                let of = if how == Gather::Rows { index[r] as usize } else { r };
                let x = &x[of * cols..][..cols];
                match how {
                    Gather::Rows => y.copy_from_slice(x),
                    Gather::Columns => {
                        y.iter_mut().zip(index).for_each(|(y, &c)| *y = x[c as usize]);
                    }
                    Gather::ColumnsBack => {
                        x.iter().zip(index).for_each(|(x, &c)| y[c as usize] = *x);
                    }
                }
            }
            Ok(())
        })
    }

    fn product(&self, product: &Product<'_>) -> Result<()> {
        products::product(product)
    }

    fn embed(&self, y: &Tensor, table: &Segment, tokens: &Tensor, scale: f32) -> Result<()> {
        products::embed(y, table, tokens, scale)
    }

    fn largest(&self, ids: &Tensor, values: &Tensor, x: &Tensor, columns: usize) -> Result<()> {
        let (k, cols, x) = (ids.dim(1)?, x.dim(1)?, operand(x)?);
        let first = |row: &[f32]| {
            let key = |i: &u32| {
                let x = row[*i as usize];
                if x.is_nan() { f32::NAN.abs() } else { x + 0.0 }
            };
            let mut all: Vec<u32> = (0..columns as u32).collect();
            all.sort_by(|a, b| key(b).total_cmp(&key(a)));
            all.truncate(k);
            all
        };
        let found: Vec<Vec<u32>> = x.floats()?.chunks_exact(cols).map(first).collect();
        write(ids, |ids| {
            let bits = found.iter().flatten().map(|id| f32::from_bits(*id));
            ids.iter_mut().zip(bits).for_each(|(to, id)| *to = id);
            Ok(())
        })?;
        let rows = x.floats()?.chunks_exact(cols).zip(&found);
        let numbers: Vec<f32> =
            rows.flat_map(|(row, ids)| ids.iter().map(|id| row[*id as usize])).collect();
        write(values, |values| {
            values.copy_from_slice(&numbers);
            Ok(())
        })
    }

    fn append(&self, append: &Append<'_>) -> Result<()> {
        attention::append(append)
    }

    fn copy_blocks(&self, layer: &Layer, copies: &Tensor) -> Result<()> {
        attention::copy_blocks(layer, copies)
    }

    fn attend(&self, attend: &Attend<'_>, rows: Range<usize>, _: usize) -> Result<()> {
        attention::attend(attend, rows)
    }

    fn flash(&self, attend: &Attend<'_>, tiles: &Tensor, _: usize) -> Result<()> {
        attention::flash(attend, tiles)
    }
}
