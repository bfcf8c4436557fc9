//! Who goes first.

use serde::{Deserialize, Serialize};

/// Who goes first where callers compete: for a place among the sequences that run, for the prompt tokens of a step, and
/// for the cache, where it is too small for all.
///
/// Among calls of one priority, those that came first start first, unless one had better wait for what another computes
/// that it begins with as well. Rows of a call, such as the prompts of a batch, take turns with the other calls that wait:
/// each starts one row in a round, so nobody waits for all of a long call. A call that runs already is not interrupted
/// for one of a higher priority, unless the cache is full; and its next token never waits. While calls of a higher
/// priority keep coming, those of a lower one may wait for ever: give them a timeout.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Work that nobody waits for.
    Low,
    /// Everything else.
    #[default]
    Normal,
    /// Somebody waits for it while others do not.
    High,
}
