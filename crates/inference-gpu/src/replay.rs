//! Steps in which every sequence has one token, recorded once and replayed: starting their launches one by one can take as
//! long as the work.
//!
//! What the launches of a step depend on, beside the numbers in its buffer, is its [`Key`]: a recording is for one key, and
//! lengths are rounded up so that there are few. A recording is of memory that goes round (see [`Arena`](crate::arena::Arena)),
//! so it is replayed only where nothing but the step itself is lent, as when it was made. Its first replay is compared with
//! the same step run launch by launch: afterwards, so that nothing that should be computed is there already.

use crate::{
    arena::{Piece, Place},
    attention::Cache,
    backend::SLOTS,
    driver::Driver,
    gpu::{Gpu, Tensor},
    step::Started,
};
use inference_core::{Error, Result};
use std::{cell::RefCell, fmt, rc::Rc};

/// Most rows of a step that is recorded: as many sequences as are served at once unless somebody asks for more. Up to
/// there a step of a small model reads little more than its weights, which a fast card does in less time than starting
/// the launches takes.
pub(crate) const MOST_ROWS: usize = SLOTS;

/// What a step's launches depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    /// Rows, the bound of their sequences' lengths, and entries of a table of blocks.
    rows: usize,
    context: usize,
    table_len: usize,
    /// Where the step is.
    step: Place,
    /// Where the cache is that it reads and writes.
    cache: u64,
    /// Where blocks of attention are counted.
    counters: u64,
    /// How often memory of matrices and caches had been freed: none that is used since.
    freed: u64,
}

struct Recording<D: Driver> {
    key: Key,
    /// Whose graph it is.
    driver: Rc<D>,
    graph: D::Graph,
    /// What it leaves.
    place: Place,
    rows: usize,
    cols: usize,
    /// Whether it was replayed and gave what it should.
    checked: bool,
}

/// The recorded steps of a decoder.
pub struct Recorded<D: Driver>(RefCell<Vec<Recording<D>>>);

impl<D: Driver> Default for Recorded<D> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<D: Driver> fmt::Debug for Recorded<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<Key> = self.0.borrow().iter().map(|r| r.key).collect();
        f.debug_tuple("Recorded").field(&keys).finish()
    }
}

impl<D: Driver> Gpu<D> {
    /// How many steps were replayed.
    pub fn replays(&self) -> usize {
        self.replays.get()
    }

    /// Whether a step of these rows would be recorded.
    pub(crate) fn may_record(&self, rows: usize) -> bool {
        self.records.get() && (1..=MOST_ROWS).contains(&rows)
    }

    pub(crate) fn run_or_replay(
        &self,
        recorded: &Recorded<D>,
        cache: &mut Cache<D>,
        step: &Started<D>,
        body: &mut dyn FnMut(&mut Cache<D>) -> Result<Tensor<D>>,
    ) -> Result<Tensor<D>> {
        if !step.is_steady || self.activations.lent() != 1 {
            return body(cache);
        }
        let key = Key {
            rows: step.layout.rows,
            context: step.context,
            table_len: step.layout.table_len,
            step: step.place(),
            cache: cache.address(),
            counters: self.counters.borrow().as_ref().map_or(0, |c| c.address()),
            freed: self.held.freed(),
        };
        let mut recordings = recorded.0.borrow_mut();
        recordings.retain(|r| r.key.freed == key.freed);
        let is_it = |r: &&mut Recording<D>| r.key == key && Rc::ptr_eq(&r.driver, &self.driver);
        let Some(recording) = recordings.iter_mut().find(is_it) else {
            let (recording, logits) = self.record(key, cache, body)?;
            recordings.extend(recording);
            return Ok(logits);
        };
        let replayed = self.replay(recording);
        if recording.checked && replayed.is_ok() {
            return replayed;
        }
        let got = replayed.and_then(|logits| self.bring(&logits));
        let logits = body(cache)?;
        let reason = match got {
            Ok(got) if bits(&got).eq(bits(&self.bring(&logits)?)) => {
                recording.checked = true;
                return Ok(logits);
            }
            Ok(_) => "a replayed step gives other numbers".to_owned(),
            Err(error) => error.to_string(),
        };
        self.replay_no_more(&reason);
        recordings.clear();
        Ok(logits)
    }

    /// Runs a step, and records it.
    fn record(
        &self,
        key: Key,
        cache: &mut Cache<D>,
        body: &mut dyn FnMut(&mut Cache<D>) -> Result<Tensor<D>>,
    ) -> Result<(Option<Recording<D>>, Tensor<D>)> {
        let logits = body(cache)?;
        let (rows, cols, place) = (logits.rows, logits.cols, logits.piece.place());
        // The recording gets the memory that the step had; it runs nothing, so what is there stays.
        drop(logits);
        let mut again = None;
        let graph = self.driver.capture(&mut || {
            again = Some(body(cache)?.piece.place());
            Ok(())
        });
        let logits = Tensor { piece: self.lend_again(place)?, rows, cols };
        let graph = match graph {
            Ok(Some(graph)) if again == Some(place) => Some(graph),
            Ok(Some(_)) => {
                self.replay_no_more("a step takes other memory when it is recorded");
                None
            }
            Ok(None) => {
                // The driver has its reasons.
                self.records.set(false);
                None
            }
            Err(error) => {
                self.replay_no_more(&error.to_string());
                None
            }
        };
        let driver = self.driver.clone();
        let recording =
            graph.map(|graph| Recording { key, driver, graph, place, rows, cols, checked: false });
        Ok((recording, logits))
    }

    fn lend_again(&self, place: Place) -> Result<Piece<D>> {
        let taken =
            || Error::Device { reason: "the memory of a recorded step is taken".to_owned() };
        self.activations.lend_at(place).ok_or_else(taken)
    }

    fn replay(&self, recording: &Recording<D>) -> Result<Tensor<D>> {
        let piece = self.lend_again(recording.place)?;
        // SAFETY: the launches were checked when they were recorded. Matrices and cache are those of then, since nothing of
        // the kind was freed; activations are in buffers that stay, and nothing but the step and the result is lent of them;
        // the counters are where they were.
        unsafe { self.driver.replay(&recording.graph) }?;
        self.replays.set(self.replays.get() + 1);
        Ok(Tensor { piece, rows: recording.rows, cols: recording.cols })
    }

    fn replay_no_more(&self, reason: &str) {
        tracing::warn!("steps are not replayed any more: {reason}");
        self.records.set(false);
    }
}

fn bits(numbers: &[f32]) -> impl Iterator<Item = u32> {
    numbers.iter().map(|x| x.to_bits())
}
