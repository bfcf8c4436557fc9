//! [`Device`] over any [`Driver`].

use crate::{
    attention::{self, Cache},
    driver::Driver,
    gpu::{Gpu, Tensor, list},
    linear::Epilogue,
    load::Linear,
    replay::Recorded,
    source::Module,
    step::Started,
};
use inference_core::{CacheDtype, Result};
use inference_engine::{
    arch::{Activation, Architecture, Attention, Layer},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use inference_text::logits::{Asked, Logits};

impl<D: Driver> Gpu<D> {
    /// `x ← x + y` where there is a `y`, and the norm of that.
    fn norm(&self, x: &Tensor<D>, y: u64, weight: &Tensor<D>, eps: f32) -> Result<Tensor<D>> {
        let h = self.tensor(x.rows, x.cols)?;
        let n = weight.cols;
        let groups = x.len() / n;
        if groups > 0 {
            // A wave is enough for a head; a row takes a block.
            let wave = self.driver.target().wave;
            let waves = n.div_ceil(4 * wave as usize).clamp(1, (256 / wave) as usize) as u32;
            let args = list![x.address(), y, weight.address(), h.address(), n, eps, waves];
            let block = waves * wave;
            self.kernels.run(Module::Elementwise, "rms_norm", [groups, 1, 1], block, args)?;
        }
        Ok(h)
    }
}

impl<D: Driver> Device for Gpu<D> {
    type Tensor = Tensor<D>;
    type Linear = Linear<D>;
    type Cache = Cache<D>;
    type Step = Started<D>;
    type Recorded = Recorded<D>;

    fn unsupported(&self, architecture: &Architecture) -> Option<String> {
        self.too_large(architecture)
    }

    fn vector(&self, values: &[f32]) -> Result<Tensor<D>> {
        self.parameter(values)
    }

    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Linear<D>> {
        self.load(parts, bias)
    }

    fn is_shared(&self, _: &Linear<D>) -> bool {
        false
    }

    fn block_len(&self) -> usize {
        attention::BLOCK
    }

    fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64 {
        attention::block_bytes(layers, dtype)
    }

    fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Cache<D>> {
        self.make_cache(layers, blocks, dtype)
    }

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<Started<D>> {
        self.start(step, rotations)
    }

    fn run(
        &self,
        recorded: &Recorded<D>,
        cache: &mut Cache<D>,
        step: &Started<D>,
        body: &mut dyn FnMut(&mut Cache<D>) -> Result<Tensor<D>>,
    ) -> Result<Tensor<D>> {
        self.run_or_replay(recorded, cache, step, body)
    }

    fn read(&self, x: Tensor<D>) -> Result<Vec<f32>> {
        self.bring(&x)
    }

    fn answer(&self, logits: Tensor<D>, asked: &Asked) -> Result<Logits> {
        self.bring_asked(&logits, asked)
    }

    fn memory(&self) -> Memory {
        // Nothing is freed while a model is there, so what is held is the most that was.
        let active = self.held.bytes() + self.parameters.held() + self.activations.held();
        let available = self.driver.memory().map_or_else(
            |e| {
                tracing::warn!("the device does not say how much memory is free: {e}");
                0
            },
            |m| m.free,
        );
        Memory { active, peak: active, available }
    }

    fn embed(&self, table: &Linear<D>, scale: f32, step: &Started<D>) -> Result<Tensor<D>> {
        self.look_up(table, scale, step.at(step.layout.tokens()), step.layout.rows)
    }

    fn linear(&self, x: &Tensor<D>, map: &Linear<D>) -> Result<Tensor<D>> {
        let y = self.tensor(x.rows, map.rows)?;
        self.multiply(x, map, &y, Epilogue::Store)?;
        Ok(y)
    }

    fn rms_norm(&self, x: &Tensor<D>, weight: &Tensor<D>, eps: f32) -> Result<Tensor<D>> {
        self.norm(x, 0, weight, eps)
    }

    fn append(
        &self,
        qkv: &Tensor<D>,
        heads: &Heads<'_, Tensor<D>>,
        cache: &mut Cache<D>,
        layer: usize,
        step: &Started<D>,
    ) -> Result<Tensor<D>> {
        self.write_heads(qkv, heads, cache, layer, step)
    }

    fn attend(
        &self,
        q: &Tensor<D>,
        cache: &Cache<D>,
        layer: usize,
        attention: &Attention,
        step: &Started<D>,
    ) -> Result<Tensor<D>> {
        self.attend_to(q, cache, layer, attention, step)
    }

    fn copy_blocks(
        &self,
        cache: &mut Cache<D>,
        layers: &[Layer],
        copies: &[BlockCopy],
    ) -> Result<()> {
        self.copy(cache, layers, copies)
    }

    fn gate(&self, x: &Tensor<D>, activation: Activation) -> Result<Tensor<D>> {
        let n = x.cols / 2;
        let y = self.tensor(x.rows, n)?;
        let which = match activation {
            Activation::Silu => 1,
            Activation::GeluTanh => 2,
        };
        let args = list![y.address(), x.address(), x.rows, n, which];
        self.each(Module::Elementwise, "gate", y.len(), args)?;
        Ok(y)
    }

    fn add(&self, x: Tensor<D>, y: &Tensor<D>) -> Result<Tensor<D>> {
        self.each(Module::Elementwise, "add", x.len(), list![x.address(), y.address(), x.len()])?;
        Ok(x)
    }

    fn softcap(&self, x: Tensor<D>, cap: f32) -> Result<Tensor<D>> {
        self.each(Module::Elementwise, "softcap", x.len(), list![x.address(), x.len(), cap])?;
        Ok(x)
    }

    fn wanted_rows(&self, x: &Tensor<D>, step: &Started<D>) -> Result<Tensor<D>> {
        let y = self.tensor(step.layout.wanted, x.cols)?;
        let args = list![
            y.address(),
            x.address(),
            step.at(step.layout.wanted_rows()),
            y.rows,
            x.cols,
            0_u32
        ];
        self.each(Module::Elementwise, "gather", y.len(), args)?;
        Ok(y)
    }

    fn add_norm(
        &self,
        x: Tensor<D>,
        y: &Tensor<D>,
        weight: &Tensor<D>,
        eps: f32,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let normed = self.norm(&x, y.address(), weight, eps)?;
        Ok((x, normed))
    }

    fn linear_add(&self, x: Tensor<D>, h: &Tensor<D>, map: &Linear<D>) -> Result<Tensor<D>> {
        self.multiply(h, map, &x, Epilogue::Add)?;
        Ok(x)
    }

    fn linear_gate(
        &self,
        x: &Tensor<D>,
        map: &Linear<D>,
        activation: Activation,
    ) -> Result<Tensor<D>> {
        if !map.gates() {
            return self.gate(&self.linear(x, map)?, activation);
        }
        let y = self.tensor(x.rows, map.rows / 2)?;
        self.multiply(x, map, &y, activation.into())?;
        Ok(y)
    }
}
