//! Rows of numbers as ggml stores them.
//!
//! The blocks are those of ggml's `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref`
//! (<https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c>).

use super::{checkpoint::Dtype, k_quants};
use crate::Result;
use half::{bf16, f16};
use inference_text::gguf::GgmlType;

/// The numbers of a checkpoint's bytes, appended to `to`.
pub(super) fn decode(dtype: Dtype, bytes: &[u8], to: &mut Vec<f32>) {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::Bf16 => to.extend(pairs().map(|b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => to.extend(pairs().map(|b| f16::from_le_bytes(b).to_f32())),
        Dtype::F32 => {
            to.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        }
    }
}

/// `row` as `ty` stores it, appended to `to`. A row of a quantised type is a multiple of its block long.
pub(super) fn encode(ty: GgmlType, row: &[f32], to: &mut Vec<u8>) -> Result {
    match ty {
        GgmlType::F32 => to.extend(row.iter().flat_map(|x| x.to_le_bytes())),
        GgmlType::BF16 => to.extend(row.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
        GgmlType::F16 => {
            if let Some(x) = row.iter().find(|x| !f16::from_f32(**x).is_finite()) {
                return Err(format!("{x} is beyond what f16 holds; take bf16 or f32"));
            }
            to.extend(row.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
        }
        GgmlType::Q8_0 => blocks(ty, row, to, q8_0)?,
        GgmlType::Q4_0 => blocks(ty, row, to, q4_0)?,
        GgmlType::Q4_K => blocks(ty, row, to, k_quants::q4_k)?,
        GgmlType::Q6_K => blocks(ty, row, to, k_quants::q6_k)?,
        _ => return Err(format!("weights of type {ty:?} can't be written")),
    }
    Ok(())
}

fn blocks(ty: GgmlType, row: &[f32], to: &mut Vec<u8>, block: fn(&[f32], &mut Vec<u8>)) -> Result {
    if let Some(x) = row.iter().find(|x| !x.is_finite()) {
        return Err(format!("{x} can't be quantised"));
    }
    row.chunks(ty.block_len() as usize).for_each(|numbers| block(numbers, to));
    Ok(())
}

/// A scale, then a byte a number: `x ≈ scale · q`, with `scale = max |x| / 127`.
fn q8_0(numbers: &[f32], to: &mut Vec<u8>) {
    let most = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = most / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    to.extend(f16::from_f32(scale).to_le_bytes());
    to.extend(numbers.iter().map(|x| (x * inverse).round() as i8 as u8));
}

/// A scale, then half a byte a number: `x ≈ scale · (q − 8)`, with −8 for the number that is farthest from 0. The first
/// half of the numbers is in the low halves of the bytes.
fn q4_0(numbers: &[f32], to: &mut Vec<u8>) {
    let farthest =
        numbers.iter().fold(0.0_f32, |far, x| if x.abs() > far.abs() { *x } else { far });
    let scale = farthest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    to.extend(f16::from_f32(scale).to_le_bytes());
    let nibble = |x: &f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = numbers.split_at(numbers.len() / 2);
    to.extend(low.iter().zip(high).map(|(low, high)| nibble(low) | nibble(high) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(ty: GgmlType, row: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(ty, row, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_block_of_q8_0() {
        let mut row = [0.0; 32];
        row[..5].copy_from_slice(&[127.0, -127.0, 0.5, -0.5, 63.4]);
        let bytes = encoded(GgmlType::Q8_0, &row);
        assert_eq!(bytes.len(), 34);
        // The scale is 1; halves are rounded away from 0.
        assert_eq!(bytes[..7], [0x00, 0x3c, 127, (-127_i8) as u8, 1, (-1_i8) as u8, 63]);
        assert!(bytes[7..].iter().all(|q| *q == 0));
    }

    #[test]
    fn a_block_of_q4_0() {
        let mut row = [0.0; 32];
        // The farthest is −16, so the scale is 2; +16 would be 16, and is clamped to 15.
        (row[0], row[1], row[2], row[16], row[31]) = (-16.0, 16.0, 0.99, 14.0, 1.0);
        let bytes = encoded(GgmlType::Q4_0, &row);
        assert_eq!(bytes.len(), 18);
        assert_eq!(bytes[..2], [0x00, 0x40]);
        assert_eq!(bytes[2..5], [0xf0, 0x8f, 0x88]);
        assert_eq!(bytes[17], 0x98);
        // A positive farthest number makes the scale negative.
        let bytes = encoded(GgmlType::Q4_0, &[8.0; 32]);
        assert_eq!(bytes[..3], [0x00, 0xbc, 0x00]);
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_is_refused() {
        assert_eq!(encoded(GgmlType::Q8_0, &[0.0; 32]), [0; 34]);
        assert_eq!(encoded(GgmlType::Q4_0, &[0.0; 32])[2..], [0x88; 16]);
        assert_eq!(encoded(GgmlType::Q4_K, &[0.0; 256]), [0; 144]);
        assert_eq!(encoded(GgmlType::Q6_K, &[0.0; 256])[192..208], [0; 16]);
        let types = [GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::F16];
        for ty in types {
            assert!(encode(ty, &[f32::INFINITY; 256], &mut Vec::new()).is_err());
        }
        assert!(encode(GgmlType::F16, &[70_000.0], &mut Vec::new()).unwrap_err().contains("70000"));
    }

    #[test]
    fn every_dtype_is_read_as_it_is_written() {
        for (dtype, ty) in [
            (Dtype::Bf16, GgmlType::BF16),
            (Dtype::F16, GgmlType::F16),
            (Dtype::F32, GgmlType::F32),
        ] {
            let mut back = Vec::new();
            decode(dtype, &encoded(ty, &[1.5, -0.25, 96.0]), &mut back);
            assert_eq!(back, [1.5, -0.25, 96.0]);
        }
    }
}
