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
        for row in 0..rows {
            let sums = &self.sums[row * self.stride..];
            for line in columns.clone().step_by(COLUMNS).filter(|_| row + AHEAD < rows) {
                // SAFETY: as the caller's; what is fetched may be anything.
                unsafe {
                    S::prefetch(target.at(row + AHEAD, self.part.first + line - shift).cast())
                };
            }
            for (tile, start) in columns.clone().step_by(COLUMNS).enumerate() {
                let end = (start + COLUMNS).min(columns.end);
                let first = self.part.first + start;
                let bias = target.bias.map(|bias| &bias[first..first + end - start]);
                // SAFETY: as the caller's.
                let out = unsafe { target.slice(row, first - shift..first + end - start - shift) };
                let sums = &sums[tile * COLUMNS..][..end - start];
                // Of a whole tile the compiler knows the length.
                match (<&mut [f32; COLUMNS]>::try_from(&mut *out), sums.first_chunk()) {
                    (Ok(out), Some(sums)) => put::<COLUMNS>(sums, bias, finish, out),
                    _ => {
                        let (mut wide, mut padded) = ([0.0; COLUMNS], [0.0; COLUMNS]);
                        wide[..end - start].copy_from_slice(sums);
                        padded[..end - start].copy_from_slice(out);
                        put(&wide, bias, finish, &mut padded);
                        out.copy_from_slice(&padded[..end - start]);
                    }
                }
            }
        }
    }
}

/// Makes of sums, and of what is there, the result.
#[inline(always)]
fn put<const N: usize>(sums: &[f32; N], bias: Option<&[f32]>, finish: Finish, out: &mut [f32; N]) {
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
