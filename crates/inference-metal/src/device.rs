//! [`Device`] over candle's tensors.

use crate::{
    attention,
    linear::Linear,
    operations::{Epilogue, Gather, Layer, Norm, Operations, Product},
    step::Started,
};
use candle_core::{DType, Tensor};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{self, Activation, Architecture, Attention},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use inference_text::logits::{Asked, Logits};
use std::cell::Cell;

/// A device over candle's tensors, which computes with `O`: [`OnCpu`](crate::OnCpu), or Apple's GPU.
///
/// Activations are f32 everywhere in memory; keys and values have the type that the cache is asked for.
#[derive(Debug)]
pub struct Candle<O> {
    pub(crate) operations: O,
    peak: Cell<u64>,
}

/// candle's error as ours.
pub(crate) fn fault(error: candle_core::Error) -> Error {
    Error::Device { reason: error.to_string() }
}

/// Rows and columns.
pub(crate) fn shape(x: &Tensor) -> Result<(usize, usize)> {
    x.dims2().map_err(fault)
}

impl<O: Operations> Candle<O> {
    /// A device that computes with `operations`.
    pub fn new(operations: O) -> Self {
        Self { operations, peak: Cell::new(0) }
    }

    /// Room for `[rows, cols]` activations.
    pub(crate) fn room(&self, rows: usize, cols: usize) -> Result<Tensor> {
        if rows.checked_mul(cols).is_none_or(|n| n > i32::MAX as usize) {
            let reason = format!("activations [{rows}, {cols}]; run fewer tokens in a step");
            return Err(Error::Device { reason });
        }
        self.operations.room(rows, cols).map_err(fault)
    }

    /// `y ← epilogue(x·Wᵀ + b)`
    fn multiply(&self, x: &Tensor, map: &Linear, y: &Tensor, epilogue: Epilogue) -> Result<()> {
        let (rows, cols) = shape(x)?;
        if rows == 0 {
            return Ok(());
        }
        for segment in &map.segments {
            let turned = match &segment.order {
                Some(order) => {
                    let turned = self.room(rows, cols)?;
                    self.operations.gather(&turned, x, order, Gather::Columns).map_err(fault)?;
                    Some(turned)
                }
                None => None,
            };
            let x = turned.as_ref().unwrap_or(x);
            let product = Product { y, x, map, segment, epilogue };
            self.operations.product(&product).map_err(fault)?;
        }
        Ok(())
    }

    /// The norm of `x`, to which `add` is added before.
    fn norm(&self, x: &Tensor, add: Option<&Tensor>, weight: &Tensor, eps: f32) -> Result<Tensor> {
        let (rows, cols) = shape(x)?;
        let h = self.room(rows, cols)?;
        if rows > 0 {
            let norm = Norm { x, add, weight, h: &h, eps };
            self.operations.rms_norm(&norm).map_err(fault)?;
        }
        Ok(h)
    }

    /// What is held now; the most that was ever held is kept.
    fn held(&self) -> u64 {
        let held = self.operations.memory().0;
        self.peak.set(self.peak.get().max(held));
        held
    }
}

impl<O: Operations> Device for Candle<O> {
    type Tensor = Tensor;
    type Linear = Linear;
    type Cache = Vec<Layer>;
    type Step = Started;
    type Recorded = ();

    fn unsupported(&self, architecture: &Architecture) -> Option<String> {
        attention::unsupported(architecture)
    }

    fn vector(&self, values: &[f32]) -> Result<Tensor> {
        let bytes = bytemuck::cast_slice(values);
        self.operations.place(bytes, DType::F32, &[values.len()]).map_err(fault)
    }

    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Linear> {
        Linear::new(parts, bias, &self.operations)
    }

    fn is_shared(&self, _: &Linear) -> bool {
        false
    }

    fn block_len(&self) -> usize {
        attention::BLOCK
    }

    fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64 {
        attention::block_bytes(layers, dtype)
    }

    fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Vec<Layer>> {
        self.make_cache(layers, blocks, dtype)
    }

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<Started> {
        Started::new(step, rotations, &self.operations)
    }

    fn read(&self, x: Tensor) -> Result<Vec<f32>> {
        self.held();
        self.operations.read(&x).map_err(fault)
    }

    fn answer(&self, logits: Tensor, asked: &Asked) -> Result<Logits> {
        self.held();
        self.bring(&logits, asked)
    }

    fn memory(&self) -> Memory {
        let active = self.held();
        let available = self.operations.memory().1.saturating_sub(active);
        Memory { active, peak: self.peak.get(), available }
    }

    fn embed(&self, table: &Linear, scale: f32, step: &Started) -> Result<Tensor> {
        let y = self.room(step.layout.rows, table.cols)?;
        let (Some(segment), true) = (table.segments.first(), step.layout.rows > 0) else {
            return Ok(y);
        };
        self.operations
            .embed(&y, segment, &step.at(step.layout.tokens()).map_err(fault)?, scale)
            .map_err(fault)?;
        let Some(order) = &segment.order else { return Ok(y) };
        // Column c is input order[c], so what is looked up goes where the order says.
        let turned = self.room(step.layout.rows, table.cols)?;
        self.operations.gather(&turned, &y, order, Gather::ColumnsBack).map_err(fault)?;
        Ok(turned)
    }

    fn linear(&self, x: &Tensor, map: &Linear) -> Result<Tensor> {
        let y = self.room(shape(x)?.0, map.rows)?;
        self.multiply(x, map, &y, Epilogue::Store)?;
        Ok(y)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        self.norm(x, None, weight, eps)
    }

    fn append(
        &self,
        qkv: &Tensor,
        heads: &Heads<'_, Tensor>,
        cache: &mut Vec<Layer>,
        layer: usize,
        step: &Started,
    ) -> Result<Tensor> {
        self.write_heads(qkv, heads, &cache[layer], step)
    }

    fn attend(
        &self,
        q: &Tensor,
        cache: &Vec<Layer>,
        layer: usize,
        attention: &Attention,
        step: &Started,
    ) -> Result<Tensor> {
        self.attend_to(q, &cache[layer], attention, step)
    }

    fn copy_blocks(
        &self,
        cache: &mut Vec<Layer>,
        _: &[arch::Layer],
        copies: &[BlockCopy],
    ) -> Result<()> {
        self.copy(cache, copies)
    }

    fn gate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (rows, cols) = shape(x)?;
        let y = self.room(rows, cols / 2)?;
        if rows > 0 {
            self.operations.gate(&y, x, activation).map_err(fault)?;
        }
        Ok(y)
    }

    fn add(&self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        if x.elem_count() > 0 {
            self.operations.add(&x, y).map_err(fault)?;
        }
        Ok(x)
    }

    fn softcap(&self, x: Tensor, cap: f32) -> Result<Tensor> {
        if x.elem_count() > 0 {
            self.operations.softcap(&x, cap).map_err(fault)?;
        }
        Ok(x)
    }

    fn wanted_rows(&self, x: &Tensor, step: &Started) -> Result<Tensor> {
        let y = self.room(step.layout.wanted, shape(x)?.1)?;
        if step.layout.wanted > 0 {
            let rows = step.at(step.layout.wanted_rows()).map_err(fault)?;
            self.operations.gather(&y, x, &rows, Gather::Rows).map_err(fault)?;
        }
        Ok(y)
    }

    fn add_norm(
        &self,
        x: Tensor,
        y: &Tensor,
        weight: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        let h = self.norm(&x, Some(y), weight, eps)?;
        Ok((x, h))
    }

    fn linear_add(&self, x: Tensor, h: &Tensor, map: &Linear) -> Result<Tensor> {
        self.multiply(h, map, &x, Epilogue::Add)?;
        Ok(x)
    }

    fn linear_gate(&self, x: &Tensor, map: &Linear, activation: Activation) -> Result<Tensor> {
        if !map.gates() {
            return self.gate(&self.linear(x, map)?, activation);
        }
        let y = self.room(shape(x)?.0, map.rows / 2)?;
        self.multiply(x, map, &y, activation.into())?;
        Ok(y)
    }
}
