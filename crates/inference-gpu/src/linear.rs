//! Products of activations and matrices.

use crate::{
    driver::Driver,
    gpu::{Gpu, Tensor, list},
    load::{Form, Linear, Segment, Stored},
    source::Module,
};
use inference_core::Result;
use inference_engine::arch::Activation;

/// Rows of activations that the kernels for few rows take at a time.
const FEW: [usize; 4] = [1, 2, 4, 8];

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
            self.few(x, map, segment, y, epilogue)?;
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
        let most = FEW[FEW.len() - 1];
        let at_once = FEW.into_iter().find(|m| *m >= x.rows).unwrap_or(most);
        let gated = matches!(epilogue, Epilogue::Silu | Epilogue::Gelu);
        let outputs = if gated { segment.rows / 2 } else { segment.rows };
        let waves = if gated { outputs } else { outputs.div_ceil(2) };
        let of_block = 128 / self.driver.target().wave as usize;
        let grid = [waves.div_ceil(of_block), x.rows.div_ceil(at_once), 1];
        let to = y.address() + 4 * segment.first as u64;
        let bias = map.bias.as_ref().map_or(0, |b| b.address() + 4 * segment.first as u64);
        let weights = segment.weights.address();
        let mode = epilogue as i32;
        match segment.form {
            Form::Dense(stored) => {
                let name = format!("gemv_{}_{at_once}", stored.suffix());
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
                self.kernels.run(Module::DenseGemv, &name, grid, 128, args)
            }
            Form::Affine { bits, shift, groups } => {
                let name = format!("affine_gemv_{at_once}");
                let pairs = segment.groups.as_ref().map_or(0, |g| g.address());
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
                self.kernels.run(Module::AffineGemv(bits), &name, grid, 128, args)
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

/// How activations are narrowed for products of matrices with weights of this form.
#[expect(dead_code, reason = "products of many rows")]
fn narrowed(form: Form) -> Stored {
    match form {
        Form::Dense(stored) => stored,
        Form::Affine { .. } => Stored::F16,
    }
}
