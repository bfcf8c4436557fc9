//! Activations as the kernels read them.

use super::{super::lines::Lines, many, tiles};
use crate::{
    pool::Pool,
    simd::{Element, Kernel, Level, Simd},
};
use inference_engine::weights::DType;
use std::ops::Range;

/// A multiple of every level's step.
pub(super) const STRIDE: usize = 32;

/// Inputs that are summed in vectors before their lanes are added: so much of some weights and of some activations
/// stays in the first-level cache together. A multiple of [`STRIDE`].
pub(super) const BLOCK: usize = 1024;

/// Rows up to which weights are read where they are; above, they are laid out for all rows first.
fn few(level: Level) -> usize {
    use Level::{Avx512, Avx512Bf16, Avx512Vnni};
    if matches!(level, Avx512 | Avx512Vnni | Avx512Bf16) { 32 } else { 12 }
}

/// How a kernel reads activations: by units of some rows, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Single rows.
    Rows,
    /// `[step, many::ROWS, STEP]`
    Strips,
    /// `[pair of inputs, rows, 2]`
    Tiles {
        /// Rows of a unit, at most [`tiles::WIDTH`].
        rows: usize,
    },
}

impl Layout {
    /// For `rows` rows and weights of `dtype`.
    fn new(level: Level, dtype: DType, rows: usize) -> Self {
        if level == Level::Avx512Amx && dtype == DType::Bf16 {
            Self::Tiles { rows: rows.min(tiles::WIDTH) }
        } else if rows > few(level) {
            Self::Strips
        } else {
            Self::Rows
        }
    }

    /// Rows of a unit.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Rows => 1,
            Self::Strips => many::ROWS,
            Self::Tiles { rows } => rows,
        }
    }
}

/// Activations. Missing rows of the last unit are 0, and so are inputs beyond the matrix's columns.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) layout: Layout,
    pub(super) rows: usize,
    /// Inputs of a row, a multiple of [`STRIDE`].
    pub(super) stride: usize,
    /// `[unit, …]`
    pub(super) numbers: Numbers<'a>,
}

impl Operand<'_> {
    /// How many units there are.
    pub(super) fn units(&self) -> usize {
        self.rows.div_ceil(self.layout.rows())
    }
}

/// The numbers of an operand.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// Where operands are prepared; kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    wide: Lines,
    narrow: Lines,
}

impl Scratch {
    /// `x`, `[rows, cols]`, for a product with weights of `dtype`.
    pub(super) fn operand<'a>(
        &'a mut self,
        level: Level,
        pool: &Pool,
        x: &'a [f32],
        cols: usize,
        dtype: DType,
    ) -> Operand<'a> {
        let rows = x.len() / cols;
        let layout = Layout::new(level, dtype, rows);
        let source = Source { x, cols, stride: cols.next_multiple_of(STRIDE), layout };
        let numbers = if level.rounds_activations() && dtype == DType::Bf16 {
            Numbers::Bf16(source.prepare(level, pool, &mut self.narrow))
        } else if layout == Layout::Rows && source.stride == cols {
            Numbers::F32(x)
        } else {
            Numbers::F32(source.prepare(level, pool, &mut self.wide))
        };
        Operand { layout, rows, stride: source.stride, numbers }
    }
}

/// What an operand is made of.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// `[rows, cols]`
    x: &'a [f32],
    cols: usize,
    /// Inputs of the operand.
    stride: usize,
    layout: Layout,
}

/// Numbers that a thread prepares in some microseconds.
const GRAIN: usize = 16 << 10;

impl Source<'_> {
    fn prepare<'b, E: Element>(self, level: Level, pool: &Pool, to: &'b mut Lines) -> &'b [E] {
        let unit = self.layout.rows() * self.stride;
        let units = (self.x.len() / self.cols).div_ceil(self.layout.rows());
        let to = to.slice(units * unit);
        pool.rows(to, unit, GRAIN.div_ceil(unit), |units, out| {
            level.run(Prepare { source: self, units, out });
        });
        to
    }
}

struct Prepare<'a, E> {
    source: Source<'a>,
    units: Range<usize>,
    out: &'a mut [E],
}

impl<E: Element> Kernel for Prepare<'_, E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Source { x, cols, stride, layout } = self.source;
        let rows = layout.rows();
        for (unit, out) in self.units.zip(self.out.chunks_exact_mut(rows * stride)) {
            let from = &x[unit * rows * cols..];
            let from = &from[..from.len().min(rows * cols)];
            match layout {
                Layout::Rows => round(from, out),
                Layout::Strips if size_of::<E>() == 2 => strip::<E, 32>(from, cols, out),
                Layout::Strips if S::LANES == 16 => strip::<E, 16>(from, cols, out),
                Layout::Strips if S::LANES == 8 => strip::<E, 8>(from, cols, out),
                Layout::Strips => strip::<E, 4>(from, cols, out),
                // SAFETY: the machine has the features of `S`.
                Layout::Tiles { .. } => unsafe { tile::<S, E>(from, cols, rows, out) },
            }
        }
    }
}

/// Fills `to` with `from`, and then with 0.
#[inline(always)]
fn round<E: Element>(from: &[f32], to: &mut [E]) {
    for (o, x) in to.iter_mut().zip(from) {
        *o = E::from_f32(*x);
    }
    let filled = from.len().min(to.len());
    to[filled..].fill(E::from_f32(0.0));
}

/// Input `i` of row `r` comes to `[i / STEP, r, i % STEP]`.
#[inline(always)]
fn strip<E: Element, const STEP: usize>(from: &[f32], cols: usize, out: &mut [E]) {
    for (step, out) in out.chunks_exact_mut(many::ROWS * STEP).enumerate() {
        for (r, out) in out.chunks_exact_mut(STEP).enumerate() {
            let row = from.get(r * cols..(r + 1) * cols).unwrap_or_default();
            match row.get(step * STEP..(step + 1) * STEP) {
                Some(whole) => round(whole, out),
                None => round(row.get(step * STEP..).unwrap_or_default(), out),
            }
        }
    }
}

/// Input `i` of row `r` comes to `[i / 2, r, i % 2]`, of `rows` rows.
///
/// # Safety
/// The machine has the features of `S`. `E` has 16 bits.
#[inline(always)]
unsafe fn tile<S: Simd, E: Element>(from: &[f32], cols: usize, rows: usize, out: &mut [E]) {
    let mut square = [[E::from_f32(0.0); STRIDE]; tiles::WIDTH];
    for (step, out) in out.chunks_exact_mut(rows * STRIDE).enumerate() {
        for (row, square) in from.chunks_exact(cols).zip(&mut square) {
            match row.get(step * STRIDE..(step + 1) * STRIDE) {
                Some(whole) => round(whole, square),
                None => round(&row[step * STRIDE..], square),
            }
        }
        if rows == tiles::WIDTH {
            // SAFETY: both are 16 × 16 pairs, which are copied as they are.
            unsafe {
                S::transpose(square.as_ptr().cast(), 16, out.as_mut_ptr().cast(), 16);
            }
        } else {
            for (pair, out) in out.chunks_exact_mut(2 * rows).enumerate() {
                for (out, square) in out.chunks_exact_mut(2).zip(&square) {
                    out.copy_from_slice(&square[2 * pair..2 * pair + 2]);
                }
            }
        }
    }
}
