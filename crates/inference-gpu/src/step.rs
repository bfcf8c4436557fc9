//! A step's numbers, where the kernels can read them.

use crate::{
    arena::{Piece, Place},
    attention::{BLOCK, SPLIT},
    driver::Driver,
    gpu::Gpu,
};
use inference_core::Result;
use inference_engine::step::{Rotation, Step};
use std::ops::Range;

/// Queries of a tile of attention, for heads of up to 128 columns and for wider ones; the same as in `flash.cu`.
pub(crate) const TILES: [usize; 2] = [64, 32];

/// Tokens of a sequence from which on they are computed as tiles.
const MANY: usize = 16;

/// A step on a [`Gpu`]: one upload, in which everything has its place.
pub struct Started<D: Driver> {
    piece: Piece<D>,
    /// Tokens.
    pub(crate) rows: usize,
    /// Rows that reach the head.
    pub(crate) wanted: usize,
    /// Entries of a sequence's table of blocks.
    pub(crate) table_len: usize,
    /// No sequence is longer: what the launches of attention are made for.
    pub(crate) context: usize,
    /// Whether it can be recorded: every sequence has one token, whose logits are wanted.
    pub(crate) is_steady: bool,
    /// Rows whose sequences have few of them in this step.
    pub(crate) single: Vec<Range<usize>>,
    /// How many tiles of [`TILES`] queries the others are, and where those begin, in words.
    tiles: [(usize, usize); 2],
    /// Pairs of each rotation, and where its cosines begin, in numbers.
    rotations: Vec<(usize, usize)>,
}

impl<D: Driver> Gpu<D> {
    pub(crate) fn start(&self, step: &Step, rotations: &[Rotation]) -> Result<Started<D>> {
        let rows = step.tokens.len();
        let is_steady = self.may_record(rows)
            && step.spans.iter().all(|span| span.rows.len() == 1 && span.wanted == 1);
        let mut context = step.positions.iter().max().map_or(0, |p| *p as usize + 1);
        let mut table_len = step.spans.iter().map(|s| s.blocks.len()).max().unwrap_or(0);
        if is_steady {
            // Few lengths, so that few steps are recorded.
            context = context.next_power_of_two().max(SPLIT);
            table_len = table_len.max(context / BLOCK);
        }
        let mut words: Vec<u32> = Vec::new();
        words.extend(&step.tokens);
        words.extend(&step.positions);
        for (i, span) in step.spans.iter().enumerate() {
            words.extend(span.rows.clone().map(|_| i as u32));
        }
        let before = words.len();
        words.extend(step.wanted_rows().map(|r| r as u32));
        let wanted = words.len() - before;
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
            ((words.len() - begin) / 2, begin)
        });
        let mut places = Vec::new();
        for rotation in rotations {
            places.push((rotation.pairs, words.len()));
            words.extend(rotation.cos.iter().chain(&rotation.sin).map(|x| x.to_bits()));
        }
        let piece = self.activations.lend(words.len() * 4)?;
        piece.upload(0, bytemuck::cast_slice(&words))?;
        let rotations = places;
        Ok(Started { piece, rows, wanted, table_len, context, is_steady, single, tiles, rotations })
    }
}

impl<D: Driver> Started<D> {
    /// Where it is in the memory that goes round.
    pub(crate) fn place(&self) -> Place {
        self.piece.place()
    }

    fn at(&self, word: usize) -> u64 {
        self.piece.address() + 4 * word as u64
    }

    /// `[rows]` ids.
    pub(crate) fn tokens(&self) -> u64 {
        self.at(0)
    }

    /// `[rows]` places in their sequences.
    pub(crate) fn places(&self) -> u64 {
        self.at(self.rows)
    }

    /// `[rows]` numbers of sequences.
    pub(crate) fn sequences(&self) -> u64 {
        self.at(2 * self.rows)
    }

    /// `[wanted]` rows.
    pub(crate) fn wanted_rows(&self) -> u64 {
        self.at(3 * self.rows)
    }

    /// `[sequences, table_len]` blocks.
    pub(crate) fn tables(&self) -> u64 {
        self.at(3 * self.rows + self.wanted)
    }

    /// Tiles of [`TILES`]`[which]` queries: how many, and pairs of a first row and how many rows.
    pub(crate) fn tiles(&self, which: usize) -> (usize, u64) {
        let (count, at) = self.tiles[which];
        (count, self.at(at))
    }

    /// Pairs, cosines and sines `[rows, pairs]` of a rotation; no pairs without one.
    pub(crate) fn rotation(&self, which: Option<usize>) -> (usize, u64, u64) {
        let Some(&(pairs, at)) = which.and_then(|i| self.rotations.get(i)) else {
            return (0, 0, 0);
        };
        (pairs, self.at(at), self.at(at + pairs * self.rows))
    }
}
