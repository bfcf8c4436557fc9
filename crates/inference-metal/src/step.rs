//! A step's numbers, where the kernels can read them.

use crate::{device::fault, operations::Operations};
use candle_core::{DType, Tensor};
use inference_core::Result;
use inference_engine::step::{Layout, Rotation, Step, packed};
use std::ops::Range;

/// Queries of a tile of attention, for heads of up to 128 columns and for wider ones; as the kernels have them.
pub(crate) const TILES: [usize; 2] = [32, 16];

/// A step on a [`Candle`](crate::Candle): one upload, in which everything has its place.
#[derive(Debug)]
pub struct Started {
    /// Ids and places; cosines and sines by their bits.
    words: Tensor,
    /// Where everything is.
    pub(crate) layout: Layout,
    /// Each token's place in its sequence.
    pub(crate) positions: Vec<u32>,
}

impl Started {
    pub(crate) fn new<O: Operations>(
        step: &Step,
        rotations: &[Rotation],
        operations: &O,
    ) -> Result<Self> {
        let (words, layout) = packed(step, rotations, 0, TILES);
        let bytes = bytemuck::cast_slice(&words);
        let words = operations.place(bytes, DType::U32, &[words.len()]).map_err(fault)?;
        Ok(Self { words, layout, positions: step.positions.clone() })
    }

    /// These words of the [`Layout`].
    pub(crate) fn at(&self, words: Range<usize>) -> candle_core::Result<Tensor> {
        self.words.narrow(0, words.start, words.len())
    }

    /// What says where the tokens of the sequences are: places, numbers of sequences, tables of blocks.
    pub(crate) fn paging(&self) -> candle_core::Result<[Tensor; 3]> {
        let layout = &self.layout;
        Ok([self.at(layout.places())?, self.at(layout.sequences())?, self.at(layout.tables())?])
    }

    /// Pairs, cosines and sines of a rotation; see [`Layout::rotation`].
    pub(crate) fn rotation(
        &self,
        which: Option<usize>,
    ) -> candle_core::Result<(usize, Tensor, Tensor)> {
        let (pairs, cos, sin) = self.layout.rotation(which);
        Ok((pairs, self.at(cos)?, self.at(sin)?))
    }
}
