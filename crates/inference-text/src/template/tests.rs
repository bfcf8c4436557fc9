//! Chat templates against the reference's renderings, hostile templates, and marks.

use super::{marks::ControlTokens, *};
use proptest::prelude::*;
use serde_json::{Map, json};
use std::{fs, path::PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models-fixtures")
}

fn read(file: &Path) -> Value {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn template(source: &str, special: &[(&str, &str)], control: &[&str]) -> ChatTemplate {
    let special = special.iter().map(|(name, token)| ((*name).to_owned(), Value::from(*token)));
    let control: Vec<_> = control.iter().map(|t| (*t).to_owned()).collect();
    let sources = BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]);
    ChatTemplate::new(sources, special.collect(), |_| control.clone(), "test.jinja")
}

/// The rendering of a chat of one empty message.
fn render(source: &str) -> Result<String, String> {
    let messages = [json!({"role": "user", "content": "hi"})];
    let rendered = template(source, &[], &[]).render_values(&messages, &RenderOptions::default());
    rendered.map(|r| r.text()).map_err(|e| e.to_string())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The options and the messages of a case of `templates.json`.
fn case(context: &Value) -> (Vec<Value>, RenderOptions) {
    let mut options = RenderOptions::default();
    let mut variables: Map<String, Value> = context.as_object().unwrap().clone();
    let messages = variables.remove("messages").unwrap();
    options.tools = list(&variables.remove("tools").unwrap());
    options.documents = list(&variables.remove("documents").unwrap());
    options.add_generation_prompt = variables.remove("add_generation_prompt").unwrap() == json!(true);
    options.variables = variables;
    (list(&messages), options)
}

#[test]
fn templates_render_as_the_reference_renders_them() {
    let cases = read(&fixtures().join("templates.json"));
    let mut wrong = Vec::new();
    for entry in cases.as_array().unwrap() {
        let (messages, options) = case(&entry["context"]);
        let source = entry["template"].as_str().unwrap();
        let got = template(source, &[], &[]).render_values(&messages, &options).map(|r| r.text());
        let raised = source.contains("raise_exception");
        let fits = match (&got, entry["rendered"].as_str(), entry["error"].as_str()) {
            (Ok(got), Some(want), _) => got == want,
            (Err(Error::ChatTemplate { reason }), None, Some(want)) => !raised || reason == want,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{entry:#}\n{got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases.as_array().unwrap().len(), 108);
}

#[test]
fn chats_of_checkpoints_render_as_the_reference_renders_them() {
    let mut checked = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("golden.json").exists() {
            continue;
        }
        let tokenizer = Tokenizer::open(&dir).unwrap();
        let template = ChatTemplate::open(&dir, &tokenizer).unwrap().unwrap();
        for chat in list(&read(&dir.join("golden.json"))["chats"]) {
            let name = format!("{}: {}", dir.display(), chat["name"]);
            let mut options = RenderOptions::default();
            options.add_generation_prompt = chat["add_generation_prompt"] == json!(true);
            options.continue_final_message = chat["continue_final_message"] == json!(true);
            options.tools = list(&chat["tools"]);
            options.variables = chat["variables"].as_object().cloned().unwrap_or_default();
            let got = template.render_values(&list(&chat["messages"]), &options).map(|r| r.text());
            match (got, chat["rendered"].as_str()) {
                (Ok(got), Some(want)) => assert_eq!(got, want, "{name}"),
                (Err(Error::ChatTemplate { reason }), None) => {
                    assert_eq!(Some(reason.as_str()), chat["error"].as_str(), "{name}");
                }
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
            let chosen = template.choose(&options).unwrap().0;
            assert_eq!(chosen, chat["template"].as_str().unwrap_or(DEFAULT), "{name}");
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} chats");
}
