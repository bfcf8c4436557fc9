//! Number `i` of a block, as the comments of ggml's `block_*` structures and `dequantize_row_*` say, one at a time and in
//! f64: written apart from what it tests.

use half::f16;
use inference_text::gguf::GgmlType;

/// Where a block has its numbers of 16 bits.
pub(super) fn halves(ty: GgmlType) -> &'static [usize] {
    match ty {
        GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => &[0],
        GgmlType::IQ4_NL | GgmlType::IQ4_XS => &[0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        _ => &[],
    }
}

const NONLINEAR: [i32; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What a number is made of: `factor · whole + offset`.
pub(super) fn number(ty: GgmlType, b: &[u8], i: usize) -> (f64, f64, f64) {
    let half = |at: usize| f64::from(f16::from_le_bytes([b[at], b[at + 1]]));
    let bit = |at: usize, bit: usize| i32::from(b[at + bit / 8] >> (bit % 8) & 1);
    let bits = |at: usize, count: usize, from: usize| {
        (0..count).map(|k| bit(at, from + k) << k).sum::<i32>()
    };
    // In blocks of 32 a byte has number j below and number j + 16 above.
    let nibble = |at: usize| bits(at + i % 16, 4, i / 16 * 4);
    // In blocks of 256 it has number j below and number j + 32 above, of 64.
    let long_nibble = |at: usize| bits(at + i / 64 * 32 + i % 32, 4, i % 64 / 32 * 4);
    let six = |at: usize| {
        let j = i / 32;
        let byte = |k: usize| i32::from(b[at + k]);
        match j < 4 {
            true => (byte(j) % 64, byte(j + 4) % 64),
            false => {
                (byte(j + 4) % 16 + byte(j - 4) / 64 * 16, byte(j + 4) / 16 + byte(j) / 64 * 16)
            }
        }
    };
    let of = |factor: f64, whole: i32, offset: f64| (factor, f64::from(whole), offset);
    match ty {
        GgmlType::Q4_0 => of(half(0), nibble(2) - 8, 0.0),
        GgmlType::Q4_1 => of(half(0), nibble(4), half(2)),
        GgmlType::Q5_0 => of(half(0), nibble(6) + 16 * bit(2, i) - 16, 0.0),
        GgmlType::Q5_1 => of(half(0), nibble(8) + 16 * bit(4, i), half(2)),
        GgmlType::Q8_0 => of(half(0), (b[2 + i] as i8).into(), 0.0),
        GgmlType::Q2_K => {
            let both = i32::from(b[i / 16]);
            let whole = bits(16 + i / 128 * 32 + i % 32, 2, i % 128 / 32 * 2);
            of(half(80) * f64::from(both % 16), whole, -half(82) * f64::from(both / 16))
        }
        GgmlType::Q3_K => {
            let j = i / 16;
            let low = bits(96 + j % 8, 4, j / 8 * 4);
            let high = bits(104 + j % 4, 2, j / 4 * 2);
            let whole = bits(32 + i / 128 * 32 + i % 32, 2, i % 128 / 32 * 2);
            let third = bit(i % 32, i / 32);
            of(half(108) * f64::from(low + 16 * high - 32), whole + 4 * third - 4, 0.0)
        }
        GgmlType::Q4_K => {
            let (scale, min) = six(4);
            of(half(0) * f64::from(scale), long_nibble(16), -half(2) * f64::from(min))
        }
        GgmlType::Q5_K => {
            let (scale, min) = six(4);
            let whole = long_nibble(48) + 16 * bit(16 + i % 32, i / 32);
            of(half(0) * f64::from(scale), whole, -half(2) * f64::from(min))
        }
        GgmlType::Q6_K => {
            let (part, at) = (i / 128, i % 128);
            let low = bits(part * 64 + at % 64, 4, at / 64 * 4);
            let high = bits(128 + part * 32 + at % 32, 2, at / 32 * 2);
            of(half(208) * f64::from(b[192 + i / 16] as i8), low + 16 * high - 32, 0.0)
        }
        GgmlType::IQ4_NL => of(half(0), NONLINEAR[nibble(2) as usize], 0.0),
        GgmlType::IQ4_XS => {
            let j = i / 32;
            let factor = bits(4 + j / 2, 4, j % 2 * 4) + 16 * bits(2, 2, 2 * j);
            let code = bits(8 + j * 16 + i % 16, 4, i % 32 / 16 * 4);
            of(half(0) * f64::from(factor - 32), NONLINEAR[code as usize], 0.0)
        }
        // E2M1 of <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>.
        GgmlType::MXFP4 => {
            let code = nibble(1);
            let (sign, exponent, mantissa) = (code / 8, code / 2 % 4, f64::from(code % 2));
            let value = match exponent {
                0 => mantissa / 2.0,
                e => (1.0 + mantissa / 2.0) * f64::from(1 << (e - 1)),
            };
            let scale = (f64::from(b[0]) - 127.0).exp2();
            (scale, if sign == 1 { -value } else { value }, 0.0)
        }
        other => panic!("no reference for {other}"),
    }
}
