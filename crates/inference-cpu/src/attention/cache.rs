//! Where keys and values lie.

use super::{
    pairs::Pairs,
    products::{Lanes, Products},
    tiles::Amx,
};
use crate::{
    memory::Memory,
    pool::{Disjoint, Pool},
    simd::{Element, Simd},
};
use bytemuck::Pod;
use half::{bf16, f16};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{self, Attention},
    step::BlockCopy,
};

/// Tokens of a block: a multiple of every level's lanes, and what one product of tiles sums.
pub(crate) const BLOCK: usize = 32;

/// Columns of a head, as they are stored: zeros follow up to whole tiles.
pub(super) fn width(a: &Attention) -> usize {
    a.head_dim.next_multiple_of(32)
}

/// Keys and values of every layer, `[blocks, layers, 2, kv_heads, width · BLOCK]`: a sequence touches the memory that
/// its blocks need, and a thread that reads all heads of a block reads it from one end to the other.
///
/// A head's keys of a block are `[width / p, BLOCK, p]` and its values `[BLOCK / p, width, p]`, where `p` is
/// [`Stored::PAIR`]: a vector holds as many keys as it has lanes, or as many columns of values.
pub struct Cache {
    memory: Memory,
    dtype: CacheDtype,
    /// Numbers of a block.
    block: usize,
    /// Where each layer begins in a block.
    layers: Vec<usize>,
}

/// How a type of number is stored in the cache.
pub(super) trait Stored: Element + Pod {
    /// Numbers beside each other that are summed: two columns of a key, a column of two tokens' values. Products of
    /// bf16 take pairs; others are loaded one by one.
    const PAIR: usize;
    /// How it is multiplied where products of pairs are one instruction.
    type Pairs<S: Simd>: Products<S, Self>;
    /// How it is multiplied where there is AMX.
    type Tiles<S: Simd>: Products<S, Self>;
}

impl Stored for f32 {
    const PAIR: usize = 1;
    type Pairs<S: Simd> = Lanes;
    type Tiles<S: Simd> = Lanes;
}

impl Stored for f16 {
    const PAIR: usize = 1;
    type Pairs<S: Simd> = Lanes;
    type Tiles<S: Simd> = Lanes;
}

impl Stored for bf16 {
    const PAIR: usize = 2;
    type Pairs<S: Simd> = Pairs;
    type Tiles<S: Simd> = Amx;
}

/// Numbers of a layer in a block.
fn layer_len(a: &Attention) -> usize {
    2 * a.kv_heads * width(a) * BLOCK
}

/// Bytes of a number.
fn size(dtype: CacheDtype) -> usize {
    if dtype == CacheDtype::F32 { 4 } else { 2 }
}

impl Cache {
    /// Bytes of a block.
    pub(crate) fn block_bytes(layers: &[Attention], dtype: CacheDtype) -> u64 {
        (layers.iter().map(layer_len).sum::<usize>() * size(dtype)) as u64
    }

    /// A cache of `blocks` blocks, all zero. Its memory is touched only as blocks are used.
    pub(crate) fn new(layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Self> {
        if !matches!(dtype, CacheDtype::F32 | CacheDtype::F16 | CacheDtype::Bf16) {
            return Err(Error::unsupported(format!("cache_dtype {dtype:?}"), "cpu"));
        }
        let mut block = 0;
        let mut begin = |a: &Attention| {
            block += layer_len(a);
            block - layer_len(a)
        };
        let layers: Vec<_> = layers.iter().map(&mut begin).collect();
        let full = |_| Error::OutOfMemory {
            what: "the cache of keys and values".to_owned(),
            needed: (blocks as u64).saturating_mul((block * size(dtype)) as u64),
            available: 0,
            advice: "take a smaller context_len or fewer parallel_slots".to_owned(),
        };
        let len = blocks.checked_mul(block * size(dtype)).ok_or(()).map_err(full)?;
        let memory = Memory::new(len).map_err(|_| full(()))?;
        Ok(Self { memory, dtype, block, layers })
    }

    pub(super) fn dtype(&self) -> CacheDtype {
        self.dtype
    }

    /// One layer, to be read; `E` is the type of [`dtype`](Self::dtype).
    pub(super) fn layer<E: Stored>(&self, layer: usize, a: &Attention) -> Layer<&[E]> {
        let data = bytemuck::cast_slice(self.memory.bytes());
        Layer { data, place: self.place(layer, a) }
    }

    /// One layer, to be written; `E` as above.
    pub(super) fn layer_mut<E: Stored>(
        &mut self,
        layer: usize,
        a: &Attention,
    ) -> Layer<Disjoint<'_, E>> {
        let place = self.place(layer, a);
        let data = Disjoint::new(bytemuck::cast_slice_mut(self.memory.bytes_mut()));
        Layer { data, place }
    }

    /// Copies the first tokens of blocks, in all layers. The rest of the blocks that get them becomes zeros: whatever it
    /// is, is multiplied by 0.
    pub(crate) fn copy(&mut self, pool: &Pool, layers: &[arch::Layer], copies: &[BlockCopy]) {
        match self.dtype {
            CacheDtype::F32 => self.copy_as::<f32>(pool, layers, copies),
            CacheDtype::F16 => self.copy_as::<f16>(pool, layers, copies),
            _ => self.copy_as::<bf16>(pool, layers, copies),
        }
    }

    fn copy_as<E: Stored>(&mut self, pool: &Pool, layers: &[arch::Layer], copies: &[BlockCopy]) {
        let (block, begins) = (self.block, &self.layers);
        let data = Disjoint::<E>::new(bytemuck::cast_slice_mut(self.memory.bytes_mut()));
        pool.ranges(copies.len() * layers.len(), 1, |parts| {
            for part in parts {
                let (copy, layer) = (copies[part / layers.len()], part % layers.len());
                let a = &layers[layer].attention;
                let of = |block_id: u32| {
                    let begin = block_id as usize * block + begins[layer];
                    begin..begin + layer_len(a)
                };
                // SAFETY: no block is copied to twice, or copied to and from; each part has a layer of its own.
                let (from, to) = unsafe { (data.shared(of(copy.from)), data.slice(of(copy.to))) };
                copy_tokens(width(a), copy.tokens, from, to);
            }
        });
    }

    fn place(&self, layer: usize, a: &Attention) -> Place {
        Place {
            block: self.block,
            first: self.layers[layer],
            head: width(a) * BLOCK,
            heads: a.kv_heads,
        }
    }
}

/// Copies the first `tokens` tokens of a layer's keys and values in a block, and makes the others 0.
fn copy_tokens<E: Stored>(width: usize, tokens: usize, from: &[E], to: &mut [E]) {
    let (from_keys, from_values) = from.split_at(from.len() / 2);
    let (keys, values) = to.split_at_mut(from.len() / 2);
    let (row, copied) = (BLOCK * E::PAIR, tokens * E::PAIR);
    for (to, from) in keys.chunks_exact_mut(row).zip(from_keys.chunks_exact(row)) {
        to[..copied].copy_from_slice(&from[..copied]);
        to[copied..].fill(E::zeroed());
    }
    let (head, whole) = (width * BLOCK, tokens / E::PAIR * E::PAIR * width);
    for (to, from) in values.chunks_exact_mut(head).zip(from_values.chunks_exact(head)) {
        to[..whole].copy_from_slice(&from[..whole]);
        to[whole..].fill(E::zeroed());
        if tokens % E::PAIR > 0 {
            // The last token has the first number of each pair.
            let last = whole..whole + E::PAIR * width;
            let pairs = to[last.clone()].iter_mut().zip(&from[last]);
            pairs.step_by(E::PAIR).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Where a layer lies in the cache, in numbers.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// From a block to the next.
    block: usize,
    /// From the block's begin.
    first: usize,
    /// Of one head's keys.
    head: usize,
    heads: usize,
}

/// One layer of the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer<D> {
    data: D,
    place: Place,
}

impl<'a, E> Layer<&'a [E]> {
    /// The keys of a head in a block.
    #[inline(always)]
    pub(super) fn keys(&self, block: u32, head: usize) -> &'a [E] {
        let Place { block: stride, first, head: len, .. } = self.place;
        &self.data[block as usize * stride + first + head * len..][..len]
    }

    /// The values of a head in a block.
    #[inline(always)]
    pub(super) fn values(&self, block: u32, head: usize) -> &'a [E] {
        self.keys(block, self.place.heads + head)
    }
}

impl<'a, E> Layer<Disjoint<'a, E>> {
    /// The keys of all heads in a block, and the values.
    ///
    /// # Safety
    /// Nobody else has this block of this layer.
    #[inline(always)]
    pub(super) unsafe fn block(&self, block: u32) -> (&'a mut [E], &'a mut [E]) {
        let Place { block: stride, first, head, heads } = self.place;
        let begin = block as usize * stride + first;
        // SAFETY: the caller's promise.
        let all = unsafe { self.data.slice(begin..begin + 2 * heads * head) };
        all.split_at_mut(heads * head)
    }
}
