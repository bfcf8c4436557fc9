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
/// [`Stored::PAIR`] of [`Kept::Number`]: a vector holds as many keys as it has lanes, or as many columns of values.
/// Behind each of both are the scales of its tokens, where it has scales.
pub struct Cache {
    memory: Memory,
    dtype: CacheDtype,
    /// Items of a block: numbers, and what scales take of as many bytes.
    block: usize,
    /// Where each layer begins in a block, in items.
    layers: Vec<usize>,
}

/// What keys and values are kept as.
pub(super) trait Kept: Pod + Send + Sync {
    /// What they are multiplied as.
    type Number: Stored;
    /// Items behind a head's numbers of a block: the scales of its tokens. Then they must be widened.
    const SCALES: usize;

    /// Writes a token's key of a head into a block: `piece` is all of the head's keys, `to` the token's place, and
    /// `room` has as many numbers as the key, up to the width.
    fn write_key(piece: &mut [Self], width: usize, to: usize, key: &[f32], room: &mut [f32]);

    /// Writes a token's values of a head, likewise.
    fn write_values(piece: &mut [Self], width: usize, to: usize, v: &[f32], room: &mut [f32]);

    /// A head's keys of a block as numbers: where they lie, or widened into `room`, which has room for `width · BLOCK`.
    ///
    /// # Safety
    /// The machine has the features of `S`.
    unsafe fn keys<S: Simd>(piece: &[Self], room: *mut Self::Number) -> *const Self::Number;

    /// A head's values of a block, likewise.
    ///
    /// # Safety
    /// The machine has the features of `S`.
    unsafe fn values<S: Simd>(piece: &[Self], room: *mut Self::Number) -> *const Self::Number;
}

impl<E: Stored> Kept for E {
    type Number = E;
    const SCALES: usize = 0;

    #[inline(always)]
    fn write_key(piece: &mut [E], width: usize, to: usize, key: &[f32], room: &mut [f32]) {
        let stored = &mut bytemuck::cast_slice_mut::<f32, E>(room)[..width];
        stored[key.len()..].fill(E::zeroed());
        narrow(key, stored);
        if E::PAIR == 2 {
            let (keys, pairs) = (pairs_mut(piece), pairs_mut(stored));
            for (to, pair) in keys[to..].iter_mut().step_by(BLOCK).zip(pairs) {
                *to = *pair;
            }
        } else {
            for (to, x) in piece[to..].iter_mut().step_by(BLOCK).zip(stored) {
                *to = *x;
            }
        }
    }

    #[inline(always)]
    fn write_values(piece: &mut [E], width: usize, to: usize, v: &[f32], room: &mut [f32]) {
        let values = &mut piece[to / E::PAIR * E::PAIR * width..][..E::PAIR * width];
        if E::PAIR == 2 {
            let stored = &mut bytemuck::cast_slice_mut::<f32, E>(room)[..v.len()];
            narrow(v, stored);
            let shift = to % 2 * 16;
            let bits = bytemuck::cast_slice::<E, u16>(stored);
            for (to, x) in pairs_mut(values).iter_mut().zip(bits) {
                *to = *to & !(0xffff << shift) | u32::from(*x) << shift;
            }
        } else {
            narrow(v, values);
        }
    }

    #[inline(always)]
    unsafe fn keys<S: Simd>(piece: &[E], _: *mut E) -> *const E {
        piece.as_ptr()
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(piece: &[E], _: *mut E) -> *const E {
        piece.as_ptr()
    }
}

/// Rounds numbers.
#[inline(always)]
fn narrow<E: Stored>(from: &[f32], to: &mut [E]) {
    for (to, x) in to.iter_mut().zip(from) {
        *to = E::from_f32(*x);
    }
}

/// Pairs of bf16, each of which is the lower and the upper half of a number.
#[inline(always)]
fn pairs_mut<E: Stored>(of: &mut [E]) -> &mut [u32] {
    bytemuck::cast_slice_mut(of)
}

/// How a type of number is multiplied.
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

/// Items of a head's keys in a block, and of its values.
fn piece(a: &Attention, dtype: CacheDtype) -> usize {
    width(a) * BLOCK + if dtype == CacheDtype::Int8 { <i8 as Kept>::SCALES } else { 0 }
}

/// Items of a layer in a block.
fn layer_len(a: &Attention, dtype: CacheDtype) -> usize {
    2 * a.kv_heads * piece(a, dtype)
}

/// Bytes of an item.
fn size(dtype: CacheDtype) -> usize {
    match dtype {
        CacheDtype::F32 => 4,
        CacheDtype::Int8 => 1,
        _ => 2,
    }
}

impl Cache {
    /// Bytes of a block.
    pub(crate) fn block_bytes(layers: &[Attention], dtype: CacheDtype) -> u64 {
        let items: usize = layers.iter().map(|a| layer_len(a, dtype)).sum();
        (items * size(dtype)) as u64
    }

    /// Whether there are kernels for this type.
    pub(crate) fn stores(dtype: CacheDtype) -> bool {
        use CacheDtype::{Bf16, F16, F32, Int8};
        matches!(dtype, F32 | F16 | Bf16 | Int8)
    }

    /// A cache of `blocks` blocks, all zero. Its memory is touched only as blocks are used.
    pub(crate) fn new(layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Self> {
        if !Self::stores(dtype) {
            return Err(Error::unsupported(format!("cache_dtype {dtype:?}"), "cpu"));
        }
        let mut block = 0;
        let mut begin = |a: &Attention| {
            block += layer_len(a, dtype);
            block - layer_len(a, dtype)
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
    pub(super) fn layer<E: Kept>(&self, layer: usize, a: &Attention) -> Layer<&[E]> {
        let data = bytemuck::cast_slice(self.memory.bytes());
        Layer { data, place: self.place(layer, a) }
    }

    /// One layer, to be written; `E` as above.
    pub(super) fn layer_mut<E: Kept>(
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
            CacheDtype::Int8 => self.copy_as::<i8>(pool, layers, copies),
            _ => self.copy_as::<bf16>(pool, layers, copies),
        }
    }

    fn copy_as<E: Kept>(&mut self, pool: &Pool, layers: &[arch::Layer], copies: &[BlockCopy]) {
        let (block, begins, dtype) = (self.block, &self.layers, self.dtype);
        let data = Disjoint::<E>::new(bytemuck::cast_slice_mut(self.memory.bytes_mut()));
        pool.ranges(copies.len() * layers.len(), 1, |parts| {
            for part in parts {
                let (copy, layer) = (copies[part / layers.len()], part % layers.len());
                let a = &layers[layer].attention;
                let of = |block_id: u32| {
                    let begin = block_id as usize * block + begins[layer];
                    begin..begin + layer_len(a, dtype)
                };
                // SAFETY: no block is copied to twice, or copied to and from; each part has a layer of its own.
                let (from, to) = unsafe { (data.shared(of(copy.from)), data.slice(of(copy.to))) };
                copy_tokens(a, copy.tokens, from, to);
            }
        });
    }

    fn place(&self, layer: usize, a: &Attention) -> Place {
        Place {
            block: self.block,
            first: self.layers[layer],
            head: piece(a, self.dtype),
            heads: a.kv_heads,
        }
    }
}

/// Copies the first `tokens` tokens of a layer's keys and values in a block, and makes the others 0.
fn copy_tokens<E: Kept>(a: &Attention, tokens: usize, from: &[E], to: &mut [E]) {
    let (pair, numbers) = (E::Number::PAIR, width(a) * BLOCK);
    let piece = numbers + E::SCALES;
    for (i, (to, from)) in to.chunks_exact_mut(piece).zip(from.chunks_exact(piece)).enumerate() {
        let ((to, to_scales), (from, scales)) = (to.split_at_mut(numbers), from.split_at(numbers));
        let copied = E::SCALES / BLOCK * tokens;
        to_scales[..copied].copy_from_slice(&scales[..copied]);
        to_scales[copied..].fill(E::zeroed());
        if i < a.kv_heads {
            let (row, copied) = (BLOCK * pair, tokens * pair);
            for (to, from) in to.chunks_exact_mut(row).zip(from.chunks_exact(row)) {
                to[..copied].copy_from_slice(&from[..copied]);
                to[copied..].fill(E::zeroed());
            }
            continue;
        }
        let whole = tokens / pair * pair * width(a);
        to[..whole].copy_from_slice(&from[..whole]);
        to[whole..].fill(E::zeroed());
        if !tokens.is_multiple_of(pair) {
            // The last token has the first number of each pair.
            let last = whole..whole + pair * width(a);
            let pairs = to[last.clone()].iter_mut().zip(&from[last]);
            pairs.step_by(pair).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Where a layer lies in the cache, in items.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// From a block to the next.
    block: usize,
    /// From the block's begin.
    first: usize,
    /// Of one head's keys, with their scales.
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
