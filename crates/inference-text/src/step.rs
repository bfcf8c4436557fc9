//! One forward pass over a ragged batch.

use std::ops::Range;

/// The tokens of all scheduled sequences, back to back: row `i` of every activation belongs to `tokens[i]`.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Ids.
    pub tokens: Vec<u32>,
    /// Each token's place in its sequence, from 0.
    pub positions: Vec<u32>,
    /// Each token's sequence length as its rotary embedding sees it, where that depends on the length.
    pub lengths: Vec<u32>,
    /// The sequences.
    pub spans: Vec<Span>,
}

/// The rows of one sequence in a [`Step`].
#[derive(Debug, Clone)]
pub struct Span {
    /// Which rows.
    pub rows: Range<usize>,
    /// Its place among the sequences that run, from 0; nobody else has it while it runs.
    pub slot: usize,
    /// Tokens of this sequence in the cache once the step has run.
    pub context: usize,
    /// Cache blocks that hold them, in order.
    pub blocks: Vec<u32>,
    /// How many of its last rows reach the head; 0 in the middle of a prompt.
    pub wanted: usize,
}

impl Step {
    /// Adds a sequence's next `tokens`, which come after `past` tokens in the cache. Those before `rope_len` are rotated
    /// as in a sequence of that length, later ones as in one that ends with them; so the chunks of a prompt make no
    /// difference. The last `wanted` rows reach the head.
    pub fn push(
        &mut self,
        tokens: &[u32],
        past: usize,
        rope_len: usize,
        blocks: &[u32],
        wanted: usize,
    ) {
        debug_assert!(!tokens.is_empty() && wanted <= tokens.len());
        let start = self.tokens.len();
        let positions = past..past + tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(positions.clone().map(|p| p as u32));
        self.lengths.extend(positions.clone().map(|p| rope_len.max(p + 1) as u32));
        let rows = start..self.tokens.len();
        let blocks = blocks.to_vec();
        self.spans.push(Span { rows, slot: 0, context: positions.end, blocks, wanted });
    }

    /// The rows that reach the head, in order.
    pub fn wanted_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.spans.iter().flat_map(|s| s.rows.end - s.wanted..s.rows.end)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
