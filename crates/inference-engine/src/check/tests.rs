//! What the checks of a device notice.

use super::{EACH, Noise, close, distance};

const TOLERANCE: f64 = 6e-3;
const ROWS: usize = 300;
const COLS: usize = 300;

fn is_close(got: &[f32], want: &[f32]) -> bool {
    close("x", got, want, COLS, TOLERANCE).is_ok()
}

#[test]
fn a_wrong_number_and_a_wrong_row_are_noticed_in_a_large_matrix() {
    let mut noise = Noise::new(1);
    let want = noise.numbers(ROWS * COLS);
    let rounded: Vec<f32> = want.iter().map(|x| x * (1.0 + 2e-3 * noise.number())).collect();
    assert!(is_close(&rounded, &want));
    let changed = |from: usize, count: usize, change: &dyn Fn(f32) -> f32| {
        let mut got = rounded.clone();
        got[from..from + count].iter_mut().for_each(|x| *x = change(*x));
        got
    };
    let one = changed(7 * COLS + 5, 1, &|x| x + 0.2);
    assert!(distance(&one, &want) < TOLERANCE, "all numbers together hide it");
    assert!(!is_close(&one, &want));
    for change in [&|x: f32| x * 1.1, &|_: f32| f32::NAN, &|_: f32| 0.0] as [&dyn Fn(f32) -> f32; 3]
    {
        assert!(!is_close(&changed(7 * COLS, COLS, change), &want));
    }
    assert!(!is_close(&changed(COLS, 1, &|_| f32::NAN), &want));
    assert!(!is_close(&rounded[1..], &want));
}

#[test]
fn large_rows_do_not_hide_small_ones_and_zeros_are_zeros() {
    let mut noise = Noise::new(2);
    let mut want = noise.numbers(4 * COLS);
    want[..COLS].iter_mut().for_each(|x| *x *= 1e12);
    want[COLS..2 * COLS].iter_mut().for_each(|x| *x *= 1e-12);
    want[2 * COLS..3 * COLS].fill(0.0);
    assert!(is_close(&want, &want));
    for row in 1..4 {
        let mut got = want.clone();
        got[row * COLS..(row + 1) * COLS].iter_mut().for_each(|x| *x = *x * 1.1 + 1e-20);
        assert!(distance(&got, &want) < TOLERANCE && !is_close(&got, &want), "row {row}");
    }
}

#[test]
fn a_number_may_be_off_by_so_much_of_its_rows_and_no_more() {
    let mut want = vec![1.0; ROWS * COLS];
    want[..COLS].fill(100.0);
    for (place, size) in [(0, 100.0), (COLS, 1.0)] {
        for (off, is_fine) in [(0.9, true), (1.1, false)] {
            let mut got = want.clone();
            got[place] += (off * EACH * TOLERANCE) as f32 * size;
            assert_eq!(is_close(&got, &want), is_fine, "{off} at {place}");
        }
    }
}
