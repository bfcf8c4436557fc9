//! Where a thread keeps what it has unpacked and summed.

use crate::simd::LINE;
use std::cell::Cell;

/// A line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "it is used by its address")] [u8; LINE]);

/// Buffers that begin on a line of the cache. What they hold is left over from another call.
#[derive(Debug, Default)]
pub(super) struct Space {
    quads: Vec<Line>,
    factors: Vec<Line>,
    sums: Vec<Line>,
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
        grow(&mut self.quads, lines).cast()
    }

    /// For widened scales and biases.
    pub(super) fn factors(&mut self, lines: usize) -> *mut f32 {
        grow(&mut self.factors, lines).cast()
    }

    /// For sums.
    pub(super) fn sums(&mut self, lines: usize) -> *mut f32 {
        grow(&mut self.sums, lines).cast()
    }
}

fn grow(buffer: &mut Vec<Line>, lines: usize) -> *mut Line {
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; LINE]));
    }
    buffer.as_mut_ptr()
}
