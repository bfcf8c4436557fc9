//! A step's numbers, where the kernels can read them.

use crate::{device::fault, operations::Operations};
use candle_core::{DType, Tensor};
use inference_core::Result;
use inference_engine::step::{Rotation, Step};
use std::ops::Range;

/// Queries of a tile of attention, for heads of up to 128 columns and for wider ones; as the kernels have them.
pub(crate) const TILES: [usize; 2] = [32, 16];

/// Tokens of a sequence from which on they are computed as tiles.
const MANY: usize = 16;

/// A step on a [`Candle`](crate::Candle): one upload, in which everything has its place.
#[derive(Debug)]
pub struct Started {
    /// Ids and places; cosines and sines by their bits.
    words: Tensor,
    /// Tokens.
    pub(crate) rows: usize,
    /// Rows that reach the head.
    pub(crate) wanted: usize,
    /// Sequences.
    sequences: usize,
    /// Entries of a sequence's table of blocks.
    pub(crate) table_len: usize,
    /// Each token's place in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Rows whose sequences have few of them in this step.
    pub(crate) single: Vec<Range<usize>>,
    /// Where the tiles of [`TILES`] queries of the others are, in words.
    tiles: [Range<usize>; 2],
    /// Pairs of each rotation, and where its cosines begin, in words.
    rotations: Vec<(usize, usize)>,
}

impl Started {
    pub(crate) fn new<O: Operations>(
        step: &Step,
        rotations: &[Rotation],
        operations: &O,
    ) -> Result<Self> {
        let rows = step.tokens.len();
        let sequences = step.spans.len();
        let table_len = step.spans.iter().map(|s| s.blocks.len()).max().unwrap_or(0);
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
        let tiles = TILES.map(|tile| {
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
        let bytes = bytemuck::cast_slice(&words);
        let words = operations.place(bytes, DType::U32, &[words.len()]).map_err(fault)?;
        let positions = step.positions.clone();
        let rotations = places;
        Ok(Self { words, rows, wanted, sequences, table_len, positions, single, tiles, rotations })
    }

    fn at(&self, word: usize, len: usize) -> candle_core::Result<Tensor> {
        self.words.narrow(0, word, len)
    }

    /// `[rows]` ids.
    pub(crate) fn tokens(&self) -> candle_core::Result<Tensor> {
        self.at(0, self.rows)
    }

    /// `[rows]` places in their sequences.
    pub(crate) fn places(&self) -> candle_core::Result<Tensor> {
        self.at(self.rows, self.rows)
    }

    /// `[rows]` numbers of sequences.
    pub(crate) fn sequences(&self) -> candle_core::Result<Tensor> {
        self.at(2 * self.rows, self.rows)
    }

    /// `[wanted]` rows.
    pub(crate) fn wanted_rows(&self) -> candle_core::Result<Tensor> {
        self.at(3 * self.rows, self.wanted)
    }

    /// `[sequences, table_len]` blocks.
    pub(crate) fn tables(&self) -> candle_core::Result<Tensor> {
        self.at(3 * self.rows + self.wanted, self.sequences * self.table_len)
    }

    /// Tiles of [`TILES`]`[which]` queries: pairs of a first row and how many rows.
    pub(crate) fn tiles(&self, which: usize) -> candle_core::Result<Tensor> {
        self.at(self.tiles[which].start, self.tiles[which].len())
    }

    /// Pairs, cosines and sines `[rows, pairs]` of a rotation; no pairs without one.
    pub(crate) fn rotation(
        &self,
        which: Option<usize>,
    ) -> candle_core::Result<(usize, Tensor, Tensor)> {
        let (pairs, at) = which.and_then(|i| self.rotations.get(i)).copied().unwrap_or_default();
        let len = pairs * self.rows;
        Ok((pairs, self.at(at, len)?, self.at(at + len, len)?))
    }
}
