//! A device that writes down how long each operation of another one takes.

use crate::limits::Limits;
use inference::CacheDtype;
use inference_engine::{
    arch::{Activation, Attention, Layer},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

type Result<T> = std::result::Result<T, inference::Error>;

/// What a step is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Some sequence has more than one token in it.
    Prefill,
    /// Every sequence has one.
    #[default]
    Decode,
}

/// All calls of one operation on operands of one shape.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Operation {
    pub(super) calls: usize,
    pub(super) seconds: f64,
    /// Bytes of weights or of the cache that they read.
    pub(super) bytes: f64,
    /// Multiplications and additions.
    pub(super) operations: f64,
    /// Whether the weights are quantised.
    quantised: bool,
}

impl Operation {
    /// The seconds that the limits of reading and of arithmetic allow, whichever are more.
    pub(super) fn least(&self, limits: &Limits) -> f64 {
        let (peak, _) = if self.quantised { limits.quantised_peak() } else { limits.peak() };
        (self.bytes / limits.read.best).max(self.operations / peak)
    }
}

/// All steps of one phase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steps {
    pub(super) count: usize,
    pub(super) seconds: f64,
}

/// Where the time went.
#[derive(Debug, Default)]
pub(super) struct Profile {
    operations: BTreeMap<(Phase, String), Operation>,
    steps: BTreeMap<Phase, Steps>,
}

impl Profile {
    pub(super) fn steps(&self, phase: Phase) -> Steps {
        self.steps.get(&phase).copied().unwrap_or_default()
    }

    /// The operations of a phase, by what they are called.
    pub(super) fn operations(&self, phase: Phase) -> Vec<(&String, &Operation)> {
        let all = self.operations.iter().filter(|((of, _), _)| *of == phase);
        all.map(|((_, name), operation)| (name, operation)).collect()
    }
}

/// What a call reads and computes.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    bytes: f64,
    operations: f64,
    quantised: bool,
}

/// The step that runs.
#[derive(Debug, Default)]
struct Now {
    phase: Phase,
    start: Option<Instant>,
    /// Rows of activations.
    rows: usize,
    /// Rows that reach the head.
    wanted: usize,
    /// Tokens that each row attends to, itself included.
    seen: Vec<usize>,
    /// Tokens of each sequence.
    contexts: Vec<usize>,
    /// Bytes of a number in the cache.
    cached: usize,
}

/// The device `D`, whose operations must be done when their calls return.
pub(super) struct Profiled<D> {
    inner: D,
    now: RefCell<Now>,
    profile: Arc<Mutex<Profile>>,
}

/// A map, and what it is called.
pub(super) struct Map<L> {
    inner: L,
    /// Such as `1024→4096 (4 bit)`.
    shape: String,
    /// Of the weights.
    bytes: u64,
    /// Of all parts together.
    numbers: usize,
    quantised: bool,
}

impl<D: Device> Profiled<D> {
    /// Writes to `profile`.
    pub(super) fn new(inner: D, profile: Arc<Mutex<Profile>>) -> Self {
        Self { inner, now: RefCell::default(), profile }
    }

    fn timed<T>(&self, name: &str, amount: Amount, call: impl FnOnce(&D) -> T) -> T {
        let start = Instant::now();
        let result = call(&self.inner);
        let seconds = start.elapsed().as_secs_f64();
        let mut profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.now.borrow().phase, name.to_owned());
        let operation = profile.operations.entry(key).or_default();
        operation.calls += 1;
        operation.seconds += seconds;
        operation.bytes += amount.bytes;
        operation.operations += amount.operations;
        operation.quantised |= amount.quantised;
        result
    }

    /// An operation that reads no weights to speak of.
    fn small<T>(&self, name: &str, call: impl FnOnce(&D) -> T) -> T {
        self.timed(name, Amount::default(), call)
    }

    fn product<T>(
        &self,
        name: &str,
        map: &Map<D::Linear>,
        call: impl FnOnce(&D, &D::Linear) -> T,
    ) -> T {
        let rows = self.now.borrow().rows;
        let amount = Amount {
            bytes: if rows == 0 { 0.0 } else { map.bytes as f64 },
            operations: 2.0 * rows as f64 * map.numbers as f64,
            quantised: map.quantised,
        };
        self.timed(&format!("{name} {}", map.shape), amount, |d| call(d, &map.inner))
    }
}

impl<D: Device> Device for Profiled<D> {
    type Tensor = D::Tensor;
    type Linear = Map<D::Linear>;
    type Cache = D::Cache;
    type Step = D::Step;
    type Recorded = ();

    fn vector(&self, values: &[f32]) -> Result<D::Tensor> {
        self.inner.vector(values)
    }

    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Self::Linear> {
        let inner = self.inner.load_linear(parts, bias)?;
        let rows: usize = parts.iter().map(|p| p.shape()[0]).sum();
        let cols = parts.first().map_or(0, |p| p.shape()[1]);
        let quantisations: Vec<_> = parts.iter().map(|p| p.kind().quantisation).collect();
        let mut stored: Vec<_> = parts
            .iter()
            .zip(&quantisations)
            .map(|(part, quantisation)| match quantisation {
                Some(q) => format!("{} bit", q.bits),
                None => format!("{:?}", part.dtype()).to_lowercase(),
            })
            .collect();
        stored.dedup();
        Ok(Map {
            inner,
            shape: format!("{cols}→{rows} ({})", stored.join(", ")),
            bytes: parts.iter().map(Matrix::bytes).sum(),
            numbers: rows * cols,
            quantised: quantisations.iter().any(Option::is_some),
        })
    }

    fn is_shared(&self, map: &Self::Linear) -> bool {
        self.inner.is_shared(&map.inner)
    }

    fn block_len(&self) -> usize {
        self.inner.block_len()
    }

    fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64 {
        self.inner.block_bytes(layers, dtype)
    }

    fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<D::Cache> {
        self.now.borrow_mut().cached = match dtype {
            CacheDtype::F32 => 4,
            CacheDtype::Int8 => 1,
            _ => 2,
        };
        self.inner.cache(layers, blocks, dtype)
    }

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<D::Step> {
        let mut now = self.now.borrow_mut();
        now.start = Some(Instant::now());
        let one_each = step.tokens.len() == step.spans.len();
        now.phase = if one_each { Phase::Decode } else { Phase::Prefill };
        now.rows = step.tokens.len();
        now.wanted = step.wanted_rows().count();
        now.seen = step.positions.iter().map(|p| *p as usize + 1).collect();
        now.contexts = step.spans.iter().map(|s| s.context).collect();
        drop(now);
        self.small("begin", |d| d.begin(step, rotations))
    }

    fn recycle(&self, numbers: Vec<f32>) {
        self.inner.recycle(numbers);
    }

    fn read(&self, x: D::Tensor) -> Result<Vec<f32>> {
        let read = self.small("read", |d| d.read(x));
        let mut now = self.now.borrow_mut();
        if let Some(start) = now.start.take() {
            let mut profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
            let steps = profile.steps.entry(now.phase).or_default();
            steps.count += 1;
            steps.seconds += start.elapsed().as_secs_f64();
        }
        read
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }

    fn embed(&self, table: &Self::Linear, scale: f32, step: &D::Step) -> Result<D::Tensor> {
        self.small("embed", |d| d.embed(&table.inner, scale, step))
    }

    fn linear(&self, x: &D::Tensor, map: &Self::Linear) -> Result<D::Tensor> {
        self.product("linear", map, |d, map| d.linear(x, map))
    }

    fn rms_norm(&self, x: &D::Tensor, weight: &D::Tensor, eps: f32) -> Result<D::Tensor> {
        self.small("rms_norm", |d| d.rms_norm(x, weight, eps))
    }

    fn append(
        &self,
        qkv: &D::Tensor,
        heads: &Heads<'_, D::Tensor>,
        cache: &mut D::Cache,
        layer: usize,
        step: &D::Step,
    ) -> Result<D::Tensor> {
        self.small("append", |d| d.append(qkv, heads, cache, layer, step))
    }

    fn attend(
        &self,
        q: &D::Tensor,
        cache: &D::Cache,
        layer: usize,
        attention: &Attention,
        step: &D::Step,
    ) -> Result<D::Tensor> {
        let now = self.now.borrow();
        let in_window = |tokens: &[usize]| -> usize {
            let most = attention.window.unwrap_or(usize::MAX);
            tokens.iter().map(|n| (*n).min(most)).sum()
        };
        // Scores and sums are a multiplication and an addition each.
        let amount = Amount {
            bytes: (2 * in_window(&now.contexts) * attention.kv_cols() * now.cached) as f64,
            operations: (4 * in_window(&now.seen) * attention.q_cols()) as f64,
            quantised: false,
        };
        drop(now);
        let name = match attention.window {
            Some(window) => format!("attend, window {window}"),
            None => "attend".to_owned(),
        };
        self.timed(&name, amount, |d| d.attend(q, cache, layer, attention, step))
    }

    fn copy_blocks(
        &self,
        cache: &mut D::Cache,
        layers: &[Layer],
        copies: &[BlockCopy],
    ) -> Result<()> {
        self.small("copy_blocks", |d| d.copy_blocks(cache, layers, copies))
    }

    fn gate(&self, x: &D::Tensor, activation: Activation) -> Result<D::Tensor> {
        self.small("gate", |d| d.gate(x, activation))
    }

    fn add(&self, x: D::Tensor, y: &D::Tensor) -> Result<D::Tensor> {
        self.small("add", |d| d.add(x, y))
    }

    fn softcap(&self, x: D::Tensor, cap: f32) -> Result<D::Tensor> {
        self.small("softcap", |d| d.softcap(x, cap))
    }

    fn wanted_rows(&self, x: &D::Tensor, step: &D::Step) -> Result<D::Tensor> {
        let rows = self.small("wanted_rows", |d| d.wanted_rows(x, step));
        let mut now = self.now.borrow_mut();
        now.rows = now.wanted;
        rows
    }

    fn add_norm(
        &self,
        x: D::Tensor,
        y: &D::Tensor,
        weight: &D::Tensor,
        eps: f32,
    ) -> Result<(D::Tensor, D::Tensor)> {
        self.small("add_norm", |d| d.add_norm(x, y, weight, eps))
    }

    fn linear_add(&self, x: D::Tensor, h: &D::Tensor, map: &Self::Linear) -> Result<D::Tensor> {
        self.product("linear_add", map, |d, map| d.linear_add(x, h, map))
    }

    fn linear_gate(
        &self,
        x: &D::Tensor,
        map: &Self::Linear,
        activation: Activation,
    ) -> Result<D::Tensor> {
        self.product("linear_gate", map, |d, map| d.linear_gate(x, map, activation))
    }
}
