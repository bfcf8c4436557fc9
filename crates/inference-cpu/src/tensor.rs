//! Matrices of activations, whose memory goes round.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Memory that is free for the next matrix.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arena(Rc<RefCell<Vec<Vec<f32>>>>);

/// Most buffers that an arena keeps: more than a layer needs at a time.
const KEPT: usize = 12;

/// A row-major matrix.
#[derive(Debug)]
pub struct Tensor {
    /// Columns.
    pub(crate) cols: usize,
    /// `[rows, cols]`
    pub(crate) data: Vec<f32>,
    home: Arena,
}

impl Arena {
    /// A matrix whose numbers are not set: they are left over from another, or 0.
    pub(crate) fn tensor(&self, rows: usize, cols: usize) -> Tensor {
        let len = rows * cols;
        let mut free = self.0.borrow_mut();
        // The smallest that is large enough, else the largest.
        let fits = |i: &usize| free[*i].capacity() >= len;
        let best = (0..free.len())
            .filter(fits)
            .min_by_key(|i| free[*i].capacity())
            .or_else(|| (0..free.len()).max_by_key(|i| free[*i].capacity()));
        let mut data = best.map(|i| free.swap_remove(i)).unwrap_or_default();
        data.resize(len, 0.0);
        Tensor { cols, data, home: self.clone() }
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Numbers of a cache line.
const LINE: usize = 16;

/// Calls `f` with `len` numbers that this thread keeps for such calls, from the begin of a cache line on. What they are
/// is left over from another call.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Who calls from inside of `f` gets others.
    let mut data = SCRATCH.take();
    data.resize(data.len().max(len + LINE), 0.0);
    let skip = data.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = f(&mut data[skip..skip + len]);
    SCRATCH.set(data);
    result
}

impl Tensor {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    /// Row `r`.
    pub(crate) fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }

    /// The numbers, for the host to keep.
    pub(crate) fn into_data(mut self) -> Vec<f32> {
        std::mem::take(&mut self.data)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut free = self.home.0.borrow_mut();
        if free.len() < KEPT && data.capacity() > 0 {
            free.push(data);
        }
    }
}
