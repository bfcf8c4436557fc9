//! Some columns of a product, for all rows: sums first, then what is made of them.

use super::{
    super::{Finish, Target, lines::Lines},
    Dense,
    few::Few,
    many::Many,
    operand::{BLOCK, Layout, Numbers, Operand},
    tiles::Product,
};
use crate::simd::{Dot, Kernel, Simd};
use inference_engine::weights::DType;
use std::{cell::RefCell, ops::Range};

/// Columns are computed in multiples of this many, for every kernel's sake.
pub(super) const COLUMNS: usize = 16;

/// Memory of one thread, kept from call to call.
#[derive(Default)]
pub(super) struct Workspace {
    weights: Lines,
    partial: Lines,
    sums: Lines,
}

impl Workspace {
    /// Room for `n` weights as a kernel lays them out.
    pub(super) fn packed<T>(&mut self, n: usize) -> *mut T {
        self.weights.room(n)
    }

    /// Room for `n` sums of a kernel's own.
    pub(super) fn partial(&mut self, n: usize) -> *mut f32 {
        self.partial.room(n)
    }
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Sums of a product, `[rows, stride]`, from some row and column on.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) start: *mut f32,
    /// A multiple of [`COLUMNS`].
    pub(super) stride: usize,
}

impl Sums {
    /// From `row` and `column` on.
    pub(super) fn at(self, row: usize, column: usize) -> Self {
        Self { start: self.start.wrapping_add(row * self.stride + column), ..self }
    }
}

/// Some columns of a product, for all rows.
pub(super) struct Panel<'a> {
    pub(super) map: &'a Dense,
    pub(super) operand: Operand<'a>,
    pub(super) columns: Range<usize>,
    pub(super) finish: Finish,
    pub(super) target: Target<'a>,
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Taken out, since a closure would not be compiled with the level's features.
        let mut space = WORKSPACE.take();
        let rows = self.operand.units() * self.operand.layout.rows();
        let stride = self.columns.len().next_multiple_of(COLUMNS);
        let mut buffer = std::mem::take(&mut space.sums);
        let left = Sums { start: buffer.room(2 * rows * stride), stride };
        let right = left.at(rows, 0);
        // SAFETY: the caller vouches for the features of `S`; the buffer has room for both halves, and no other thread
        // writes these columns.
        unsafe {
            self.sums::<S>(self.columns.start, &mut space, left);
            if let Finish::Gate(_) = self.finish {
                self.sums::<S>(self.map.rows / 2 + self.columns.start, &mut space, right);
            }
            self.finish(left, right);
        }
        space.sums = buffer;
        WORKSPACE.set(space);
    }
}

impl Panel<'_> {
    /// All rows against as many rows of the map from `first` on as there are columns.
    ///
    /// # Safety
    /// The machine has the features of `S`; `sums` has room for the operand's units.
    #[inline(always)]
    unsafe fn sums<S: Simd>(&self, first: usize, space: &mut Workspace, sums: Sums) {
        // SAFETY: the operand was made for this level and these weights by `Scratch::operand`.
        unsafe {
            match (self.operand.numbers, self.map.dtype) {
                (Numbers::Bf16(x), _) => {
                    if let Layout::Tiles { rows } = self.operand.layout {
                        let Operand { stride, .. } = self.operand;
                        let units = self.operand.units();
                        let product =
                            Product { map: self.map, x: x.as_ptr(), units, width: rows, stride };
                        return product.run::<S>(first, self.columns.len(), space, sums);
                    }
                    // `Bf16::X` is `u16` at the one level that makes such operands without tiles.
                    self.vectors::<S, S::Bf16>(x.as_ptr().cast(), first, space, sums);
                }
                (Numbers::F32(x), DType::F32) => {
                    self.vectors::<S, S::F32>(x.as_ptr().cast(), first, space, sums);
                }
                (Numbers::F32(x), DType::F16) => {
                    self.vectors::<S, S::F16>(x.as_ptr().cast(), first, space, sums);
                }
                (Numbers::F32(x), _) => {
                    self.vectors::<S, S::Bf16>(x.as_ptr().cast(), first, space, sums);
                }
            }
        }
    }

    /// # Safety
    /// As [`sums`](Self::sums); `x` are the operand's numbers.
    #[inline(always)]
    unsafe fn vectors<S: Simd, D: Dot<S>>(
        &self,
        x: *const D::X,
        first: usize,
        space: &mut Workspace,
        sums: Sums,
    ) {
        let Operand { layout, rows, stride, .. } = self.operand;
        let (map, n) = (self.map, self.columns.len());
        // SAFETY: as the caller's.
        unsafe {
            if layout == Layout::Rows {
                Few { map, x, rows, stride }.run::<S, D>(first, n, sums);
            } else {
                let packed = space.packed(BLOCK * n.next_multiple_of(COLUMNS));
                let strips = self.operand.units();
                Many { map, x, strips, stride }.run::<S, D>(first, n, packed, sums);
            }
        }
    }

    /// Writes what is made of the sums.
    ///
    /// # Safety
    /// They are computed, and no other thread writes these columns.
    #[inline(always)]
    unsafe fn finish(&self, left: Sums, right: Sums) {
        let n = self.columns.len();
        for row in 0..self.operand.rows {
            // SAFETY: as the caller's; there is room for both halves.
            unsafe {
                let part = |sums: Sums| std::slice::from_raw_parts_mut(sums.at(row, 0).start, n);
                let (columns, left, right) = (self.columns.clone(), part(left), part(right));
                self.target.finish(self.finish, row, columns, left, Some(right));
            }
        }
    }
}
