//! Where sums go: into the result, with what follows the product.

use crate::{
    linear::Target,
    math,
    simd::{COLUMNS, Columns},
};
use inference_engine::arch::Activation;

/// What is done with `sum + bias`.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// It is the result.
    Store,
    /// The result, which holds the left half, becomes `activation(left half) · that`.
    Gate(Activation),
}

/// Where the columns of a part go.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) target: Target<'a>,
    /// Where its first column is in the target.
    pub(super) first: usize,
    /// Of its columns.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) columns: usize,
    pub(super) finish: Finish,
}

impl Output<'_> {
    /// Writes the sums of a tile for one row.
    ///
    /// # Safety
    /// The machine has the features of `C`, and nobody else uses this part of the target.
    #[inline(always)]
    pub(super) unsafe fn write<C: Columns>(&self, row: usize, tile: usize, mut sums: C::Floats) {
        let first = tile * COLUMNS;
        let n = (self.columns - first).min(COLUMNS);
        // SAFETY: as the caller's; where there are sixteen columns, there are sixteen biases and results.
        unsafe {
            let out = self.target.slice(row, self.first + first..self.first + first + n);
            if n == COLUMNS {
                if let Some(bias) = self.bias {
                    sums = C::add_f32(sums, C::load_f32(bias.as_ptr().add(first)));
                }
                if let Finish::Gate(activation) = self.finish {
                    let mut right = [0.0; COLUMNS];
                    C::store_f32(right.as_mut_ptr(), sums);
                    math::gate(activation, &mut out[..COLUMNS], &right);
                } else {
                    C::store_f32(out.as_mut_ptr(), sums);
                }
                return;
            }
            let mut line = [0.0; COLUMNS];
            C::store_f32(line.as_mut_ptr(), sums);
            if let Some(bias) = self.bias {
                line.iter_mut().zip(&bias[first..]).for_each(|(sum, bias)| *sum += bias);
            }
            match self.finish {
                Finish::Store => out.copy_from_slice(&line[..n]),
                Finish::Gate(activation) => math::gate(activation, out, &line[..n]),
            }
        }
    }
}
