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
        // The smallest that is large enough.
        let fits = |i: &usize| free[*i].capacity() >= len;
        let best = (0..free.len()).filter(fits).min_by_key(|i| free[*i].capacity());
        let data = match best.map(|i| free.swap_remove(i)) {
            Some(mut data) => {
                data.resize(len, 0.0);
                data
            }
            None => vec![0.0; len],
        };
        Tensor { cols, data, home: self.clone() }
    }

    /// Keeps memory for the next matrices; the largest, where there is too much.
    pub(crate) fn keep(&self, data: Vec<f32>) {
        if data.capacity() == 0 {
            return;
        }
        let mut free = self.0.borrow_mut();
        free.push(data);
        if free.len() > KEPT
            && let Some(least) = (0..free.len()).min_by_key(|i| free[*i].capacity())
        {
            free.swap_remove(least);
        }
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
        self.home.keep(std::mem::take(&mut self.data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory comes back from matrices and from the host, and the smallest that fits serves again; the least is let go.
    #[test]
    fn memory_goes_round() {
        let arena = Arena::default();
        let small = arena.tensor(2, 3);
        let (of_small, of_large) = (small.data.as_ptr(), vec![1.0; 100]);
        drop(small);
        let large = of_large.as_ptr();
        arena.keep(of_large);
        let matrix = arena.tensor(10, 10);
        assert_eq!((matrix.data.as_ptr(), matrix.rows(), matrix.data.len()), (large, 10, 100));
        assert_eq!(arena.tensor(2, 2).data.as_ptr(), of_small);
        let more = arena.tensor(10, 11);
        assert!(more.data.iter().all(|n| *n == 0.0) && more.data.len() == 110);
        arena.keep(matrix.into_data());
        (10..10 + KEPT).for_each(|len| arena.keep(vec![0.0; len]));
        let kept = arena.0.borrow();
        assert!(kept.len() == KEPT && kept.iter().any(|b| b.as_ptr() == large));
        assert!(kept.iter().all(|b| b.capacity() > 6));
    }
}
