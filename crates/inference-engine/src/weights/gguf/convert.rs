//! Rows of blocks as an affine matrix, on all cores.

use super::{blocks::Layout, names::Turned, pack::pack};
use crate::weights::{Affine, DType, RawTensor};
use half::{f16, slice::HalfFloatSliceExt};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

/// Bytes of blocks that are worth a thread.
const WORTH: usize = 1 << 20;

/// The matrix `shape` in `blocks`. Scales and biases that are products are rounded to 16 bits, unless they are to be
/// `exact`; what does not fit in 16 bits takes 32.
///
/// # Errors
/// What does not fit together.
pub(super) fn affine(
    layout: &Layout,
    blocks: &[u8],
    shape: [usize; 2],
    turned: Option<Turned>,
    exact: bool,
) -> Result<Affine, String> {
    let [rows, cols] = shape;
    let needed = cols.checked_mul(rows).map(|n| n / layout.numbers * layout.bytes);
    if cols == 0 || !cols.is_multiple_of(layout.numbers) || needed != Some(blocks.len()) {
        return Err(format!("{} bytes for {shape:?}", blocks.len()));
    }
    let half = (layout.half || !exact).then_some(DType::F16);
    let parts = half.and_then(|dtype| convert(layout, blocks, shape, turned, dtype));
    let parts = parts.or_else(|| convert(layout, blocks, shape, turned, DType::F32));
    let Parts { q, scales, biases } = parts.ok_or("it can't be converted")?;
    Affine::new(layout.bits, layout.group, shape, q.into(), scales, biases)
}

struct Parts {
    q: Vec<u8>,
    scales: RawTensor,
    biases: RawTensor,
}

/// Some rows of the result.
struct Rows<'a> {
    first: usize,
    q: &'a mut [u8],
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

/// `None`: a scale or bias can't be written as `dtype`.
fn convert(
    layout: &Layout,
    blocks: &[u8],
    [rows, cols]: [usize; 2],
    turned: Option<Turned>,
    dtype: DType,
) -> Option<Parts> {
    let (row, groups) = (cols * layout.bits as usize / 8, cols / layout.group);
    let scale_row = groups * dtype.size();
    let mut q = vec![0; rows * row];
    let (mut scales, mut biases) = (vec![0; rows * scale_row], vec![0; rows * scale_row]);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = rows.div_ceil(threads.min(blocks.len() / WORTH + 1));
    let fits = AtomicBool::new(true);
    thread::scope(|scope| {
        let parts = q.chunks_mut(each * row).zip(scales.chunks_mut(each * scale_row));
        let parts = parts.zip(biases.chunks_mut(each * scale_row)).enumerate();
        for (i, ((q, scales), biases)) in parts {
            let part = Rows { first: i * each, q, scales, biases };
            let fits = &fits;
            let run = move || {
                if !part.fill(layout, blocks, cols, turned, dtype) {
                    fits.store(false, Relaxed);
                }
            };
            match each < rows {
                true => drop(scope.spawn(run)),
                false => run(),
            }
        }
    });
    let tensor =
        |bytes: Vec<u8>| RawTensor { dtype, shape: vec![rows, groups], bytes: bytes.into() };
    let parts = Parts { q, scales: tensor(scales), biases: tensor(biases) };
    fits.into_inner().then_some(parts)
}

impl Rows<'_> {
    /// Whether everything could be written as `dtype`.
    fn fill(
        self,
        layout: &Layout,
        blocks: &[u8],
        cols: usize,
        turned: Option<Turned>,
        dtype: DType,
    ) -> bool {
        let stride = cols / layout.numbers * layout.bytes;
        let (row, groups) = (cols * layout.bits as usize / 8, cols / layout.group);
        let mut numbers = vec![0; cols];
        let (mut scales, mut biases) = (vec![0.0; groups], vec![0.0; groups]);
        let mut scratch = Scratch::default();
        let to = self.q.chunks_exact_mut(row);
        let to = to.zip(self.scales.chunks_exact_mut(groups * dtype.size()));
        let to = to.zip(self.biases.chunks_exact_mut(groups * dtype.size()));
        for (r, ((to_q, to_scales), to_biases)) in to.enumerate() {
            let from = turned.map_or(self.first + r, |turned| turned.row(self.first + r));
            let blocks = blocks[from * stride..][..stride].chunks_exact(layout.bytes);
            let of_block = layout.numbers / layout.group;
            let parts = numbers.chunks_exact_mut(layout.numbers);
            let parts = parts.zip(scales.chunks_exact_mut(of_block));
            let parts = parts.zip(biases.chunks_exact_mut(of_block));
            for (block, ((q, scales), biases)) in blocks.zip(parts) {
                (layout.unpack)(block, q, scales, biases);
            }
            pack(layout.bits, &numbers, to_q);
            let fits = match dtype {
                DType::F32 => wide(&scales, to_scales) && wide(&biases, to_biases),
                _ => {
                    scratch.narrow(&scales, to_scales, layout.half)
                        && scratch.narrow(&biases, to_biases, layout.half)
                }
            };
            if !fits {
                return false;
            }
        }
        true
    }
}

fn wide(numbers: &[f32], to: &mut [u8]) -> bool {
    for (to, number) in to.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *to = number.to_le_bytes();
    }
    true
}

/// Rows of scales as numbers of 16 bits, and back.
#[derive(Default)]
struct Scratch {
    half: Vec<f16>,
    back: Vec<f32>,
}

impl Scratch {
    /// Whether nothing is lost but, unless they are to be `equal`, the last bits.
    fn narrow(&mut self, numbers: &[f32], to: &mut [u8], equal: bool) -> bool {
        self.half.resize(numbers.len(), f16::ZERO);
        self.back.resize(numbers.len(), 0.0);
        self.half.convert_from_f32_slice(numbers);
        self.half.convert_to_f32_slice(&mut self.back);
        for (to, number) in to.as_chunks_mut::<2>().0.iter_mut().zip(&self.half) {
            *to = number.to_le_bytes();
        }
        // What was no number before needn't be one now.
        self.back.iter().zip(numbers).all(|(back, number)| match equal {
            true => back == number || number.is_nan(),
            false => back.is_finite() || !number.is_finite(),
        })
    }
}
