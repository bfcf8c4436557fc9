//! `cargo xtask kl`: how far apart the predictions of two models are, over texts.
//!
//! Both go through the contract, so that they may be of any backend: each beginning of a text is a prompt, and what is
//! compared are the logits after it.

use crate::{Result, root};
use inference::{CacheDtype, ClassifyOptions, LoadOptions, TextModel, load_model};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Arguments of `kl`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys of KEY=VALUE: backend, quantise (bits), cache (f32, f16, bf16), threads, exact (true: activations are not rounded).

What 4 bits lose, and what they lose in llama.cpp:
  cargo xtask kl models-fixtures/storyteller models-fixtures/storyteller --b quantise=4
  cargo xtask kl MODEL MODEL/model-q4_0.gguf --b backend=llama_cpp"
)]
pub(crate) struct Args {
    /// The model that is taken for right
    a: PathBuf,
    /// The model that is compared with it; both must read texts as the same tokens
    b: PathBuf,
    /// How to load the first
    #[arg(long = "a", value_name = "KEY=VALUE", value_parser = setting)]
    load_a: Vec<Setting>,
    /// How to load the second
    #[arg(long = "b", value_name = "KEY=VALUE", value_parser = setting)]
    load_b: Vec<Setting>,
    /// One text a line; default: stories that the storyteller can tell
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Only so many texts; the time grows with the square of their length
    #[arg(long, value_name = "N")]
    most: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A load option.
#[derive(Debug, Clone)]
enum Setting {
    Backend(String),
    Quantise(u8),
    Cache(CacheDtype),
    Threads(usize),
    Exact(bool),
}

fn setting(text: &str) -> Result<Setting> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as quantise=4")?;
    let wrong = || format!("{value:?} is nothing for {key}");
    Ok(match key {
        "backend" => Setting::Backend(value.to_owned()),
        "quantise" => Setting::Quantise(value.parse().map_err(|_| wrong())?),
        "threads" => Setting::Threads(value.parse().map_err(|_| wrong())?),
        "cache" => Setting::Cache(value.parse().map_err(|_| wrong())?),
        "exact" => Setting::Exact(value.parse().map_err(|_| wrong())?),
        _ => return Err(format!("{key:?} is none of backend, quantise, cache, threads and exact")),
    })
}

fn options(settings: &[Setting]) -> LoadOptions {
    settings.iter().cloned().fold(LoadOptions::default(), |options, setting| match setting {
        Setting::Backend(name) => options.backend(name),
        Setting::Quantise(bits) => options.quantise(bits),
        Setting::Cache(dtype) => options.cache_dtype(dtype),
        Setting::Threads(threads) => options.threads(threads),
        Setting::Exact(exact) => options.exact_activations(exact),
    })
}

/// Compares, and prints what came out.
pub(crate) fn run(args: &Args) -> Result {
    let stories = || root().join("models-fixtures/storyteller/stories.txt");
    let file = args.texts.clone().unwrap_or_else(stories);
    let texts = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let texts: Vec<_> = texts.lines().filter(|l| !l.trim().is_empty()).collect();
    let texts = &texts[..args.most.unwrap_or(texts.len()).min(texts.len())];
    let load = |path: &Path, settings: &[Setting]| {
        load_model(path, &options(settings)).map_err(|e| e.to_string())
    };
    let (a, b) = (load(&args.a, &args.load_a)?, load(&args.b, &args.load_b)?);
    let found = compare(a.as_ref(), b.as_ref(), texts)?;
    if args.json {
        println!("{}", serde_json::to_string(&found).map_err(|e| e.to_string())?);
    } else {
        print(&found, [a.as_ref(), b.as_ref()]);
    }
    Ok(())
}

fn print(found: &Distance, models: [&dyn TextModel; 2]) {
    println!("{} texts, {} tokens predicted", found.texts, found.positions);
    for (name, model, perplexity) in
        [("A", models[0], found.perplexity_a), ("B", models[1], found.perplexity_b)]
    {
        let info = model.info();
        let bits = info.quantisation.map_or("dense".to_owned(), |q| format!("{} bit", q.bits));
        println!(
            "{name}  perplexity {perplexity:.4}  {} {}, {bits}",
            info.backend, info.architecture
        );
    }
    println!("KL(A‖B) {:.3e} nats a token, at most {:.3e}", found.kl, found.kl_most);
    println!("the most likely token is the same in {:.2} %", 100.0 * found.same_best);
}

/// How far apart the predictions of two models are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Distance {
    texts: usize,
    /// Tokens that were predicted.
    positions: usize,
    /// Of the texts' own tokens.
    perplexity_a: f64,
    perplexity_b: f64,
    /// Mean of `Σ a · ln(a / b)` over the vocabulary, nats a token.
    kl: f64,
    /// The largest of any token.
    kl_most: f64,
    /// Share of the tokens for which both models have the same best guess.
    same_best: f64,
}

/// # Errors
/// The models read a text as different tokens, or don't have the same vocabulary; their own.
fn compare(a: &dyn TextModel, b: &dyn TextModel, texts: &[&str]) -> Result<Distance> {
    let (mut nats, mut kl, mut kl_most) = ([0.0; 2], 0.0, 0.0f64);
    let (mut positions, mut same) = (0usize, 0usize);
    for text in texts {
        let places = places(a, b, text)?;
        let prompts: Vec<_> = places.iter().map(|(prompt, _)| prompt.as_str()).collect();
        let (of_a, of_b) = (logits(a, &prompts)?, logits(b, &prompts)?);
        for ((p, q), (_, next)) in of_a.iter().zip(&of_b).zip(&places) {
            if p.len() != q.len() {
                return Err(format!("vocabularies of {} and {}", p.len(), q.len()));
            }
            let (lp, lq) = (log_softmax(p), log_softmax(q));
            nats[0] -= lp[*next as usize];
            nats[1] -= lq[*next as usize];
            let here: f64 = lp.iter().zip(&lq).map(|(p, q)| p.exp() * (p - q)).sum();
            kl += here;
            kl_most = kl_most.max(here);
            same += usize::from(best(&lp) == best(&lq));
        }
        positions += places.len();
    }
    if positions == 0 {
        return Err("there is no token to predict: the texts are too short".to_owned());
    }
    let n = positions as f64;
    let [perplexity_a, perplexity_b] = nats.map(|nats| (nats / n).exp());
    let same_best = same as f64 / n;
    let texts = texts.len();
    Ok(Distance { texts, positions, perplexity_a, perplexity_b, kl: kl / n, kl_most, same_best })
}

/// The beginnings of a text and the token that follows each. Those that would be read as other tokens are left out.
fn places(a: &dyn TextModel, b: &dyn TextModel, text: &str) -> Result<Vec<(String, u32)>> {
    let read = |model: &dyn TextModel, text: &str| model.tokenise(text).map_err(|e| e.to_string());
    let ids = read(a, text)?;
    if read(b, text)? != ids {
        return Err(format!("the models read {text:?} as different tokens"));
    }
    let mut places = Vec::new();
    for n in 1..ids.len() {
        let beginning = a.detokenise(&ids[..n]).map_err(|e| e.to_string())?;
        if !beginning.is_empty() && read(a, &beginning)? == ids[..n] {
            places.push((beginning, ids[n]));
        }
    }
    Ok(places)
}

/// What each prompt's last position gives.
fn logits(model: &dyn TextModel, prompts: &[&str]) -> Result<Vec<Box<[f32]>>> {
    let options = ClassifyOptions::default().return_logits(true);
    let found = model.classify(prompts, &options).into_iter();
    let of = |result: inference::Result<inference::Classification>| {
        let token = result.map_err(|e| e.to_string())?.token;
        token.logits.ok_or_else(|| "the backend gives no logits".to_owned())
    };
    found.map(of).collect()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|l| f64::from(*l) - f64::from(most));
    let sum: f64 = shifted.clone().map(f64::exp).sum();
    shifted.map(|l| l - sum.ln()).collect()
}

fn best(all: &[f64]) -> Option<usize> {
    (0..all.len()).max_by(|&i, &j| all[i].total_cmp(&all[j]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[&str]) -> Box<dyn TextModel> {
        let settings: Vec<_> = settings.iter().map(|s| setting(s).unwrap()).collect();
        load_model(root().join("models-fixtures/storyteller"), &options(&settings)).unwrap()
    }

    #[test]
    fn a_model_is_itself_and_fewer_bits_are_farther_away() {
        let stories =
            fs::read_to_string(root().join("models-fixtures/storyteller/stories.txt")).unwrap();
        let texts: Vec<_> = stories.lines().take(3).collect();
        let dense = load(&["cache=f32"]);
        let to =
            |settings: &[&str]| compare(dense.as_ref(), load(settings).as_ref(), &texts).unwrap();
        let same = to(&["cache=f32", "threads=1"]);
        assert_eq!((same.kl, same.same_best), (0.0, 1.0));
        assert_eq!(same.perplexity_a, same.perplexity_b);
        // It was trained on such texts: of a thousand tokens hardly two are to be expected.
        assert!(same.positions > 200 && same.perplexity_a > 1.0 && same.perplexity_a < 3.0);
        let bits = ["quantise=8", "quantise=4", "quantise=2"].map(|q| to(&["cache=f32", q]).kl);
        assert!(bits[0] > 0.0 && bits[0] < 0.01, "{bits:?}");
        assert!(bits.is_sorted() && bits[2] > 10.0 * bits[0], "{bits:?}");
    }

    #[test]
    fn probabilities_sum_to_one() {
        let p = log_softmax(&[1000.0, 999.0, -1e30]);
        assert!((p.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[0] - p[1] - 1.0).abs() < 1e-9);
        assert_eq!(best(&p), Some(0));
    }

    #[test]
    fn settings_are_read() {
        for text in ["quantise=4", "backend=cpu", "cache=bf16", "threads=2", "exact=true"] {
            assert!(setting(text).is_ok(), "{text}");
        }
        for text in ["quantise", "quantise=four", "cache=f8", "exact=yes", "speed=1"] {
            assert!(setting(text).is_err(), "{text}");
        }
    }
}
