//! The tokenizer in a file's metadata, as the `tokenizer.json` that it was made of.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>. Meanings and defaults are llama.cpp's
//! (`llama_vocab::impl::load` in <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>).

mod byte_level;
mod sentence_piece;

#[cfg(test)]
pub(super) use byte_level::names as pre_tokenizers;

use super::{Array, Gguf, Value};
use crate::Tokenizer;
use inference_core::{Error, Result};
use serde_json::{Map, json};
use std::collections::{BTreeMap, HashSet};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// The tokens with a name in templates: their names, and their keys in the file, the first of which that is there
/// counts.
const NAMED: &[(&str, &[&str])] = &[
    ("bos_token", &["tokenizer.ggml.bos_token_id"]),
    ("eos_token", &["tokenizer.ggml.eos_token_id"]),
    ("unk_token", &["tokenizer.ggml.unknown_token_id"]),
    // ggml's own spelling.
    ("sep_token", &["tokenizer.ggml.seperator_token_id", "tokenizer.ggml.separator_token_id"]),
    ("pad_token", &["tokenizer.ggml.padding_token_id"]),
    ("cls_token", &["tokenizer.ggml.cls_token_id"]),
    ("mask_token", &["tokenizer.ggml.mask_token_id"]),
];

/// The key of the token that ends a turn. (`eos_token_id` ends a text, `eom_token_id` a message in a turn.)
const END_OF_TURN: &str = "tokenizer.ggml.eot_token_id";

/// The key of further tokens that end a text.
const EOS_IDS: &str = "tokenizer.ggml.eos_token_ids";

/// The control tokens that end a text in files that don't name an end of turn: many converted ones have only one end
/// token, and llama.cpp goes by these texts.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "<｜end▁of▁sentence｜>",
];

/// The control tokens that don't swallow white space where others do.
const PLAIN: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// What a token is (`llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The tokens of a file, by id.
struct Vocabulary<'a> {
    texts: Vec<&'a str>,
    kinds: Vec<Kind>,
}

/// The parts of a `tokenizer.json` that depend on the kind of tokenizer.
struct Parts {
    /// Without its vocabulary.
    model: serde_json::Value,
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    /// Whether texts begin with a BOS where the file does not say.
    add_bos: bool,
    /// Whether control tokens swallow the white space behind them.
    strips_right: bool,
}

impl Tokenizer {
    /// The tokenizer of a GGUF file: byte-level BPE (`gpt2`) and SentencePiece's BPE (`llama`).
    ///
    /// # Errors
    /// [`Error::InvalidFile`] with the key for one that is missing or damaged, for another kind of tokenizer, and for a
    /// pre-tokenizer that is not known.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let model = gguf.require::<&str>(MODEL)?;
        let vocabulary = Vocabulary::read(gguf)?;
        let parts = match model {
            "gpt2" => byte_level::parts(gguf)?,
            "llama" => sentence_piece::parts(gguf, &vocabulary)?,
            other => {
                let reason = format_args!("is `{other}`; `gpt2` and `llama` can be read");
                return Err(gguf.wrong(MODEL, reason));
            }
        };
        let named = named(gguf, &vocabulary)?;
        let ends = ends(gguf, &vocabulary, named.get("eos_token").copied())?;
        let post_processor = post_processor(gguf, &vocabulary, &named, parts.add_bos)?;

        let mut model = parts.model;
        let vocab: Map<_, _> =
            vocabulary.known().map(|(id, text)| (text.to_owned(), id.into())).collect();
        model["vocab"] = vocab.into();
        let file = json!({
            "version": "1.0",
            "added_tokens": vocabulary.added(parts.strips_right),
            "normalizer": parts.normalizer,
            "pre_tokenizer": parts.pre_tokenizer,
            "post_processor": post_processor,
            "decoder": parts.decoder,
            "model": model,
        });
        let failed = |reason| Error::file(gguf.path(), format!("its tokenizer: {reason}"));
        let bytes = serde_json::to_vec(&file).map_err(|e| failed(e.to_string()))?;
        let text = |id: u32| serde_json::Value::from(vocabulary.texts[id as usize]);
        let special = named.into_iter().map(|(name, id)| (name.to_owned(), text(id))).collect();
        let path = gguf.path().to_owned();
        Self::parse(&bytes, Map::new(), special, path).map(|t| t.with_ends(ends)).map_err(failed)
    }
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self> {
        let texts = gguf.require::<&[String]>(TOKENS)?;
        let count = texts.len();
        // llama.cpp aborts on both.
        let mut seen = HashSet::with_capacity(count);
        for (id, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err(gguf.wrong(TOKENS, format_args!("has no text for token {id}")));
            }
            if !seen.insert(text.as_str()) {
                return Err(gguf.wrong(TOKENS, format_args!("has `{text}` twice, lastly as {id}")));
            }
        }
        let kinds = match gguf.get::<Vec<u32>>(TYPES)? {
            None => vec![Kind::Normal; count],
            Some(codes) if codes.len() != count => {
                let reason = format_args!("has {} numbers for {count} tokens", codes.len());
                return Err(gguf.wrong(TYPES, reason));
            }
            Some(codes) => {
                let kind = |code| {
                    Kind::from_code(code).ok_or_else(|| {
                        gguf.wrong(TYPES, format_args!("has the unknown type {code}"))
                    })
                };
                codes.into_iter().map(kind).collect::<Result<_>>()?
            }
        };
        Ok(Self { texts: texts.iter().map(String::as_str).collect(), kinds })
    }

    fn len(&self) -> usize {
        self.texts.len()
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &'a str, Kind)> {
        let tokens = self.texts.iter().zip(&self.kinds).zip(0_u32..);
        tokens.map(|((text, kind), id)| (id, *text, *kind))
    }

    /// The tokens that a text may become. Rows at the end that only fill the matrix up have names, but no text.
    fn known(&self) -> impl Iterator<Item = (u32, &'a str)> {
        let filling = self.kinds.iter().rev().take_while(|kind| **kind == Kind::Unused).count();
        self.iter().take(self.len() - filling).map(|(id, text, _)| (id, text))
    }

    /// The tokens that are looked for in a text before anything else.
    fn added(&self, strips_right: bool) -> Vec<serde_json::Value> {
        let added = |(id, text, kind)| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            let rstrip = strips_right && special && !PLAIN.contains(&text);
            Some(json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": rstrip,
                "normalized": false, "special": special,
            }))
        };
        self.iter().filter_map(added).collect()
    }
}

impl Kind {
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            // Undefined; llama.cpp takes it as it comes.
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The token that `key` names, if it does.
fn token(gguf: &Gguf, vocabulary: &Vocabulary<'_>, key: &str) -> Result<Option<u32>> {
    let id = match gguf.values().get(key) {
        // How some converters write "none".
        Some(Value::I32(-1) | Value::U32(u32::MAX)) => None,
        _ => gguf.get::<u32>(key)?,
    };
    match id {
        Some(id) if id as usize >= vocabulary.len() => {
            let reason = format_args!("is {id}, but there are {} tokens", vocabulary.len());
            Err(gguf.wrong(key, reason))
        }
        id => Ok(id),
    }
}

fn named(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<BTreeMap<&'static str, u32>> {
    let mut named = BTreeMap::new();
    for (name, keys) in NAMED {
        for key in *keys {
            if let Some(id) = token(gguf, vocabulary, key)? {
                named.entry(*name).or_insert(id);
            }
        }
    }
    Ok(named)
}

/// The tokens that end a text.
fn ends(gguf: &Gguf, vocabulary: &Vocabulary<'_>, eos: Option<u32>) -> Result<Vec<u32>> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    ends.extend(token(gguf, vocabulary, "tokenizer.ggml.eom_token_id")?);
    match gguf.values().contains_key(END_OF_TURN) {
        true => ends.extend(token(gguf, vocabulary, END_OF_TURN)?),
        false => ends.extend(
            vocabulary
                .iter()
                .filter(|(_, text, kind)| *kind == Kind::Control && ENDS.contains(text))
                .map(|(id, ..)| id),
        ),
    }
    // Not in the specification, but in use for more ends than have names.
    if let Some(Value::Array(Array::U32(_) | Array::I32(_))) = gguf.values().get(EOS_IDS) {
        for id in gguf.require::<Vec<u32>>(EOS_IDS)? {
            if id as usize >= vocabulary.len() {
                return Err(gguf.wrong(EOS_IDS, format_args!("has {id}, which is no token")));
            }
            ends.push(id);
        }
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// Puts BOS and EOS around a text, as far as the file says.
fn post_processor(
    gguf: &Gguf,
    vocabulary: &Vocabulary<'_>,
    named: &BTreeMap<&str, u32>,
    add_bos: bool,
) -> Result<serde_json::Value> {
    let wanted = |key: &str, name: &str, default: bool| {
        let said = gguf.get::<bool>(key)?;
        match (said.unwrap_or(default), named.get(name)) {
            (true, Some(id)) => Ok(Some((*id, vocabulary.texts[*id as usize]))),
            (true, None) if said.is_some() => {
                Err(gguf.wrong(key, format_args!("is true, but there is no {name}")))
            }
            _ => Ok(None),
        }
    };
    let bos = wanted("tokenizer.ggml.add_bos_token", "bos_token", add_bos)?;
    let eos = wanted("tokenizer.ggml.add_eos_token", "eos_token", false)?;
    if bos.is_none() && eos.is_none() {
        return Ok(serde_json::Value::Null);
    }
    let special = |token: Option<(u32, &str)>, text: u8| {
        token.map(|(_, name)| json!({"SpecialToken": {"id": name, "type_id": text}}))
    };
    let around = |name: &str, text: u8| {
        let sequence = json!({"Sequence": {"id": name, "type_id": text}});
        [special(bos, text), Some(sequence), special(eos, text)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let tokens: Map<_, _> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, name)| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    }))
}
