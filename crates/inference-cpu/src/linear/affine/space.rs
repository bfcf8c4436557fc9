//! Where a thread keeps what it has unpacked and summed.

use crate::{linear::lines::Lines, simd::LINE};
use std::cell::Cell;

/// Buffers that begin on a line of the cache. What they hold is left over from another call.
#[derive(Debug, Default)]
pub(super) struct Space {
    quads: Lines,
    factors: Lines,
    sums: Lines,
}

thread_local! {
    static SPACE: Cell<Space> = Cell::default();
}

impl Space {
    /// This thread's, until it is put [`back`](Self::back).
    pub(super) fn take() -> Self {
        SPACE.take()
    }

    pub(super) fn back(self) {
        SPACE.set(self);
    }

    /// For unpacked weights.
    pub(super) fn quads(&mut self, lines: usize) -> *mut u8 {
        self.quads.room(lines * LINE)
    }

    /// For widened scales and biases.
    pub(super) fn factors(&mut self, lines: usize) -> *mut f32 {
        self.factors.room(lines * LINE / size_of::<f32>())
    }

    /// For sums.
    pub(super) fn sums(&mut self, lines: usize) -> *mut f32 {
        self.sums.room(lines * LINE / size_of::<f32>())
    }
}
