//! The arithmetic that a decoder needs, on one device.

use crate::{
    arch::{Activation, Architecture, Attention, Layer},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use inference_core::{CacheDtype, Result};
use inference_text::logits::{Asked, Logits};

/// Computes.
///
/// Activations are matrices `[rows, cols]`, one row per token of the step. Calls may return before the work is done;
/// [`read`](Self::read) waits. An operand passed by value may be overwritten.
///
/// Every row of a result depends on that row of the operands alone (and, in [`attend`](Self::attend), on its
/// sequence): never on what else is in the step. A device whose kernels keep the order of every sum gives the same
/// bits for a sequence alone, in a batch, and in chunks.
pub trait Device {
    /// A matrix of activations, or a vector of parameters.
    type Tensor;
    /// `y = x·Wᵀ + b`, as this device stores it.
    type Linear;
    /// Keys and values of every layer, in blocks of [`block_len`](Self::block_len) tokens.
    type Cache;
    /// A step's tokens, positions, rotations and block tables, where the kernels can read them.
    type Step;
    /// What this device keeps of a decoder's steps in order to run such steps faster; `()` where it keeps nothing.
    type Recorded: Default;

    /// What of this architecture the device can't compute with, in words; `None`: nothing. Asked before anything is loaded.
    fn unsupported(&self, _architecture: &Architecture) -> Option<String> {
        None
    }

    /// Parameters `[n]`.
    ///
    /// # Errors
    /// The device's own.
    fn vector(&self, values: &[f32]) -> Result<Self::Tensor>;

    /// A linear map of `parts`, each `[out, in]`, stacked along `out`: q, k and v become one.
    /// The decoder has checked the shapes. `bias` has one entry per row of the stack.
    ///
    /// # Errors
    /// [`Error::Unsupported`](inference_core::Error::Unsupported) for a type it can't compute with; the device's own.
    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Self::Linear>;

    /// Whether `map` reads the checkpoint's own memory, and no copy of it.
    fn is_shared(&self, map: &Self::Linear) -> bool;

    /// Tokens of a cache block.
    fn block_len(&self) -> usize;

    /// Bytes that one cache block of these layers takes.
    fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64 {
        let bytes = |a: &Attention| match dtype {
            CacheDtype::F32 => 4 * a.kv_cols(),
            // And a scale for each head.
            CacheDtype::Int8 => a.kv_cols() + 4 * a.kv_heads,
            _ => 2 * a.kv_cols(),
        };
        let token: usize = layers.iter().map(|a| 2 * bytes(a)).sum();
        (token * self.block_len()) as u64
    }

    /// Whether it can have a cache of this type. Asked before anything is loaded.
    fn stores(&self, dtype: CacheDtype) -> bool {
        matches!(dtype, CacheDtype::F32 | CacheDtype::F16 | CacheDtype::Bf16)
    }

    /// A cache of `blocks` blocks for these layers.
    ///
    /// # Errors
    /// [`Error::Unsupported`](inference_core::Error::Unsupported) for a `dtype` it can't store; out of memory.
    fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Self::Cache>;

    /// Starts a forward pass: uploads what the kernels need. One rotation per rope of the architecture.
    ///
    /// # Errors
    /// The device's own.
    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<Self::Step>;

    /// Runs `body`, all operations of `step` with its decoder's parameters, and gives the logits; or gives what `body` would,
    /// by what the device has `recorded` of this decoder. May run `body` more than once.
    ///
    /// # Errors
    /// Those of `body`, and the device's own.
    fn run(
        &self,
        _recorded: &Self::Recorded,
        cache: &mut Self::Cache,
        _step: &Self::Step,
        body: &mut dyn FnMut(&mut Self::Cache) -> Result<Self::Tensor>,
    ) -> Result<Self::Tensor> {
        body(cache)
    }

    /// Waits, and brings a matrix to the host, row-major.
    ///
    /// # Errors
    /// The device's own, of this or of an earlier call.
    fn read(&self, x: Self::Tensor) -> Result<Vec<f32>>;

    /// Takes back the numbers of a matrix that it has brought to the host: their memory may serve again.
    fn recycle(&self, _numbers: Vec<f32>) {}

    /// Waits, and brings of each row of `logits` what is asked for, or all.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn answer(&self, logits: Self::Tensor, asked: &Asked) -> Result<Logits> {
        Ok(Logits::all(self.read(logits)?, asked.rows.len()))
    }

    /// How much memory it holds and has.
    fn memory(&self) -> Memory;

    /// `scale · table[token]` for every token of the step.
    ///
    /// # Errors
    /// The device's own, as for all operations below.
    fn embed(&self, table: &Self::Linear, scale: f32, step: &Self::Step) -> Result<Self::Tensor>;

    /// `x·Wᵀ + b`: `[rows, in] → [rows, out]`.
    fn linear(&self, x: &Self::Tensor, map: &Self::Linear) -> Result<Self::Tensor>;

    /// `x / √(mean(x²) + eps) · weight` over every group of `weight.len()` columns: a whole row, or each head of it
    /// (<https://arxiv.org/abs/1910.07467>).
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32) -> Result<Self::Tensor>;

    /// Readies the queries, keys and values of the step's tokens, `[rows, q_cols + 2 kv_cols]`, for attention: norms the
    /// heads of queries and keys (as [`rms_norm`](Self::rms_norm)), rotates them (see [`Rope`](crate::arch::Rope)), and
    /// writes keys and values into the cache of `layer`. Gives the queries, `[rows, q_cols]`.
    fn append(
        &self,
        qkv: &Self::Tensor,
        heads: &Heads<'_, Self::Tensor>,
        cache: &mut Self::Cache,
        layer: usize,
        step: &Self::Step,
    ) -> Result<Self::Tensor>;

    /// Attends causally to what the cache of `layer` holds, the step's own tokens included:
    /// `[rows, q_cols] → [rows, q_cols]`. Paging, window, softcap and grouped heads are inside.
    fn attend(
        &self,
        q: &Self::Tensor,
        cache: &Self::Cache,
        layer: usize,
        attention: &Attention,
        step: &Self::Step,
    ) -> Result<Self::Tensor>;

    /// Copies the keys and values of the first tokens of some blocks, in all `layers`: see [`BlockCopy`]. Comes before
    /// [`begin`](Self::begin), where there is anything to copy.
    fn copy_blocks(
        &self,
        cache: &mut Self::Cache,
        layers: &[Layer],
        copies: &[BlockCopy],
    ) -> Result<()>;

    /// `[rows, 2n] → [rows, n]`: `activation(left half) ⊙ right half`.
    fn gate(&self, x: &Self::Tensor, activation: Activation) -> Result<Self::Tensor>;

    /// `x + y`.
    fn add(&self, x: Self::Tensor, y: &Self::Tensor) -> Result<Self::Tensor>;

    /// `cap · tanh(x / cap)`.
    fn softcap(&self, x: Self::Tensor, cap: f32) -> Result<Self::Tensor>;

    /// The rows whose logits are wanted, of a matrix with one row per token; only these reach the head. In the middle of
    /// a prompt there are none, so operations meet matrices without rows.
    fn wanted_rows(&self, x: &Self::Tensor, step: &Self::Step) -> Result<Self::Tensor>;

    // Fusions. Each is defined by its body; a device overrides one only to be faster.

    /// `x + y`, and its norm.
    fn add_norm(
        &self,
        x: Self::Tensor,
        y: &Self::Tensor,
        weight: &Self::Tensor,
        eps: f32,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let sum = self.add(x, y)?;
        let normed = self.rms_norm(&sum, weight, eps)?;
        Ok((sum, normed))
    }

    /// `x + (h·Wᵀ + b)`.
    fn linear_add(
        &self,
        x: Self::Tensor,
        h: &Self::Tensor,
        map: &Self::Linear,
    ) -> Result<Self::Tensor> {
        self.add(x, &self.linear(h, map)?)
    }

    /// `gate(x·Wᵀ + b)`.
    fn linear_gate(
        &self,
        x: &Self::Tensor,
        map: &Self::Linear,
        activation: Activation,
    ) -> Result<Self::Tensor> {
        self.gate(&self.linear(x, map)?, activation)
    }
}

/// What becomes of a layer's heads of queries and keys before they meet; `T` is a device's tensor.
#[derive(Debug)]
pub struct Heads<'a, T> {
    /// How many heads there are, and how wide.
    pub attention: &'a Attention,
    /// Weight of the norm of every query head, `[head_dim]`.
    pub q_norm: Option<&'a T>,
    /// Weight of the norm of every key head, `[head_dim]`.
    pub k_norm: Option<&'a T>,
    /// Added to the mean square in these norms.
    pub eps: f32,
    /// Which rotation of the step; `None`: they are not rotated.
    pub rope: Option<usize>,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Held now.
    pub active: u64,
    /// Most that was ever held.
    pub peak: u64,
    /// Free for a model to be loaded.
    pub available: u64,
}
