//! The program from outside, without a model: help, mistakes, listing.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

fn inference(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inference"))
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn model(dir: &Path, config: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config).unwrap();
    fs::write(dir.join("model.safetensors"), b"12345").unwrap();
}

#[test]
fn help_shows_every_command_and_examples() {
    let help = stdout(&inference(&["--help"]));
    for command in
        ["generate", "chat", "classify", "quantise", "list", "backends", "info", "Examples:"]
    {
        assert!(help.contains(command), "{command} is missing in:\n{help}");
    }
}

#[test]
fn help_of_a_command_shows_every_option() {
    let generate = stdout(&inference(&["generate", "--help"]));
    for flag in "max-tokens temperature top-k top-p min-p repeat-penalty presence-penalty frequency-penalty logit-bias \
                 seed stop stop-token logprobs timeout var backend context-len gpu-layers parallel-slots device \
                 quantise exact-activations cache-dtype memory-limit threads chat json metrics"
        .split_whitespace()
    {
        assert!(generate.contains(&format!("--{flag}")), "--{flag} is missing in:\n{generate}");
    }
    let classify = stdout(&inference(&["classify", "--help"]));
    for flag in "format column no-header delimiter output resume metrics labels template calibrate label-scoring batch \
                 logprobs timeout prefix-cache"
        .split_whitespace()
    {
        assert!(classify.contains(&format!("--{flag}")), "--{flag} is missing in:\n{classify}");
    }
    assert!(classify.contains("Classify this text into exactly one category"), "{classify}");
    let chat = stdout(&inference(&["chat", "--help"]));
    for command in ["/system", "/reset", "/exit", "/help", "--system"] {
        assert!(chat.contains(command), "{command} is missing in:\n{chat}");
    }
}

#[test]
fn wrong_usage_is_code_2() {
    for args in [
        &["sing"][..],
        &[],
        &["generate"],
        &["generate", "m", "p", "--temperature", "warm"],
        &["generate", "m", "p", "--logit-bias", "5"],
        &["generate", "m", "p", "--memory-limit", "8 parsecs"],
        &["generate", "m", "p", "--gpu-layers", "some"],
        &["generate", "m", "p", "--var", "a=yes"],
        &["generate", "m", "p", "--system", "without --chat"],
        &["classify", "m", "-", "--batch", "0"],
        &["classify", "m", "-", "--resume"],
        &["classify", "m", "-", "--calibrate"],
        &["classify", "m", "-", "--format", "xml"],
        &["classify", "m", "-", "--delimiter", "ab"],
        &["quantise", "m"],
        &["quantise", "m", "out", "--bits", "four"],
    ] {
        assert_eq!(inference(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn bad_input_is_one_line_on_stderr_and_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    for (args, part) in [
        (&["generate", empty, "hello"][..], empty),
        (&["generate", "nowhere", "hello", "--max-tokens", "0"], "max_tokens"),
        (&["generate", "nowhere", "hello", "--temperature", "-1"], "temperature"),
        (&["generate", "nowhere", "hello", "--stop", ""], "stop"),
        (&["generate", "nowhere", "hello", "--backend", "tpu"], ""),
        (&["generate", "nowhere", "hello", "--quantise", "9"], "quantise"),
        (&["quantise", empty, "out", "--bits", "7"], "bits"),
        (&["quantise", empty, "out", "--group", "48"], "group_size"),
        (&["quantise", empty, "out", "--embedding-bits", "1"], "embedding_bits"),
        (&["quantise", empty, "out"], "config.json"),
        (&["quantise", "nowhere", "out"], "nowhere"),
        (&["chat", empty], ""),
        (&["info", empty], ""),
        (&["classify", "nowhere", "no-such-file.txt"], "no-such-file.txt"),
        (&["classify", "nowhere", "-", "--template", "no place"], "{text}"),
        (&["classify", "nowhere", "-", "--labels", "a,a"], "labels"),
        (&["classify", "nowhere", "-", "--format", "csv"], "no column"),
        (&["classify", "nowhere", "-", "-o", empty], empty),
        (&["list", "no-such-folder"], "no-such-folder"),
    ] {
        let output = inference(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(stdout(&output).is_empty(), "{args:?}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("error: "), "{args:?}: {text}");
        let facade = !text.contains("no backends registered");
        assert!(!facade || text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn list_shows_models_as_a_table_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(stdout(&inference(&["list", path])), "");
    assert!(stderr(&inference(&["list", path])).contains("no models in"));

    model(
        &dir.path().join("b"),
        r#"{"model_type": "qwen3", "quantization": {"bits": 4, "group_size": 64}}"#,
    );
    model(&dir.path().join("a/deep"), r#"{"model_type": "llama"}"#);
    fs::write(dir.path().join("c.gguf"), b"GGUF").unwrap();

    let table = stdout(&inference(&["list", path]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("qwen3") && table.contains("4 bit, groups of 64") && table.contains("gguf"),
        "{table}"
    );

    let json = stdout(&inference(&["list", path, "--all", "--json"]));
    let models: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = models.iter().map(|m| m["model_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["", "llama", "qwen3"]);
    assert_eq!(models[2]["quantisation"]["bits"], 4);
    assert!(models.iter().all(|m| Path::new(m["path"].as_str().unwrap()).is_absolute()));
}

#[test]
fn backends_are_json_objects_with_a_reason_where_they_are_not_available() {
    let output = inference(&["backends", "--json"]);
    assert!(output.status.success());
    for line in stdout(&output).lines() {
        let backend: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(backend["name"].is_string() && backend["devices"].is_array(), "{line}");
        assert_ne!(backend["available"] == true, backend["reason"].is_string(), "{line}");
    }
    assert!(inference(&["backends"]).status.success());
}

#[test]
fn a_self_test_says_what_it_found_and_an_unknown_backend_is_an_error() {
    let output = inference(&["backends", "--self-test"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    if let Some(cpu) = text.split("\n\n").find(|part| part.starts_with("cpu: available")) {
        assert!(cpu.matches("\n  right  ").count() >= 3 && !cpu.contains("WRONG"), "{cpu}");
    }
    let output = inference(&["backends", "--self-test", "--backend", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nothing"), "{}", stderr(&output));
}
