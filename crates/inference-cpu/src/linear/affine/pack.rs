//! From a checkpoint's quantised matrix to the [`Layout`] that the kernels read.

use super::layout::{CHUNK, Layout, QUADS, position};
use crate::{
    memory::{Memory, Store},
    pool::{Disjoint, Pool},
    simd::{COLUMNS, LINE},
};
use inference_core::Result;
use inference_engine::weights::{Affine, DType, RawTensor};
use std::ops::Range;

/// A quantised matrix, packed.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) layout: Layout,
    /// Outputs.
    pub(super) rows: usize,
    /// `[tiles, layout.tile()]`
    data: Memory,
}

/// Tiles that a thread packs at a time.
const GRAIN: usize = 8;

impl Packed {
    /// Packs `matrix` into memory of the store, with the pool's threads.
    pub(super) fn new(pool: &Pool, store: &Store, matrix: &Affine) -> Result<Self> {
        let layout = Layout {
            bits: matrix.bits() as usize,
            group: matrix.group(),
            dtype: matrix.scales().dtype,
            cols: matrix.cols(),
        };
        let tiles = matrix.rows().div_ceil(COLUMNS);
        let mut data = store.take(tiles * layout.tile())?;
        let bytes = Disjoint::new(data.bytes_mut());
        pool.ranges(tiles, GRAIN, |range| {
            for tile in range {
                // SAFETY: `ranges` hands out every tile once.
                let out = unsafe { bytes.slice(tile * layout.tile()..(tile + 1) * layout.tile()) };
                let first = tile * COLUMNS;
                let rows = first..(first + COLUMNS).min(matrix.rows());
                pack_tile(&layout, matrix, rows, out);
            }
        });
        Ok(Self { layout, rows: matrix.rows(), data })
    }

    /// How many tiles there are.
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(COLUMNS)
    }

    /// Where tile `tile` begins: `layout.tile()` bytes.
    pub(super) fn tile(&self, tile: usize) -> *const u8 {
        self.data.bytes()[tile * self.layout.tile()..][..self.layout.tile()].as_ptr()
    }

    /// Row `row`, dequantised, in the order of the columns.
    pub(super) fn widen_row(&self, row: usize, out: &mut [f32]) {
        let layout = &self.layout;
        let tile = &self.data.bytes()[row / COLUMNS * layout.tile()..][..layout.tile()];
        let lane = row % COLUMNS;
        let blocks = tile.chunks_exact(layout.block());
        for (block, out) in blocks.zip(out.chunks_mut(layout.block_cols())) {
            let (header, chunks) = block.split_at(layout.header());
            for (i, out) in out.chunks_mut(layout.group).enumerate() {
                let scales = &header[2 * i * layout.scales()..];
                let scale = number(layout.dtype, &scales[lane * layout.dtype.size()..]);
                let biases = &scales[layout.scales()..];
                let bias = number(layout.dtype, &biases[lane * layout.dtype.size()..]);
                for (j, out) in out.iter_mut().enumerate() {
                    let k = i * layout.group + j;
                    let chunk = &chunks[k / CHUNK * layout.chunk()..][..layout.chunk()];
                    *out = f32::from(entry(layout.bits, chunk, lane, k % CHUNK)) * scale + bias;
                }
            }
        }
    }
}

/// The first number of `bytes`.
fn number(dtype: DType, bytes: &[u8]) -> f32 {
    let half = || u16::from_le_bytes([bytes[0], bytes[1]]);
    match dtype {
        DType::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        DType::F16 => half::f16::from_bits(half()).to_f32(),
        _ => half::bf16::from_bits(half()).to_f32(),
    }
}

/// Number `k` of a lane of a chunk.
fn entry(bits: usize, chunk: &[u8], lane: usize, k: usize) -> u8 {
    let (quad, byte) = (position(k) / 4, position(k) % 4);
    let (mut value, mut below, mut plane) = (0, 0, chunk);
    for &width in Layout::planes(bits) {
        let together = 8 / width;
        let line = quad / together;
        let field = plane[line * LINE + 4 * lane + byte] >> (quad % together * width);
        value |= (u32::from(field) & ((1 << width) - 1)) << below;
        (below, plane) = (below + width, &plane[width * LINE..]);
    }
    value as u8
}

/// Writes the tile of some rows, at most sixteen. `out` is zero.
fn pack_tile(layout: &Layout, matrix: &Affine, rows: Range<usize>, out: &mut [u8]) {
    let (bits, cols) = (layout.bits, layout.cols);
    let (stride, groups) = (cols * bits / 8, cols / layout.group);
    let q = &matrix.q()[rows.start * stride..rows.end * stride];
    for (b, block) in out.chunks_exact_mut(layout.block()).enumerate() {
        let (header, chunks) = block.split_at_mut(layout.header());
        for i in 0..layout.groups_per_block() {
            let group = b * layout.groups_per_block() + i;
            if group < groups {
                let (scales, biases) =
                    header[2 * i * layout.scales()..].split_at_mut(layout.scales());
                column(matrix.scales(), rows.clone(), group, groups, scales);
                column(matrix.biases(), rows.clone(), group, groups, biases);
            }
        }
        let first = b * layout.block_cols();
        for (c, chunk) in chunks.chunks_exact_mut(layout.chunk()).enumerate() {
            let at = (first + c * CHUNK) * bits / 8;
            let whole = stride.saturating_sub(at) >= CHUNK * bits / 8;
            for (lane, row) in q.chunks_exact(stride).enumerate() {
                if whole {
                    pack_chunk(bits, &row[at..at + CHUNK * bits / 8], lane, chunk);
                } else if let Some(rest) = row.get(at..) {
                    let mut padded = [0; CHUNK];
                    padded[..rest.len()].copy_from_slice(rest);
                    pack_chunk(bits, &padded[..CHUNK * bits / 8], lane, chunk);
                }
            }
        }
    }
}

/// The numbers of column `group` of some rows of `[_, groups]`, beside each other.
fn column(of: &RawTensor, rows: Range<usize>, group: usize, groups: usize, out: &mut [u8]) {
    let size = of.dtype.size();
    for (out, row) in out.chunks_exact_mut(size).zip(rows) {
        out.copy_from_slice(&of.bytes[(row * groups + group) * size..][..size]);
    }
}

/// Writes a lane of a chunk: 32 numbers of `bits` bits.
#[inline(always)]
fn pack_chunk(bits: usize, from: &[u8], lane: usize, chunk: &mut [u8]) {
    match bits {
        2 => pack_planes::<2>(from, lane, chunk),
        3 => pack_planes::<3>(from, lane, chunk),
        4 => {
            for (word, line) in from.chunks_exact(4).zip(chunk.chunks_exact_mut(LINE)) {
                line[4 * lane..][..4].copy_from_slice(word);
            }
        }
        5 => pack_planes::<5>(from, lane, chunk),
        6 => pack_planes::<6>(from, lane, chunk),
        _ => pack_planes::<8>(from, lane, chunk),
    }
}

#[inline(always)]
fn pack_planes<const BITS: usize>(from: &[u8], lane: usize, chunk: &mut [u8]) {
    let mut quads = [0u32; QUADS];
    for (eight, quads) in from.chunks_exact(BITS).zip(quads.chunks_exact_mut(2)) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(eight);
        let bytes = spread::<BITS>(u64::from_le_bytes(word));
        (quads[0], quads[1]) = (even_bytes(bytes), even_bytes(bytes >> 8));
    }
    let (mut below, mut line) = (0, 0);
    for &width in Layout::planes(BITS) {
        let (together, mask) = (8 / width, u32::from_le_bytes([(0xff >> (8 - width)) as u8; 4]));
        for quads in quads.chunks_exact(together) {
            let mut word = 0;
            for (i, quad) in quads.iter().enumerate() {
                word |= (quad >> below & mask) << (i * width);
            }
            chunk[line * LINE + 4 * lane..][..4].copy_from_slice(&word.to_le_bytes());
            line += 1;
        }
        below += width;
    }
}

/// Eight numbers of `BITS` bits as bytes.
#[inline(always)]
fn spread<const BITS: usize>(word: u64) -> u64 {
    let mask = |bits: usize| u64::MAX >> (64 - bits);
    let fours = word & mask(4 * BITS) | (word >> (4 * BITS)) << 32;
    let low = mask(2 * BITS) * 0x0000_0001_0000_0001;
    let twos = fours & low | (fours >> (2 * BITS) & low) << 16;
    let low = mask(BITS) * 0x0001_0001_0001_0001;
    twos & low | (twos >> BITS & low) << 8
}

/// Bytes 0, 2, 4 and 6.
#[inline(always)]
fn even_bytes(word: u64) -> u32 {
    let word = word & 0x00ff_00ff_00ff_00ff;
    let word = (word | word >> 8) & 0x0000_ffff_0000_ffff;
    (word | word >> 16) as u32
}
