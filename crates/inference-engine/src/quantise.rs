//! From a dense checkpoint to a quantised one, as `mlx_lm` writes and loads it
//! (<https://github.com/ml-explore/mlx-lm>).

mod layout;
mod target;
mod texts;

use self::{
    layout::{Item, Layout, Shard},
    target::Target,
};
use crate::{
    arch::Architecture,
    config::Config,
    decoder::Source,
    families,
    weights::{Matrix, Quantising, SafeTensors, Weights, Writer},
};
use inference_core::{Discovered, Error, Progress, QuantiseOptions, Result, discover};
use serde_json::{Map, json};
use std::{cell::Cell, path::Path, thread};

/// Most bytes of a file, as `mlx_lm` has it.
const SHARD: u64 = 5 << 30;

/// Quantises the checkpoint in the folder `from`, whose weights are f32, f16 or bf16, into the folder `to`, which is
/// made if it is not there. Embedding and head are quantised too; norms, biases, and what the text part of the model
/// does not use stay as they are. Small files are copied. Says what is there then.
///
/// Never holds more than one matrix. Whatever ends it early, `to` holds no model that was not there before.
///
/// # Errors
/// An invalid option; anything wrong with the checkpoint; one that is quantised already, or holds numbers that are not
/// finite; a `to` that is not empty, unless it may be overwritten; [`Error::Cancelled`]; [`Error::Io`].
pub fn quantise(from: &Path, to: &Path, options: &QuantiseOptions) -> Result<Discovered> {
    run(from, to, options, SHARD)
}

fn run(from: &Path, to: &Path, options: &QuantiseOptions, limit: u64) -> Result<Discovered> {
    options.validate()?;
    let config = Config::open(from)?;
    let family = families::find(config.model_type()?)?;
    let architecture = (family.describe)(&config)?;
    if config.quantisation()?.is_some() {
        let reason = "its weights are quantised already; only dense ones can be";
        return Err(Error::file(from.join("config.json"), reason));
    }
    let tensors = SafeTensors::open(from)?;
    let source = Source {
        weights: &tensors,
        names: &family.names,
        norm_offset: family.norm_offset,
        path: from,
        progress: &|_| (),
    };
    let weights = plan(&source, &architecture, options)?;
    let layout = Layout::new(&tensors, &source, &weights)?;
    let mut target = Target::open(to, from, options.overwrite)?;
    write_weights(&tensors, &weights, &layout, &mut target, options, limit)?;
    texts::copy(from, &mut target)?;
    let text = texts::config(config.into_fields(), &layout, options);
    target.write("config.json", text.map_err(|e| Error::file(from, e))?.as_bytes())?;
    target.finish()?;
    let found = discover(to)?.into_iter().next();
    found.ok_or_else(|| Error::file(to, "what was written is gone"))
}

/// The checkpoint with its matrices quantised as `options` ask for; all that a decoder needs must be there.
fn plan<'a>(
    source: &Source<'a>,
    architecture: &Architecture,
    options: &QuantiseOptions,
) -> Result<Quantising<'a>> {
    let ends = [source.embedding(), source.head()];
    let mut modules = Vec::new();
    for module in source.modules(architecture) {
        // A matrix that is missing would be missing ever after.
        source.weights.kind(&module)?;
        let own = options.embedding_bits.filter(|_| ends.contains(&module));
        modules.push((module, own.unwrap_or(options.bits)));
    }
    let threads = || thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(threads);
    Quantising::new(source.weights, source.path, modules, options.group_size, threads)
}

/// Writes all tensors, and the list of which is where.
fn write_weights(
    tensors: &SafeTensors,
    weights: &Quantising<'_>,
    layout: &Layout,
    target: &mut Target,
    options: &QuantiseOptions,
    limit: u64,
) -> Result<()> {
    let shards = layout.shards(tensors, limit);
    let entries = || shards.iter().flatten().flat_map(|s| &s.entries);
    let total = entries().map(|e| e.bytes).sum();
    let done = Cell::new(0);
    let progress = |bytes: &[u8]| {
        done.set(done.get() + bytes.len() as u64);
        if let Some(progress) = &options.progress {
            progress(Progress { done: done.get(), total });
        }
    };
    let mut files = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let all: Vec<_> = shard.iter().flat_map(|s| &s.entries).cloned().collect();
        let mut writer = Writer::create(&target.begin(&name), &all)?;
        let mut next = 0;
        for Shard { item, entries } in shard {
            if options.cancel.as_ref().is_some_and(|c| c.is_cancelled()) {
                return Err(Error::Cancelled);
            }
            write_item(item, tensors, weights, |bytes| {
                writer.write(next, bytes)?;
                next += 1;
                progress(bytes);
                Ok(())
            })?;
            files.extend(entries.iter().map(|e| (e.name.clone(), name.as_str().into())));
        }
        writer.finish()?;
    }
    files.sort_keys();
    let metadata = json!({ "total_size": total, "total_parameters": weights.parameters() });
    let index = json!({ "metadata": metadata, "weight_map": files });
    target.write("model.safetensors.index.json", format!("{index:#}\n").as_bytes())
}

/// Hands what `item` is written as to `write`, in the order of its entries, and lets the memory of its source go.
fn write_item(
    item: &Item,
    tensors: &SafeTensors,
    weights: &Quantising<'_>,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match item {
        Item::Copy(name) => {
            let part = tensors.needed(name)?;
            write(part.bytes())?;
            part.release();
            Ok(())
        }
        Item::Quantise(module, _) => match weights.matrix(module)? {
            Matrix::Affine(made) => {
                write(made.q())?;
                write(&made.scales().bytes)?;
                write(&made.biases().bytes)
            }
            Matrix::Dense(_) => unreachable!("it was planned to be quantised"),
        },
    }
}

#[cfg(test)]
mod tests;
