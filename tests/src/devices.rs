//! Every operation of a device but attention against [`Naive`], over shapes that hurt.

use half::{bf16, f16};
use inference_engine::{
    arch::Activation,
    device::Device,
    naive::Naive,
    step::Step,
    weights::{DType, Matrix, RawTensor},
};

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

/// How far a device may be from the reference, as [`distance`].
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Where everything is computed in f32: other orders of sums.
    pub exact: f64,
    /// Where activations are rounded to 16 bits, for weights that are.
    pub rounded: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { exact: 2e-6, rounded: 6e-3 }
    }
}

pub(crate) fn close(what: &str, got: Vec<f32>, want: Vec<f32>, tolerance: f64) {
    let distance = distance(&got, &want);
    assert!(
        distance <= tolerance,
        "{what}: {distance:.1e} from the reference, more than {tolerance:.1e}"
    );
}

/// Puts `data` on a device as `[rows, cols]`, by way of an embedding.
pub(crate) fn upload<D: Device>(device: &D, data: &[f32], cols: usize) -> D::Tensor {
    let rows = data.len() / cols;
    let table =
        device.load_linear(&[raw(DType::F32, &[rows, cols], data).into()], None).expect("loads");
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let mut step = Step::default();
    step.push(&tokens, 0, rows, &[], 0);
    device.embed(&table, 1.0, &device.begin(&step, &[]).expect("begins")).expect("embeds")
}

/// A step of spans `(new tokens, tokens before, blocks, wanted rows)`.
pub(crate) fn step(spans: &[(usize, usize, &[u32], usize)]) -> Step {
    let mut step = Step::default();
    for &(new, past, blocks, wanted) in spans {
        let tokens: Vec<u32> = (0..new as u32).collect();
        step.push(&tokens, past, past + new, blocks, wanted);
    }
    step
}

/// Runs `f` on the device and on the reference and compares.
macro_rules! both {
    ($what:expr, $device:expr, $tolerance:expr, |$d:ident| $body:expr) => {{
        let got = {
            let $d = $device;
            let x = $body;
            $d.read(x).expect("reads")
        };
        let want = {
            let $d = &Naive { block_len: $device.block_len() };
            let x = $body;
            $d.read(x).expect("reads")
        };
        close($what.as_ref(), got, want, $tolerance);
    }};
}

/// Checks every operation and every fusion but attention.
///
/// # Panics
/// Where the device is further from the reference than the tolerance.
pub fn check_operations<D: Device>(device: &D, tolerance: Tolerance) {
    let mut noise = Noise::new(1);
    let widths = [
        (1, 1, 1),
        (1, 64, 7),
        (3, 33, 5),
        (5, 96, 26),
        (2, 130, 13),
        (17, 64, 48),
        (9, 1030, 31),
        (50, 1100, 45),
    ];
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let tolerance = if dtype == DType::F32 { tolerance.exact } else { tolerance.rounded };
        for (rows, cols, out) in widths {
            let x = noise.numbers(rows * cols);
            let parts = [
                noise.matrix(dtype, &[out, cols]),
                noise.matrix(dtype, &[3, cols]),
                noise.matrix(dtype, &[out + 3, cols]),
            ];
            let bias = noise.numbers(2 * out + 6);
            let sum = Noise::new(4).numbers(rows * (2 * out + 6));
            for bias in [None, Some(&bias[..])] {
                let shape = format!("{dtype:?} [{rows}, {cols}] x [{out}+3+{}]", out + 3);
                both!(format!("linear {shape}"), device, tolerance, |d| {
                    let map = d.load_linear(&parts, bias).expect("loads");
                    d.linear(&upload(d, &x, cols), &map).expect("multiplies")
                });
                both!(format!("linear_add {shape}"), device, tolerance, |d| {
                    let map = d.load_linear(&parts, bias).expect("loads");
                    d.linear_add(upload(d, &sum, 2 * out + 6), &upload(d, &x, cols), &map)
                        .expect("adds")
                });
                for activation in [Activation::Silu, Activation::GeluTanh] {
                    both!(format!("linear_gate {activation:?} {shape}"), device, tolerance, |d| {
                        let map = d.load_linear(&parts, bias).expect("loads");
                        d.linear_gate(&upload(d, &x, cols), &map, activation).expect("gates")
                    });
                }
            }
            let table = noise.matrix(dtype, &[rows + 3, cols]);
            both!(format!("embed {dtype:?} [{rows}, {cols}]"), device, 1e-7, |d| {
                let map = d.load_linear(std::slice::from_ref(&table), None).expect("loads");
                let step = step(&[(rows, 0, &[], 0)]);
                d.embed(&map, 3.5, &d.begin(&step, &[]).expect("begins")).expect("embeds")
            });
        }
    }
    let mixed = [noise.matrix(DType::F32, &[5, 64]), noise.matrix(DType::Bf16, &[6, 64])];
    let x = noise.numbers(64 * 3);
    both!("linear of mixed types", device, tolerance.rounded, |d| {
        let map = d.load_linear(&mixed, None).expect("loads");
        d.linear(&upload(d, &x, 64), &map).expect("multiplies")
    });
    check_elementwise(device, tolerance.exact, &mut noise);
}

fn check_elementwise<D: Device>(device: &D, tolerance: f64, noise: &mut Noise) {
    for (rows, heads, dim) in [(1, 1, 2), (3, 5, 16), (40, 2, 64), (7, 3, 20), (300, 4, 72)] {
        let cols = heads * dim;
        let shape = format!("[{rows}, {heads} x {dim}]");
        let (x, y) = (noise.numbers(rows * cols), noise.numbers(rows * cols));
        for group in [dim, cols] {
            let weight = noise.numbers(group);
            both!(format!("rms_norm {shape} by {group}"), device, tolerance, |d| {
                d.rms_norm(&upload(d, &x, cols), &d.vector(&weight).expect("uploads"), 1e-6)
                    .expect("norms")
            });
        }
        let weight = noise.numbers(cols);
        both!(format!("add_norm {shape}, the norm"), device, tolerance, |d| {
            let (x, y) = (upload(d, &x, cols), upload(d, &y, cols));
            d.add_norm(x, &y, &d.vector(&weight).expect("uploads"), 1e-6).expect("adds").1
        });
        both!(format!("add_norm {shape}, the sum"), device, tolerance, |d| {
            let (x, y) = (upload(d, &x, cols), upload(d, &y, cols));
            d.add_norm(x, &y, &d.vector(&weight).expect("uploads"), 1e-6).expect("adds").0
        });
        both!(format!("add {shape}"), device, tolerance, |d| {
            d.add(upload(d, &x, cols), &upload(d, &y, cols)).expect("adds")
        });
        both!(format!("softcap {shape}"), device, tolerance, |d| {
            d.softcap(upload(d, &x, cols), 0.7).expect("caps")
        });
        for activation in [Activation::Silu, Activation::GeluTanh] {
            both!(format!("gate {activation:?} {shape}"), device, tolerance, |d| {
                d.gate(&upload(d, &x, cols), activation).expect("gates")
            });
        }
        if rows >= 3 {
            both!(format!("wanted_rows {shape}"), device, 0.0, |d| {
                let step =
                    step(&[(rows - 2, 0, &[], 2.min(rows - 2)), (1, 3, &[], 0), (1, 9, &[], 1)]);
                d.wanted_rows(&upload(d, &x, cols), &d.begin(&step, &[]).expect("begins"))
                    .expect("gathers")
            });
        }
    }
}

/// Checks that a row of a product has the same bits alone and among others, few and many: what makes a batch and a chunk
/// of a prompt equal single runs. Gives all products, which are the same on any number of threads.
///
/// # Panics
/// Where it has not.
pub fn check_rows_are_independent<D: Device>(device: &D) -> Vec<f32> {
    let mut noise = Noise::new(3);
    let mut products = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        // Few inputs, and more than kernels take at a time; an odd number of rows of weights, in two parts.
        for (rows, cols, out) in [(11, 200, 37), (70, 1090, 150)] {
            let x = noise.numbers(rows * cols);
            let parts = [noise.matrix(dtype, &[out, cols]), noise.matrix(dtype, &[out, cols])];
            let map = device.load_linear(&parts, None).expect("loads");
            let read = |x: D::Tensor| device.read(x).expect("reads");
            let product = |x: &[f32]| {
                let plain =
                    read(device.linear(&upload(device, x, cols), &map).expect("multiplies"));
                let x = upload(device, x, cols);
                let gated = device.linear_gate(&x, &map, Activation::Silu).expect("gates");
                (plain, read(gated))
            };
            let all = product(&x);
            let counts: &[usize] = if rows == 11 {
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
            } else {
                &[1, 13, 16, 17, 33, 48]
            };
            for &count in counts {
                let last = rows - count;
                for first in (0..=last).step_by(if rows == 11 { 1 } else { 29 }) {
                    let some = product(&x[first * cols..(first + count) * cols]);
                    let of = |all: &[f32], n: usize| all[first * n..(first + count) * n].to_vec();
                    assert!(
                        some == (of(&all.0, 2 * out), of(&all.1, out)),
                        "{dtype:?}: {count} of {rows} rows from {first} on differ"
                    );
                }
            }
            products.extend(all.0);
            products.extend(all.1);
        }
    }
    products
}
