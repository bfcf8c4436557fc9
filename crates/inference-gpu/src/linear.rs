//! Products of activations and matrices.

use crate::{
    driver::Driver,
    gpu::{Gpu, Tensor, list},
    load::{Form, Linear, Segment, Stored},
    source::Module,
};
use inference_core::Result;
use inference_engine::arch::Activation;

/// Rows of activations that the kernels for few rows take at a time, and those kernels: for each type of dense matrices,
/// and for quantised ones.
const FEW: [(usize, [&str; 3], &str); 4] = [
    (1, ["gemv_f32_1", "gemv_f16_1", "gemv_bf16_1"], "affine_gemv_1"),
    (2, ["gemv_f32_2", "gemv_f16_2", "gemv_bf16_2"], "affine_gemv_2"),
    (4, ["gemv_f32_4", "gemv_f16_4", "gemv_bf16_4"], "affine_gemv_4"),
    (8, ["gemv_f32_8", "gemv_f16_8", "gemv_bf16_8"], "affine_gemv_8"),
];

/// The most of them; more are multiplied by matrix instructions, whose sums have another order (decision 0020).
const MOST: usize = FEW[FEW.len() - 1].0;

/// Outputs of a block of the kernels for many rows, `[rows, columns]`, and its threads; the same as in `gemm.h`.
const LARGE: ([usize; 2], u32) = ([128, 128], 256);
const SMALL: ([usize; 2], u32) = ([32, 64], 128);

/// What becomes of a product; the same as in `gemv.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epilogue {
    /// It is the result.
    Store = 0,
    /// It is added to what is there.
    Add = 1,
    /// Its first half, activated, times its second.
    Silu = 2,
    /// The same with the other activation.
    Gelu = 3,
}

impl From<Activation> for Epilogue {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Silu => Self::Silu,
            Activation::GeluTanh => Self::Gelu,
        }
    }
}

/// What a product of any number of rows is told.
struct Product {
    /// Where it goes, its weights, their scales and biases, and what is added; 0 where there are none.
    to: u64,
    weights: u64,
    groups: u64,
    bias: u64,
    /// Columns of the result that it makes.
    outputs: usize,
    gated: bool,
    mode: i32,
}

impl Product {
    fn new<D: Driver>(
        map: &Linear<D>,
        segment: &Segment<D>,
        y: &Tensor<D>,
        epilogue: Epilogue,
    ) -> Self {
        let gated = matches!(epilogue, Epilogue::Silu | Epilogue::Gelu);
        let first = 4 * segment.first as u64;
        Self {
            to: y.address() + first,
            weights: segment.weights.address(),
            groups: segment.groups.as_ref().map_or(0, |g| g.address()),
            bias: map.bias.as_ref().map_or(0, |b| b.address() + first),
            outputs: if gated { segment.rows / 2 } else { segment.rows },
            gated,
            mode: epilogue as i32,
        }
    }
}

impl<D: Driver> Linear<D> {
    /// Whether a gate can be applied where its products are made: both halves have the same form.
    pub(crate) fn gates(&self) -> bool {
        self.segments.len() == 1 && self.rows.is_multiple_of(2)
    }
}

impl<D: Driver> Gpu<D> {
    /// `y ← epilogue(x·Wᵀ + b)`
    pub(crate) fn multiply(
        &self,
        x: &Tensor<D>,
        map: &Linear<D>,
        y: &Tensor<D>,
        epilogue: Epilogue,
    ) -> Result<()> {
        if x.rows == 0 {
            return Ok(());
        }
        for segment in &map.segments {
            let ordered = match &segment.order {
                Some(order) => {
                    let turned = self.tensor(x.rows, x.cols)?;
                    let args = list![
                        turned.address(),
                        x.address(),
                        order.address(),
                        x.rows,
                        x.cols,
                        1_u32
                    ];
                    self.each(Module::Elementwise, "gather", x.len(), args)?;
                    Some(turned)
                }
                None => None,
            };
            let x = ordered.as_ref().unwrap_or(x);
            match segment.form {
                _ if x.rows <= MOST => self.few(x, map, segment, y, epilogue)?,
                // Rounding would lose what f32 was chosen for.
                Form::Dense(Stored::F32) => self.few(x, map, segment, y, epilogue)?,
                Form::Dense(stored) => self.many(x, stored, map, segment, y, epilogue)?,
                Form::Affine { .. } => self.many(x, Stored::F16, map, segment, y, epilogue)?,
            }
        }
        Ok(())
    }

    /// The product by the kernels for few rows.
    fn few(
        &self,
        x: &Tensor<D>,
        map: &Linear<D>,
        segment: &Segment<D>,
        y: &Tensor<D>,
        epilogue: Epilogue,
    ) -> Result<()> {
        let (at_once, dense, affine) =
            FEW.into_iter().find(|few| few.0 >= x.rows).unwrap_or(FEW[FEW.len() - 1]);
        let Product { to, weights, groups: pairs, bias, outputs, gated, mode } =
            Product::new(map, segment, y, epilogue);
        let waves = if gated { outputs } else { outputs.div_ceil(2) };
        let of_block = 128 / self.driver.target().wave as usize;
        let grid = [waves.div_ceil(of_block), x.rows.div_ceil(at_once), 1];
        match segment.form {
            Form::Dense(stored) => {
                let args = list![
                    to,
                    x.address(),
                    weights,
                    bias,
                    x.rows,
                    x.cols,
                    map.stride,
                    outputs,
                    y.cols,
                    mode
                ];
                self.kernels.run(Module::DenseGemv, stored.of(dense), grid, 128, args)
            }
            Form::Affine { bits, shift, groups } => {
                let args = list![
                    to,
                    x.address(),
                    weights,
                    pairs,
                    bias,
                    x.rows,
                    x.cols,
                    map.stride,
                    outputs,
                    y.cols,
                    mode,
                    shift,
                    groups as i32
                ];
                self.kernels.run(Module::AffineGemv(bits), affine, grid, 128, args)
            }
        }
    }

    /// The product by the kernels for many rows, with activations of 16 bits.
    fn many(
        &self,
        x: &Tensor<D>,
        narrow: Stored,
        map: &Linear<D>,
        segment: &Segment<D>,
        y: &Tensor<D>,
        epilogue: Epilogue,
    ) -> Result<()> {
        let narrowed = self.activations.lend(x.rows * map.stride * 2)?;
        let scales = self.activations.lend(x.rows * 4)?;
        let args = list![
            narrowed.address(),
            scales.address(),
            x.address(),
            x.cols,
            map.stride,
            narrow as i32
        ];
        self.kernels.run(Module::Elementwise, "narrow", [x.rows, 1, 1], 256, args)?;
        let Product { to, weights, groups: pairs, bias, outputs, gated, mode } =
            Product::new(map, segment, y, epilogue);
        let blocks = |[rows, cols]: [usize; 2]| x.rows.div_ceil(rows) * segment.rows.div_ceil(cols);
        let is_large = x.rows > 64 && blocks(LARGE.0) >= self.driver.target().units as usize;
        let (([rows, cols], threads), dense, affine) = if is_large {
            (LARGE, ["gemm_f32_large", "gemm_f16_large", "gemm_bf16_large"], "affine_gemm_large")
        } else {
            (SMALL, ["gemm_f32_small", "gemm_f16_small", "gemm_bf16_small"], "affine_gemm_small")
        };
        let across = if gated { outputs.div_ceil(cols / 2) } else { outputs.div_ceil(cols) };
        let grid = [x.rows.div_ceil(rows) * across, 1, 1];
        match segment.form {
            Form::Dense(stored) => {
                let args = list![
                    to,
                    narrowed.address(),
                    scales.address(),
                    weights,
                    bias,
                    x.rows,
                    map.stride,
                    outputs,
                    y.cols,
                    mode
                ];
                self.kernels.run(Module::DenseGemm, stored.of(dense), grid, threads, args)
            }
            Form::Affine { bits, shift, groups } => {
                let args = list![
                    to,
                    narrowed.address(),
                    scales.address(),
                    weights,
                    pairs,
                    bias,
                    x.rows,
                    map.stride,
                    outputs,
                    y.cols,
                    mode,
                    shift,
                    groups as i32
                ];
                self.kernels.run(Module::AffineGemm(bits), affine, grid, threads, args)
            }
        }
    }

    /// `scale · table[token]` for each of `tokens`, whose ids are at an address.
    pub(crate) fn look_up(
        &self,
        table: &Linear<D>,
        scale: f32,
        tokens: u64,
        rows: usize,
    ) -> Result<Tensor<D>> {
        let y = self.tensor(rows, table.cols)?;
        let (Some(segment), true) = (table.segments.first(), rows > 0) else { return Ok(y) };
        let grid = [rows, 1, 1];
        let weights = segment.weights.address();
        match segment.form {
            Form::Dense(stored) => {
                let args = list![
                    y.address(),
                    weights,
                    tokens,
                    table.cols,
                    table.stride,
                    scale,
                    stored as i32
                ];
                self.kernels.run(Module::Embed, "embed", grid, 256, args)?;
            }
            Form::Affine { bits, shift, groups } => {
                let pairs = segment.groups.as_ref().map_or(0, |g| g.address());
                let args = list![
                    y.address(),
                    weights,
                    pairs,
                    tokens,
                    table.cols,
                    table.stride,
                    scale,
                    shift,
                    groups as i32
                ];
                self.kernels.run(Module::AffineGemv(bits), "affine_embed", grid, 256, args)?;
            }
        }
        let Some(order) = &segment.order else { return Ok(y) };
        // Column c is input order[c], so what is looked up goes where the order says.
        let turned = self.tensor(rows, table.cols)?;
        let args = list![turned.address(), y.address(), order.address(), rows, table.cols, 2_u32];
        self.each(Module::Elementwise, "gather", y.len(), args)?;
        Ok(turned)
    }
}
