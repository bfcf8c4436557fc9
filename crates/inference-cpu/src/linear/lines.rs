//! Memory that begins on a line of the cache, so that no vector and no tile's row lies on two.

use crate::simd::LINE;

/// A line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "it is used by its address")] [u8; LINE]);

/// Memory that grows and is kept. What it holds is left over from another call.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// For `n` numbers; a pointer from before is not valid any more.
    pub(super) fn room<T>(&mut self, n: usize) -> *mut T {
        let lines = (n * size_of::<T>()).div_ceil(LINE);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; LINE]));
        }
        self.0.as_mut_ptr().cast()
    }

    /// The same for plain numbers of any bits, such as `u16` and `f32`.
    pub(super) fn slice<T: bytemuck::Pod>(&mut self, n: usize) -> &mut [T] {
        let start = self.room(n);
        // SAFETY: there is room for `n`, all of it initialised, and any bits are a number.
        unsafe { std::slice::from_raw_parts_mut(start, n) }
    }
}
