//! The text layer gives what the reference implementation gives: tokens, texts, chats.

use inference_core::RenderOptions;
use inference_tests::fixtures;
use inference_text::{ChatTemplate, Detokenizer, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::Arc;

/// All fixtures, the one that speaks included.
fn all() -> Vec<String> {
    let mut names = fixtures::families();
    names.push("storyteller".to_owned());
    names
}

fn golden(name: &str) -> Value {
    let text =
        std::fs::read_to_string(fixtures::path(name).join("golden.json")).expect("is readable");
    serde_json::from_str(&text).expect("is JSON")
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::open(&fixtures::path(name)).expect("opens")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("is a list of ids")
}

fn list<'a>(golden: &'a Value, name: &str) -> &'a [Value] {
    golden[name].as_array().expect("is a list")
}

#[test]
fn texts_are_encoded_as_the_reference_does() {
    for name in all() {
        let (tokenizer, golden) = (tokenizer(&name), golden(&name));
        for case in list(&golden, "encode") {
            let text = case["text"].as_str().expect("is a text");
            assert_eq!(
                tokenizer.encode(text).expect("encodes"),
                ids(&case["ids"]),
                "{name}: {text:?}"
            );
        }
        for case in list(&golden, "prompts") {
            if let Some(text) = case["text"].as_str() {
                assert_eq!(
                    tokenizer.encode(text).expect("encodes"),
                    ids(&case["tokens"]),
                    "{name}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn ids_are_decoded_as_the_reference_does_whole_and_one_by_one() {
    for name in all() {
        let (tokenizer, golden) = (Arc::new(tokenizer(&name)), golden(&name));
        for case in list(&golden, "decode") {
            let (ids, text) = (ids(&case["ids"]), case["text"].as_str().expect("is a text"));
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), text, "{name}: {ids:?}");
            assert_eq!(one_by_one(&tokenizer, &ids), text, "{name}: {ids:?}");
        }
    }
}

fn one_by_one(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer.clone());
    let mut text = String::new();
    for id in ids {
        text += &detokenizer.push(*id).expect("decodes");
    }
    text + &detokenizer.finish()
}

#[test]
fn any_ids_one_by_one_are_the_decoding_of_all() {
    let tokenizers: Vec<_> = all().iter().map(|n| Arc::new(tokenizer(n))).collect();
    let config =
        ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    // Bytes are the low ids in every fixture: half of what is drawn is from there.
    let id = prop_oneof![0u32..300, any::<u32>()];
    proptest!(config, |(ids in proptest::collection::vec(id, 0..80))| {
        for tokenizer in &tokenizers {
            let ids: Vec<u32> = ids.iter().map(|id| id % tokenizer.vocab_len() as u32).collect();
            let Ok(whole) = tokenizer.decode(&ids) else { continue };
            prop_assert_eq!(one_by_one(tokenizer, &ids), whole);
        }
    });
}

#[test]
fn an_id_that_does_not_exist_is_an_error() {
    let tokenizer = tokenizer("qwen3");
    let error = tokenizer.decode(&[5, 1 << 30]).expect_err("it does not exist").to_string();
    assert!(error.contains("1073741824"), "{error}");
}

/// A template may have written the BOS already, and so may a caller.
#[test]
fn there_is_exactly_one_bos() {
    for (name, bos) in [("llama", "<|begin_of_text|>"), ("gemma2", "<bos>"), ("mistral", "<s>")] {
        let tokenizer = tokenizer(name);
        let plain = tokenizer.encode("Hello").expect("encodes");
        let spelled = tokenizer.encode(&format!("{bos}Hello")).expect("encodes");
        let id = plain[0];
        assert_eq!(spelled.iter().filter(|i| **i == id).count(), 1, "{name}: {spelled:?}");
        assert_eq!(spelled[0], id);
        let template = ChatTemplate::open(&fixtures::path(name), &tokenizer)
            .expect("opens")
            .expect("is there");
        let messages = [inference_core::Message::user("Hello")];
        let rendered = template.render(&messages, &RenderOptions::default()).expect("renders");
        let chat = tokenizer.encode_rendered(&rendered).expect("encodes");
        assert_eq!(chat.iter().filter(|i| **i == id).count(), 1, "{name}: {chat:?}");
        assert_eq!(tokenizer.encode(&rendered.text()).expect("encodes"), chat, "{name}");
    }
    let chatml = tokenizer("qwen3");
    assert!(
        !chatml
            .encode("Hello")
            .expect("encodes")
            .contains(&chatml.encode("<|im_start|>").expect("encodes")[0])
    );
}

#[test]
fn chats_are_rendered_and_encoded_as_the_reference_does() {
    let mut sanitised = 0;
    for name in all() {
        let (tokenizer, golden) = (tokenizer(&name), golden(&name));
        let template = ChatTemplate::open(&fixtures::path(&name), &tokenizer)
            .expect("opens")
            .expect("is there");
        for case in list(&golden, "chats") {
            let mut options = RenderOptions::default();
            options.add_generation_prompt =
                case["add_generation_prompt"].as_bool().expect("is a flag");
            options.continue_final_message =
                case["continue_final_message"].as_bool().expect("is a flag");
            options.tools = case["tools"].as_array().cloned().unwrap_or_default();
            options.variables = case["variables"].as_object().cloned().unwrap_or_default();
            let messages = list(case, "messages");
            let rendered = template.render_values(messages, &options);
            let what = format!("{name}: {}", case["name"]);
            if let Some(error) = case["error"].as_str() {
                let found = rendered.expect_err(&what).to_string();
                assert!(
                    found.contains(error) || !error.contains("must"),
                    "{what}: {found}\nis not\n{error}"
                );
                continue;
            }
            let rendered = rendered.expect(&what);
            assert_eq!(Some(rendered.text().as_str()), case["rendered"].as_str(), "{what}");
            let tokens = tokenizer.encode_rendered(&rendered).expect("encodes");
            sanitised += usize::from(case["sanitised"].is_array());
            let expected =
                if case["sanitised"].is_array() { &case["sanitised"] } else { &case["tokens"] };
            assert_eq!(tokens, ids(expected), "{what}");
        }
    }
    assert!(sanitised >= 12, "only {sanitised} chats spell special tokens");
}
