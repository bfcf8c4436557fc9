//! A device that does what another does, counts what passes through, and fails when it is told to.

use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{Activation, Architecture, Attention, Layer},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use inference_text::logits::{Asked, Logits, Row};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// What a [`Spy`] has seen and is to do; shared with the test, which is on another thread.
#[derive(Debug, Default)]
pub struct Seen {
    /// Forward passes.
    pub steps: AtomicUsize,
    /// Tokens in all of them.
    pub tokens: AtomicUsize,
    /// Most sequences of one pass.
    pub most_spans: AtomicUsize,
    /// Rows that reached the head.
    pub head_rows: AtomicUsize,
    /// Rows of which the largest logits alone were brought.
    pub short_rows: AtomicUsize,
    /// The pass that gives an error, counted from 1; 0: none.
    pub error_at: AtomicUsize,
    /// The pass that panics, counted from 1; 0: none.
    pub panic_at: AtomicUsize,
    /// Milliseconds that a pass takes at least.
    pub delay: AtomicUsize,
    /// Microseconds more that it takes for each token.
    pub delay_of_token: AtomicUsize,
    /// The tokens of each pass's sequences; only while it is `Some`.
    pub spans: Mutex<Option<Vec<Vec<usize>>>>,
}

/// The device.
#[derive(Debug)]
pub struct Spy<D> {
    inner: D,
    seen: Arc<Seen>,
}

impl<D> Spy<D> {
    /// Watches `inner`.
    pub fn new(inner: D, seen: Arc<Seen>) -> Self {
        Self { inner, seen }
    }
}

/// Writes operations that only pass on.
macro_rules! pass_on {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $out:ty;)*) => {
        $(fn $name(&self $(, $arg: $type)*) -> $out {
            self.inner.$name($($arg),*)
        })*
    };
}

impl<D: Device> Device for Spy<D> {
    type Tensor = D::Tensor;
    type Linear = D::Linear;
    type Cache = D::Cache;
    type Step = D::Step;
    type Recorded = D::Recorded;

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<D::Step> {
        let seen = &self.seen;
        let nth = seen.steps.fetch_add(1, SeqCst) + 1;
        seen.tokens.fetch_add(step.tokens.len(), SeqCst);
        seen.most_spans.fetch_max(step.spans.len(), SeqCst);
        seen.head_rows.fetch_add(step.wanted_rows().count(), SeqCst);
        if let Some(spans) = seen.spans.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            spans.push(step.spans.iter().map(|s| s.rows.len()).collect());
        }
        let of_tokens = seen.delay_of_token.load(SeqCst) * step.tokens.len();
        let delay = 1000 * seen.delay.load(SeqCst) + of_tokens;
        std::thread::sleep(std::time::Duration::from_micros(delay as u64));
        assert!(nth != seen.panic_at.load(SeqCst), "the spy panics as it was told to");
        if nth == seen.error_at.load(SeqCst) {
            return Err(Error::Device { reason: "the spy fails as it was told to".to_owned() });
        }
        self.inner.begin(step, rotations)
    }

    fn run(
        &self,
        recorded: &D::Recorded,
        cache: &mut D::Cache,
        step: &D::Step,
        body: &mut dyn FnMut(&mut D::Cache) -> Result<D::Tensor>,
    ) -> Result<D::Tensor> {
        self.inner.run(recorded, cache, step, body)
    }

    fn answer(&self, logits: D::Tensor, asked: &Asked) -> Result<Logits> {
        let mut logits = self.inner.answer(logits, asked)?;
        let mut is_short = |i: &usize| matches!(logits.row(*i), Some(Row::Largest(..)));
        let short = (0..asked.rows.len()).filter(|i| is_short(i)).count();
        self.seen.short_rows.fetch_add(short, SeqCst);
        Ok(logits)
    }

    pass_on! {
        fn unsupported(&self, architecture: &Architecture) -> Option<String>;
        fn vector(&self, values: &[f32]) -> Result<D::Tensor>;
        fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<D::Linear>;
        fn is_shared(&self, map: &D::Linear) -> bool;
        fn block_len(&self) -> usize;
        fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64;
        fn stores(&self, dtype: CacheDtype) -> bool;
        fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<D::Cache>;
        fn read(&self, x: D::Tensor) -> Result<Vec<f32>>;
        fn memory(&self) -> Memory;
        fn embed(&self, table: &D::Linear, scale: f32, step: &D::Step) -> Result<D::Tensor>;
        fn linear(&self, x: &D::Tensor, map: &D::Linear) -> Result<D::Tensor>;
        fn rms_norm(&self, x: &D::Tensor, weight: &D::Tensor, eps: f32) -> Result<D::Tensor>;
        fn append(&self, qkv: &D::Tensor, heads: &Heads<'_, D::Tensor>, cache: &mut D::Cache, layer: usize, step: &D::Step) -> Result<D::Tensor>;
        fn attend(&self, q: &D::Tensor, cache: &D::Cache, layer: usize, attention: &Attention, step: &D::Step) -> Result<D::Tensor>;
        fn copy_blocks(&self, cache: &mut D::Cache, layers: &[Layer], copies: &[BlockCopy]) -> Result<()>;
        fn gate(&self, x: &D::Tensor, activation: Activation) -> Result<D::Tensor>;
        fn add(&self, x: D::Tensor, y: &D::Tensor) -> Result<D::Tensor>;
        fn softcap(&self, x: D::Tensor, cap: f32) -> Result<D::Tensor>;
        fn wanted_rows(&self, x: &D::Tensor, step: &D::Step) -> Result<D::Tensor>;
        fn add_norm(&self, x: D::Tensor, y: &D::Tensor, weight: &D::Tensor, eps: f32) -> Result<(D::Tensor, D::Tensor)>;
        fn linear_add(&self, x: D::Tensor, h: &D::Tensor, map: &D::Linear) -> Result<D::Tensor>;
        fn linear_gate(&self, x: &D::Tensor, map: &D::Linear, activation: Activation) -> Result<D::Tensor>;
    }
}
