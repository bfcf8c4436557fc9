//! Text to tokens and back, as the checkpoint's `tokenizer.json` or the metadata of its GGUF file says.

use crate::{
    files,
    template::{Piece, Rendered},
};
use inference_core::{Error, Result};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};
use tokenizers::{Model, Normalizer};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// Most bytes of a tokenizer's files that are read; the largest published ones have some tens of megabytes.
const MOST_BYTES: u64 = 256 << 20;

/// Most bytes that replacements may make of one, one after another; in published files it is 3 (`▁` for a space).
const MOST_GROWTH: f64 = 64.0;

/// A checkpoint's tokenizer.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    config: Map<String, Value>,
    special: BTreeMap<String, Value>,
    /// The id with which every text begins, if there is one.
    bos: Option<u32>,
    /// The ids that end a text.
    ends: Vec<u32>,
    vocab_len: usize,
    /// The decoder joins tokens such as `<0xE4>` to characters, a whole run of them at a time.
    byte_fallback: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of the folder `dir`, and `tokenizer_config.json` and `special_tokens_map.json` where
    /// there are such.
    ///
    /// # Errors
    /// [`Error::NotAModel`] if there is no `tokenizer.json`; [`Error::InvalidFile`] for one that is damaged;
    /// [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        let bytes = files::read(&file, MOST_BYTES)?.ok_or_else(|| Error::NotAModel {
            path: dir.to_owned(),
            reason: match dir.join("tokenizer.model").exists() {
                true => "there is a tokenizer.model but no tokenizer.json: load and save the tokenizer once with transformers",
                false => "there is no tokenizer.json",
            }
            .to_owned(),
        })?;
        let object =
            |name| files::object(&dir.join(name), MOST_BYTES).map(Option::unwrap_or_default);
        let config = object("tokenizer_config.json")?;
        let mut special = special_tokens(&config);
        for (name, value) in special_tokens(&object("special_tokens_map.json")?) {
            special.entry(name).or_insert(value);
        }
        Self::parse(&bytes, config, special, dir.to_owned())
            .map_err(|reason| Error::file(file, reason))
    }

    /// A tokenizer of the content of a `tokenizer.json`; `path` is where it was found.
    pub(crate) fn parse(
        bytes: &[u8],
        config: Map<String, Value>,
        special: BTreeMap<String, Value>,
        path: PathBuf,
    ) -> Result<Self, String> {
        let mut inner =
            guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|e| e.to_string())?;
        // A file may hold what its last user had set.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        let vocab_len =
            inner.get_vocab(true).values().map(|id| *id as usize + 1).max().unwrap_or(0);
        if vocab_len == 0 {
            return Err("its vocabulary is empty".to_owned());
        }
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(|e| e.to_string())?;
        let normalizer = serde_json::to_value(inner.get_normalizer()).map_err(|e| e.to_string())?;
        for (name, part) in [("normalizer", &normalizer), ("decoder", &decoder)] {
            if growth(part) > MOST_GROWTH {
                return Err(format!(
                    "its {name} may make a text more than {MOST_GROWTH} times as long"
                ));
            }
        }
        // Its post-processor may ask for tokens that are not there.
        guarded(|| inner.encode_fast("", true)).map_err(|e| e.to_string())?;
        let byte_fallback = decoder.to_string().contains("\"ByteFallback\"");
        let named = |name| inner.token_to_id(special.get(name)?.as_str()?);
        let (bos, ends) = (named("bos_token"), named("eos_token").into_iter().collect());
        Ok(Self { path, inner, config, special, bos, ends, vocab_len, byte_fallback })
    }

    /// The same, with other tokens that end a text.
    pub(crate) fn with_ends(self, ends: Vec<u32>) -> Self {
        Self { ends, ..self }
    }

    /// The checkpoint's folder, or its GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more than the highest id that it knows; a model may have more rows, which no text can come from.
    pub fn vocab_len(&self) -> usize {
        self.vocab_len
    }

    /// The tokens that end a text, as far as the tokenizer's files say.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.ends.clone()
    }

    /// `tokenizer_config.json`; empty where there is none.
    pub(crate) fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// `bos_token`, `eos_token` and so on, as templates see them: texts, and lists of texts.
    pub(crate) fn special_tokens(&self) -> &BTreeMap<String, Value> {
        &self.special
    }

    /// The tokens that mean something in a chat by `template`: those that are special, and those that the template
    /// spells. The longest first.
    pub(crate) fn control_tokens(&self, template: &str) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        let spelled = |text: &str| !text.trim().is_empty() && template.contains(text);
        let mut control: Vec<_> = added
            .into_values()
            .filter(|t| !t.content.is_empty() && (t.special || spelled(&t.content)))
            .map(|t| t.content)
            .collect();
        control.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        control
    }

    /// The tokens of a prompt, with what the tokenizer adds to one. Special tokens that are spelled in it count as
    /// such; a BOS that it begins with is not added again.
    ///
    /// # Errors
    /// [`Error::InvalidPrompt`] for a text that can't be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode_with(text, true)?;
        if let (Some(bos), [first, second, ..]) = (self.bos, &ids[..])
            && *first == bos
            && *second == bos
        {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// The tokens of a prompt that is to be worked on, at least one.
    ///
    /// # Errors
    /// [`Error::InvalidPrompt`] for an empty text, even where the tokenizer would begin it with a BOS, and for one that
    /// can't be encoded.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = if text.is_empty() { Vec::new() } else { self.encode(text)? };
        if ids.is_empty() {
            return Err(Error::InvalidPrompt { reason: "it is empty".to_owned() });
        }
        Ok(ids)
    }

    /// The tokens of a rendered chat: the template has written its own BOS. Control tokens that a message spells stay
    /// text.
    ///
    /// # Errors
    /// [`Error::InvalidPrompt`] for a text that can't be encoded.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for (i, piece) in rendered.pieces().enumerate() {
            ids.extend(match piece {
                Piece::Text(text) if i == 0 => self.encode_with(text, false)?,
                Piece::Text(text) => self.inside(text, |t| self.encode_with(t, false))?,
                Piece::Literal(text) => self.encode_control(text)?,
            });
        }
        Ok(ids)
    }

    /// The tokens of a control token's text, among which that token is not.
    fn encode_control(&self, text: &str) -> Result<Vec<u32>> {
        let literally = |text: &str| self.inside(text, |t| self.encode_literally(t));
        let ids = literally(text)?;
        match self.inner.token_to_id(text) {
            // A model's own vocabulary may have it as well; letter by letter it can't come out.
            Some(id) if ids.contains(&id) => {
                let letters = text.chars().map(|c| literally(c.encode_utf8(&mut [0; 4])));
                Ok(letters.collect::<Result<Vec<_>>>()?.concat())
            }
            _ => Ok(ids),
        }
    }

    /// Encodes a text that stands inside another: behind a line break, so that tokenizers which begin every text with a
    /// space don't begin this one with it. (As `transformers` does in `encode_marked_chat`.)
    fn inside(&self, text: &str, encode: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
        let line_break = self.encode_with("\n", false)?;
        let ids = encode(&format!("\n{text}"))?;
        match ids.strip_prefix(&line_break[..]) {
            Some(rest) => Ok(rest.to_vec()),
            None => encode(text),
        }
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encode = || self.inner.encode_fast(text, add_special_tokens);
        Ok(guarded(encode).map_err(unencodable)?.get_ids().to_vec())
    }

    /// The tokens of a text in which nothing that is spelled like an added token counts as one.
    fn encode_literally(&self, text: &str) -> Result<Vec<u32>> {
        let mut pieces = PreTokenizedString::from(text);
        let encode = || {
            if let Some(normalizer) = self.inner.get_normalizer() {
                pieces.normalize(|piece| normalizer.normalize(piece))?;
            }
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            let model = self.inner.get_model();
            pieces.tokenize(|piece| model.tokenize(piece.get()))
        };
        guarded(encode).map_err(unencodable)?;
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .flatten()
            .map(|t| t.id)
            .collect())
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// [`Error::InvalidPrompt`] for an id that the tokenizer does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            return Err(Error::InvalidPrompt {
                reason: format!("the tokenizer has no token {id}"),
            });
        }
        self.decode_known(ids)
    }

    /// The same; ids that the tokenizer does not have give no text.
    pub(crate) fn decode_known(&self, ids: &[u32]) -> Result<String> {
        let failed = |e| Error::InvalidPrompt { reason: format!("it can't be decoded: {e}") };
        guarded(|| self.inner.decode(ids, true)).map_err(failed)
    }

    /// Whether `id` gives no text, whatever stands around it: a special token, or none at all.
    pub(crate) fn is_silent(&self, id: u32) -> bool {
        let special = |token: String| self.inner.get_added_vocabulary().is_special_token(&token);
        self.inner.id_to_token(id).is_none_or(special)
    }

    /// Whether `id` is a single byte, whose text depends on the whole run of bytes that it is part of.
    pub(crate) fn is_byte(&self, id: u32) -> bool {
        let hex = |token: String| {
            let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            digits.is_some_and(|d| d.len() == 2 && u8::from_str_radix(d, 16).is_ok())
        };
        self.byte_fallback && self.inner.id_to_token(id).is_some_and(hex)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_len", &self.vocab_len)
            .finish_non_exhaustive()
    }
}

/// How many bytes a normalizer or decoder may make of one: what its replacements do, one after another.
fn growth(part: &Value) -> f64 {
    let list = part.get("normalizers").or_else(|| part.get("decoders"));
    if let Some(list) = list.and_then(Value::as_array) {
        return list.iter().map(growth).product();
    }
    let (Some(pattern), Some(content)) = (part.get("pattern"), part["content"].as_str()) else {
        return 1.0;
    };
    match pattern["String"].as_str() {
        Some(text) if !text.is_empty() => (content.len() as f64 / text.len() as f64).max(1.0),
        // It may match nothing, between any two bytes.
        _ => content.len() as f64 + 1.0,
    }
}

/// Runs a part of the library that trusts what a tokenizer's file says, and panics where that is wrong.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let inconsistent = |_| Err("the tokenizer is inconsistent".into());
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(inconsistent)
}

fn unencodable(error: tokenizers::Error) -> Error {
    Error::InvalidPrompt { reason: format!("it can't be encoded: {error}") }
}

/// The special tokens that a configuration names. Each is a text, or an object with the text as its `content`.
fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, Value> {
    fn text(value: &Value) -> Option<Value> {
        value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from)
    }
    let named = config.iter().filter(|(name, _)| name.ends_with("_token"));
    let mut all: BTreeMap<_, _> =
        named.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect();
    let list = config.get("additional_special_tokens").and_then(Value::as_array);
    if let Some(list) = list {
        let texts = list.iter().filter_map(text).collect();
        all.insert("additional_special_tokens".to_owned(), texts);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn open(post_processor: &Value, decoder: &Value) -> Result<Tokenizer> {
        let dir = tempfile::tempdir().unwrap();
        let model = json!({"type": "WordLevel", "vocab": {"!": 0}, "unk_token": "!"});
        let file = json!({"model": model, "post_processor": post_processor, "decoder": decoder});
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        Tokenizer::open(dir.path())
    }

    #[test]
    fn replacements_that_grow_without_end_are_refused() {
        let replace =
            |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
        let many =
            |one: Value, n| growth(&json!({"type": "Sequence", "normalizers": vec![one; n]}));
        assert_eq!(many(replace(json!({"String": " "}), "▁"), 1), 3.0);
        assert_eq!(many(replace(json!({"String": "``"}), "\""), 9), 1.0);
        assert!(many(replace(json!({"String": "a"}), "aa"), 40) > MOST_GROWTH);
        assert!(many(replace(json!({"Regex": ""}), "a"), 40) > MOST_GROWTH);
    }

    /// Both panic in the library.
    #[test]
    fn an_inconsistent_file_is_an_error() {
        let single = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}]);
        let template = json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
        assert!(matches!(open(&template, &Value::Null), Err(Error::InvalidFile { .. })));
        let strip = json!({"type": "Strip", "content": "!", "start": 0, "stop": 2});
        let tokenizer = open(&Value::Null, &strip).unwrap();
        assert!(matches!(tokenizer.decode(&[0]), Err(Error::InvalidPrompt { .. })));
    }
}
