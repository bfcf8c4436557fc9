//! Is a device right? Every operation against [`Naive`](crate::naive::Naive), over shapes that hurt, and whether bits depend on the company.
//!
//! The tests of every device run this, and `inference backends --self-test` does on the device of whoever has one.

mod answer;
mod attention;
mod operations;
mod products;
#[cfg(test)]
mod tests;

pub use answer::check_answers;
pub use attention::{
    check_attention, check_attention_is_independent, check_each_way_of_attention_is_independent,
};
pub use operations::{check_operations, check_rows_are_independent};
pub use products::check_products;

use crate::{
    device::Device,
    step::Step,
    weights::{DType, Matrix, RawTensor},
};
use half::{bf16, f16};
use inference_core::{Check, Error, Result};
use std::time::Instant;

/// All checks of a device, each told to `each` when it ends.
pub fn self_test<D: Device>(device: &D, tolerance: Tolerance, each: &mut dyn FnMut(Check)) {
    let mut run = |name: &str, check: &dyn Fn() -> Result<f64>| {
        let start = Instant::now();
        let outcome = check();
        each(Check::new(name, outcome, start.elapsed()));
    };
    run("operations", &|| check_operations(device, tolerance));
    run("products of every form of weights", &|| check_products(device, tolerance));
    run("attention", &|| check_attention(device, tolerance));
    run("the largest logits", &|| check_answers(device).map(|_| 0.0));
    run("attention in any company", &|| {
        check_each_way_of_attention_is_independent(device).map(|()| 0.0)
    });
}

/// Numbers that look random and are the same in every run, about normal.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to 2³² − 1 (xorshift64*).
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number around 0 with deviation 1.
    pub fn number(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| f64::from(self.bits()) / f64::from(u32::MAX)).sum();
        (sum - 6.0) as f32
    }

    /// `n` numbers.
    pub fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }

    /// A matrix of `dtype`.
    pub fn matrix(&mut self, dtype: DType, shape: &[usize]) -> Matrix {
        let numbers = self.numbers(shape.iter().product());
        raw(dtype, shape, &numbers).into()
    }
}

/// A tensor that holds `numbers`, rounded to `dtype`.
pub fn raw(dtype: DType, shape: &[usize], numbers: &[f32]) -> RawTensor {
    let bytes: Vec<u8> = match dtype {
        DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    };
    RawTensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
}

/// `‖a − b‖ / ‖b‖`
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}

/// How far a device may be from the reference, as [`distance`]; and, times five (in attention ten), how far each number may
/// be, as a share of itself or of the root mean square of its row, whichever is larger.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Where everything is computed in f32: other orders of sums.
    pub exact: f64,
    /// Where activations are rounded to 16 bits, for weights that are.
    pub rounded: f64,
    /// How many times `rounded` each number of a product may be off, instead of five.
    pub each: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { exact: 2e-6, rounded: 6e-3, each: EACH }
    }
}

/// How far a single number may be off, in tolerances: rounding is about normal, and so at most some deviations off.
const EACH: f64 = 5.0;

/// The distance of two matrices of `cols` columns, if it is within the tolerance and each number is within [`EACH`]
/// tolerances.
fn close(what: &str, got: &[f32], want: &[f32], cols: usize, tolerance: f64) -> Result<f64> {
    close_each(what, got, want, cols, tolerance, EACH * tolerance)
}

/// The distance, if it is within the tolerance `all` and each number `a` of a row is as near to the reference's `b` as
/// `|a − b| ≤ each · max(|b|, r)`, where `r` is the root mean square of that row of the reference. So a wrong number and a
/// wrong row do not hide in a large matrix, nor rows of small numbers beside rows of large ones; a row of zeros has to be
/// zeros.
fn close_each(
    what: &str,
    got: &[f32],
    want: &[f32],
    cols: usize,
    all: f64,
    each: f64,
) -> Result<f64> {
    if got.len() != want.len() {
        return fault(format!("{what}: {} numbers instead of {}", got.len(), want.len()));
    }
    let distance = distance(got, want);
    if distance.is_nan() || distance > all {
        return fault(format!("{what}: {distance:.1e} from the reference, more than {all:.1e}"));
    }
    for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
        let squares: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
        let typical = (squares / want.len() as f64).sqrt();
        for (column, (a, b)) in got.iter().zip(want).enumerate() {
            let (error, size) = ((f64::from(*a) - f64::from(*b)).abs(), f64::from(b.abs()));
            if error.is_nan() || error > each * size.max(typical) {
                return fault(format!(
                    "{what}: row {row}, column {column} is {a:e} instead of {b:e}, further off than {each:.1e} of \
                     it and of its row"
                ));
            }
        }
    }
    Ok(distance)
}

fn fault<T>(what: String) -> Result<T> {
    Err(Error::Device { reason: what })
}

/// Puts `data` on a device as `[rows, cols]`, by way of an embedding.
fn upload<D: Device>(device: &D, data: &[f32], cols: usize) -> Result<D::Tensor> {
    let rows = data.len() / cols;
    let table = device.load_linear(&[raw(DType::F32, &[rows, cols], data).into()], None)?;
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let mut step = Step::default();
    step.push(&tokens, 0, rows, &[], 0);
    device.embed(&table, 1.0, &device.begin(&step, &[])?)
}

/// A step of spans `(new tokens, tokens before, blocks, wanted rows)`.
fn step(spans: &[(usize, usize, &[u32], usize)]) -> Step {
    let mut step = Step::default();
    for &(new, past, blocks, wanted) in spans {
        let tokens: Vec<u32> = (0..new as u32).collect();
        step.push(&tokens, past, past + new, blocks, wanted);
    }
    step
}

/// Runs `f` on the device and on the reference, and widens the worst distance to theirs.
macro_rules! both {
    ($worst:ident, $what:expr, $device:expr, $tolerance:expr, |$d:ident| $body:expr) => {{
        let got = {
            let $d = $device;
            let x = $body;
            $d.read(x)?
        };
        let want = {
            let $d = &Naive { block_len: $device.block_len() };
            $body
        };
        $worst = $worst.max(close($what.as_ref(), &got, &want.data, want.cols, $tolerance)?);
    }};
}
use both;
