//! From sums to the result.

use super::Part;
use crate::{
    linear::{Finish, Target},
    math,
    simd::{COLUMNS, Simd},
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

/// Rows that are fetched ahead: each begins somewhere else, which only we know.
const AHEAD: usize = 6;

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
    pub(super) unsafe fn write<S: Simd>(
        &self,
        rows: usize,
        target: &Target<'_>,
        finish: Finish,
        shift: usize,
    ) {
        let columns = self.columns();
        let n = columns.len();
        let (first, end) = (self.part.first + columns.start, self.part.first + columns.end);
        let (bias, bias_rest) = target.bias.map_or(&[][..], |b| &b[first..end]).as_chunks();
        for row in 0..rows {
            for column in (first..end).step_by(COLUMNS).filter(|_| row + AHEAD < rows) {
                // SAFETY: as the caller's; what is fetched may be anything.
                unsafe { S::prefetch(target.at(row + AHEAD, column - shift).cast()) };
            }
            // SAFETY: as the caller's.
            let out = unsafe { target.slice(row, first - shift..end - shift) };
            let (sums, sums_rest) = self.sums[row * self.stride..][..n].as_chunks();
            let (out, out_rest) = out.as_chunks_mut();
            for (tile, (sums, out)) in sums.iter().zip(out).enumerate() {
                put(sums, bias.get(tile), finish, out);
            }
            if !out_rest.is_empty() {
                let (mut sums, mut bias, mut out) =
                    ([0.0; COLUMNS], [0.0; COLUMNS], [0.0; COLUMNS]);
                sums[..sums_rest.len()].copy_from_slice(sums_rest);
                bias[..bias_rest.len()].copy_from_slice(bias_rest);
                out[..out_rest.len()].copy_from_slice(out_rest);
                put(&sums, Some(&bias), finish, &mut out);
                out_rest.copy_from_slice(&out[..out_rest.len()]);
            }
        }
    }
}

/// Makes of sums, and of what is there, the result.
#[inline(always)]
fn put(
    sums: &[f32; COLUMNS],
    bias: Option<&[f32; COLUMNS]>,
    finish: Finish,
    out: &mut [f32; COLUMNS],
) {
    let mut sums = *sums;
    if let Some(bias) = bias {
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
    match finish {
        Finish::Store => *out = sums,
        Finish::Add => out.iter_mut().zip(&sums).for_each(|(out, sum)| *out += sum),
        Finish::Gate(activation) => math::gate(activation, out, &sums),
    }
}
