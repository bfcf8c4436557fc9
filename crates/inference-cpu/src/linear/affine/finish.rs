//! From sums to the result.

use super::Part;
use crate::{
    linear::{Finish, Target},
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

    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        let n = self.columns().len();
        &mut self.sums[row * self.stride..][..n]
    }

    /// Writes what is made of them; for a gate, of the `right` half as well.
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
            let (left, right) = (self.row(row), right.as_mut().map(|right| right.row(row)));
            // SAFETY: as the caller's.
            unsafe { target.finish(finish, row, columns.clone(), left, right) };
        }
    }
}
