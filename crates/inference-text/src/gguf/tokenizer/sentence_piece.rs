//! SentencePiece's BPE with scores and byte fallback, as Llama 2, Mistral, Phi 3 and Gemma have it.
//!
//! SentencePiece, and llama.cpp after it (`llm_tokenizer_spm`), joins the two neighbours whose union has the highest
//! score, again and again. That is a BPE whose merges are all splits of all tokens in two, ordered by the token's score:
//! `generate_merges` in
//! <https://github.com/huggingface/transformers/blob/main/src/transformers/convert_slow_tokenizer.py>.

use super::{Kind, MERGES, Parts, Vocabulary};
use crate::gguf::Gguf;
use inference_core::Result;
use serde_json::{Value, json};
use std::collections::HashMap;

const SCORES: &str = "tokenizer.ggml.scores";

/// Most bytes of a token that is made of others, whose splits are all tried; published ones have less than 100.
const MOST_TOKEN: usize = 512;

/// Most bytes of all merges; those of Gemma's 262,144 tokens have about ten million.
const MOST_MERGES: usize = 256 << 20;

/// What stands for a space.
const SPACE: &str = "▁";

pub(super) fn parts(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    // Both mean the same where both are there; merges are exact even where scores are equal.
    let merges = match gguf.get::<&[String]>(MERGES)? {
        Some(_) => super::byte_level::merges(gguf)?,
        None => merges(gguf, vocabulary)?,
    };
    let prefix = gguf.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let squeezes = gguf.get("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false);
    let unknown =
        vocabulary.iter().find(|(.., kind)| *kind == Kind::Unknown).map(|(_, text, _)| text);

    let replace =
        |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
    let mut normalizers = Vec::new();
    if squeezes {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(replace(json!({"Regex": " {2,}"}), " "));
    }
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    normalizers.push(replace(json!({"String": " "}), SPACE));
    let mut decoders = vec![
        replace(json!({"String": SPACE}), " "),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Parts {
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "merges": merges,
        }),
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        add_bos: true,
        // Which tokens do, a file does not say; llama.cpp knows Phi 3 by its name.
        strips_right: gguf.architecture()? == "phi3",
    })
}

/// The merges that the scores mean, the first first.
fn merges(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Vec<[String; 2]>> {
    let scores = gguf.require::<&[f32]>(SCORES)?;
    if scores.len() != vocabulary.len() {
        let reason = format_args!("has {} numbers for {} tokens", scores.len(), vocabulary.len());
        return Err(gguf.wrong(SCORES, reason));
    }
    if let Some(id) = scores.iter().position(|s| s.is_nan()) {
        return Err(gguf.wrong(SCORES, format_args!("has no number for token {id}")));
    }
    let normal = || vocabulary.iter().filter(|(.., kind)| *kind == Kind::Normal);
    let ids: HashMap<&str, u32> = normal().map(|(id, text, _)| (text, id)).collect();
    let mut merges = Vec::new();
    let mut bytes = 0;
    for (id, text, _) in normal() {
        if text.len() > MOST_TOKEN {
            let reason = format_args!(
                "has {} bytes for token {id}; at most {MOST_TOKEN} are possible",
                text.len()
            );
            return Err(gguf.wrong(super::TOKENS, reason));
        }
        let splits = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let known = splits.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?, l, r)));
        let mut own: Vec<_> = known.collect();
        own.sort_unstable_by_key(|(left, right, ..)| (*left, *right));
        bytes += own.len() * text.len();
        if bytes > MOST_MERGES {
            return Err(gguf.wrong(super::TOKENS, "is made of itself in too many ways"));
        }
        merges
            .extend(own.into_iter().map(|(_, _, left, right)| (scores[id as usize], left, right)));
    }
    let len = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then_with(|| (len(b.1), len(b.2)).cmp(&(len(a.1), len(a.2))))
    });
    Ok(merges.into_iter().map(|(_, left, right)| [left.to_owned(), right.to_owned()]).collect())
}
