//! Products of matrices on a device that has kernels for few rows and for many: against the reference, and among themselves.

use super::{Noise, Tolerance, close, fault, upload};
use crate::{
    arch::Activation,
    device::Device,
    naive::Naive,
    weights::{Affine, DType, Matrix},
};
use inference_core::Result;

/// A quantised matrix of random numbers; its scales are of `dtype`, its numbers around 0.
fn affine(
    noise: &mut Noise,
    bits: u32,
    group: usize,
    shape: [usize; 2],
    dtype: DType,
) -> Result<Matrix> {
    let [rows, cols] = shape;
    let q: Vec<u8> = (0..rows * cols * bits as usize / 8).map(|_| noise.bits() as u8).collect();
    let of_groups = [rows, cols / group];
    let scale = 2.0 / ((1 << bits) - 1) as f32;
    let scales: Vec<f32> = noise.numbers(rows * cols / group).iter().map(|x| x * scale).collect();
    let biases: Vec<f32> = scales.iter().map(|s| -s / scale).collect();
    let raw = |numbers: &[f32]| super::raw(dtype, &of_groups, numbers);
    let (scales, biases) = (raw(&scales), raw(&biases));
    let matrix = Affine::new(bits, group, shape, q.into(), scales, biases);
    matrix.map(Matrix::Affine).or_else(fault)
}

/// Plain, added to what is there, and gated.
fn all<D: Device>(
    d: &D,
    x: &[f32],
    parts: &[Matrix],
    bias: Option<&[f32]>,
) -> Result<[Vec<f32>; 3]> {
    let cols = parts[0].shape()[1];
    let (rows, outputs) = (x.len() / cols, parts.iter().map(|p| p.shape()[0]).sum::<usize>());
    let map = d.load_linear(parts, bias)?;
    let x = upload(d, x, cols)?;
    let before: Vec<f32> = (0..rows * outputs).map(|i| (i % outputs) as f32 / 8.0).collect();
    Ok([
        d.read(d.linear(&x, &map)?)?,
        d.read(d.linear_add(upload(d, &before, outputs)?, &x, &map)?)?,
        d.read(d.linear_gate(&x, &map, Activation::Silu)?)?,
    ])
}

/// Checks every form of weights with few rows, many and very many, at sizes with tails; and that a row has the same bits
/// in any company of few rows, and in any company of many.
///
/// Gives the largest distance to the reference.
///
/// # Errors
/// Where a product is too far from the reference, or has other bits than elsewhere; the device's own.
pub fn check_products<D: Device>(device: &D, tolerance: Tolerance) -> Result<f64> {
    let (mut noise, mut worst) = (Noise::new(9), 0.0_f64);
    let mut cases = Vec::new();
    for dtype in [DType::F16, DType::Bf16] {
        let parts = [75, 76, 1].map(|out| noise.matrix(dtype, &[out, 100]));
        cases.push((format!("{dtype:?}"), parts.to_vec()));
    }
    let types = [DType::F32, DType::F16, DType::Bf16];
    for (i, bits) in Affine::BITS.into_iter().enumerate() {
        // Every width, every group and every type of scales, though not each with each.
        let (group, dtype) = (Affine::GROUPS[i % 4], types[i % 3]);
        let cols = if group == 16 { 112 } else { 128 };
        let mut part = |out| affine(&mut noise, bits, group, [out, cols], dtype);
        cases.push((format!("{bits} bits by {group}, {dtype:?}"), vec![part(75)?, part(77)?]));
    }
    for (what, parts) in &cases {
        let cols = parts[0].shape()[1];
        let outputs: usize = parts.iter().map(|p| p.shape()[0]).sum();
        let (x, bias) = (noise.numbers(133 * cols), noise.numbers(outputs));
        let run = |first: usize, rows: usize| {
            all(device, &x[first * cols..][..rows * cols], parts, Some(&bias))
        };
        let reference = all(&Naive::default(), &x, parts, Some(&bias))?;
        let many = run(0, 133)?;
        let names = ["product", "sum", "gated product"];
        for (name, (got, want)) in names.iter().zip(many.iter().zip(&reference)) {
            worst = worst.max(close(&format!("{name} with {what}"), got, want, tolerance.rounded)?);
        }
        let few = run(120, 8)?;
        let some = |first, count| -> Result<_> { Ok((first, count, run(first, count)?)) };
        let of_many = [some(50, 9)?, some(3, 33)?, some(60, 73)?];
        let of_few = [some(120, 1)?, some(123, 2)?, some(125, 3)?];
        for (i, n) in [outputs, outputs, outputs / 2].into_iter().enumerate() {
            let rows = |all: &[Vec<f32>; 3], first: usize, rows: usize| {
                all[i][first * n..][..rows * n].to_vec()
            };
            let want = rows(&reference, 120, 8);
            let name = format!("{} of 8 rows with {what}", names[i]);
            worst = worst.max(close(&name, &few[i], &want, tolerance.rounded)?);
            for (company, begin, all) in [(&of_many, 0, &many), (&of_few, 120, &few)] {
                for (first, count, got) in company {
                    if got[i] != rows(all, first - begin, *count) {
                        let which = format!("{count} rows from {first} on");
                        return fault(format!("{} with {what}: {which} have other bits", names[i]));
                    }
                }
            }
        }
    }
    Ok(worst)
}
