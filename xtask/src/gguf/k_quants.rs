//! Blocks of 256 numbers, whose groups have scales that are quantised themselves.
//!
//! The layouts are `block_q4_K` and `block_q6_K` of ggml
//! (<https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>). Its `quantize_row_*` search for scales
//! that lose least; here they are those that reach the farthest numbers, so a file is as fast, and a little less exact.

use half::f16;

/// Numbers that share a scale in `Q4_K`, and in `Q6_K`.
const GROUPS: (usize, usize) = (32, 16);

/// Scales and minima of six bits, then half a byte a number: `x ≈ scale · q − minimum`, in eight groups.
pub(super) fn q4_k(numbers: &[f32], to: &mut Vec<u8>) {
    // A minimum is subtracted, so it is that of numbers and 0.
    let ranges: Vec<(f32, f32)> = numbers
        .chunks(GROUPS.0)
        .map(|group| {
            let least = group.iter().fold(0.0_f32, |least, x| least.min(*x));
            let most = group.iter().fold(least, |most, x| most.max(*x));
            ((most - least) / 15.0, -least)
        })
        .collect();
    let unit = |of: fn(&(f32, f32)) -> f32| {
        f16::from_f32(ranges.iter().map(of).fold(0.0, f32::max) / 63.0)
    };
    let (scale_unit, minimum_unit) = (unit(|r| r.0), unit(|r| r.1));
    let six_bits = |x: f32, unit: f16| (x * inverse(unit.to_f32())).round().min(63.0) as u8;
    let factors: Vec<(u8, u8)> =
        ranges.iter().map(|r| (six_bits(r.0, scale_unit), six_bits(r.1, minimum_unit))).collect();
    to.extend(scale_unit.to_le_bytes());
    to.extend(minimum_unit.to_le_bytes());
    // `get_scale_min_k4`: of the last four, the upper two bits are above those of the first four.
    let (first, last) = factors.split_at(4);
    to.extend(first.iter().zip(last).map(|(f, l)| f.0 | l.0 >> 4 << 6));
    to.extend(first.iter().zip(last).map(|(f, l)| f.1 | l.1 >> 4 << 6));
    to.extend(last.iter().map(|(scale, minimum)| scale & 15 | minimum << 4));
    let mut nibbles = numbers.chunks(GROUPS.0).zip(&factors).map(|(group, factors)| {
        let scale = inverse(scale_unit.to_f32() * f32::from(factors.0));
        let minimum = minimum_unit.to_f32() * f32::from(factors.1);
        group.iter().map(|x| ((x + minimum) * scale).round().clamp(0.0, 15.0) as u8).collect()
    });
    while let (Some(low), Some(high)) = (nibbles.next(), nibbles.next()) {
        let (low, high): (Vec<u8>, Vec<u8>) = (low, high);
        to.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}

/// Six bits a number, then scales of eight bits: `x ≈ scale · (q − 32)`, in sixteen groups.
pub(super) fn q6_k(numbers: &[f32], to: &mut Vec<u8>) {
    let farthest = |numbers: &[f32]| {
        numbers.iter().fold(0.0_f32, |far, x| if x.abs() > far.abs() { *x } else { far })
    };
    let scales: Vec<f32> = numbers.chunks(GROUPS.1).map(|group| farthest(group) / -32.0).collect();
    let unit = f16::from_f32(farthest(&scales) / -128.0);
    let factors: Vec<i8> =
        scales.iter().map(|s| (s * inverse(unit.to_f32())).round().min(127.0) as i8).collect();
    let mut bits = Vec::with_capacity(numbers.len());
    for (group, factor) in numbers.chunks(GROUPS.1).zip(&factors) {
        let scale = inverse(unit.to_f32() * f32::from(*factor));
        bits.extend(group.iter().map(|x| ((x * scale).round().clamp(-32.0, 31.0) + 32.0) as u8));
    }
    // Of every 128 numbers, byte `i` has the low halves of numbers `i` and `i + 64`.
    for half in bits.chunks(128) {
        to.extend((0..64).map(|i| half[i] & 15 | half[i + 64] << 4));
    }
    // And byte `i` the upper two bits of numbers `i`, `i + 32`, `i + 64` and `i + 96`.
    for half in bits.chunks(128) {
        to.extend(
            (0..32).map(|i| (0..4).fold(0, |byte, k| byte | half[i + 32 * k] >> 4 << (2 * k))),
        );
    }
    to.extend(factors.iter().map(|factor| *factor as u8));
    to.extend(unit.to_le_bytes());
}

/// 0 for 0: a group of zeros has no scale.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
