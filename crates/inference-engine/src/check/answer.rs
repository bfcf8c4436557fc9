//! What a device brings of the logits.

use super::{Noise, fault, upload};
use crate::device::Device;
use inference_core::Result;
use inference_text::logits::{Ask, Asked, Logits, MOST_LARGEST, Row};

/// Checks that the device brings of each row what was asked for or all, to the bit, whatever the row holds.
///
/// Gives how many rows came with their largest logits alone.
///
/// # Errors
/// Where it does not; its own.
pub fn check_answers<D: Device>(device: &D) -> Result<usize> {
    let mut noise = Noise::new(11);
    let mut short = 0;
    // Rows, columns, and how many of those are no padding.
    for (rows, cols, columns) in [
        (1, 1, 1),
        (9, 70, 61),
        (3, 2048, 2048),
        (5, 2049, 2049),
        (2, 5000, 4999),
        (1, 151_936, 151_643),
    ] {
        let mut x: Vec<f32> = noise.numbers(rows * cols);
        // Ties, zeros of both signs among them; and what was banned.
        x.iter_mut()
            .for_each(|v| *v = if *v > 2.5 { f32::NEG_INFINITY } else { (*v * 2.0).round() });
        x.iter_mut().skip(3).step_by(17).for_each(|v| *v = f32::NEG_INFINITY);
        for row in x.chunks_exact_mut(cols) {
            // The largest of all is padding.
            row[columns..].fill(f32::INFINITY);
        }
        let last = rows - 1;
        if rows > 2 {
            x[0] = f32::NAN;
            x[cols + columns - 1] = f32::INFINITY;
            x[2 * cols..][..columns].fill(f32::NEG_INFINITY);
        }
        for k in [1, 2, 7, 64] {
            // As many of each row as of none before it.
            let ask = |row: usize| {
                if row == last && row > 0 {
                    Ask::All
                } else {
                    Ask::Largest((k + row).min(MOST_LARGEST))
                }
            };
            let asked = Asked { columns, rows: (0..rows).map(ask).collect() };
            let mut got = device.answer(upload(device, &x, cols)?, &asked)?;
            for (row, want) in x.chunks_exact(cols).enumerate() {
                let what = format!("row {row} of [{rows}, {cols}], {:?}", asked.rows[row]);
                short += usize::from(check(&what, &mut got, row, want, columns, asked.rows[row])?);
            }
        }
    }
    Ok(short)
}

/// Compares a row of the answer with the logits `want`. Gives whether it is the largest alone.
fn check(
    what: &str,
    got: &mut Logits,
    row: usize,
    want: &[f32],
    columns: usize,
    ask: Ask,
) -> Result<bool> {
    let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
    match (got.row(row), ask) {
        (Some(Row::All(got)), _) => {
            if got.len() != want.len() || !got.iter().zip(want).all(|(a, b)| same(*a, *b)) {
                return fault(format!("{what}: other logits"));
            }
            Ok(false)
        }
        (Some(Row::Largest(ids, got)), Ask::Largest(k)) => {
            let (want_ids, want) = largest(&want[..columns], k);
            let right = got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| same(*a, *b));
            // Which they are does not matter where none can be chosen.
            if !right || !want[0].is_nan() && ids != want_ids {
                return fault(format!("{what}: {ids:?} {got:?}, not {want_ids:?} {want:?}"));
            }
            Ok(true)
        }
        _ => fault(format!("{what}: no answer to it")),
    }
}

/// The ids of the `k` largest of a row, which ascend, and their numbers.
fn largest(row: &[f32], k: usize) -> (Vec<u32>, Vec<f32>) {
    let wrong = row.iter().any(|x| x.is_nan() || *x == f32::INFINITY);
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let of = |id: u32| row[id as usize] + 0.0;
    ids.sort_by(|a, b| of(*b).total_cmp(&of(*a)));
    ids.truncate(k);
    ids.sort_unstable();
    let numbers = ids.iter().map(|id| if wrong { f32::NAN } else { of(*id) }).collect();
    (ids, numbers)
}
