//! What conversions share: rows on all cores, and small floating-point types.

use std::{num::NonZero, ops::Range, thread};

/// Bytes of a result below which one thread is faster than several.
const WORTH_A_THREAD: usize = 256 << 10;

/// Fills `out`, rows of `width` bytes, on all cores. `fill` gets some rows and their bytes; all but the last time as
/// many rows as a multiple of `unit`.
pub(super) fn rows(
    out: &mut [u8],
    width: usize,
    unit: usize,
    fill: impl Fn(Range<usize>, &mut [u8]) + Sync,
) {
    let rows = out.len().checked_div(width).unwrap_or(0);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(out.len().div_ceil(WORTH_A_THREAD)).max(1);
    let share = rows.div_ceil(threads).next_multiple_of(unit).max(1);
    if rows <= share {
        return fill(0..rows, out);
    }
    let fill = &fill;
    thread::scope(|scope| {
        for (i, out) in out.chunks_mut(share * width).enumerate() {
            let first = i * share;
            scope.spawn(move || fill(first..first + out.len() / width, out));
        }
    });
}

/// Every number of E4M3: one bit of sign, four of exponent, three of mantissa; no infinity, and NaN where all but the
/// sign are set (<https://arxiv.org/abs/2209.05433>).
pub(super) fn e4m3() -> [f32; 256] {
    std::array::from_fn(|byte| {
        let (exponent, mantissa) = ((byte >> 3) & 15, (byte & 7) as f32);
        let magnitude = match (exponent, byte & 7) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa * power_of_two(-9),
            _ => (8.0 + mantissa) * power_of_two(exponent as i32 - 10),
        };
        if byte < 128 { magnitude } else { -magnitude }
    })
}

/// Every number of E8M0: a power of two, and NaN
/// (<https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>, 5.4.1).
pub(super) fn e8m0() -> [f32; 256] {
    std::array::from_fn(|byte| if byte == 255 { f32::NAN } else { power_of_two(byte as i32 - 127) })
}

fn power_of_two(exponent: i32) -> f32 {
    // Exact in f64, and so in f32 as far as its subnormal numbers reach.
    2f64.powi(exponent) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_filled_once() {
        for (rows_, width, unit) in [(0, 4, 1), (1, 4, 16), (5, 1, 16), (1000, 2048, 16), (7, 0, 1)]
        {
            let mut out = vec![0; rows_ * width];
            rows(&mut out, width, unit, |range, part| {
                assert!(range.start % unit == 0 && part.len() == range.len() * width);
                for (row, bytes) in range.zip(part.chunks_mut(width.max(1))) {
                    bytes.iter_mut().for_each(|b| *b = b.wrapping_add(row as u8 | 1));
                }
            });
            for (row, bytes) in out.chunks(width.max(1)).enumerate() {
                assert!(bytes.iter().all(|b| *b == row as u8 | 1), "row {row} of {rows_}");
            }
        }
    }

    #[test]
    fn small_floats_are_what_their_definitions_say() {
        let (e4m3, e8m0) = (e4m3(), e8m0());
        let some = [(0, 0.0), (1, 1.0 / 512.0), (0x38, 1.0), (0x7e, 448.0), (0xb8, -1.0)];
        for (byte, value) in some {
            assert_eq!(e4m3[byte], value);
        }
        assert!(e4m3[0x7f].is_nan() && e4m3[0xff].is_nan());
        assert_eq!(e4m3.iter().filter(|x| x.is_finite()).count(), 254);
        assert_eq!((e8m0[127], e8m0[254], e8m0[1]), (1.0, 2f32.powi(127), f32::MIN_POSITIVE));
        assert!(e8m0[255].is_nan() && e8m0[0] == f32::MIN_POSITIVE / 2.0);
    }
}
