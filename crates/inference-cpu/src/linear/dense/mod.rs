//! Products with floating-point weights that stay where they are: row-major, in the mapped file.
//!
//! Every output is one dot product along the weight's row, summed in the same order whatever the tile it is computed
//! in; so a row of the result has the same bits alone, in a batch, and in a chunk of a prompt.

mod few;
mod many;
mod operand;
mod panel;
mod tiles;

pub(super) use operand::Scratch;

use super::{Finish, Target};
use crate::{
    pool::Pool,
    simd::{Element, Kernel, Level, Simd},
};
use bytes::Bytes;
use inference_engine::weights::{DType, RawTensor};
use operand::Layout;
use panel::{COLUMNS, Panel};

/// A stack of matrices of one type.
#[derive(Debug)]
pub(super) struct Dense {
    parts: Vec<Part>,
    /// Outputs.
    rows: usize,
    /// Inputs.
    cols: usize,
    dtype: DType,
}

/// Some rows of the map, as they lie in the file.
#[derive(Debug)]
struct Part {
    /// The first row's place in the stack.
    first: usize,
    /// `[rows, cols]`
    bytes: Bytes,
}

impl Dense {
    /// The stack of `parts`, which have one type and as many columns.
    pub(super) fn new(parts: &[&RawTensor]) -> Self {
        let (dtype, cols) = (parts[0].dtype, parts[0].shape[1]);
        let mut rows = 0;
        let parts = parts
            .iter()
            .map(|p| {
                rows += p.shape[0];
                Part { first: rows - p.shape[0], bytes: p.bytes.clone() }
            })
            .collect();
        Self { parts, rows, cols, dtype }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Where row `row` begins, and how many rows follow it without a gap, itself included.
    fn row(&self, row: usize) -> (*const u8, usize) {
        let next = self.parts.partition_point(|p| p.first <= row);
        let end = self.parts.get(next).map_or(self.rows, |p| p.first);
        let part = &self.parts[next - 1];
        let at = (row - part.first) * self.cols * self.dtype.size();
        (part.bytes[at..].as_ptr(), end - row)
    }

    /// Row `row` as `f32`, times `scale`.
    pub(super) fn widen_row(&self, level: Level, row: usize, scale: f32, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        level.run(Widen { from: self.row(row).0, dtype: self.dtype, scale, out });
    }
}

struct Widen<'a> {
    /// `out.len()` numbers.
    from: *const u8,
    dtype: DType,
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, scale) = (self.out.len(), self.scale);
        // SAFETY: `from` has `n` numbers of the type, and so has `out`.
        unsafe {
            match self.dtype {
                DType::F32 => widen::<S, f32>(self.from.cast(), n, scale, self.out),
                DType::F16 => widen::<S, half::f16>(self.from.cast(), n, scale, self.out),
                _ => widen::<S, half::bf16>(self.from.cast(), n, scale, self.out),
            }
        }
    }
}

/// # Safety
/// `from` has `n` numbers, not necessarily aligned, and so has `out`; the machine has the features of `S`.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(from: *const E, n: usize, scale: f32, out: &mut [f32]) {
    let whole = n / S::LANES * S::LANES;
    // SAFETY: the caller vouches for the lengths; the tail is copied to where a whole vector may be read.
    unsafe {
        let factor = S::splat(scale);
        for i in (0..whole).step_by(S::LANES) {
            S::store(out.as_mut_ptr().add(i), S::mul(E::load::<S>(from.add(i)), factor));
        }
        let mut tail = [E::from_f32(0.0); 16];
        let mut wide = [0.0; 16];
        for i in whole..n {
            tail[i - whole] = from.add(i).read_unaligned();
        }
        S::store(wide.as_mut_ptr(), S::mul(E::load::<S>(tail.as_ptr()), factor));
        out[whole..n].copy_from_slice(&wide[..n - whole]);
    }
}

/// Bytes of weights that a thread takes at a time: they stay in its second-level cache while all rows pass.
const PANEL_BYTES: usize = 128 << 10;

/// The same where there are many rows.
const PANEL_COLUMNS: usize = 128;

/// `x·Wᵀ + b` of a stack, and what follows.
pub(super) struct Product<'a> {
    pub(super) level: Level,
    pub(super) pool: &'a Pool,
    /// `[rows, map.cols]`
    pub(super) x: &'a [f32],
    pub(super) map: &'a Dense,
    pub(super) finish: Finish,
    pub(super) target: Target<'a>,
}

impl Product<'_> {
    pub(super) fn run(&self, scratch: &mut Scratch) {
        let Self { level, pool, x, map, finish, target } = *self;
        let columns = finish.columns(map.rows);
        let operand = scratch.operand(level, pool, x, map.cols, map.dtype);
        // Small panels for few rows, so that the threads end together.
        let bytes = map.cols * map.dtype.size() * map.rows / columns.max(1);
        let fair = columns.div_ceil(4 * pool.threads());
        let most = if operand.units() == 1 || operand.layout == Layout::Rows {
            PANEL_BYTES / bytes
        } else {
            PANEL_COLUMNS
        };
        let panel = most.min(fair).max(1).next_multiple_of(COLUMNS);
        pool.ranges(columns, panel, |columns| {
            level.run(Panel { map, operand, columns, finish, target });
        });
    }
}
