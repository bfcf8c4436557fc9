//! The program from outside, with the model that the fixtures hold.

mod common;

use common::{MODEL, command, objects, run, run_with_input, text};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

#[test]
fn generate_is_repeatable_and_ends_its_line() {
    let args = ["generate", MODEL, "Once upon a time", "--max-tokens", "16"];
    let (one, two) = (text(&run(&args)), text(&run(&args)));
    assert_eq!(one, two);
    assert!(one.ends_with('\n') && one.trim().len() > 10, "{one:?}");
}

#[test]
fn a_prompt_from_standard_input_is_the_same_prompt() {
    let args = ["generate", MODEL, "Once upon a time", "--max-tokens", "8"];
    let piped = ["generate", MODEL, "-", "--max-tokens", "8"];
    assert_eq!(text(&run(&args)), text(&run_with_input(&piped, b"Once upon a time\n")));
}

#[test]
fn the_json_texts_join_to_the_plain_text() {
    let args = ["generate", MODEL, "Once upon a time", "--max-tokens", "12", "--json"];
    let objects = objects(&run(&args));
    let (end, tokens) = objects.split_last().unwrap();
    let joined: String = tokens.iter().map(|t| t["text"].as_str().unwrap()).collect();
    assert_eq!(joined.trim_end(), text(&run(&args[..5])).trim_end());
    assert!(tokens.iter().all(|t| t["id"].is_u64() && t["logprob"].as_f64().unwrap() <= 0.0));
    assert_eq!(end["finish_reason"], "length");
    assert_eq!(end["metrics"]["generated_tokens"], 12);
}

#[test]
fn a_stop_text_ends_the_output_and_metrics_go_to_stderr() {
    let plain = text(&run(&["generate", MODEL, "Once upon a time", "--max-tokens", "24"]));
    let stop = plain.split_whitespace().nth(3).unwrap();
    let args =
        ["generate", MODEL, "Once upon a time", "--max-tokens", "24", "--stop", stop, "--metrics"];
    let output = run(&args);
    assert_eq!(text(&output).trim_end(), plain.split(stop).next().unwrap().trim_end());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["prompt", "generated", "first token", "peak memory", "tokens/s"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn chat_by_standard_input_answers_each_line_and_knows_its_commands() {
    let input = "/help\nHello!\n\n/reset\n/system Be brief.\nHello!\n/exit\nnever answered\n";
    let output = run_with_input(&["chat", MODEL, "--max-tokens", "24"], input.as_bytes());
    assert!(
        text(&output).lines().filter(|l| !l.trim().is_empty()).count() >= 2,
        "{:?}",
        text(&output)
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("/system TEXT"));
    let single = run(&["generate", MODEL, "Hello!", "--chat", "--max-tokens", "24"]);
    assert!(text(&output).starts_with(text(&single).as_str()), "{:?}", text(&output));
}

#[test]
fn info_says_what_the_model_is() {
    let info = &objects(&run(&["info", MODEL, "--json"]))[0];
    assert_eq!((&info["architecture"], &info["vocab_size"]), (&"qwen3".into(), &1024.into()));
    assert_eq!(info["chat_template"], true);
    assert!(text(&run(&["info", MODEL])).contains("qwen3"));
}

#[test]
fn a_quantised_copy_speaks_and_is_not_overwritten_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let said = text(&run(&["quantise", MODEL, copy, "--bits", "6", "--group", "32"]));
    assert!(said.contains("MiB, before 4.96 MiB") && said.lines().count() == 1, "{said}");
    let info = &objects(&run(&["info", copy, "--json"]))[0];
    assert_eq!(info["quantisation"]["bits"], 6);
    assert_eq!(info["quantisation"]["group_size"], 32);
    let ask = |model: &str| {
        text(&run(&["generate", model, "What colour is the sky?", "--chat", "--max-tokens", "9"]))
    };
    assert_eq!(ask(copy), "The sky is blue.\n");

    let again = command(&["quantise", MODEL, copy]).output().unwrap();
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1));
    assert!(error.contains("not empty") && error.contains("--force"), "{error}");
    assert_eq!(objects(&run(&["info", copy, "--json"]))[0]["quantisation"]["bits"], 6);
    run(&["quantize", MODEL, copy, "--bits", "4", "--force"]);
    assert_eq!(objects(&run(&["info", copy, "--json"]))[0]["quantisation"]["bits"], 4);
    let listed = text(&run(&["list", dir.path().to_str().unwrap()]));
    assert!(listed.contains("4 bit"), "{listed}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let args = ["generate", MODEL, "Once upon a time", "--max-tokens", "200", "--json"];
    let mut child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stderr, "");
}

#[cfg(unix)]
#[test]
fn ctrl_c_prints_what_there_is_and_ends_with_130() {
    // 1000 tokens of a model this small take long enough for the signal to come in between.
    let args = ["generate", MODEL, "Once upon a time", "--max-tokens", "900", "--temperature", "1"];
    let mut child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 8];
    out.read_exact(&mut first).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    // The model may have ended its story before the signal came.
    assert!(code == Some(130) || code == Some(0), "{code:?}");
    assert!(rest.ends_with('\n'));
}
