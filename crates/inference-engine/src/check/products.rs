//! Products of matrices on a device that has kernels for few rows and for many: against the reference, and among themselves.

use super::{Noise, Tolerance, both, close, close_each, fault, step, upload};
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

/// The same matrix, its columns for inputs in another order.
fn shuffled(matrix: Matrix, noise: &mut Noise) -> Result<Matrix> {
    let Matrix::Affine(affine) = matrix else { return fault("no order of its columns".to_owned()) };
    let mut order: Vec<u32> = (0..affine.cols() as u32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, noise.bits() as usize % (i + 1));
    }
    affine.in_order(order.into()).map(Matrix::Affine).or_else(fault)
}

/// Stacks of every form of weights, with what they are.
fn forms(noise: &mut Noise) -> Result<Vec<(String, Vec<Matrix>)>> {
    let mut forms = Vec::new();
    for dtype in [DType::F16, DType::Bf16] {
        let parts = [75, 76, 1].map(|out| noise.matrix(dtype, &[out, 100]));
        forms.push((format!("{dtype:?}"), parts.to_vec()));
    }
    let types = [DType::F32, DType::F16, DType::Bf16];
    for (i, bits) in Affine::BITS.into_iter().enumerate() {
        // Every width, every group and every type of scales, though not each with each.
        let (group, dtype) = (Affine::GROUPS[i % 4], types[i % 3]);
        let cols = if group == 16 { 112 } else { 128 };
        let mut part = |out| affine(noise, bits, group, [out, cols], dtype);
        let parts = vec![part(75)?, part(77)?];
        forms.push((format!("{bits} bits by {group}, {dtype:?}"), parts));
    }
    // Both parts in one order; one part in an order, and the other in none.
    let mut part = |out| affine(noise, 4, 32, [out, 128], DType::F16);
    let parts = [part(20)?, part(22)?, part(24)?];
    let alike = Noise::new(noise.bits().into());
    let in_order = |i: usize| shuffled(parts[i].clone(), &mut alike.clone());
    forms.push(("4 bits in an order".to_owned(), vec![in_order(0)?, in_order(1)?]));
    forms.push(("4 bits partly in an order".to_owned(), vec![in_order(0)?, parts[2].clone()]));
    Ok(forms)
}

/// Checks every form of weights with few rows, many and very many, at sizes with tails, in an order of the inputs, with
/// activations that 16 bits can't hold, and as tables; and that a row has the same bits in any company of few rows, and
/// in any company of many.
///
/// Gives the largest distance to the reference.
///
/// # Errors
/// Where a product is too far from the reference, or has other bits than elsewhere; the device's own.
pub fn check_products<D: Device>(device: &D, tolerance: Tolerance) -> Result<f64> {
    let (mut noise, mut worst) = (Noise::new(9), 0.0_f64);
    for (what, parts) in forms(&mut noise)? {
        worst = worst.max(check_company(device, tolerance, &what, &parts, &mut noise)?);
        // One of each type that activations are rounded to.
        if !what.contains("bits") || what.starts_with("4 bits by") {
            worst = worst.max(check_sizes(device, tolerance, &what, &parts, &mut noise)?);
        }
        both!(worst, format!("rows of {what}"), device, tolerance.exact, |d| {
            let table = d.load_linear(&parts[..1], None)?;
            let mut step = step(&[(9, 0, &[], 0)]);
            step.tokens = vec![0, 19, 3, 3, 1, 18, 7, 2, 11];
            d.embed(&table, 3.5, &d.begin(&step, &[])?)?
        });
    }
    Ok(worst)
}

/// Compares a product of so many columns with the reference's.
fn of_product(tolerance: Tolerance) -> impl Fn(&str, &[f32], &[f32], usize) -> Result<f64> {
    let Tolerance { rounded, each, .. } = tolerance;
    move |name, got, want, cols| close_each(name, got, want, cols, rounded, each * rounded)
}

const NAMES: [&str; 3] = ["product", "sum", "gated product"];

/// Columns of each of these.
fn widths(parts: &[Matrix]) -> [usize; 3] {
    let outputs = parts.iter().map(|p| p.shape()[0]).sum();
    [outputs, outputs, outputs / 2]
}

/// Rows that are larger than an f16 can be, tiny, or zero, beside others.
fn check_sizes<D: Device>(
    device: &D,
    tolerance: Tolerance,
    what: &str,
    parts: &[Matrix],
    noise: &mut Noise,
) -> Result<f64> {
    let mut worst = 0.0_f64;
    let product = of_product(tolerance);
    let cols = parts[0].shape()[1];
    let widths = widths(parts);
    for rows in [5, 20] {
        let mut x = noise.numbers(rows * cols);
        for (row, size) in x.chunks_exact_mut(cols).zip([1.0, 1e5, 1e-6, 0.0, 1e12].iter().cycle())
        {
            row.iter_mut().for_each(|x| *x *= size);
        }
        let bias = noise.numbers(widths[0]);
        let got = all(device, &x, parts, Some(&bias))?;
        let want = all(&Naive::default(), &x, parts, Some(&bias))?;
        for (i, n) in widths.into_iter().enumerate() {
            let name = format!("{} of {rows} rows of all sizes with {what}", NAMES[i]);
            worst = worst.max(product(&name, &got[i], &want[i], n)?);
        }
    }
    Ok(worst)
}

/// Few rows and many, and the bits of each in other company.
fn check_company<D: Device>(
    device: &D,
    tolerance: Tolerance,
    what: &str,
    parts: &[Matrix],
    noise: &mut Noise,
) -> Result<f64> {
    let mut worst = 0.0_f64;
    let product = of_product(tolerance);
    let cols = parts[0].shape()[1];
    let widths = widths(parts);
    let (x, bias) = (noise.numbers(133 * cols), noise.numbers(widths[0]));
    let run = |first: usize, rows: usize| {
        all(device, &x[first * cols..][..rows * cols], parts, Some(&bias))
    };
    let reference = all(&Naive::default(), &x, parts, Some(&bias))?;
    let many = run(0, 133)?;
    let few = run(120, 8)?;
    let some = |first, count| -> Result<_> { Ok((first, count, run(first, count)?)) };
    let of_many = [some(50, 9)?, some(3, 33)?, some(60, 73)?];
    let of_few = [some(120, 1)?, some(123, 2)?, some(125, 3)?];
    for (i, n) in widths.into_iter().enumerate() {
        let rows = |all: &[Vec<f32>; 3], first: usize, rows: usize| {
            all[i][first * n..][..rows * n].to_vec()
        };
        let name = format!("{} with {what}", NAMES[i]);
        worst = worst.max(product(&name, &many[i], &reference[i], n)?);
        let want = rows(&reference, 120, 8);
        let name = format!("{} of 8 rows with {what}", NAMES[i]);
        worst = worst.max(product(&name, &few[i], &want, n)?);
        for (company, begin, all) in [(&of_many, 0, &many), (&of_few, 120, &few)] {
            for (first, count, got) in company {
                if got[i] != rows(all, first - begin, *count) {
                    let which = format!("{count} rows from {first} on");
                    return fault(format!("{} with {what}: {which} have other bits", NAMES[i]));
                }
            }
        }
    }
    Ok(worst)
}
