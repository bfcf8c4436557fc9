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
    pub(super) sums: &'a mut [f32],
    pub(super) stride: usize,
}

/// Rows that are fetched ahead: each begins somewhere else, which only we know.
const AHEAD: usize = 6;

impl Sums<'_> {
    /// The part's rows that these tiles have, in the stack.
    fn columns(&self) -> Range<usize> {
        let end = (self.tiles.end * COLUMNS).min(self.part.packed.rows);
        self.part.first + self.tiles.start * COLUMNS..self.part.first + end
    }

    /// A row, with the bias added.
    #[inline(always)]
    fn row(&mut self, row: usize, bias: Option<&[f32]>) -> &mut [f32] {
        let columns = self.columns();
        let sums = &mut self.sums[row * self.stride..][..columns.len()];
        if let Some(bias) = bias {
            add(sums, &bias[columns]);
        }
        sums
    }

    /// Adds the bias, and writes them; where there is a `right` half, gated by that.
    ///
    /// # Safety
    /// Nobody else uses these columns of the target.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(
        mut self,
        mut right: Option<Self>,
        rows: usize,
        target: &Target<'_>,
        finish: Finish,
    ) {
        let columns = self.columns();
        for row in 0..rows {
            for column in columns.clone().step_by(COLUMNS).filter(|_| row + AHEAD < rows) {
                // SAFETY: as the caller's; what is fetched may be anything.
                unsafe { S::prefetch(target.at(row + AHEAD, column).cast()) };
            }
            // SAFETY: as the caller's.
            let out = unsafe { target.slice(row, columns.clone()) };
            let sums = self.row(row, target.bias);
            match (finish, &mut right) {
                (Finish::Gate(activation), Some(right)) => {
                    math::gate(activation, sums, right.row(row, target.bias));
                    out.copy_from_slice(sums);
                }
                (Finish::Add, _) => add(out, sums),
                _ => out.copy_from_slice(sums),
            }
        }
    }
}

#[inline(always)]
fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
