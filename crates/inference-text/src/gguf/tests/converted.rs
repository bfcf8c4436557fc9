//! The metadata of a fixture's tokenizer and template.

use super::*;
use serde_json::Value as Json;
use std::collections::HashMap;

/// The folders of all fixtures.
pub(super) fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models-fixtures");
    let dirs = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = dirs.filter(|dir| dir.join("golden.json").exists()).collect();
    assert!(found.len() > 8);
    found
}

/// The content of a file; null if there is none.
pub(super) fn read_json(file: &Path) -> Json {
    fs::read_to_string(file).map_or(Json::Null, |text| serde_json::from_str(&text).unwrap())
}

/// The metadata of a folder's tokenizer and template.
pub(super) fn converted(dir: &Path) -> Writer {
    let tokenizer = read_json(&dir.join("tokenizer.json"));
    let config = read_json(&dir.join("tokenizer_config.json"));
    let model = &tokenizer["model"];
    let mut tokens: Vec<(String, u64, i32)> = model["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(text, id)| {
            let byte = model["byte_fallback"] == true && text.starts_with("<0x");
            (text.clone(), id.as_u64().unwrap(), if byte { 6 } else { 1 })
        })
        .collect();
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let (text, id) = (added["content"].as_str().unwrap(), added["id"].as_u64().unwrap());
        let kind = match added["special"] == true {
            _ if model["unk_token"] == text => 2,
            true => 3,
            false => 4,
        };
        tokens.retain(|(_, old, _)| *old != id);
        tokens.push((text.to_owned(), id, kind));
    }
    tokens.sort_by_key(|(_, id, _)| *id);
    let merges: Vec<[String; 2]> = serde_json::from_value(model["merges"].clone()).unwrap();
    let id = |text: &Json| tokens.iter().find(|t| *text == *t.0).map(|(_, id, _)| *id as u32);

    let mut writer = Writer::new();
    writer.set(
        "general.architecture",
        read_json(&dir.join("config.json"))["model_type"].as_str().unwrap(),
    );
    if model["byte_fallback"] == true {
        let ranks: HashMap<String, usize> =
            merges.iter().enumerate().rev().map(|(rank, pair)| (pair.concat(), rank)).collect();
        let score = |text: &String| -(ranks.get(text).copied().unwrap_or(merges.len()) as f32);
        let scores: Vec<f32> = tokens.iter().map(|(text, ..)| score(text)).collect();
        let prefix = tokenizer["normalizer"].to_string().contains("Prepend");
        writer
            .set("tokenizer.ggml.model", "llama")
            .set("tokenizer.ggml.add_space_prefix", prefix)
            .set("tokenizer.ggml.scores", scores);
    } else {
        let pattern = tokenizer["pre_tokenizer"].to_string();
        let pre = if pattern.contains("{1,3}") { "llama-bpe" } else { "qwen2" };
        let merges: Vec<String> = merges.iter().map(|pair| pair.join(" ")).collect();
        writer
            .set("tokenizer.ggml.model", "gpt2")
            .set("tokenizer.ggml.pre", pre)
            .set("tokenizer.ggml.merges", merges);
    }
    let begins = tokenizer["post_processor"].to_string().contains("SpecialToken");
    writer.set("tokenizer.ggml.add_bos_token", begins);
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        if let Some(id) = id(&config[format!("{name}_token")]) {
            writer.set(format!("tokenizer.ggml.{key}_token_id"), id);
        }
    }
    let kinds: Vec<i32> = tokens.iter().map(|(.., kind)| *kind).collect();
    let texts: Vec<String> = tokens.into_iter().map(|(text, ..)| text).collect();
    writer.set("tokenizer.ggml.tokens", texts).set("tokenizer.ggml.token_type", kinds);

    if let Ok(text) = fs::read_to_string(dir.join("chat_template.jinja")) {
        writer.set("tokenizer.chat_template", text);
    }
    match &config["chat_template"] {
        Json::String(text) => {
            writer.set("tokenizer.chat_template", text.as_str());
        }
        Json::Array(list) => {
            for named in list {
                let name = named["name"].as_str().unwrap();
                let key = match name {
                    "default" => "tokenizer.chat_template".to_owned(),
                    name => format!("tokenizer.chat_template.{name}"),
                };
                writer.set(key, named["template"].as_str().unwrap());
            }
        }
        _ => {}
    }
    writer
}
