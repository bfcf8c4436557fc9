//! From sums to the result.

use super::Part;
use crate::{
    linear::{Finish, Target},
    math,
    simd::COLUMNS,
};
use std::ops::Range;

/// Sums of some neighbouring tiles.
pub(super) struct Sums<'a> {
    pub(super) part: &'a Part,
    pub(super) tiles: Range<usize>,
    /// `[rows, stride]`
    pub(super) sums: &'a [f32],
    pub(super) stride: usize,
}

impl Sums<'_> {
    /// Columns that the part has of these tiles.
    fn columns(&self) -> Range<usize> {
        let end = (self.tiles.end * COLUMNS).min(self.part.packed.rows);
        self.tiles.start * COLUMNS..end
    }

    /// Adds the bias, and writes them; with `left`, which is as many, as what they are to be gated by.
    ///
    /// # Safety
    /// Nobody else uses these columns of the target.
    #[inline(always)]
    pub(super) unsafe fn write(
        &self,
        rows: usize,
        target: &Target<'_>,
        finish: Finish,
        shift: usize,
    ) {
        let columns = self.columns();
        let n = columns.len();
        let (first, end) = (self.part.first + columns.start, self.part.first + columns.end);
        let bias = target.bias.map(|bias| &bias[first..end]);
        let mut line = [0.0; COLUMNS * super::many::TILES];
        for row in 0..rows {
            // SAFETY: as the caller's.
            let out = unsafe { target.slice(row, first - shift..end - shift) };
            let line = &mut line[..n];
            line.copy_from_slice(&self.sums[row * self.stride..][..n]);
            if let Some(bias) = bias {
                line.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
            match finish {
                Finish::Store => out.copy_from_slice(line),
                Finish::Add => out.iter_mut().zip(&*line).for_each(|(out, sum)| *out += sum),
                Finish::Gate(activation) => math::gate(activation, out, line),
            }
        }
    }
}
