//! ggml's blocks of quantised numbers, as whole numbers of a few bits with a scale and a bias for every group of them.
//!
//! Layouts: the `block_*` structures of
//! <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>; what they mean: `dequantize_row_*` of
//! `ggml-quants.c` beside it.

use half::f16;
use inference_text::gguf::GgmlType;

/// A type of blocks.
#[derive(Debug)]
pub(super) struct Layout {
    /// Bits of a number.
    pub(super) bits: u32,
    /// Numbers that share a scale and a bias.
    pub(super) group: usize,
    /// Numbers of a block.
    pub(super) numbers: usize,
    /// Bytes of a block.
    pub(super) bytes: usize,
    /// Whether scales and biases are numbers of 16 bits, but for overflow; else they are products.
    pub(super) half: bool,
    /// Writes the numbers, and the scale and bias of each group, of a block.
    pub(super) unpack: fn(&[u8], &mut [u8], &mut [f32], &mut [f32]),
}

impl Layout {
    /// That of `ty`; `None` for one that is not linear in its numbers.
    pub(super) fn of(ty: GgmlType) -> Option<&'static Self> {
        Some(match ty {
            GgmlType::Q4_0 => &Q4_0,
            GgmlType::Q4_1 => &Q4_1,
            GgmlType::Q5_0 => &Q5_0,
            GgmlType::Q5_1 => &Q5_1,
            GgmlType::Q8_0 => &Q8_0,
            GgmlType::Q2_K => &Q2_K,
            GgmlType::Q3_K => &Q3_K,
            GgmlType::Q4_K => &Q4_K,
            GgmlType::Q5_K => &Q5_K,
            GgmlType::Q6_K => &Q6_K,
            GgmlType::IQ4_NL => &IQ4_NL,
            GgmlType::IQ4_XS => &IQ4_XS,
            GgmlType::MXFP4 => &MXFP4,
            _ => return None,
        })
    }

    /// Bytes of `numbers` numbers with their scales and biases, those in 16 bits.
    pub(super) fn loaded_bytes(&self, numbers: usize) -> u64 {
        let numbers = numbers as u64;
        numbers * u64::from(self.bits) / 8 + numbers / self.group as u64 * 4
    }
}

/// Blocks of 32 numbers in one group.
const SMALL: Layout =
    Layout { bits: 4, group: 32, numbers: 32, bytes: 18, half: true, unpack: q4_0 };

/// Blocks of 256 numbers in groups of 16 or 32, whose scales are products.
const LARGE: Layout =
    Layout { bits: 4, group: 32, numbers: 256, bytes: 144, half: false, unpack: q4_k };

static Q4_0: Layout = SMALL;
static Q4_1: Layout = Layout { bytes: 20, unpack: q4_1, ..SMALL };
static Q5_0: Layout = Layout { bits: 5, bytes: 22, unpack: q5_0, ..SMALL };
static Q5_1: Layout = Layout { bits: 5, bytes: 24, unpack: q5_1, ..SMALL };
static Q8_0: Layout = Layout { bits: 8, bytes: 34, unpack: q8_0, ..SMALL };
static IQ4_NL: Layout = Layout { bits: 8, unpack: iq4_nl, ..SMALL };
static MXFP4: Layout = Layout { bits: 5, bytes: 17, unpack: mxfp4, ..SMALL };
static Q2_K: Layout = Layout { bits: 2, group: 16, bytes: 84, unpack: q2_k, ..LARGE };
static Q3_K: Layout = Layout { bits: 3, group: 16, bytes: 110, unpack: q3_k, ..LARGE };
static Q4_K: Layout = LARGE;
static Q5_K: Layout = Layout { bits: 5, bytes: 176, unpack: q5_k, ..LARGE };
static Q6_K: Layout = Layout { bits: 6, group: 16, bytes: 210, unpack: q6_k, ..LARGE };
static IQ4_XS: Layout = Layout { bits: 8, bytes: 136, unpack: iq4_xs, ..LARGE };

/// The numbers that the 16 codes of `IQ4_NL` and `IQ4_XS` mean (`kvalues_iq4nl`), plus [`NONLINEAR_ZERO`].
const NONLINEAR: [u8; 16] =
    [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
const NONLINEAR_ZERO: f32 = 128.0;

/// The numbers that the 16 codes of `MXFP4` mean, twice (`kvalues_mxfp4`), plus [`MXFP4_ZERO`].
const TINY_FLOATS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
const MXFP4_ZERO: f32 = 12.0;

/// The next `N` bytes of a block.
fn take<'a, const N: usize>(block: &mut &'a [u8]) -> &'a [u8; N] {
    let (bytes, rest) = block.split_first_chunk().expect("a block has all its bytes");
    *block = rest;
    bytes
}

/// The next bytes of a block, as a number of 16 bits.
fn take_half(block: &mut &[u8]) -> f32 {
    f16::from_le_bytes(*take(block)).to_f32()
}

/// Writes a pair of numbers for each byte: those of the low halves, then those of the high halves.
fn halves(bytes: &[u8; 16], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Adds 16 to the numbers whose bit is set.
fn fifth_bits(bits: &[u8; 4], q: &mut [u8]) {
    let bits = u32::from_le_bytes(*bits);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= (bits >> i & 1) as u8 * 16;
    }
}

/// `w = scale · (q − zero)`
fn around(zero: f32, scale: f32, scales: &mut [f32], biases: &mut [f32]) {
    scales[0] = scale;
    biases[0] = -zero * scale;
}

fn q4_0(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    around(8.0, take_half(&mut block), scales, biases);
    halves(take(&mut block), q);
}

fn q4_1(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    (scales[0], biases[0]) = (take_half(&mut block), take_half(&mut block));
    halves(take(&mut block), q);
}

fn q5_0(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    around(16.0, take_half(&mut block), scales, biases);
    let high = take(&mut block);
    halves(take(&mut block), q);
    fifth_bits(high, q);
}

fn q5_1(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    (scales[0], biases[0]) = (take_half(&mut block), take_half(&mut block));
    let high = take(&mut block);
    halves(take(&mut block), q);
    fifth_bits(high, q);
}

fn q8_0(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    around(128.0, take_half(&mut block), scales, biases);
    let bytes: &[u8; 32] = take(&mut block);
    // Signed bytes.
    q.iter_mut().zip(bytes).for_each(|(q, byte)| *q = byte ^ 0x80);
}

fn iq4_nl(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    around(NONLINEAR_ZERO, take_half(&mut block), scales, biases);
    halves(take(&mut block), q);
    q.iter_mut().for_each(|q| *q = NONLINEAR[usize::from(*q & 15)]);
}

fn mxfp4(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let [exponent] = *take(&mut block);
    around(MXFP4_ZERO, (f64::from(exponent) - 128.0).exp2() as f32, scales, biases);
    halves(take(&mut block), q);
    q.iter_mut().for_each(|q| *q = TINY_FLOATS[usize::from(*q & 15)]);
}

fn q2_k(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let of_groups: &[u8; 16] = take(&mut block);
    let bytes: &[u8; 64] = take(&mut block);
    let (d, min) = (take_half(&mut block), take_half(&mut block));
    for ((both, scale), bias) in of_groups.iter().zip(scales).zip(biases) {
        *scale = d * f32::from(both & 15);
        *bias = -min * f32::from(both >> 4);
    }
    two_bits(bytes, q);
}

/// 128 numbers in 32 bytes: those of the lowest bits of all, then those of the next ones.
fn two_bits(bytes: &[u8; 64], q: &mut [u8]) {
    for (bytes, q) in bytes.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<128>().0) {
        for (i, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            q.iter_mut().zip(bytes).for_each(|(q, byte)| *q = byte >> (2 * i) & 3);
        }
    }
}

fn q3_k(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let high: &[u8; 32] = take(&mut block);
    let bytes: &[u8; 64] = take(&mut block);
    let of_groups: &[u8; 12] = take(&mut block);
    let d = take_half(&mut block);
    for (i, (scale, bias)) in scales.iter_mut().zip(biases).enumerate() {
        let low = of_groups[i % 8] >> (i / 8 * 4) & 15;
        let top = of_groups[8 + i % 4] >> (i / 4 * 2) & 3;
        *scale = d * (f32::from(low | top << 4) - 32.0);
        *bias = -4.0 * *scale;
    }
    two_bits(bytes, q);
    for (i, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        q.iter_mut().zip(high).for_each(|(q, high)| *q |= (high >> i & 1) << 2);
    }
}

/// The scales and biases of eight groups, whose factors have six bits each (`get_scale_min_k4`).
fn six_bits(d: f32, min: f32, packed: &[u8; 12], scales: &mut [f32], biases: &mut [f32]) {
    for (i, (scale, bias)) in scales.iter_mut().zip(biases).enumerate() {
        let (s, m) = match i {
            0..4 => (packed[i] & 63, packed[i + 4] & 63),
            _ => (
                packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
                packed[i + 4] >> 4 | packed[i] >> 6 << 4,
            ),
        };
        *scale = d * f32::from(s);
        *bias = -min * f32::from(m);
    }
}

/// 64 numbers in 32 bytes: those of the low halves, then those of the high halves.
fn long_halves(bytes: &[u8; 128], q: &mut [u8]) {
    for (bytes, q) in bytes.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<64>().0) {
        let (low, high) = q.split_at_mut(32);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = byte & 15;
            *high = byte >> 4;
        }
    }
}

fn q4_k(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let (d, min) = (take_half(&mut block), take_half(&mut block));
    six_bits(d, min, take(&mut block), scales, biases);
    long_halves(take(&mut block), q);
}

fn q5_k(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let (d, min) = (take_half(&mut block), take_half(&mut block));
    six_bits(d, min, take(&mut block), scales, biases);
    let high: &[u8; 32] = take(&mut block);
    long_halves(take(&mut block), q);
    for (i, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        q.iter_mut().zip(high).for_each(|(q, high)| *q |= (high >> i & 1) << 4);
    }
}

fn q6_k(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let low: &[u8; 128] = take(&mut block);
    let high: &[u8; 64] = take(&mut block);
    let of_groups: &[u8; 16] = take(&mut block);
    let d = take_half(&mut block);
    for ((factor, scale), bias) in of_groups.iter().zip(scales).zip(biases) {
        *scale = d * f32::from(*factor as i8);
        *bias = -32.0 * *scale;
    }
    // 128 numbers each: low halves of 64 bytes, then their high halves; and two bits of 32 bytes, four times.
    let parts = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0);
    for ((low, high), q) in parts.zip(q.as_chunks_mut::<128>().0) {
        for (i, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &low[i % 2 * 32..][..32];
            for ((q, low), high) in q.iter_mut().zip(low).zip(high) {
                *q = low >> (i / 2 * 4) & 15 | (high >> (2 * i) & 3) << 4;
            }
        }
    }
}

fn iq4_xs(mut block: &[u8], q: &mut [u8], scales: &mut [f32], biases: &mut [f32]) {
    let d = take_half(&mut block);
    let high = u16::from_le_bytes(*take(&mut block));
    let low: &[u8; 4] = take(&mut block);
    for (i, (scale, bias)) in scales.iter_mut().zip(biases).enumerate() {
        let factor = low[i / 2] >> (i % 2 * 4) & 15 | ((high >> (2 * i) & 3) as u8) << 4;
        *scale = d * (f32::from(factor) - 32.0);
        *bias = -NONLINEAR_ZERO * *scale;
    }
    for q in q.as_chunks_mut::<32>().0 {
        halves(take(&mut block), q);
        q.iter_mut().for_each(|q| *q = NONLINEAR[usize::from(*q & 15)]);
    }
}
