//! A step's numbers, where the kernels can read them.

use crate::{
    arena::{Piece, Place},
    attention::{BLOCK, SPLIT},
    driver::Driver,
    gpu::Gpu,
};
use inference_core::Result;
use inference_engine::step::{Layout, Rotation, Step, packed};
use std::ops::Range;

/// Queries of a tile of attention, for heads of up to 128 columns and for wider ones; the same as in `flash.cu`.
pub(crate) const TILES: [usize; 2] = [64, 32];

/// A step on a [`Gpu`]: one upload, in which everything has its place.
pub struct Started<D: Driver> {
    piece: Piece<D>,
    /// Where everything is.
    pub(crate) layout: Layout,
    /// No sequence is longer: what the launches of attention are made for.
    pub(crate) context: usize,
    /// Whether it can be recorded: every sequence has one token, whose logits are wanted.
    pub(crate) is_steady: bool,
}

impl<D: Driver> Gpu<D> {
    pub(crate) fn start(&self, step: &Step, rotations: &[Rotation]) -> Result<Started<D>> {
        let is_steady = self.may_record(step.tokens.len())
            && step.spans.iter().all(|span| span.rows.len() == 1 && span.wanted == 1);
        let mut context = step.positions.iter().max().map_or(0, |p| *p as usize + 1);
        let mut table_len = 0;
        if is_steady {
            // Few lengths, so that few steps are recorded.
            context = context.next_power_of_two().max(SPLIT);
            table_len = context / BLOCK;
        }
        let (words, layout) = packed(step, rotations, table_len, TILES);
        let piece = self.activations.lend(words.len() * 4)?;
        piece.upload(0, bytemuck::cast_slice(&words))?;
        Ok(Started { piece, layout, context, is_steady })
    }
}

impl<D: Driver> Started<D> {
    /// Where it is in the memory that goes round.
    pub(crate) fn place(&self) -> Place {
        self.piece.place()
    }

    /// Where these words of the [`Layout`] are.
    pub(crate) fn at(&self, words: Range<usize>) -> u64 {
        self.piece.address() + 4 * words.start as u64
    }

    /// Pairs, cosines and sines of a rotation; see [`Layout::rotation`].
    pub(crate) fn rotation(&self, which: Option<usize>) -> (usize, u64, u64) {
        let (pairs, cos, sin) = self.layout.rotation(which);
        (pairs, self.at(cos), self.at(sin))
    }
}
