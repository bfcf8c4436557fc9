//! The forward pass of every decoder, on every device, with every weight format.

use crate::{
    arch::{Architecture, Layer},
    device::{Device, Heads},
    families::Names,
    step::{Rotation, Step},
    weights::{Matrix, RawTensor, Weights},
};
use inference_core::{Error, Result};
use std::path::Path;

/// A decoder whose parameters are on a device.
#[derive(Debug)]
pub struct Decoder<D: Device> {
    architecture: Architecture,
    embed: D::Linear,
    /// `None`: the embedding. A checkpoint that stores a head means it, whatever `tie_word_embeddings` says.
    head: Option<D::Linear>,
    norm: D::Tensor,
    blocks: Vec<Block<D>>,
    recorded: D::Recorded,
}

/// One layer's parameters. What is optional, the checkpoint has or has not.
#[derive(Debug)]
struct Block<D: Device> {
    attn_norm: D::Tensor,
    /// Queries, keys and values, stacked.
    qkv: D::Linear,
    q_norm: Option<D::Tensor>,
    k_norm: Option<D::Tensor>,
    out: D::Linear,
    attn_post_norm: Option<D::Tensor>,
    ffn_norm: D::Tensor,
    /// Gate and up, stacked.
    gate_up: D::Linear,
    down: D::Linear,
    ffn_post_norm: Option<D::Tensor>,
}

/// A checkpoint, seen through the names of its family.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The tensors.
    pub weights: &'a dyn Weights,
    /// What they are called.
    pub names: &'a Names,
    /// Added to every norm's weight.
    pub norm_offset: f32,
    /// Where they are, for messages.
    pub path: &'a Path,
    /// Told how many bytes of each map have been placed.
    pub progress: &'a dyn Fn(u64),
}

impl Source<'_> {
    /// Which of `prefixes` makes `name` a tensor of the checkpoint; the first if none does, for the error.
    fn prefix(&self, prefixes: &[&'static str], name: &str) -> &'static str {
        let there = |p: &&&'static str| self.weights.has(&format!("{p}{name}"));
        prefixes.iter().find(there).or(prefixes.first()).copied().unwrap_or_default()
    }

    /// The module of the embedding: how it is stored, most likely the rest is.
    pub(crate) fn embedding(&self) -> String {
        format!("{}{}", self.body(), self.names.embed)
    }

    /// The module of the head, where there is one.
    pub(crate) fn head(&self) -> String {
        format!("{}lm_head", self.prefix(self.names.head, "lm_head.weight"))
    }

    /// What stands before all names but the head's.
    pub(crate) fn body(&self) -> &'static str {
        self.prefix(self.names.prefixes, &format!("{}.weight", self.names.embed))
    }

    /// The modules whose matrices a decoder has: the embedding, the head if it has one, and those of the layers. A
    /// checkpoint that is not whole may lack some.
    pub(crate) fn modules(&self, architecture: &Architecture) -> Vec<String> {
        let Names { qkv, out, gate_up, down, .. } = self.names;
        let mut all = vec![self.embedding()];
        all.extend(self.has_head(architecture).then(|| self.head()));
        for i in 0..architecture.layers.len() {
            let of_layer = qkv.iter().chain([out]).chain(*gate_up).chain([down]);
            all.extend(of_layer.map(|name| format!("{}layers.{i}.{name}", self.body())));
        }
        all
    }

    /// Whether there is, or must be, a head beside the embedding.
    pub(crate) fn has_head(&self, architecture: &Architecture) -> bool {
        architecture.own_head || self.weights.has(&format!("{}.weight", self.head()))
    }

    /// A tensor that must have `shape`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<RawTensor> {
        let raw = self.weights.get(name)?;
        self.check(name, &raw.shape, shape)?;
        (self.progress)(raw.bytes.len() as u64);
        Ok(raw)
    }

    fn check(&self, name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
        if found == wanted {
            return Ok(());
        }
        let reason = format!(
            "tensor `{name}` has shape {found:?}, but the configuration asks for {wanted:?}"
        );
        Err(Error::file(self.path, reason))
    }

    /// A matrix that must have `shape`.
    fn matrix(&self, module: &str, shape: &[usize]) -> Result<Matrix> {
        let matrix = self.weights.matrix(module)?;
        self.check(&format!("{module}.weight"), matrix.shape(), shape)?;
        Ok(matrix)
    }

    fn norm<D: Device>(&self, device: &D, name: &str, len: usize) -> Result<D::Tensor> {
        let mut weight = self.tensor(&format!("{name}.weight"), &[len])?.to_f32();
        weight.iter_mut().for_each(|w| *w += self.norm_offset);
        device.vector(&weight)
    }

    fn norm_if<D: Device>(&self, device: &D, name: &str, len: usize) -> Result<Option<D::Tensor>> {
        let there = self.weights.has(&format!("{name}.weight"));
        there.then(|| self.norm(device, name, len)).transpose()
    }

    /// The stack of `names`, which have `rows` rows each; or one tensor that holds them all already.
    fn linear<D: Device>(
        &self,
        device: &D,
        names: &[String],
        rows: &[usize],
        cols: usize,
    ) -> Result<D::Linear> {
        let whole = [rows.iter().sum()];
        let rows = if names.len() == 1 { &whole } else { rows };
        let mut parts = Vec::new();
        let mut bias = Vec::new();
        for (name, &rows) in names.iter().zip(rows) {
            parts.push(self.matrix(name, &[rows, cols])?);
            let name = format!("{name}.bias");
            if self.weights.has(&name) {
                bias.extend(self.tensor(&name, &[rows])?.to_f32());
            }
        }
        if !bias.is_empty() && bias.len() != rows.iter().sum::<usize>() {
            let reason = format!("some but not all of {} have a bias", names.join(", "));
            return Err(Error::file(self.path, reason));
        }
        let map = device.load_linear(&parts, (!bias.is_empty()).then_some(&bias[..]))?;
        (self.progress)(parts.iter().map(Matrix::bytes).sum());
        if !device.is_shared(&map) {
            names.iter().for_each(|name| self.weights.release(name));
        }
        Ok(map)
    }
}

impl<D: Device> Decoder<D> {
    /// Places a checkpoint's parameters on the device.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape than the architecture asks for; the device's own.
    pub fn load(device: &D, architecture: Architecture, source: Source<'_>) -> Result<Self> {
        let Architecture { vocab, hidden, .. } = architecture;
        let names = source.names;
        let prefix = source.body();

        let embed = source.linear(device, &[source.embedding()], &[vocab], hidden)?;
        let head = source
            .has_head(&architecture)
            .then(|| source.linear(device, &[source.head()], &[vocab], hidden))
            .transpose()?;
        let blocks = architecture
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| Block::load(device, &source, prefix, i, layer, hidden))
            .collect::<Result<_>>()?;
        let norm = source.norm(device, &format!("{prefix}{}", names.norm), hidden)?;
        Ok(Self { embed, head, norm, blocks, architecture, recorded: D::Recorded::default() })
    }

    /// What it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Runs one step; returns the logits of the wanted rows, `[wanted, vocab]`.
    ///
    /// # Errors
    /// The device's own.
    pub fn forward(&self, device: &D, cache: &mut D::Cache, step: &Step) -> Result<D::Tensor> {
        let a = &self.architecture;
        if !step.copies.is_empty() {
            device.copy_blocks(cache, &a.layers, &step.copies)?;
        }
        let rotations: Vec<_> = a.ropes.iter().map(|r| Rotation::new(r, step)).collect();
        let step = &device.begin(step, &rotations)?;
        let mut body = |cache: &mut D::Cache| self.logits(device, cache, step);
        device.run(&self.recorded, cache, step, &mut body)
    }

    /// All operations of a step.
    fn logits(&self, device: &D, cache: &mut D::Cache, step: &D::Step) -> Result<D::Tensor> {
        let a = &self.architecture;
        let mut x = device.embed(&self.embed, a.embed_scale, step)?;
        let mut h = device.rms_norm(&x, self.norm_before(0), a.norm_eps)?;
        for (i, w) in self.blocks.iter().enumerate() {
            h = self.attention(device, i, w, &h, cache, step)?;
            if i + 1 == self.blocks.len() {
                // Only these reach the head; the other rows have left their keys and values, and are done.
                (x, h) = (device.wanted_rows(&x, step)?, device.wanted_rows(&h, step)?);
            }
            (x, h) = self.residual(device, x, &h, &w.out, &w.attn_post_norm, &w.ffn_norm)?;
            h = device.linear_gate(&h, &w.gate_up, a.activation)?;
            let next = self.norm_before(i + 1);
            (x, h) = self.residual(device, x, &h, &w.down, &w.ffn_post_norm, next)?;
        }
        let logits = device.linear(&h, self.head.as_ref().unwrap_or(&self.embed))?;
        match a.logit_softcap {
            Some(cap) => device.softcap(logits, cap),
            None => Ok(logits),
        }
    }

    /// The norm of what goes into layer `i`; after the last, into the head.
    fn norm_before(&self, i: usize) -> &D::Tensor {
        self.blocks.get(i).map_or(&self.norm, |w| &w.attn_norm)
    }

    /// From what goes into layer `i`, normed, to what its heads give.
    fn attention(
        &self,
        device: &D,
        i: usize,
        w: &Block<D>,
        h: &D::Tensor,
        cache: &mut D::Cache,
        step: &D::Step,
    ) -> Result<D::Tensor> {
        let Layer { attention, rope, .. } = &self.architecture.layers[i];
        let heads = Heads {
            attention,
            q_norm: w.q_norm.as_ref(),
            k_norm: w.k_norm.as_ref(),
            eps: self.architecture.norm_eps,
            rope: *rope,
        };
        let qkv = device.linear(h, &w.qkv)?;
        let q = device.append(&qkv, &heads, cache, i, step)?;
        device.attend(&q, cache, i, attention, step)
    }

    /// `x` plus `map` of `h`, which is normed before where there is a post-norm; and the sum, normed for what comes next.
    fn residual(
        &self,
        device: &D,
        x: D::Tensor,
        h: &D::Tensor,
        map: &D::Linear,
        post_norm: &Option<D::Tensor>,
        next: &D::Tensor,
    ) -> Result<(D::Tensor, D::Tensor)> {
        let eps = self.architecture.norm_eps;
        if let Some(weight) = post_norm {
            let h = device.rms_norm(&device.linear(h, map)?, weight, eps)?;
            return device.add_norm(x, &h, next, eps);
        }
        let x = device.linear_add(x, h, map)?;
        let h = device.rms_norm(&x, next, eps)?;
        Ok((x, h))
    }
}

impl<D: Device> Block<D> {
    fn load(
        device: &D,
        source: &Source<'_>,
        prefix: &str,
        i: usize,
        layer: &Layer,
        hidden: usize,
    ) -> Result<Self> {
        let Layer { attention: a, ffn, .. } = layer;
        let names = source.names;
        let name = |n: &str| format!("{prefix}layers.{i}.{n}");
        let all = |ns: &[&str]| ns.iter().map(|n| name(n)).collect::<Vec<_>>();
        let (q, kv) = (a.q_cols(), a.kv_cols());
        let post_norm =
            |norm: Option<&str>| norm.map(|n| source.norm(device, &name(n), hidden)).transpose();
        Ok(Self {
            attn_norm: source.norm(device, &name(names.attn_norm), hidden)?,
            qkv: source.linear(device, &all(names.qkv), &[q, kv, kv], hidden)?,
            q_norm: source.norm_if(device, &name(names.q_norm), a.head_dim)?,
            k_norm: source.norm_if(device, &name(names.k_norm), a.head_dim)?,
            out: source.linear(device, &[name(names.out)], &[hidden], q)?,
            attn_post_norm: post_norm(names.attn_post_norm)?,
            ffn_norm: source.norm(device, &name(names.ffn_norm), hidden)?,
            gate_up: source.linear(device, &all(names.gate_up), &[*ffn, *ffn], hidden)?,
            down: source.linear(device, &[name(names.down)], &[hidden], *ffn)?,
            ffn_post_norm: post_norm(names.ffn_post_norm)?,
        })
    }
}
