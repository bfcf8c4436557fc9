//! How a quantised matrix lies in memory: in the order in which the kernels read it.
//!
//! Sixteen rows of the matrix (columns of a product) are a tile, one 32-bit lane each. A tile is a stream of blocks, one
//! for each group of inputs:
//!
//! | part of a block | bytes |
//! | --- | --- |
//! | scales, one for each lane, in the checkpoint's type | 32 or 64 |
//! | biases | 32 or 64 |
//! | a chunk for every 32 inputs | 64 · bits |
//!
//! Groups of 16 come two to a block, whose scales and biases stand before its one chunk. A chunk is made of planes of
//! 8, 4, 2 or 1 bits: 6 bits are a plane of the lower four and one of the upper two, 5 are 4 + 1, 3 are 2 + 1. Each
//! line of 64 bytes has one word of every lane; a word of a plane of `w` bits has `8 / w` quads beside each other, quad
//! `i` at the bits `i·w` of each of its four bytes. So a shift and a mask give what a dot product of bytes takes.
//!
//! Of 8 inputs, the even ones are one quad and the odd ones the next: then a word of MLX's 4-bit packing is a word of
//! the plane as it is. Activations are put into the same order once ([`position`]).

pub(super) use crate::simd::position;

use crate::simd::{COLUMNS, LINE};
use inference_engine::weights::DType;

/// Inputs of a chunk.
pub(super) const CHUNK: usize = 32;

/// Quads of a chunk.
pub(super) const QUADS: usize = CHUNK / 4;

/// The layout of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bits of a number.
    pub(super) bits: usize,
    /// Inputs of a group.
    pub(super) group: usize,
    /// How scales and biases are stored.
    pub(super) dtype: DType,
    /// Inputs.
    pub(super) cols: usize,
}

impl Layout {
    /// Inputs of a block.
    #[inline(always)]
    pub(super) fn block_cols(&self) -> usize {
        self.group.max(CHUNK)
    }

    /// Blocks of a tile. The last is filled with zeros where the columns end before it does.
    #[inline(always)]
    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(self.block_cols())
    }

    /// Groups of a block.
    #[inline(always)]
    pub(super) fn groups_per_block(&self) -> usize {
        self.block_cols() / self.group
    }

    /// Bytes from the scales of a group to its biases.
    #[inline(always)]
    pub(super) fn scales(&self) -> usize {
        COLUMNS * self.dtype.size()
    }

    /// Bytes of a block before its chunks.
    #[inline(always)]
    pub(super) fn header(&self) -> usize {
        self.groups_per_block() * 2 * self.scales()
    }

    /// Bytes of a chunk.
    #[inline(always)]
    pub(super) fn chunk(&self) -> usize {
        self.bits * LINE
    }

    /// Bytes of a block.
    #[inline(always)]
    pub(super) fn block(&self) -> usize {
        self.header() + self.block_cols() / CHUNK * self.chunk()
    }

    /// Bytes of a tile.
    #[inline(always)]
    pub(super) fn tile(&self) -> usize {
        self.blocks() * self.block()
    }

    /// The planes: bits each, the lowest first.
    pub(super) fn planes(bits: usize) -> &'static [usize] {
        match bits {
            2 => &[2],
            3 => &[2, 1],
            4 => &[4],
            5 => &[4, 1],
            6 => &[4, 2],
            _ => &[8],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_begins_on_a_line() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for group in [16, 32, 64, 128] {
                for bits in [2, 3, 4, 5, 6, 8] {
                    let layout = Layout { bits, group, dtype, cols: 3 * group };
                    assert!(layout.header().is_multiple_of(LINE));
                    assert!(layout.block().is_multiple_of(LINE));
                    assert_eq!(Layout::planes(bits).iter().sum::<usize>(), bits);
                }
            }
        }
    }

    #[test]
    fn positions_are_a_permutation_of_every_eight() {
        let mut of: Vec<_> = (0..16).map(position).collect();
        assert_eq!(of[..8], [0, 4, 1, 5, 2, 6, 3, 7]);
        of.sort_unstable();
        assert!(of.into_iter().eq(0..16));
    }
}
