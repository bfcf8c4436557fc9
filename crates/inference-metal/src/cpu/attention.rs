//! Norm, rotation and writing of heads, and attention over the cache.

use super::{
    dot, norm,
    operand::{Operand, copy_within, narrow, operand, write},
};
use crate::{
    attention::BLOCK,
    operations::{Append, Attend, Layer},
    step::Started,
};
use candle_core::{Result, Tensor};
use inference_engine::arch::Attention;
use std::ops::Range;

/// Where the cache of a layer holds the tokens of a step's sequences.
struct Slots<'a> {
    places: Operand<'a>,
    sequences: Operand<'a>,
    tables: Operand<'a>,
    table_len: usize,
    kv_heads: usize,
    width: usize,
}

/// Tensors that [`Slots`] reads.
struct Views([Tensor; 3]);

impl Views {
    fn of(step: &Started) -> Result<Self> {
        step.paging().map(Self)
    }

    fn slots(&self, step: &Started, attention: &Attention, layer: &Layer) -> Result<Slots<'_>> {
        let [places, sequences, tables] = &self.0;
        Ok(Slots {
            places: operand(places)?,
            sequences: operand(sequences)?,
            tables: operand(tables)?,
            table_len: step.layout.table_len,
            kv_heads: attention.kv_heads,
            width: layer.width,
        })
    }
}

impl Slots<'_> {
    /// The place of a row in its sequence.
    fn place(&self, row: usize) -> Result<usize> {
        Ok(self.places.words()?[row] as usize)
    }

    /// Where column 0 of a head is, of the token at `place` of the sequence of `row`.
    fn slot(&self, row: usize, place: usize, head: usize) -> Result<usize> {
        let table = self.sequences.words()?[row] as usize * self.table_len;
        let block = self.tables.words()?[table + place / BLOCK] as usize;
        Ok(((block * self.kv_heads + head) * BLOCK + place % BLOCK) * self.width)
    }
}

/// See [`Operations::append`](crate::operations::Operations::append).
pub(super) fn append(a: &Append<'_>) -> Result<()> {
    let Attention { heads, kv_heads, head_dim: dim, .. } = *a.attention;
    let views = Views::of(a.step)?;
    let slots = views.slots(a.step, a.attention, a.layer)?;
    let (pairs, cos, sin) = a.step.rotation(a.rope)?;
    let (cos, sin) = (operand(&cos)?, operand(&sin)?);
    let cos: &[f32] = bytemuck::cast_slice(cos.words()?);
    let sin: &[f32] = bytemuck::cast_slice(sin.words()?);
    let (q_norm, k_norm) = (a.q_norm.map(operand).transpose()?, a.k_norm.map(operand).transpose()?);
    let qkv = operand(a.qkv)?;
    let qkv = qkv.floats()?;
    let all = heads + 2 * kv_heads;
    let rows = qkv.len() / (all * dim);

    // Head `h` of a row, normed and rotated.
    let turned =
        |row: usize, h: usize, weight: &Option<Operand<'_>>, out: &mut [f32]| -> Result<()> {
            let x = &qkv[(row * all + h) * dim..][..dim];
            match weight {
                Some(weight) => norm(x, weight.floats()?, a.eps, out),
                None => out.copy_from_slice(x),
            }
            let rotation = row * pairs..(row + 1) * pairs;
            let (cos, sin) = (&cos[rotation.clone()], &sin[rotation]);
            for i in 0..pairs {
                let (u, v) = (out[i], out[i + pairs]);
                out[i] = u * cos[i] - v * sin[i];
                out[i + pairs] = u * sin[i] + v * cos[i];
            }
            Ok(())
        };
    write(a.q, |q| {
        for (i, q) in q.chunks_exact_mut(dim).enumerate() {
            turned(i / heads, i % heads, &q_norm, q)?;
        }
        Ok(())
    })?;
    let of_cache = || (0..rows).flat_map(|row| (0..kv_heads).map(move |head| (row, head)));
    narrow(&a.layer.keys, |put| {
        let mut key = vec![0.0; a.layer.width];
        for (row, head) in of_cache() {
            turned(row, heads + head, &k_norm, &mut key[..dim])?;
            put(slots.slot(row, slots.place(row)?, head)?, &key);
        }
        Ok(())
    })?;
    narrow(&a.layer.values, |put| {
        let mut value = vec![0.0; a.layer.width];
        for (row, head) in of_cache() {
            value[..dim]
                .copy_from_slice(&qkv[(row * all + heads + kv_heads + head) * dim..][..dim]);
            put(slots.slot(row, slots.place(row)?, head)?, &value);
        }
        Ok(())
    })
}

/// See [`Operations::copy_blocks`](crate::operations::Operations::copy_blocks).
pub(super) fn copy_blocks(layer: &Layer, copies: &Tensor) -> Result<()> {
    let copies = operand(copies)?;
    let head =
        |block: u32, head: usize| (block as usize * layer.kv_heads + head) * BLOCK * layer.width;
    let mut pieces = Vec::new();
    for copy in copies.words()?.chunks_exact(3) {
        let len = copy[2] as usize * layer.width;
        pieces.extend((0..layer.kv_heads).map(|h| (head(copy[0], h), head(copy[1], h), len)));
    }
    copy_within(&layer.keys, &pieces)?;
    copy_within(&layer.values, &pieces)
}

/// See [`Operations::attend`](crate::operations::Operations::attend).
pub(super) fn attend(a: &Attend<'_>, rows: Range<usize>) -> Result<()> {
    rows.into_iter().try_for_each(|row| neighbours(a, row..row + 1))
}

/// See [`Operations::flash`](crate::operations::Operations::flash).
pub(super) fn flash(a: &Attend<'_>, tiles: &Tensor) -> Result<()> {
    let tiles = operand(tiles)?;
    for tile in tiles.words()?.chunks_exact(2) {
        let (row, count) = (tile[0] as usize, tile[1] as usize);
        neighbours(a, row..row + count)?;
    }
    Ok(())
}

/// Attention of rows that follow each other in a sequence.
fn neighbours(a: &Attend<'_>, rows: Range<usize>) -> Result<()> {
    let Attention { heads, kv_heads, head_dim: dim, scale, window, softcap } = *a.attention;
    let views = Views::of(a.step)?;
    let slots = views.slots(a.step, a.attention, a.layer)?;
    let oldest = |place: usize| window.map_or(0, |w| (place + 1).saturating_sub(w));
    let (first, last) = (slots.place(rows.start)?, slots.place(rows.end - 1)?);
    let begin = oldest(first);
    let (keys, values, q) = (operand(&a.layer.keys)?, operand(&a.layer.values)?, operand(a.q)?);
    let q = q.floats()?;
    let group = heads / kv_heads;
    for kv_head in 0..kv_heads {
        // What any of the rows sees, widened.
        let seen = last + 1 - begin;
        let (mut k, mut v) = (vec![0.0; seen * dim], vec![0.0; seen * dim]);
        for (i, (k, v)) in k.chunks_exact_mut(dim).zip(v.chunks_exact_mut(dim)).enumerate() {
            let slot = slots.slot(rows.start, begin + i, kv_head)?;
            keys.widen(slot, k)?;
            values.widen(slot, v)?;
        }
        write(a.y, |y| {
            for row in rows.clone() {
                let place = slots.place(row)?;
                let sees = oldest(place) - begin..place + 1 - begin;
                for head in kv_head * group..(kv_head + 1) * group {
                    let at = (row * heads + head) * dim;
                    let sees = sees.start * dim..sees.end * dim;
                    let (k, v) = (&k[sees.clone()], &v[sees]);
                    one(&q[at..][..dim], k, v, scale, softcap, &mut y[at..][..dim]);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// `softmax(scale · k·q) · v`, the softmax of `cap · tanh(score / cap)` where there is a cap.
fn one(q: &[f32], k: &[f32], v: &[f32], scale: f32, cap: Option<f32>, y: &mut [f32]) {
    let score = |k: &[f32]| {
        let score = dot(q, k) * scale;
        cap.map_or(score, |cap| cap * (score / cap).tanh())
    };
    let mut weights: Vec<f32> = k.chunks_exact(q.len()).map(score).collect();
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.iter_mut().for_each(|w| *w = (*w - max).exp());
    let sum: f32 = weights.iter().sum();
    y.fill(0.0);
    for (w, v) in weights.iter().zip(v.chunks_exact(q.len())) {
        y.iter_mut().zip(v).for_each(|(y, v)| *y += w / sum * v);
    }
}
