//! Launches of attention, and of what comes before it.

use super::{
    Buffer::{Read, Write},
    Kernels, Launcher, Library, Stored, arguments,
};
use crate::{
    attention::BLOCK,
    operations::{Append, Attend, Layer},
};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// Heads that a threadgroup of `attend` takes together.
const HEADS: usize = 8;

pub(super) fn library(layer: &Layer) -> Result<Library> {
    Ok(Library::Attention(Stored::of(layer.keys.dtype())?))
}

fn told(attend: &Attend<'_>, row0: usize, splits: usize) -> arguments::Attend {
    let a = attend.attention;
    arguments::Attend {
        table_len: attend.step.layout.table_len as u32,
        row0: row0 as u32,
        splits: splits as u32,
        heads: a.heads as u32,
        kv_heads: a.kv_heads as u32,
        dim: a.head_dim as u32,
        width: attend.layer.width as u32,
        block: BLOCK as u32,
        scale: a.scale,
        cap: a.softcap.unwrap_or(0.0),
        window: a.window.unwrap_or(0) as u32,
    }
}

impl<L: Launcher> Kernels<L> {
    pub(super) fn append_heads(&self, append: &Append<'_>) -> Result<()> {
        let Append { q, layer, qkv, q_norm, k_norm, eps, rope, attention, step } = *append;
        let (rows, _) = qkv.dims2()?;
        let (pairs, cosines, sines) = step.rotation(rope)?;
        let [positions, sequences, tables] = step.paging()?;
        let buffers = [
            Write(q),
            Write(&layer.keys),
            Write(&layer.values),
            Read(qkv),
            Read(q_norm.unwrap_or(qkv)),
            Read(k_norm.unwrap_or(qkv)),
            Read(&cosines),
            Read(&sines),
            Read(&positions),
            Read(&sequences),
            Read(&tables),
        ];
        let arguments = arguments::Append {
            table_len: step.layout.table_len as u32,
            rows: rows as u32,
            heads: attention.heads as u32,
            kv_heads: attention.kv_heads as u32,
            dim: attention.head_dim as u32,
            width: layer.width as u32,
            pairs: pairs as u32,
            block: BLOCK as u32,
            eps,
            norms: u32::from(q_norm.is_some()) + 2 * u32::from(k_norm.is_some()),
        };
        let waves = rows * (attention.heads + 2 * attention.kv_heads);
        let grid = [waves.div_ceil(4), 1, 1];
        self.run((library(layer)?, "append"), &buffers, &arguments, grid, 128)
    }

    pub(super) fn copy(&self, layer: &Layer, copies: &Tensor) -> Result<()> {
        let Layer { keys, values, kv_heads, width } = layer;
        let arguments = arguments::Copies {
            kv_heads: *kv_heads as u32,
            block: BLOCK as u32,
            width: *width as u32,
        };
        let buffers = [Write(keys), Write(values), Read(copies)];
        let grid = [copies.elem_count() / 3, *kv_heads, 2];
        self.run((library(layer)?, "copy_blocks"), &buffers, &arguments, grid, 128)
    }

    pub(super) fn attend_rows(
        &self,
        attend: &Attend<'_>,
        rows: Range<usize>,
        splits: usize,
    ) -> Result<()> {
        let Attend { y, q, layer, attention: a, step } = *attend;
        let [positions, sequences, tables] = step.paging()?;
        // The parts of a head, with their largest score and their sum.
        let part = layer.width + 2;
        let room = (splits > 1).then(|| self.0.room(rows.len() * a.heads * splits, part));
        let room = room.transpose()?;
        let partial = room.as_ref().unwrap_or(y);
        let arguments = told(attend, rows.start, splits);
        let buffers = [
            Write(y),
            Write(partial),
            Read(q),
            Read(&layer.keys),
            Read(&layer.values),
            Read(&positions),
            Read(&sequences),
            Read(&tables),
        ];
        let library = library(layer)?;
        let chunks = (a.heads / a.kv_heads).div_ceil(HEADS);
        let grid = [rows.len(), a.kv_heads * chunks, splits];
        self.run((library, "attend"), &buffers, &arguments, grid, 128)?;
        if splits > 1 {
            let buffers = [Write(y), Read(partial), Read(&positions)];
            self.run((library, "merge"), &buffers, &arguments, [rows.len(), a.heads, 1], 128)?;
        }
        Ok(())
    }

    pub(super) fn attend_tiles(
        &self,
        attend: &Attend<'_>,
        tiles: &Tensor,
        count: usize,
    ) -> Result<()> {
        let Attend { y, q, layer, attention: a, step } = *attend;
        let [positions, sequences, tables] = step.paging()?;
        let (name, threads) = match layer.width {
            0..=64 => ("flash_64", 128),
            65..=128 => ("flash_128", 128),
            _ => ("flash_256", 64),
        };
        let buffers = [
            Write(y),
            Read(q),
            Read(&layer.keys),
            Read(&layer.values),
            Read(tiles),
            Read(&positions),
            Read(&sequences),
            Read(&tables),
        ];
        let arguments = told(attend, 0, 1);
        self.run((library(layer)?, name), &buffers, &arguments, [count, a.heads, 1], threads)
    }
}
