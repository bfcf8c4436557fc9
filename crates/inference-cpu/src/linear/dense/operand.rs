//! Activations as the dot products read them.

use crate::{
    pool::Pool,
    simd::{Element, Kernel, Level, Simd},
};
use inference_engine::weights::DType;

/// Activations as a level's dot product wants them: `[rows, stride]`, where the stride is a multiple of its step and
/// what is beyond the columns is 0.
pub(super) enum Operand<'a> {
    F32 { data: &'a [f32], stride: usize },
    Bf16 { data: &'a [u16], stride: usize },
}

/// Where operands are prepared; kept from call to call.
#[derive(Debug, Default)]
pub(in crate::linear) struct Scratch {
    wide: Vec<f32>,
    narrow: Vec<u16>,
}

/// A multiple of every level's step.
pub(super) const STRIDE: usize = 32;

/// Rows of activations that one thread prepares at a time.
const PREPARE_ROWS: usize = 8;

impl Scratch {
    /// `x`, `[rows, cols]`, for a product with weights of `dtype`.
    pub(super) fn operand<'a>(
        &'a mut self,
        level: Level,
        pool: &Pool,
        x: &'a [f32],
        cols: usize,
        dtype: DType,
    ) -> Operand<'a> {
        let stride = cols.next_multiple_of(STRIDE);
        let len = x.len() / cols * stride;
        if level.rounds_activations() && dtype == DType::Bf16 {
            let data = fit(&mut self.narrow, len);
            pool.rows(data, stride, PREPARE_ROWS, |rows, out| {
                level.run(Narrow { x: &x[rows.start * cols..rows.end * cols], cols, stride, out });
            });
            Operand::Bf16 { data, stride }
        } else if stride == cols {
            Operand::F32 { data: x, stride }
        } else {
            let data = fit(&mut self.wide, len);
            for (out, row) in data.chunks_exact_mut(stride).zip(x.chunks_exact(cols)) {
                out[..cols].copy_from_slice(row);
                out[cols..].fill(0.0);
            }
            Operand::F32 { data, stride }
        }
    }
}

fn fit<T: Copy + Default>(data: &mut Vec<T>, len: usize) -> &mut [T] {
    if data.len() < len {
        data.resize(len, T::default());
    }
    &mut data[..len]
}

struct Narrow<'a> {
    x: &'a [f32],
    cols: usize,
    stride: usize,
    out: &'a mut [u16],
}

impl Kernel for Narrow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.out.chunks_exact_mut(self.stride).zip(self.x.chunks_exact(self.cols));
        for (out, row) in rows {
            for (o, x) in out.iter_mut().zip(row) {
                *o = u16::from_f32(*x);
            }
            out[self.cols..].fill(0);
        }
    }
}
