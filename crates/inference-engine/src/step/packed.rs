//! All numbers of a step in one piece, for devices whose kernels read them there: one upload brings it all.

use super::{Rotation, Step};
use std::ops::Range;

/// Tokens of a sequence from which on its attention is computed as tiles.
const MANY: usize = 16;

/// Where everything is in the words of a step. Ranges are of words.
#[derive(Debug)]
pub struct Layout {
    /// Tokens.
    pub rows: usize,
    /// Rows that reach the head.
    pub wanted: usize,
    /// Entries of a sequence's table of blocks.
    pub table_len: usize,
    /// Rows whose sequences have few of them in this step.
    pub single: Vec<Range<usize>>,
    sequences: usize,
    tiles: [Range<usize>; 2],
    /// Pairs of each rotation, and where its cosines begin.
    rotations: Vec<(usize, usize)>,
}

impl Layout {
    /// `[rows]` ids.
    pub fn tokens(&self) -> Range<usize> {
        0..self.rows
    }

    /// `[rows]` places in their sequences.
    pub fn places(&self) -> Range<usize> {
        self.rows..2 * self.rows
    }

    /// `[rows]` numbers of sequences.
    pub fn sequences(&self) -> Range<usize> {
        2 * self.rows..3 * self.rows
    }

    /// `[wanted]` rows.
    pub fn wanted_rows(&self) -> Range<usize> {
        3 * self.rows..3 * self.rows + self.wanted
    }

    /// `[sequences, table_len]` blocks.
    pub fn tables(&self) -> Range<usize> {
        let begin = 3 * self.rows + self.wanted;
        begin..begin + self.sequences * self.table_len
    }

    /// Tiles of the `which`th size: pairs of a first row and how many rows.
    pub fn tiles(&self, which: usize) -> Range<usize> {
        self.tiles[which].clone()
    }

    /// Pairs of a rotation, and its cosines and sines, `[rows, pairs]` as the bits of f32; no pairs without one.
    pub fn rotation(&self, which: Option<usize>) -> (usize, Range<usize>, Range<usize>) {
        let (pairs, at) = which.and_then(|i| self.rotations.get(i)).copied().unwrap_or_default();
        let len = pairs * self.rows;
        (pairs, at..at + len, at + len..at + 2 * len)
    }
}

/// The words of a step, and where they are. Tables of blocks have at least `table_len` entries; `tiles` are the sizes that
/// rows of sequences with many of them are cut into.
pub fn packed(
    step: &Step,
    rotations: &[Rotation],
    table_len: usize,
    tiles: [usize; 2],
) -> (Vec<u32>, Layout) {
    let rows = step.tokens.len();
    let longest = step.spans.iter().map(|s| s.blocks.len()).max().unwrap_or(0);
    let table_len = table_len.max(longest);
    let mut words: Vec<u32> = Vec::new();
    words.extend(&step.tokens);
    words.extend(&step.positions);
    for (i, span) in step.spans.iter().enumerate() {
        words.extend(span.rows.clone().map(|_| i as u32));
    }
    words.extend(step.wanted_rows().map(|r| r as u32));
    let wanted = words.len() - 3 * rows;
    for span in &step.spans {
        words.extend(&span.blocks);
        words.resize(words.len() + table_len - span.blocks.len(), 0);
    }
    let is_single = |rows: &Range<usize>| rows.len() < MANY;
    let mut single: Vec<Range<usize>> = Vec::new();
    for rows in step.spans.iter().map(|s| s.rows.clone()).filter(is_single) {
        match single.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => single.push(rows),
        }
    }
    let tiles = tiles.map(|tile| {
        let begin = words.len();
        for rows in step.spans.iter().map(|s| s.rows.clone()).filter(|r| !is_single(r)) {
            for row in rows.clone().step_by(tile) {
                words.extend([row as u32, tile.min(rows.end - row) as u32]);
            }
        }
        begin..words.len()
    });
    let mut places = Vec::new();
    for rotation in rotations {
        places.push((rotation.pairs, words.len()));
        words.extend(rotation.cos.iter().chain(&rotation.sin).map(|x| x.to_bits()));
    }
    let (sequences, rotations) = (step.spans.len(), places);
    (words, Layout { rows, wanted, table_len, single, sequences, tiles, rotations })
}
