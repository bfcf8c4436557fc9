//! Chat templates of a folder, as GGUF holds them.
//!
//! Keys: `tokenizer.chat_template`, and for further ones `tokenizer.chat_template.NAME` with their names in
//! `tokenizer.chat_templates` (<https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py>).

use super::config::json;
use crate::Result;
use inference_text::gguf::Writer;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// The one that is taken when none is named.
const DEFAULT: &str = "default";

/// Sets the templates of `folder`, whose `tokenizer_config.json` is `settings`.
pub(super) fn set(writer: &mut Writer, folder: &Path, settings: &Value) -> Result {
    let mut templates = found(folder, settings)?;
    if let Some(text) = templates.remove(DEFAULT) {
        writer.set("tokenizer.chat_template", text);
    }
    if !templates.is_empty() {
        let names: Vec<String> = templates.keys().cloned().collect();
        writer.set("tokenizer.chat_templates", names);
    }
    for (name, text) in templates {
        writer.set(format!("tokenizer.chat_template.{name}"), text);
    }
    Ok(())
}

/// The templates by name. Files come before what the settings say, as in `transformers`.
fn found(folder: &Path, settings: &Value) -> Result<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    let mut add = |name: &str, path: &Path| -> Result {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        templates.insert(name.to_owned(), text);
        Ok(())
    };
    let single = folder.join("chat_template.jinja");
    if single.is_file() {
        add(DEFAULT, &single)?;
    }
    let named = folder.join("additional_chat_templates");
    for entry in fs::read_dir(named).into_iter().flatten().flatten() {
        let path = entry.path();
        if let (Some(name), Some("jinja")) =
            (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|e| e.to_str()))
        {
            add(name, &path)?;
        }
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    match &settings["chat_template"] {
        Value::String(text) => {
            templates.insert(DEFAULT.to_owned(), text.clone());
        }
        Value::Array(all) => {
            for template in all {
                let (Some(name), Some(text)) =
                    (template["name"].as_str(), template["template"].as_str())
                else {
                    return Err("tokenizer_config.json: a template without name or text".to_owned());
                };
                templates.insert(name.to_owned(), text.to_owned());
            }
        }
        _ => {
            // Where processors of older checkpoints have it.
            let old = json(&folder.join("chat_template.json"))?.unwrap_or_default();
            let text = old["chat_template"].as_str();
            templates.extend(text.map(|text| (DEFAULT.to_owned(), text.to_owned())));
        }
    }
    Ok(templates)
}
