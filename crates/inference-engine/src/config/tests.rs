use super::*;
use serde_json::json;
use std::fs;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_file_that_is_no_object_is_an_error() {
    let cases = [
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{\"a\": NaN}", "not JSON"),
        ("{\"a\": 1e999}", "not JSON"),
        ("{\"a\": 1", "not JSON"),
        (&"[".repeat(100_000), "not JSON"),
    ];
    for (text, expected) in cases {
        let dir = folder(&[("config.json", text)]);
        let found = message(Config::open(dir.path()));
        assert!(found.contains("config.json: ") && found.contains(expected), "{found}");
    }
}

#[test]
fn a_folder_without_configuration_is_not_a_model() {
    let dir = folder(&[]);
    assert!(matches!(Config::open(dir.path()), Err(Error::NotAModel { .. })));
    fs::create_dir(dir.path().join("config.json")).unwrap();
    assert!(message(Config::open(dir.path())).contains("not a regular file"));
}

#[test]
fn a_file_above_the_limit_is_not_read() {
    let dir = folder(&[]);
    let file = fs::File::create(dir.path().join("config.json")).unwrap();
    file.set_len(MAX_BYTES + 1).unwrap();
    assert!(message(Config::open(dir.path())).contains("larger than 16777216 bytes"));
}

#[test]
fn the_model_type_is_the_one_that_is_known() {
    let cases = [
        (json!({"model_type": "llama"}), "llama"),
        (json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}), "gemma3"),
        (json!({"model_type": "llava", "text_config": {"model_type": "llama"}}), "llama"),
        (json!({"model_type": "llava", "text_config": {}}), "llava"),
        (json!({"model_type": "outer", "text_config": {"model_type": "inner"}}), "outer"),
        (json!({"text_config": {"model_type": "qwen3"}}), "qwen3"),
    ];
    for (config, expected) in cases {
        let dir = folder(&[("config.json", &config.to_string())]);
        assert_eq!(Config::open(dir.path()).unwrap().model_type().unwrap(), expected);
    }
    for (text, expected) in [
        ("{}", "`model_type` is missing"),
        ("{\"model_type\": 3}", "`model_type` must be a string, is 3"),
        ("{\"text_config\": []}", "`text_config` must be an object, is []"),
        ("{\"text_config\": {\"model_type\": {}}}", "`text_config.model_type` must be a string"),
    ] {
        let dir = folder(&[("config.json", text)]);
        let found = message(Config::open(dir.path()).unwrap().model_type());
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn end_tokens_are_the_union_of_all_that_is_declared() {
    let cases: [(_, _, &[u32]); 6] = [
        (json!({"eos_token_id": 2}), None, &[2]),
        (json!({"eos_token_id": null}), None, &[]),
        (json!({}), Some(json!({})), &[]),
        (json!({"eos_token_id": [7, 2]}), Some(json!({"eos_token_id": [2, 5]})), &[2, 5, 7]),
        (json!({"eos_token_id": 1, "text_config": {"eos_token_id": [0, 9]}}), None, &[0, 1, 9]),
        (json!({"text_config": {}}), Some(json!({"eos_token_id": 4})), &[4]),
    ];
    for (config, generation, expected) in cases {
        let dir = folder(&[("config.json", &config.to_string())]);
        if let Some(generation) = generation {
            fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
        }
        assert_eq!(end_tokens(dir.path()).unwrap(), expected, "{config}");
    }
}

#[test]
fn an_end_token_that_is_none_names_its_file() {
    for bad in ["-1", "\"2\"", "[1, null]", "4294967296", "1.5", "true"] {
        let text = format!("{{\"eos_token_id\": {bad}}}");
        let dir = folder(&[("config.json", &text)]);
        let found = message(end_tokens(dir.path()));
        assert!(found.contains("config.json: `eos_token_id` must be a token id"), "{found}");
        let dir = folder(&[("config.json", "{}"), ("generation_config.json", &text)]);
        let found = message(end_tokens(dir.path()));
        assert!(found.contains("generation_config.json: `eos_token_id` must"), "{found}");
    }
}

#[test]
fn a_long_value_is_shown_in_part() {
    let config = json!({"text_config": {"model_type": ["é".repeat(1000)]}});
    let dir = folder(&[("config.json", &config.to_string())]);
    let found = message(Config::open(dir.path()).unwrap().model_type());
    assert!(found.ends_with("é…"), "{found}");
}
