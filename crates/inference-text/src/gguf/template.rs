//! The chat templates in a file.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#chat-template>, and as `gguf-py` writes several:
//! `tokenizer.chat_template` is the default one, `tokenizer.chat_templates` the names of the others, which are
//! `tokenizer.chat_template.<name>` each.

use super::Gguf;
use crate::{ChatTemplate, Tokenizer, template};
use inference_core::Result;
use std::collections::BTreeMap;

/// The key of the template without a name; the others' begin with it.
const KEY: &str = "tokenizer.chat_template";

/// The key of the names of the others.
const NAMES_KEY: &str = "tokenizer.chat_templates";

impl ChatTemplate {
    /// The templates of a file with the tokenizer `tokenizer`; `None` if it has none. One that can't be parsed is an
    /// error only when it is rendered.
    ///
    /// # Errors
    /// [`InvalidFile`](inference_core::Error::InvalidFile) for templates that are no texts, too large or too many, and
    /// for a name without template.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let mut templates = BTreeMap::new();
        let mut add = |name: &str, key: &str| {
            let text = gguf.require::<&str>(key)?;
            if text.len() as u64 > template::MOST_BYTES {
                let most = template::MOST_BYTES;
                return Err(gguf.wrong(key, format_args!("has more than {most} bytes")));
            }
            templates.insert(name.to_owned(), text.to_owned());
            match templates.len() > template::MOST_TEMPLATES {
                true => Err(gguf.wrong(key, "is one template too many")),
                false => Ok(()),
            }
        };
        if gguf.values().contains_key(KEY) {
            add(template::DEFAULT, KEY)?;
        }
        let begin = format!("{KEY}.");
        for key in gguf.values().keys() {
            match key.strip_prefix(&begin) {
                Some(name) if !name.is_empty() => add(name, key)?,
                _ => {}
            }
        }
        for name in gguf.get::<&[String]>(NAMES_KEY)?.unwrap_or_default() {
            if !templates.contains_key(name) {
                return Err(gguf.wrong(NAMES_KEY, format_args!("names `{name}`, which is missing")));
            }
        }
        if templates.is_empty() {
            return Ok(None);
        }
        let file = gguf.path().file_name().unwrap_or_default().to_string_lossy();
        let origin = format!("`{KEY}` of {file}");
        let control = |text: &str| tokenizer.control_tokens(text);
        Ok(Some(Self::new(templates, tokenizer.special_tokens().clone(), control, &origin)))
    }
}
