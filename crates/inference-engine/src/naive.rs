//! The reference device: f32, one thread, written to be read. Every other device is tested against it.

use crate::{
    arch::{Activation, Attention, Layer},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Span, Step},
    weights::Matrix,
};
use inference_core::{CacheDtype, Result};
use std::ops::Range;

/// The reference device. Its cache is f32, whatever is asked for.
#[derive(Debug, Clone)]
pub struct Naive {
    /// Tokens of a cache block; a parameter, so that tests can show that no result depends on it.
    pub block_len: usize,
}

impl Default for Naive {
    fn default() -> Self {
        Self { block_len: 16 }
    }
}

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Mat {
    /// Columns.
    pub cols: usize,
    /// `[rows, cols]`
    pub data: Vec<f32>,
}

impl Mat {
    /// All zero.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { cols, data: vec![0.0; cols * rows] }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }

    fn row_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.data[r * self.cols..][..self.cols]
    }

    fn columns(&self, range: Range<usize>) -> Self {
        let data = (0..self.rows()).flat_map(|r| &self.row(r)[range.clone()]).copied().collect();
        Self { cols: range.len(), data }
    }

    fn gather(&self, rows: impl Iterator<Item = usize>) -> Self {
        Self { cols: self.cols, data: rows.flat_map(|r| self.row(r).iter().copied()).collect() }
    }
}

/// A linear map.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    weight: Mat,
    /// `[out]`
    bias: Option<Vec<f32>>,
}

/// Keys and values of every layer: `[slots, kv_cols]` each.
#[derive(Debug, Clone)]
pub struct Cache(Vec<(Mat, Mat)>);

/// A step and its rotations.
#[derive(Debug, Clone)]
pub struct Started {
    step: Step,
    rotations: Vec<Rotation>,
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rotates every head of `x`, whose rows are those of the step.
fn rotate(mut x: Mat, head_dim: usize, rotation: &Rotation) -> Mat {
    let n = rotation.pairs;
    for r in 0..x.rows() {
        let (cos, sin) = (&rotation.cos[r * n..][..n], &rotation.sin[r * n..][..n]);
        for head in x.row_mut(r).chunks_exact_mut(head_dim) {
            for i in 0..n {
                let (a, b) = (head[i], head[i + n]);
                head[i] = a * cos[i] - b * sin[i];
                head[i + n] = a * sin[i] + b * cos[i];
            }
        }
    }
    x
}

impl Naive {
    /// Where the cache holds the token at `position` of a sequence.
    fn slot(&self, span: &Span, position: usize) -> usize {
        span.blocks[position / self.block_len] as usize * self.block_len + position % self.block_len
    }
}

/// The activation of one number.
pub fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

impl Device for Naive {
    type Tensor = Mat;
    type Linear = Linear;
    type Cache = Cache;
    type Step = Started;
    type Recorded = ();

    fn vector(&self, values: &[f32]) -> Result<Mat> {
        Ok(Mat { cols: values.len(), data: values.to_vec() })
    }

    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Linear> {
        let data = parts.iter().flat_map(Matrix::to_f32).collect();
        Ok(Linear {
            weight: Mat { cols: parts[0].shape()[1], data },
            bias: bias.map(<[f32]>::to_vec),
        })
    }

    fn is_shared(&self, _: &Linear) -> bool {
        false
    }

    fn block_len(&self) -> usize {
        self.block_len
    }

    fn stores(&self, _: CacheDtype) -> bool {
        true
    }

    fn cache(&self, layers: &[Attention], blocks: usize, _: CacheDtype) -> Result<Cache> {
        let slots = || blocks * self.block_len;
        let zeros = |a: &Attention| Mat::zeros(slots(), a.kv_cols());
        Ok(Cache(layers.iter().map(|a| (zeros(a), zeros(a))).collect()))
    }

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<Started> {
        Ok(Started { step: step.clone(), rotations: rotations.to_vec() })
    }

    fn read(&self, x: Mat) -> Result<Vec<f32>> {
        Ok(x.data)
    }

    fn memory(&self) -> Memory {
        Memory { available: 1 << 30, ..Memory::default() }
    }

    fn embed(&self, table: &Linear, scale: f32, step: &Started) -> Result<Mat> {
        let mut y = table.weight.gather(step.step.tokens.iter().map(|&t| t as usize));
        y.data.iter_mut().for_each(|v| *v *= scale);
        Ok(y)
    }

    fn linear(&self, x: &Mat, map: &Linear) -> Result<Mat> {
        let mut y = Mat::zeros(x.rows(), map.weight.rows());
        for r in 0..x.rows() {
            for (o, out) in y.row_mut(r).iter_mut().enumerate() {
                *out = dot(x.row(r), map.weight.row(o)) + map.bias.as_ref().map_or(0.0, |b| b[o]);
            }
        }
        Ok(y)
    }

    fn rms_norm(&self, x: &Mat, weight: &Mat, eps: f32) -> Result<Mat> {
        let mut y = x.clone();
        for group in y.data.chunks_exact_mut(weight.cols) {
            let scale = 1.0 / (dot(group, group) / group.len() as f32 + eps).sqrt();
            for (v, w) in group.iter_mut().zip(&weight.data) {
                *v *= scale * w;
            }
        }
        Ok(y)
    }

    fn append(
        &self,
        qkv: &Mat,
        heads: &Heads<'_, Mat>,
        cache: &mut Cache,
        layer: usize,
        step: &Started,
    ) -> Result<Mat> {
        let (nq, nkv) = (heads.attention.q_cols(), heads.attention.kv_cols());
        let turn = |x: Mat, norm: Option<&Mat>| -> Result<Mat> {
            let x = match norm {
                Some(weight) => self.rms_norm(&x, weight, heads.eps)?,
                None => x,
            };
            Ok(match heads.rope {
                Some(rope) => rotate(x, heads.attention.head_dim, &step.rotations[rope]),
                None => x,
            })
        };
        let q = turn(qkv.columns(0..nq), heads.q_norm)?;
        let k = turn(qkv.columns(nq..nq + nkv), heads.k_norm)?;
        let v = qkv.columns(nq + nkv..nq + 2 * nkv);
        let (keys, values) = &mut cache.0[layer];
        for span in &step.step.spans {
            let first = span.context - span.rows.len();
            for (r, position) in span.rows.clone().zip(first..) {
                keys.row_mut(self.slot(span, position)).copy_from_slice(k.row(r));
                values.row_mut(self.slot(span, position)).copy_from_slice(v.row(r));
            }
        }
        Ok(q)
    }

    fn attend(
        &self,
        q: &Mat,
        cache: &Cache,
        layer: usize,
        attention: &Attention,
        step: &Started,
    ) -> Result<Mat> {
        let (keys, values) = &cache.0[layer];
        let d = attention.head_dim;
        let mut y = Mat::zeros(q.rows(), attention.q_cols());
        for span in &step.step.spans {
            let first = span.context - span.rows.len();
            for (r, position) in span.rows.clone().zip(first..) {
                let oldest = attention.window.map_or(0, |w| (position + 1).saturating_sub(w));
                for h in 0..attention.heads {
                    let shared = h / (attention.heads / attention.kv_heads) * d;
                    let query = &q.row(r)[h * d..][..d];
                    let mut score: Vec<f32> = (oldest..=position)
                        .map(|t| {
                            let key = &keys.row(self.slot(span, t))[shared..][..d];
                            let s = dot(query, key) * attention.scale;
                            attention.softcap.map_or(s, |cap| cap * (s / cap).tanh())
                        })
                        .collect();
                    let max = score.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    score.iter_mut().for_each(|s| *s = (*s - max).exp());
                    let sum: f32 = score.iter().sum();
                    for (s, t) in score.iter().zip(oldest..) {
                        let value = &values.row(self.slot(span, t))[shared..][..d];
                        for (o, v) in y.row_mut(r)[h * d..][..d].iter_mut().zip(value) {
                            *o += s / sum * v;
                        }
                    }
                }
            }
        }
        Ok(y)
    }

    fn copy_blocks(&self, cache: &mut Cache, _: &[Layer], copies: &[BlockCopy]) -> Result<()> {
        for copy in copies {
            let [from, to] = [copy.from, copy.to].map(|block| block as usize * self.block_len);
            for token in 0..copy.tokens {
                for all in cache.0.iter_mut().flat_map(|(keys, values)| [keys, values]) {
                    let row = all.row(from + token).to_vec();
                    all.row_mut(to + token).copy_from_slice(&row);
                }
            }
        }
        Ok(())
    }

    fn gate(&self, x: &Mat, activation: Activation) -> Result<Mat> {
        let n = x.cols / 2;
        let mut y = Mat::zeros(x.rows(), n);
        for r in 0..x.rows() {
            let (gate, up) = x.row(r).split_at(n);
            for ((o, g), u) in y.row_mut(r).iter_mut().zip(gate).zip(up) {
                *o = activate(*g, activation) * u;
            }
        }
        Ok(y)
    }

    fn add(&self, mut x: Mat, y: &Mat) -> Result<Mat> {
        x.data.iter_mut().zip(&y.data).for_each(|(a, b)| *a += b);
        Ok(x)
    }

    fn softcap(&self, mut x: Mat, cap: f32) -> Result<Mat> {
        x.data.iter_mut().for_each(|v| *v = cap * (*v / cap).tanh());
        Ok(x)
    }

    fn wanted_rows(&self, x: &Mat, step: &Started) -> Result<Mat> {
        Ok(x.gather(step.step.wanted_rows()))
    }
}
