//! A llama.cpp context as something that runs steps: one llama.cpp sequence for each place of the scheduler, all in one
//! cache whose cells they share.

use inference_core::{Error, Result};
use inference_text::{
    MemoryUse,
    places::{Choice, Places},
    runner::Forward,
    scheduler::Reuse,
    step::Step,
};
use llama_cpp_2::{
    context::LlamaContext, llama_batch::LlamaBatch, model::LlamaModel, token::LlamaToken,
};
use std::collections::BTreeSet;

self_cell::self_cell!(
    /// A model and the context that borrows it.
    pub(crate) struct Owned {
        owner: Box<LlamaModel>,
        #[not_covariant]
        dependent: LlamaContext,
    }
);

/// A context and what is in its cache.
pub(crate) struct Context {
    owned: Owned,
    batch: LlamaBatch<'static>,
    /// What the cache holds for each llama.cpp sequence.
    places: Places,
    /// Cells of the cache.
    cells: usize,
    /// The beginning of a sequence can be kept, copied and continued; not so where the model has a recurrent state.
    rewinds: bool,
    memory: MemoryUse,
}

/// What [`Context::new`] needs to know of the cache.
pub(crate) struct Cells {
    /// Tokens that it holds.
    pub(crate) cells: usize,
    /// Sequences.
    pub(crate) slots: usize,
    /// Most tokens of a step.
    pub(crate) batch: usize,
    /// The beginning of a sequence can be kept, copied and continued.
    pub(crate) rewinds: bool,
}

impl Context {
    pub(crate) fn new(owned: Owned, cells: &Cells, memory: MemoryUse) -> Self {
        Self {
            owned,
            batch: LlamaBatch::new(cells.batch, 1),
            places: Places::new(cells.slots),
            cells: cells.cells,
            rewinds: cells.rewinds,
            memory,
        }
    }

    /// Removes what the cache holds for `slot` from the token at `from` on.
    fn truncate(&mut self, slot: usize, from: usize) -> Result<()> {
        self.places.truncate(slot, from);
        let from = (from > 0).then_some(from as u32);
        self.owned
            .with_dependent_mut(|_, context| {
                context.clear_kv_cache_seq(Some(slot as u32), from, None)
            })
            .map(drop)
            .map_err(device)
    }

    /// Forgets what those left who run no more, the oldest first, as far as the cells are needed. (Cells that several sequences share
    /// are counted for each of them, so this may forget more than it must, but never too little.)
    fn make_room(&mut self, new: usize) -> Result<()> {
        while self.places.total() + new > self.cells {
            let Some(slot) = self.places.oldest() else { return Ok(()) };
            self.truncate(slot, 0)?;
        }
        Ok(())
    }

    fn decode(&mut self, step: &Step) -> Result<Vec<f32>> {
        self.batch.clear();
        let mut wanted = Vec::new();
        for span in &step.spans {
            for row in span.rows.clone() {
                let reaches_head = row >= span.rows.end - span.wanted;
                if reaches_head {
                    wanted.push(row as i32);
                }
                let (token, position) = (step.tokens[row] as i32, step.positions[row] as i32);
                self.batch
                    .add(LlamaToken::new(token), position, &[span.slot as i32], reaches_head)
                    .map_err(device)?;
            }
        }
        let batch = &mut self.batch;
        self.owned.with_dependent_mut(|_, context| {
            context.decode(batch).map_err(device)?;
            let mut logits = Vec::new();
            for row in wanted {
                logits.extend_from_slice(context.get_logits_ith(row));
            }
            Ok(logits)
        })
    }
}

impl Forward for Context {
    fn forward(&mut self, step: &Step) -> Result<Vec<f32>> {
        self.make_room(step.tokens.len())?;
        for span in &step.spans {
            // A sequence that starts over leaves what it had.
            let past = span.context - span.rows.len();
            if self.places.len(span.slot) != past {
                self.truncate(span.slot, past)?;
            }
        }
        let decoded = self.decode(step);
        for span in &step.spans {
            match &decoded {
                Ok(_) => self.places.extend(span.slot, &step.tokens[span.rows.clone()]),
                // Some of the step may be in the cache.
                Err(_) => self.truncate(span.slot, 0)?,
            }
        }
        decoded
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }
}

impl Reuse for Context {
    fn reuse(&mut self, free: &BTreeSet<usize>, tokens: &[u32], most: usize) -> (usize, usize) {
        let most = if self.rewinds { most } else { 0 };
        let Choice { place, from, tokens: same } = self.places.choose(free, tokens, most);
        self.places.enter(place);
        let prepared = if from == place {
            self.truncate(place, same)
        } else {
            self.truncate(place, 0).and_then(|()| self.copy(from, place, same))
        };
        match prepared {
            Ok(()) => (place, same),
            Err(error) => {
                tracing::warn!("the beginning of a sequence is computed again: {error}");
                (place, 0)
            }
        }
    }

    fn release(&mut self, slot: usize) {
        self.places.leave(slot);
    }

    fn shares(&self) -> bool {
        self.rewinds
    }
}

impl Context {
    /// Lets the first `len` cells of `from` belong to `to` as well, which has none.
    fn copy(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.owned
            .with_dependent_mut(|_, context| {
                context.kv_cache_seq_cp(from as i32, to as i32, Some(0), Some(len as u32))
            })
            .map_err(device)?;
        self.places.copy(from, to, len);
        Ok(())
    }
}

fn device(error: impl std::fmt::Display) -> Error {
    Error::Device { reason: format!("llama.cpp: {error}") }
}
