//! `cargo xtask make-model`: a checkpoint of a real shape with random weights, to measure with.

mod shapes;
mod tokenizer;
mod weights;

use crate::Result;
use serde_json::{Value, json};
use std::{fs, path::Path, path::PathBuf};
use weights::Dtype;
use xtask::gguf;

pub(crate) use shapes::Shape;
pub(crate) use weights::hash;

/// Arguments of `make-model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shape
    #[arg(value_enum)]
    shape: Shape,
    /// The folder to write; made if it is not there
    dir: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// Fewer or more layers than the real one
    #[arg(long)]
    layers: Option<usize>,
    /// The same seed gives the same weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the same weights to DIR/model-TYPE.gguf, for llama.cpp
    #[arg(long, value_enum, value_name = "TYPE")]
    gguf: Option<gguf::Type>,
}

/// Writes the folder.
pub(crate) fn run(args: &Args) -> Result {
    make(args).map_err(|e| format!("{}: {e}", args.dir.display()))?;
    eprintln!("wrote {} with random weights to {}", args.shape.name(), args.dir.display());
    match args.gguf {
        Some(ty) => {
            let out = args.dir.join(format!("model-{}.gguf", ty.name()));
            gguf::convert_aloud(&args.dir, &out, ty)
        }
        None => Ok(()),
    }
}

fn make(args: &Args) -> std::io::Result<()> {
    let (shape, dir) = (args.shape, args.dir.as_path());
    fs::create_dir_all(dir)?;
    let special = shape.special();
    let config = shape.config(args.layers, args.dtype.name());
    let context = config["max_position_embeddings"].as_u64().unwrap_or_default();
    let generation = json!({
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": special.end.0,
    });
    write(dir, "config.json", &config, true)?;
    write(dir, "generation_config.json", &generation, true)?;
    write(dir, "tokenizer_config.json", &tokenizer::tokenizer_config(&special, context), true)?;
    write(dir, "tokenizer.json", &tokenizer::tokenizer(shape.vocab(), &special), false)?;
    let tensors = shape.tensors(args.layers);
    weights::write(&dir.join("model.safetensors"), &tensors, args.dtype, shape.norm(), args.seed)
}

fn write(dir: &Path, name: &str, value: &Value, pretty: bool) -> std::io::Result<()> {
    let text = if pretty { format!("{value:#}\n") } else { value.to_string() };
    fs::write(dir.join(name), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn tiny(dtype: Dtype, seed: u64) -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let args = Args {
            shape: Shape::Tiny,
            dir: path.clone(),
            dtype,
            layers: Some(1),
            seed,
            gguf: None,
        };
        make(&args).unwrap();
        let bytes = fs::read(path.join("model.safetensors")).unwrap();
        (dir, bytes)
    }

    #[test]
    fn the_checkpoint_loads_back() {
        let (dir, bytes) = tiny(Dtype::F32, 1);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), 1 + 11 + 1);
        let values = |name: &str| -> Vec<f32> {
            let data = tensors.tensor(name).unwrap().data().to_vec();
            data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        assert!(values("model.norm.weight").iter().all(|w| *w == 1.0));
        let weights = values("model.embed_tokens.weight");
        let n = weights.len() as f32;
        let mean = weights.iter().sum::<f32>() / n;
        let deviation = (weights.iter().map(|w| (w - mean).powi(2)).sum::<f32>() / n).sqrt();
        assert!(mean.abs() < 1e-3 && (deviation - 0.02).abs() < 1e-3, "{mean} {deviation}");
        let found = inference::discover(dir.path()).unwrap();
        assert_eq!((found.len(), found[0].model_type.as_str()), (1, "qwen3"));
    }

    #[test]
    fn the_seed_decides_and_the_dtypes_agree() {
        assert_eq!(tiny(Dtype::Bf16, 7).1, tiny(Dtype::Bf16, 7).1);
        assert_ne!(tiny(Dtype::Bf16, 7).1, tiny(Dtype::Bf16, 8).1);
        let (f32s, bf16s) = (tiny(Dtype::F32, 7).1, tiny(Dtype::Bf16, 7).1);
        let [a, b] = [&f32s, &bf16s].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        let name = "model.layers.0.mlp.down_proj.weight";
        let (a, b) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
        for (f, h) in a.data().chunks_exact(4).zip(b.data().chunks_exact(2)) {
            let f = f32::from_le_bytes(f.try_into().unwrap());
            let h = half::bf16::from_le_bytes(h.try_into().unwrap()).to_f32();
            assert!((f - h).abs() <= f.abs() / 128.0, "{f} {h}");
        }
    }
}
