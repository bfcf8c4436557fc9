//! MLX's affine quantiser: from numbers to whole numbers of a few bits, group by group.
//!
//! It is `mlx.core.quantize` on the CPU, to the last bit
//! (<https://github.com/ml-explore/mlx/blob/main/mlx/backend/cpu/quantized.cpp>): all in f32, whole numbers to the
//! nearest, ties to even. The end of a group's range that is farther from 0 is met exactly, and so is 0; the other end
//! may be off by half a step.

use super::{Affine, DType, RawTensor};
use half::{bf16, f16};
use std::thread;

/// Columns that a group may have here; [`Affine`] knows more.
pub(crate) const GROUPS: [usize; 3] = [32, 64, 128];

/// The least step: a group of zeros must have one.
const LEAST_STEP: f32 = 1e-7;

/// Rows of fewer numbers than this together are not worth a thread.
const NUMBERS_PER_THREAD: usize = 1 << 16;

/// Quantises a matrix `[out, in]` to `bits` bits in groups of `group` columns, on at most `threads` threads, whose
/// number does not change a bit. Scales and biases have the type of `raw`.
///
/// # Errors
/// Bits or groups that don't exist or don't divide the columns; numbers that are not finite, or too far apart for f32.
pub fn quantise(
    raw: &RawTensor,
    bits: u32,
    group: usize,
    threads: usize,
) -> Result<Affine, String> {
    let &[rows, cols] = raw.shape.as_slice() else {
        return Err(format!("shape {:?}, which is no matrix", raw.shape));
    };
    if !Affine::BITS.contains(&bits) || !GROUPS.contains(&group) || !cols.is_multiple_of(group) {
        return Err(format!("{cols} columns can't be quantised to {bits} bits by {group}"));
    }
    let kernel = match group {
        32 => rows_of::<32>,
        64 => rows_of::<64>,
        _ => rows_of::<128>,
    };
    let size = raw.dtype.size();
    let (packed, groups) = (cols * bits as usize / 8, cols / group);
    let mut q = vec![0; rows * packed];
    let mut scales = vec![0; rows * groups * size];
    let mut biases = vec![0; rows * groups * size];
    if rows * cols > 0 {
        let least = NUMBERS_PER_THREAD.div_ceil(cols);
        let share = rows.div_ceil(threads.max(1)).max(least);
        let parts = raw
            .bytes
            .chunks(share * cols * size)
            .zip(q.chunks_mut(share * packed))
            .zip(scales.chunks_mut(share * groups * size))
            .zip(biases.chunks_mut(share * groups * size));
        let run = |(i, (((from, q), scales), biases))| {
            kernel(from, raw.dtype, bits, q, scales, biases)
                .map_err(|at| not_finite(i * share * groups + at, groups, group))
        };
        if share >= rows {
            parts.enumerate().try_for_each(run)?;
        } else {
            thread::scope(|scope| {
                let started: Vec<_> =
                    parts.enumerate().map(|part| scope.spawn(move || run(part))).collect();
                started.into_iter().try_for_each(|part| match part.join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })?;
        }
    }
    let of_groups = |bytes: Vec<u8>| RawTensor {
        dtype: raw.dtype,
        shape: vec![rows, groups],
        bytes: bytes.into(),
    };
    Affine::new(bits, group, [rows, cols], q.into(), of_groups(scales), of_groups(biases))
}

fn not_finite(at: usize, groups: usize, group: usize) -> String {
    let (row, column) = (at / groups, at % groups * group);
    format!("row {row} holds numbers from column {column} on that are not finite, or too far apart")
}

/// Quantises whole rows, all groups one after another. An error is the place of the group that can't be.
fn rows_of<const G: usize>(
    from: &[u8],
    dtype: DType,
    bits: u32,
    q: &mut [u8],
    scales: &mut [u8],
    biases: &mut [u8],
) -> Result<(), usize> {
    let size = dtype.size();
    let highest = ((1u32 << bits) - 1) as f32;
    let groups = from
        .chunks_exact(G * size)
        .zip(q.chunks_exact_mut(G * bits as usize / 8))
        .zip(scales.chunks_exact_mut(size).zip(biases.chunks_exact_mut(size)));
    for (at, ((from, q), (scale_out, bias_out))) in groups.enumerate() {
        let numbers = widen::<G>(from, dtype);
        let (scale, bias) = range(&numbers, highest).ok_or(at)?;
        pack(&whole(&numbers, scale, bias, highest), bits, q);
        narrow(scale, dtype, scale_out);
        narrow(bias, dtype, bias_out);
    }
    Ok(())
}

/// The numbers of a group, in f32.
#[inline(always)]
fn widen<const G: usize>(from: &[u8], dtype: DType) -> [f32; G] {
    let mut to = [0.0; G];
    match dtype {
        DType::F32 => {
            for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
                *to = f32::from_le_bytes(*from);
            }
        }
        DType::F16 => {
            for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
                *to = of_half(u16::from_le_bytes(*from));
            }
        }
        DType::Bf16 => {
            for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
                *to = f32::from_bits(u32::from(u16::from_le_bytes(*from)) << 16);
            }
        }
    }
    to
}

/// An f16 as an f32, without a branch, so that a loop of it becomes vectors.
#[inline(always)]
fn of_half(half: u16) -> f32 {
    /// 2^-14, the least normal number of f16.
    const LEAST: u32 = 113 << 23;
    let magnitude = u32::from(half & 0x7fff) << 13;
    let exponent = magnitude & (0x1f << 23);
    // Below the least normal number the mantissa counts steps of 2^-24, which it does from 2^-14 on as well.
    let small = f32::from_bits(magnitude | LEAST) - f32::from_bits(LEAST);
    let normal = f32::from_bits(magnitude + (112 << 23));
    let value = if exponent == 0 { small } else { normal };
    let value = if exponent == 0x1f << 23 { f32::NAN } else { value };
    f32::from_bits(value.to_bits() | u32::from(half & 0x8000) << 16)
}

/// The scale and the bias of a group; none if a number is not finite, or the scale would not be.
#[inline(always)]
fn range<const G: usize>(numbers: &[f32; G], highest: f32) -> Option<(f32, f32)> {
    // Sixteen of each, so that they can be vectors; least and most are the same in any order.
    let mut least = [f32::INFINITY; 16];
    let mut most = [f32::NEG_INFINITY; 16];
    let mut nought = [0.0; 16];
    for sixteen in numbers.as_chunks::<16>().0 {
        for i in 0..16 {
            let x = sixteen[i];
            least[i] = if x < least[i] { x } else { least[i] };
            most[i] = if x > most[i] { x } else { most[i] };
            // NaN where x is NaN or infinite.
            nought[i] += x * 0.0;
        }
    }
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let step = ((most - least) / highest).max(LEAST_STEP);
    if nought.iter().any(|x| x.is_nan()) || !step.is_finite() {
        return None;
    }
    let (edge, step) = if least.abs() > most.abs() { (least, step) } else { (most, -step) };
    // Stretched so that 0 is a whole number of steps from the edge.
    let steps = (edge / step).round_ties_even();
    Some(if steps == 0.0 { (step, 0.0) } else { (edge / steps, edge) })
}

/// `(x - bias) / scale`, to the nearest number from 0 to `highest`, ties to even.
#[inline(always)]
fn whole<const G: usize>(numbers: &[f32; G], scale: f32, bias: f32, highest: f32) -> [u8; G] {
    /// Between it and its double, f32 holds whole numbers only: adding it rounds, and the lowest bits are the number.
    const WHOLE: f32 = 8_388_608.0;
    let mut q = [0; G];
    for (q, x) in q.iter_mut().zip(numbers) {
        let steps = (x - bias) / scale;
        let steps = if steps > 0.0 { steps } else { 0.0 };
        let steps = if steps < highest { steps } else { highest };
        *q = (steps + WHOLE).to_bits() as u8;
    }
    q
}

/// Numbers of `bits` bits as one little-endian stream: eight of them are `bits` bytes.
#[inline(always)]
fn pack<const G: usize>(numbers: &[u8; G], bits: u32, to: &mut [u8]) {
    for (eight, to) in numbers.as_chunks::<8>().0.iter().zip(to.chunks_exact_mut(bits as usize)) {
        // Neighbours move together: bytes to pairs, pairs to fours, fours to eight.
        let x = u64::from_le_bytes(*eight);
        let x = (x & 0x00ff_00ff_00ff_00ff) | ((x & 0xff00_ff00_ff00_ff00) >> (8 - bits));
        let x = (x & 0x0000_ffff_0000_ffff) | ((x & 0xffff_0000_ffff_0000) >> (16 - 2 * bits));
        let x = (x & 0x0000_0000_ffff_ffff) | ((x & 0xffff_ffff_0000_0000) >> (32 - 4 * bits));
        to.copy_from_slice(&x.to_le_bytes()[..bits as usize]);
    }
}

/// One number in `dtype`, to the nearest.
fn narrow(x: f32, dtype: DType, to: &mut [u8]) {
    match dtype {
        DType::F32 => to.copy_from_slice(&x.to_le_bytes()),
        DType::F16 => to.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
        DType::Bf16 => to.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests;
