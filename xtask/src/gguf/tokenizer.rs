//! `tokenizer.json` as llama.cpp reads it.
//!
//! Keys and types: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>. What is made of them:
//! llama.cpp's `src/llama-vocab.cpp`.

use super::{config::Config, config::json, pretokenizer, templates};
use crate::Result;
use inference_text::gguf::Writer;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

/// A space, as SentencePiece writes it.
const SPACE: &str = "▁";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    /// Never made of text that is not parsed for it.
    Control = 3,
    /// Found in text before it is split.
    UserDefined = 4,
    /// A row of the embedding without a token.
    Unused = 5,
    /// Stands for a byte that no other token has.
    Byte = 6,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    text: String,
    kind: Kind,
}

/// How text becomes tokens.
#[derive(Debug, PartialEq)]
enum Model {
    /// Bytes written as letters, merged within what a regular expression splits.
    Bytes { pretokenizer: &'static str, merges: Vec<String> },
    /// Characters merged across the whole text, with bytes for those without a token.
    Pieces { scores: Vec<f32>, space_prefix: bool },
}

/// Sets every key of the tokenizer in `folder`, with `rows` tokens.
pub(super) fn set(writer: &mut Writer, folder: &Path, config: &Config, rows: usize) -> Result {
    let path = folder.join("tokenizer.json");
    let at = |e: String| format!("{}: {e}", path.display());
    let tokenizer = json(&path)?.ok_or_else(|| at("no such file".to_owned()))?;
    let settings = json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let tokens = tokens(&tokenizer, rows).map_err(at)?;
    let model = model(&tokenizer, &tokens).map_err(at)?;
    let ids = tokens.iter().zip(0..).map(|(token, id)| (token.text.as_str(), id)).collect();
    match model {
        Model::Bytes { pretokenizer, merges } => {
            writer.set("tokenizer.ggml.model", "gpt2");
            writer.set("tokenizer.ggml.pre", pretokenizer);
            writer.set("tokenizer.ggml.merges", merges);
        }
        Model::Pieces { scores, space_prefix } => {
            writer.set("tokenizer.ggml.model", "llama");
            writer.set("tokenizer.ggml.pre", "default");
            writer.set("tokenizer.ggml.scores", scores);
            writer.set("tokenizer.ggml.add_space_prefix", space_prefix);
        }
    }
    set_special(writer, &tokenizer, &settings, config, &ids);
    let kinds: Vec<i32> = tokens.iter().map(|token| token.kind as i32).collect();
    let texts: Vec<String> = tokens.into_iter().map(|token| token.text).collect();
    writer.set("tokenizer.ggml.tokens", texts);
    writer.set("tokenizer.ggml.token_type", kinds);
    templates::set(writer, folder, &settings)
}

/// Whether special tokens of the tokenizer swallow the white space behind them.
pub(super) fn swallows_space(folder: &Path) -> Result<bool> {
    let tokenizer = json(&folder.join("tokenizer.json"))?.unwrap_or_default();
    Ok(added(&tokenizer).any(|token| token["rstrip"] == true))
}

/// The special tokens' ids, and which of them are put around a text.
fn set_special(
    writer: &mut Writer,
    tokenizer: &Value,
    settings: &Value,
    config: &Config,
    ids: &HashMap<&str, u32>,
) {
    let named = |key: &str| {
        let value = &settings[key];
        let text = value.as_str().or_else(|| value["content"].as_str());
        text.and_then(|text| ids.get(text).copied())
    };
    let known = |id: &u32| (*id as usize) < ids.len();
    let mut ends: Vec<_> = named("eos_token").into_iter().collect();
    ends.extend(config.eos.iter().filter(|id| known(id)));
    let mut seen = HashSet::new();
    ends.retain(|id| seen.insert(*id));
    let unknown = tokenizer["model"]["unk_token"].as_str().and_then(|t| ids.get(t).copied());
    // Of several end tokens the first is "eos"; there are two further keys whose tokens end a text as well.
    for (key, id) in [
        ("bos_token_id", named("bos_token").or(config.bos.filter(known))),
        ("eos_token_id", ends.first().copied()),
        ("eot_token_id", ends.get(1).copied()),
        ("eom_token_id", ends.get(2).copied()),
        ("unknown_token_id", named("unk_token").or(unknown)),
        ("padding_token_id", named("pad_token")),
    ] {
        if let Some(id) = id {
            writer.set(format!("tokenizer.ggml.{key}"), id);
        }
    }
    let (first, last) = around(&tokenizer["post_processor"]);
    writer.set("tokenizer.ggml.add_bos_token", first);
    writer.set("tokenizer.ggml.add_eos_token", last);
}

/// Whether a special token is put before a text, and behind it.
fn around(post_processor: &Value) -> (bool, bool) {
    if let Some(all) = post_processor["processors"].as_array() {
        return all.iter().map(around).fold((false, false), |a, b| (a.0 || b.0, a.1 || b.1));
    }
    let single = post_processor["single"].as_array();
    let special = |piece: Option<&Value>| piece.is_some_and(|p| !p["SpecialToken"].is_null());
    single.map_or((false, false), |single| (special(single.first()), special(single.last())))
}

fn added(tokenizer: &Value) -> impl Iterator<Item = &Value> {
    tokenizer["added_tokens"].as_array().into_iter().flatten()
}

/// A token for each of `rows` rows of the embedding; those beyond it can't be computed and are left out.
fn tokens(tokenizer: &Value, rows: usize) -> Result<Vec<Token>> {
    let model = &tokenizer["model"];
    let vocab = match (&model["type"], &model["vocab"]) {
        (Value::String(kind), Value::Object(vocab)) if kind == "BPE" => vocab,
        (Value::Null, Value::Object(vocab)) if model["merges"].is_array() => vocab,
        (kind, _) => {
            return Err(format!("the tokenizer's model is {kind}; only BPE can be converted"));
        }
    };
    let mut tokens: BTreeMap<usize, Token> = BTreeMap::new();
    let fallback = model["byte_fallback"] == true;
    for (text, id) in vocab {
        let id = id.as_u64().ok_or_else(|| format!("token `{text}` has the id {id}"))? as usize;
        let kind = match model["unk_token"].as_str() == Some(text) {
            true => Kind::Unknown,
            false if fallback && byte(text).is_some() => Kind::Byte,
            false => Kind::Normal,
        };
        if tokens.insert(id, Token { text: text.clone(), kind }).is_some() {
            return Err(format!("token `{text}` has the id {id}, and so has another"));
        }
    }
    let mut texts: HashSet<String> = vocab.keys().cloned().collect();
    for token in added(tokenizer) {
        let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) else {
            return Err(format!("an added token is {token}"));
        };
        let special = token["special"] == true;
        // Such tokens are looked for in, and printed as, plain text.
        let spaced = text.replace(SPACE, " ");
        let text =
            if special || !fallback || texts.contains(&spaced) { text.to_owned() } else { spaced };
        let slot =
            tokens.entry(id as usize).or_insert(Token { text: text.clone(), kind: Kind::Normal });
        texts.insert(text.clone());
        slot.text = text;
        slot.kind = match (special, slot.kind) {
            (_, Kind::Unknown) => Kind::Unknown,
            (true, _) => Kind::Control,
            (false, _) => Kind::UserDefined,
        };
    }
    let unused = |id| Token { text: format!("[PAD{id}]"), kind: Kind::Unused };
    Ok((0..rows).map(|id| tokens.remove(&id).unwrap_or_else(|| unused(id))).collect())
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

fn model(tokenizer: &Value, tokens: &[Token]) -> Result<Model> {
    let merges = merges(&tokenizer["model"]["merges"])?;
    if let Some(pretokenizer) = pretokenizer::of(&tokenizer["pre_tokenizer"])? {
        let spaced = merges.iter().find(|pair| pair.iter().any(|part| part.contains(' ')));
        return match spaced {
            Some(pair) => Err(format!("a merge of {pair:?} has a space, which separates the two")),
            None => {
                let merges = merges.iter().map(|pair| pair.join(" ")).collect();
                Ok(Model::Bytes { pretokenizer, merges })
            }
        };
    }
    if tokens.iter().filter(|token| token.kind == Kind::Byte).count() != 256 {
        return Err(
            "the tokenizer is neither byte-level nor falls back to 256 tokens for bytes".to_owned()
        );
    }
    Ok(Model::Pieces { scores: scores(tokens, &merges), space_prefix: prefixes_space(tokenizer) })
}

fn merges(merges: &Value) -> Result<Vec<[&str; 2]>> {
    let all = merges.as_array().ok_or("the tokenizer's model has no `merges`")?;
    all.iter().map(|merge| pair(merge).ok_or_else(|| format!("a merge is {merge}"))).collect()
}

/// The two parts of a merge, which older files have in one text.
fn pair(merge: &Value) -> Option<[&str; 2]> {
    match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| [left, right]),
        Value::Array(parts) if parts.len() == 2 => Some([parts[0].as_str()?, parts[1].as_str()?]),
        _ => None,
    }
}

/// What llama.cpp merges by: of all neighbours that together are a token, those with the highest score first. The
/// earlier merge has the higher one, so the order is that of the ranks. Tokens that no merge makes come after all.
fn scores(tokens: &[Token], merges: &[[&str; 2]]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, [left, right]) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |token: &Token| match token.kind {
        Kind::Normal => -(ranks.get(&token.text).copied().unwrap_or(merges.len()) as f32),
        _ => 0.0,
    };
    tokens.iter().map(score).collect()
}

/// Whether a space is put before a text.
fn prefixes_space(tokenizer: &Value) -> bool {
    let within = |value: &Value, list: &str| match value[list].as_array() {
        Some(all) => all.clone(),
        None => vec![value.clone()],
    };
    let prepends = within(&tokenizer["normalizer"], "normalizers")
        .iter()
        .any(|n| n["type"] == "Prepend" && n["prepend"] == SPACE);
    let metaspace = within(&tokenizer["pre_tokenizer"], "pretokenizers").iter().any(|p| {
        p["type"] == "Metaspace"
            && match p["prepend_scheme"].as_str() {
                Some(scheme) => scheme != "never",
                None => p["add_prefix_space"] != false,
            }
    });
    prepends || metaspace
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokenizer() -> Value {
        let mut vocab = serde_json::Map::new();
        for text in ["<unk>", "<s>", "▁", "a", "b", "ab", "▁ab", "abab"] {
            vocab.insert(text.to_owned(), vocab.len().into());
        }
        for byte in 0..=255 {
            vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
        }
        json!({
            "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocab,
                "merges": [["a", "b"], ["▁", "ab"], "ab ab", ["▁a", "b"]]},
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
            "added_tokens": [
                {"id": 0, "content": "<unk>", "special": true},
                {"id": 1, "content": "<s>", "special": true},
                {"id": 264, "content": "▁▁", "special": false},
                {"id": 270, "content": "<image>", "special": true},
            ],
        })
    }

    #[test]
    fn scores_fall_with_the_rank_of_the_first_merge() {
        let tokenizer = tokenizer();
        let tokens = tokens(&tokenizer, 266).unwrap();
        let Model::Pieces { scores, space_prefix } = model(&tokenizer, &tokens).unwrap() else {
            panic!("not pieces")
        };
        assert_eq!(scores[..8], [0.0, 0.0, -4.0, -4.0, -4.0, 0.0, -1.0, -2.0]);
        assert!(scores[8..].iter().all(|score| *score == 0.0) && space_prefix);
    }

    #[test]
    fn tokens_have_kinds_and_every_row_has_a_token() {
        let tokens = tokens(&tokenizer(), 266).unwrap();
        let at = |id: usize| (tokens[id].text.as_str(), tokens[id].kind);
        assert_eq!(tokens.len(), 266);
        assert_eq!(at(0), ("<unk>", Kind::Unknown));
        assert_eq!(at(1), ("<s>", Kind::Control));
        assert_eq!(at(5), ("ab", Kind::Normal));
        assert_eq!(at(8), ("<0x00>", Kind::Byte));
        assert_eq!(at(264), ("  ", Kind::UserDefined));
        assert_eq!(at(265), ("[PAD265]", Kind::Unused));
    }

    #[test]
    fn a_token_around_the_text_is_seen_in_the_post_processor() {
        let bos = json!({"SpecialToken": {"id": "<s>"}});
        let text = json!({"Sequence": {"id": "A"}});
        let template = json!({"type": "TemplateProcessing", "single": [bos, text]});
        assert_eq!(around(&template), (true, false));
        let sequence = json!({"processors": [{"type": "ByteLevel"}, template]});
        assert_eq!(around(&sequence), (true, false));
        assert_eq!(around(&json!({"single": [text, bos]})), (false, true));
        assert_eq!(around(&Value::Null), (false, false));
    }

    #[test]
    fn other_models_are_refused() {
        let unigram = json!({"model": {"type": "Unigram", "vocab": []}});
        assert!(tokens(&unigram, 1).unwrap_err().contains("Unigram"));
        let no_bytes = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
        let tokens = tokens(&no_bytes, 1).unwrap();
        assert!(model(&no_bytes, &tokens).unwrap_err().contains("neither"));
    }
}
