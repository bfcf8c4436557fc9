//! What is computed below the device: in Rust on candle's CPU device, by kernels on Apple's GPU.

use crate::{
    linear::{Linear, Segment},
    step::Started,
};
use candle_core::{DType, Result, Tensor};
use inference_engine::arch::{Activation, Attention};
use std::ops::Range;

/// One of the two forms of every operation.
///
/// Activations and parameters are f32, ids and places u32. Operands have no gaps, but may be views that begin anywhere in
/// a tensor. Results are written into what is given for them; a matrix without rows is never given. [`kernels/README.md`]
/// says what each of them computes.
///
/// [`kernels/README.md`]: https://github.com/inference-rs/inference/blob/main/crates/inference-metal/kernels/README.md
pub trait Operations {
    /// Room for `[rows, cols]` activations; what it holds is not said.
    ///
    /// # Errors
    /// Out of memory; as for everything below the device's own.
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor>;

    /// A copy of numbers of this type and shape, where the kernels can read them.
    ///
    /// # Errors
    /// Out of memory.
    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor>;

    /// Room for as many numbers of a cache, and no more.
    ///
    /// # Errors
    /// Out of memory.
    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor>;

    /// Told of what the model has, before the first step: what must be compiled is compiled here.
    ///
    /// # Errors
    /// What can't be compiled.
    fn prepare(&self, _part: Part<'_>) -> Result<()> {
        Ok(())
    }

    /// Waits for all that was asked for, and brings the numbers of `x`.
    ///
    /// # Errors
    /// The device's own, of this or of an earlier operation.
    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }

    /// Bytes that are held now, and that may be held at most.
    fn memory(&self) -> (u64, u64);

    /// `h ← norm(x) · weight` for every group of as many columns as `weight` has; `x ← x + add` before.
    ///
    /// # Errors
    /// The device's own, as for all below.
    fn rms_norm(&self, norm: &Norm<'_>) -> Result<()>;

    /// `y[r] ← activation(x[r], left half) · right half`
    ///
    /// # Errors
    /// The device's own.
    fn gate(&self, y: &Tensor, x: &Tensor, activation: Activation) -> Result<()>;

    /// `x ← x + y`
    ///
    /// # Errors
    /// The device's own.
    fn add(&self, x: &Tensor, y: &Tensor) -> Result<()>;

    /// `x ← cap · tanh(x / cap)`
    ///
    /// # Errors
    /// The device's own.
    fn softcap(&self, x: &Tensor, cap: f32) -> Result<()>;

    /// Copies numbers of `x` to `y`, as `how` says.
    ///
    /// # Errors
    /// The device's own.
    fn gather(&self, y: &Tensor, x: &Tensor, index: &Tensor, how: Gather) -> Result<()>;

    /// The part of a product that a segment makes.
    ///
    /// # Errors
    /// The device's own.
    fn product(&self, product: &Product<'_>) -> Result<()>;

    /// `y[r] ← scale · W[tokens[r]]`
    ///
    /// # Errors
    /// The device's own.
    fn embed(&self, y: &Tensor, table: &Segment, tokens: &Tensor, scale: f32) -> Result<()>;

    /// Of the first `columns` numbers of each row of `x` the `k` largest, falling, and by their bits where they are,
    /// `[rows, k]` each: what is no number first, and of equal ones the first.
    ///
    /// # Errors
    /// The device's own.
    fn largest(&self, ids: &Tensor, values: &Tensor, x: &Tensor, columns: usize) -> Result<()>;

    /// Norms, rotates and writes the heads of queries, keys and values.
    ///
    /// # Errors
    /// The device's own.
    fn append(&self, append: &Append<'_>) -> Result<()>;

    /// Copies the first tokens of blocks: triples of the block that has them, the block that gets them, and how many. No
    /// block is in both.
    ///
    /// # Errors
    /// The device's own.
    fn copy_blocks(&self, layer: &Layer, copies: &Tensor) -> Result<()>;

    /// Attention of the step's `rows`, each for itself, of which none sees more than `splits` splits of keys.
    ///
    /// # Errors
    /// The device's own.
    fn attend(&self, attend: &Attend<'_>, rows: Range<usize>, splits: usize) -> Result<()>;

    /// Attention of `count` tiles of rows: pairs of a first row and how many, all of a sequence.
    ///
    /// # Errors
    /// The device's own.
    fn flash(&self, attend: &Attend<'_>, tiles: &Tensor, count: usize) -> Result<()>;
}

/// A part of a model, on which it depends what kernels there must be.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Weights.
    Segment(&'a Segment),
    /// A cache.
    Layer(&'a Layer),
}

/// What [`Operations::rms_norm`] is told.
#[derive(Debug)]
pub struct Norm<'a> {
    /// Changed where there is something to add.
    pub x: &'a Tensor,
    /// Added before.
    pub add: Option<&'a Tensor>,
    /// `[group]`
    pub weight: &'a Tensor,
    /// The result.
    pub h: &'a Tensor,
    /// Added to the mean square.
    pub eps: f32,
}

/// What [`Operations::gather`] copies; the same numbers as in the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// `y[r] = x[index[r]]`
    Rows = 0,
    /// `y[r, c] = x[r, index[c]]`
    Columns = 1,
    /// `y[r, index[c]] = x[r, c]`
    ColumnsBack = 2,
}

/// What becomes of a product; the same numbers as in the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// It is the result.
    Store = 0,
    /// It is added to what is there.
    Add = 1,
    /// Its first half, activated, times its second.
    Silu = 2,
    /// The same with the other activation.
    Gelu = 3,
}

impl Epilogue {
    /// How the first half is activated, if it is.
    pub fn activation(self) -> Option<Activation> {
        match self {
            Self::Store | Self::Add => None,
            Self::Silu => Some(Activation::Silu),
            Self::Gelu => Some(Activation::GeluTanh),
        }
    }
}

impl From<Activation> for Epilogue {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Silu => Self::Silu,
            Activation::GeluTanh => Self::Gelu,
        }
    }
}

/// What [`Operations::product`] is told.
#[derive(Debug)]
pub struct Product<'a> {
    /// `[rows, outputs of the map]`, half of them with a gate; this product makes those of its segment.
    pub y: &'a Tensor,
    /// `[rows, cols]`, in the order of the segment's columns.
    pub x: &'a Tensor,
    /// What the segment is of.
    pub map: &'a Linear,
    /// The weights.
    pub segment: &'a Segment,
    /// What becomes of it. A gate is for maps of a single segment.
    pub epilogue: Epilogue,
}

impl Product<'_> {
    /// Columns of the result that it makes.
    pub fn outputs(&self) -> usize {
        match self.epilogue.activation() {
            Some(_) => self.segment.rows / 2,
            None => self.segment.rows,
        }
    }
}

/// Keys and values of a layer, `[blocks, kv_heads, block, width]` each.
#[derive(Debug)]
pub struct Layer {
    /// The keys.
    pub keys: Tensor,
    /// The values.
    pub values: Tensor,
    /// Heads of keys, and of values.
    pub kv_heads: usize,
    /// Columns of a head in the cache.
    pub width: usize,
}

/// What [`Operations::append`] is told.
#[derive(Debug)]
pub struct Append<'a> {
    /// The queries, `[rows, q_cols]`: a result.
    pub q: &'a Tensor,
    /// Where keys and values go.
    pub layer: &'a Layer,
    /// `[rows, q_cols + 2 kv_cols]`
    pub qkv: &'a Tensor,
    /// Weight of the norm of every query head.
    pub q_norm: Option<&'a Tensor>,
    /// Weight of the norm of every key head.
    pub k_norm: Option<&'a Tensor>,
    /// Added to the mean square in these norms.
    pub eps: f32,
    /// Which rotation of the step.
    pub rope: Option<usize>,
    /// How many heads there are, and how wide.
    pub attention: &'a Attention,
    /// The step.
    pub step: &'a Started,
}

/// What [`Operations::attend`] and [`Operations::flash`] are told.
#[derive(Debug)]
pub struct Attend<'a> {
    /// `[rows, q_cols]`: the result.
    pub y: &'a Tensor,
    /// `[rows, q_cols]`
    pub q: &'a Tensor,
    /// The cache.
    pub layer: &'a Layer,
    /// Its heads, window and cap.
    pub attention: &'a Attention,
    /// The step.
    pub step: &'a Started,
}
