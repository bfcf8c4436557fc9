//! Where a checkpoint keeps its chat templates.

use crate::files;
use inference_core::{Error, Result};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

/// The name of a template without one.
pub(crate) const DEFAULT: &str = "default";

/// Most bytes of a template; published ones have some ten thousand.
pub(crate) const MOST_BYTES: u64 = 1 << 20;

/// Most templates of a checkpoint.
pub(crate) const MOST_TEMPLATES: usize = 64;

/// A template's text, and where it was found.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) text: String,
    /// For messages.
    pub(super) origin: String,
}

/// The templates in the folder `dir`, by name. Files of their own come before the tokenizer's `config`.
pub(super) fn sources(dir: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, Source>> {
    let mut sources = in_files(dir)?;
    if sources.is_empty()
        && let Some(value) = config.get("chat_template")
    {
        sources = in_config(&dir.join("tokenizer_config.json"), value)?;
    }
    if sources.is_empty() {
        sources = in_legacy_file(&dir.join("chat_template.json"))?;
    }
    Ok(sources)
}

/// `chat_template.jinja`, and `chat_templates/*.jinja` named after their files.
fn in_files(dir: &Path) -> Result<BTreeMap<String, Source>> {
    let mut sources = BTreeMap::new();
    let file = dir.join("chat_template.jinja");
    if let Some(text) = read(&file)? {
        let origin = "chat_template.jinja".to_owned();
        sources.insert(DEFAULT.to_owned(), Source { text, origin });
    }
    let folder = dir.join("chat_templates");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(sources);
        }
        Err(e) => return Err(Error::io(folder, e)),
    };
    for entry in entries {
        let file = entry.map_err(|e| Error::io(&folder, e))?.path();
        let name = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jinja"));
        let Some(name) = name.filter(|n| !n.is_empty()) else { continue };
        if let Some(text) = read(&file)? {
            let origin = format!("chat_templates/{name}.jinja");
            sources.insert(name.to_owned(), Source { text, origin });
        }
        if sources.len() > MOST_TEMPLATES {
            return Err(Error::file(folder, format!("more than {MOST_TEMPLATES} templates")));
        }
    }
    Ok(sources)
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of `{name, template}`.
fn in_config(file: &Path, value: &Value) -> Result<BTreeMap<String, Source>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wrong = |what: &str| Error::file(file, format!("`chat_template`{what}"));
    let source = |text: &str, origin: String| match text.len() as u64 > MOST_BYTES {
        true => Err(wrong(&format!(" has more than {MOST_BYTES} bytes"))),
        false => Ok(Source { text: text.to_owned(), origin }),
    };
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::String(text) => Ok([(DEFAULT.to_owned(), source(text, name)?)].into()),
        Value::Array(list) if list.len() > MOST_TEMPLATES => {
            Err(wrong(&format!(" has more than {MOST_TEMPLATES} templates")))
        }
        Value::Array(list) => {
            let entry = |entry: &Value| {
                let field = |name: &str| {
                    let text = entry.get(name).and_then(Value::as_str);
                    text.ok_or_else(|| wrong(&format!(": an entry has no `{name}` that is a text")))
                };
                let key = field("name")?;
                Ok((
                    key.to_owned(),
                    source(field("template")?, format!("template `{key}` of {name}"))?,
                ))
            };
            list.iter().map(entry).collect()
        }
        _ => Err(wrong(" is neither a text nor a list")),
    }
}

/// `chat_template` of `chat_template.json`, as older multimodal checkpoints have it.
fn in_legacy_file(file: &Path) -> Result<BTreeMap<String, Source>> {
    let Some(fields) = files::object(file, 2 * MOST_BYTES)? else { return Ok(BTreeMap::new()) };
    match fields.get("chat_template") {
        Some(value) => in_config(file, value),
        None => Err(Error::file(file, "no `chat_template`")),
    }
}

/// The text in `file`; `None` if there is no such file.
fn read(file: &Path) -> Result<Option<String>> {
    let bytes = files::read(file, MOST_BYTES)?;
    let text = bytes.map(|b| String::from_utf8(b).map_err(|_| Error::file(file, "not UTF-8")));
    text.transpose()
}
