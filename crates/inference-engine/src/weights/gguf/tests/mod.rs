//! Every type of block against a reference, and files.

mod files;
mod reference;

use super::{blocks::Layout, convert, names::Turned, pack::pack};
use crate::weights::{Affine, DType};
use half::f16;
use inference_text::gguf::GgmlType;
use proptest::prelude::*;

const TYPES: [GgmlType; 13] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::MXFP4,
];

/// Scales of every kind: usual ones, the largest, the smallest, zeros.
const SCALES: [f32; 10] = [0.011, -0.37, 1.0, 2.9e-3, 65504.0, -65504.0, 6e-8, 6.2e-5, 0.0, -0.0];

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Blocks of `ty` with random bytes and these scales in turn.
fn blocks(ty: GgmlType, count: usize, scales: &[f32]) -> Vec<u8> {
    let len = ty.block_bytes() as usize;
    let mut all = noise(ty.code().into(), count * len);
    for (i, block) in all.chunks_exact_mut(len).enumerate() {
        for (k, at) in reference::halves(ty).iter().enumerate() {
            let scale = scales[(i + k * (1 + i / scales.len())) % scales.len()];
            block[*at..*at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
        if ty == GgmlType::MXFP4 {
            // Of the 256 powers of two, the four largest are beyond f32 with what they multiply.
            block[0] = block[0].min(251);
        }
    }
    all
}

fn affine(ty: GgmlType, blocks: &[u8], shape: [usize; 2], exact: bool) -> Affine {
    convert::affine(Layout::of(ty).unwrap(), blocks, shape, None, exact).unwrap()
}

/// Checks every number, up to `rounding` of what it is the sum of.
fn check(ty: GgmlType, all: &[u8], affine: &Affine, rounding: f64) {
    let (len, numbers) = (ty.block_bytes() as usize, ty.block_len() as usize);
    for (i, found) in affine.to_f32().into_iter().enumerate() {
        let (factor, whole, offset) = reference::number(ty, &all[i / numbers * len..], i % numbers);
        let expected = factor * whole + offset;
        // What is around zero here, is above it there.
        let parts = factor.abs() * (whole.abs() + 128.0) + offset.abs();
        let bound = rounding * parts;
        let far = (f64::from(found) - expected).abs();
        assert!(far <= bound, "{ty}, number {i}: {found} for {expected}");
    }
}

/// In f32, of numbers that have at most 19 bits, a sum.
const OF_F32: f64 = 1.0 / (1 << 23) as f64;

/// Of numbers of 16 bits, once for the scale and once for the bias.
const OF_F16: f64 = 1.0 / (1 << 10) as f64;

#[test]
fn every_type_is_what_its_blocks_mean() {
    for ty in TYPES {
        let numbers = ty.block_len() as usize;
        let (rows, cols) = (30, 2 * numbers);
        let all = blocks(ty, 60, &SCALES);
        let exact = affine(ty, &all, [rows, cols], true);
        check(ty, &all, &exact, OF_F32);
        let rounded = affine(ty, &all, [rows, cols], false);
        check(ty, &all, &rounded, OF_F16);
        assert_eq!((exact.rows(), exact.cols()), (rows, cols));
        assert_eq!(Some(exact.bits()), bits(ty), "{ty}");
    }
}

/// Those of the type; or of the numbers that its codes mean.
fn bits(ty: GgmlType) -> Option<u32> {
    match ty {
        GgmlType::IQ4_NL | GgmlType::IQ4_XS => Some(8),
        GgmlType::MXFP4 => Some(5),
        ty => ty.quantised_bits().map(u32::from),
    }
}

#[test]
fn scales_take_16_bits_where_that_is_enough() {
    let usual = [0.011, -0.37, 1.0, 2.9e-3, 6e-8, 0.0];
    for ty in TYPES.into_iter().filter(|ty| *ty != GgmlType::MXFP4) {
        let (numbers, layout) = (ty.block_len() as usize, Layout::of(ty).unwrap());
        let all = blocks(ty, 20, &usual);
        let shape = [10, 2 * numbers];
        let dtype = |exact| affine(ty, &all, shape, exact).scales().dtype;
        assert_eq!(dtype(false), DType::F16, "{ty}");
        assert_eq!(dtype(true), if layout.half { DType::F16 } else { DType::F32 }, "{ty}");
        if layout.half {
            check(ty, &all, &affine(ty, &all, shape, false), OF_F32);
        }
        let loaded = layout.loaded_bytes(10 * 2 * numbers);
        assert_eq!(affine(ty, &all, shape, false).bytes(), loaded, "{ty}");
        // −8 times the largest number of 16 bits has none.
        if !matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1) {
            let all = blocks(ty, 20, &[65504.0]);
            assert_eq!(affine(ty, &all, shape, false).scales().dtype, DType::F32, "{ty}");
        }
    }
    // A power of two that a number of 16 bits has, and one that it has not.
    for (exponent, dtype) in
        [(127, DType::F16), (130, DType::F16), (90, DType::F32), (251, DType::F32)]
    {
        let mut all = blocks(GgmlType::MXFP4, 2, &[]);
        (all[0], all[17]) = (exponent, 125);
        let found = affine(GgmlType::MXFP4, &all, [1, 64], false);
        assert_eq!(found.scales().dtype, dtype, "{exponent}");
        check(GgmlType::MXFP4, &all, &found, OF_F32);
    }
}

/// The zero of a block that is around zero stays one.
#[test]
fn rounding_moves_no_zero() {
    for ty in [GgmlType::Q3_K, GgmlType::Q6_K, GgmlType::IQ4_XS] {
        let all = blocks(ty, 50, &[0.011, -0.37, 2.9e-3, 6e-8, 6.2e-5, 1e-6]);
        let a = affine(ty, &all, [50, 256], false);
        let zero = match ty {
            GgmlType::Q3_K => 4.0,
            GgmlType::Q6_K => 32.0,
            _ => 128.0,
        };
        for (scale, bias) in a.scales().to_f32().iter().zip(a.biases().to_f32()) {
            assert_eq!(scale * zero + bias, 0.0, "{ty}");
        }
    }
}

/// A matrix large enough for several threads, and rows of heads in another order.
#[test]
fn rows_are_converted_alone_and_put_in_order() {
    let (ty, rows, cols) = (GgmlType::Q4_K, 9000, 512);
    let layout = Layout::of(ty).unwrap();
    let all = blocks(ty, rows * 2, &SCALES[..4]);
    let stride = all.len() / rows;
    let turned = Turned::new(64, 8 * 64).unwrap();
    let whole = convert::affine(layout, &all, [rows, cols], Some(turned), false).unwrap();
    let bytes = whole.q().len() / rows;
    for row in (0..rows).step_by(77) {
        let from = turned.row(row);
        let one = affine(ty, &all[from * stride..][..stride], [1, cols], false);
        assert_eq!(whole.q()[row * bytes..][..bytes], one.q()[..], "row {row}");
        let scales = one.scales().bytes.len();
        assert_eq!(whole.scales().bytes[row * scales..][..scales], one.scales().bytes[..]);
        assert_eq!(whole.biases().bytes[row * scales..][..scales], one.biases().bytes[..]);
    }
}

#[test]
fn numbers_that_are_none_stay_none() {
    for scale in [f32::INFINITY, f32::NAN] {
        let all = blocks(GgmlType::Q4_K, 1, &[scale]);
        let found = affine(GgmlType::Q4_K, &all, [1, 256], false).to_f32();
        assert!(found.iter().any(|x| !x.is_finite()));
    }
    let layout = Layout::of(GgmlType::Q8_0).unwrap();
    for (len, shape) in [(34, [1, 16]), (33, [1, 32]), (34, [2, 32]), (0, [1, 0])] {
        assert!(convert::affine(layout, &vec![0; len], shape, None, false).is_err());
    }
}

proptest! {
    #[test]
    fn packed_numbers_are_unpacked_again(
        bits in prop::sample::select(Affine::BITS.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 64),
    ) {
        let numbers: Vec<u8> = bytes.iter().map(|b| b & (0xff >> (8 - bits)) as u8).collect();
        let mut packed = vec![0; 8 * bits as usize];
        pack(bits, &numbers, &mut packed);
        let stream = |bit: usize| packed[bit / 8] >> (bit % 8) & 1;
        for (i, number) in numbers.iter().enumerate() {
            let found: u8 = (0..bits as usize).map(|k| stream(i * bits as usize + k) << k).sum();
            prop_assert_eq!(found, *number);
        }
    }
}
