//! Every operation of a device but attention.

use super::{Noise, Tolerance, both, close, fault, step, upload};
use crate::{arch::Activation, device::Device, naive::Naive, weights::DType};
use inference_core::Result;

/// Checks every operation and every fusion but attention.
///
/// Gives the largest distance to the reference.
///
/// # Errors
/// Where the device is further from the reference than the tolerance; its own.
pub fn check_operations<D: Device>(device: &D, tolerance: Tolerance) -> Result<f64> {
    let (mut noise, mut worst) = (Noise::new(1), 0.0_f64);
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
                both!(worst, format!("linear {shape}"), device, tolerance, |d| {
                    let map = d.load_linear(&parts, bias)?;
                    d.linear(&upload(d, &x, cols)?, &map)?
                });
                both!(worst, format!("linear_add {shape}"), device, tolerance, |d| {
                    let map = d.load_linear(&parts, bias)?;
                    d.linear_add(upload(d, &sum, 2 * out + 6)?, &upload(d, &x, cols)?, &map)?
                });
                for activation in [Activation::Silu, Activation::GeluTanh] {
                    both!(
                        worst,
                        format!("linear_gate {activation:?} {shape}"),
                        device,
                        tolerance,
                        |d| {
                            let map = d.load_linear(&parts, bias)?;
                            d.linear_gate(&upload(d, &x, cols)?, &map, activation)?
                        }
                    );
                }
            }
            let table = noise.matrix(dtype, &[rows + 3, cols]);
            both!(worst, format!("embed {dtype:?} [{rows}, {cols}]"), device, 1e-7, |d| {
                let map = d.load_linear(std::slice::from_ref(&table), None)?;
                let step = step(&[(rows, 0, &[], 0)]);
                d.embed(&map, 3.5, &d.begin(&step, &[])?)?
            });
        }
    }
    let mixed = [noise.matrix(DType::F32, &[5, 64]), noise.matrix(DType::Bf16, &[6, 64])];
    let x = noise.numbers(64 * 3);
    both!(worst, "linear of mixed types", device, tolerance.rounded, |d| {
        let map = d.load_linear(&mixed, None)?;
        d.linear(&upload(d, &x, 64)?, &map)?
    });
    Ok(worst.max(check_elementwise(device, tolerance.exact, &mut noise)?))
}

fn check_elementwise<D: Device>(device: &D, tolerance: f64, noise: &mut Noise) -> Result<f64> {
    let mut worst = 0.0_f64;
    for (rows, heads, dim) in [(1, 1, 2), (3, 5, 16), (40, 2, 64), (7, 3, 20), (300, 4, 72)] {
        let cols = heads * dim;
        let shape = format!("[{rows}, {heads} x {dim}]");
        let (x, y) = (noise.numbers(rows * cols), noise.numbers(rows * cols));
        for group in [dim, cols] {
            let weight = noise.numbers(group);
            both!(worst, format!("rms_norm {shape} by {group}"), device, tolerance, |d| {
                d.rms_norm(&upload(d, &x, cols)?, &d.vector(&weight)?, 1e-6)?
            });
        }
        let weight = noise.numbers(cols);
        both!(worst, format!("add_norm {shape}, the norm"), device, tolerance, |d| {
            let (x, y) = (upload(d, &x, cols)?, upload(d, &y, cols)?);
            d.add_norm(x, &y, &d.vector(&weight)?, 1e-6)?.1
        });
        both!(worst, format!("add_norm {shape}, the sum"), device, tolerance, |d| {
            let (x, y) = (upload(d, &x, cols)?, upload(d, &y, cols)?);
            d.add_norm(x, &y, &d.vector(&weight)?, 1e-6)?.0
        });
        both!(worst, format!("add {shape}"), device, tolerance, |d| {
            d.add(upload(d, &x, cols)?, &upload(d, &y, cols)?)?
        });
        both!(worst, format!("softcap {shape}"), device, tolerance, |d| {
            d.softcap(upload(d, &x, cols)?, 0.7)?
        });
        let mut bad = x.clone();
        bad[0] = f32::NAN;
        let capped = device.read(device.softcap(upload(device, &bad, cols)?, 0.7)?)?;
        if !capped[0].is_nan() || capped[1..].iter().any(|x| x.is_nan()) {
            return fault(format!("softcap {shape}: what is no number does not stay so"));
        }
        for activation in [Activation::Silu, Activation::GeluTanh] {
            both!(worst, format!("gate {activation:?} {shape}"), device, tolerance, |d| {
                d.gate(&upload(d, &x, cols)?, activation)?
            });
        }
        if rows >= 3 {
            both!(worst, format!("wanted_rows {shape}"), device, 0.0, |d| {
                let step =
                    step(&[(rows - 2, 0, &[], 2.min(rows - 2)), (1, 3, &[], 0), (1, 9, &[], 1)]);
                d.wanted_rows(&upload(d, &x, cols)?, &d.begin(&step, &[])?)?
            });
        }
    }
    Ok(worst)
}

/// Checks that a row of a product has the same bits alone and among others, few and many: what makes a batch and a chunk
/// of a prompt equal single runs. Gives all products, which are the same on any number of threads.
///
/// # Errors
/// Where it has not; the device's own.
pub fn check_rows_are_independent<D: Device>(device: &D) -> Result<Vec<f32>> {
    let mut noise = Noise::new(3);
    let mut products = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        // Few inputs, and more than kernels take at a time; an odd number of rows of weights, in two parts.
        for (rows, cols, out) in [(11, 200, 37), (70, 1090, 150)] {
            let x = noise.numbers(rows * cols);
            let parts = [noise.matrix(dtype, &[out, cols]), noise.matrix(dtype, &[out, cols])];
            let map = device.load_linear(&parts, None)?;
            let product = |x: &[f32]| -> Result<_> {
                let plain = device.read(device.linear(&upload(device, x, cols)?, &map)?)?;
                let x = upload(device, x, cols)?;
                let gated = device.linear_gate(&x, &map, Activation::Silu)?;
                Ok((plain, device.read(gated)?))
            };
            let all = product(&x)?;
            let counts: &[usize] = if rows == 11 {
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
            } else {
                &[1, 13, 16, 17, 33, 48]
            };
            for &count in counts {
                let last = rows - count;
                for first in (0..=last).step_by(if rows == 11 { 1 } else { 29 }) {
                    let some = product(&x[first * cols..(first + count) * cols])?;
                    let of = |all: &[f32], n: usize| all[first * n..(first + count) * n].to_vec();
                    if some != (of(&all.0, 2 * out), of(&all.1, out)) {
                        let what = format!("{count} of {rows} rows from {first} on");
                        return fault(format!("{dtype:?}: {what} have other bits"));
                    }
                }
            }
            products.extend(all.0);
            products.extend(all.1);
        }
    }
    Ok(products)
}
