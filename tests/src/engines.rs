//! Engines over fixtures, on any device, with caches as small as a test wants them.

use crate::{
    fixtures,
    spy::{Seen, Spy},
};
use inference_core::{CacheDtype, LoadOptions, Result};
use inference_engine::{Setup, checkpoint::Checkpoint, device::Device};
use inference_text::Served;
use std::{path::Path, sync::Arc};

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The fixture.
    pub name: String,
    /// Blocks of the cache; `None`: as many as there is use for.
    pub blocks: Option<usize>,
    /// Sequences at once.
    pub slots: usize,
    /// Prompt tokens of a step.
    pub step_tokens: usize,
    /// Most tokens of a sequence; `None`: the model's own, or what the blocks hold.
    pub context: Option<usize>,
    /// Bytes of prefixes that are kept: see [`LoadOptions::prefix_cache`].
    pub prefix_cache: Option<u64>,
}

impl Plan {
    /// Eight sequences at once, steps of 64 tokens, a cache that is large enough.
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, blocks: None, slots: 8, step_tokens: 64, context: None, prefix_cache: None }
    }

    /// Starts an engine on the device that `open` gives, and tells what passes through it.
    ///
    /// # Errors
    /// As [`inference_engine::load`].
    pub fn start<D: Device + 'static>(
        &self,
        open: impl Fn() -> Result<D> + Send + 'static,
    ) -> Result<(Served, Arc<Seen>)> {
        let path = fixtures::path(&self.name);
        let mut options = LoadOptions::default().cache_dtype(CacheDtype::F32);
        options.context_len = self.context;
        options.prefix_cache = self.prefix_cache;
        if let Some(blocks) = self.blocks {
            options.memory_limit = Some(weights_and_blocks(&path, &open()?, blocks));
        }
        let seen = Arc::new(Seen::default());
        let setup = Setup {
            backend: "test",
            device: "test".to_owned(),
            slots: self.slots,
            step_tokens: self.step_tokens,
            reserve: 0,
        };
        let theirs = seen.clone();
        let engine =
            inference_engine::load(&path, &options, setup, move || Ok(Spy::new(open()?, theirs)))?;
        Ok((engine, seen))
    }
}

/// Bytes of a fixture's weights and of so many blocks of cache.
fn weights_and_blocks<D: Device>(path: &Path, device: &D, blocks: usize) -> u64 {
    let checkpoint = Checkpoint::open(path).expect("is described");
    let layers: Vec<_> =
        checkpoint.architecture().layers.iter().map(|l| l.attention.clone()).collect();
    let weights = checkpoint.weights().expect("opens").bytes();
    weights + blocks as u64 * device.block_bytes(&layers, CacheDtype::F32)
}
