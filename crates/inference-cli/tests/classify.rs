//! `inference classify` from outside: its inputs, its outputs, and runs that are broken off.

mod common;

use common::{MODEL, command, objects, run, run_with_input, text};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const LABELS: &str = "technical,creative,ethical,casual";

/// Texts that the model knows to tell apart, and one line that is none.
fn texts(lines: usize) -> String {
    let line = |i: usize| match i % 5 {
        0 => format!("The kernel allocates {i} bytes.\n"),
        1 => "The moon whispers forgotten songs.\n".to_owned(),
        2 => format!("Is it right to keep {i} secrets?\n"),
        3 => "\n".to_owned(),
        _ => format!("See you at {i}, mate!\n"),
    };
    (0..lines).map(line).collect()
}

fn classify(args: &[&str]) -> Output {
    let all = [&["classify", MODEL, "--labels", LABELS], args].concat();
    command(&all).output().unwrap()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn classify_keeps_the_order_and_a_bad_line_is_its_own() {
    let input = b"The kernel allocates 64 bytes.\n\xff\nThe moon whispers forgotten songs.\n\n";
    let objects = objects(&run_with_input(&["classify", MODEL, "-", "--labels", LABELS], input));
    assert_eq!(objects.len(), 4);
    assert_eq!(objects[0]["text"], "The kernel allocates 64 bytes.");
    assert_eq!(objects[0]["label"], "technical");
    assert_eq!(objects[2]["label"], "creative");
    assert!(objects[1]["error"].is_string() && objects[3]["error"].is_string());
    let sum: f64 =
        objects[0]["labels"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-3, "{sum}");
}

#[test]
fn classify_in_batches_of_any_size_gives_the_same_labels() {
    let input: String = (0..70).map(|i| format!("The cache stores {i} bytes.\n")).collect();
    let labels = |batch: &str| -> Vec<String> {
        let args = ["classify", MODEL, "-", "--labels", LABELS, "--batch", batch];
        objects(&run_with_input(&args, input.as_bytes()))
            .iter()
            .map(|o| format!("{} {}", o["text"], o["label"]))
            .collect()
    };
    assert_eq!(labels("64"), labels("1"));
}

#[test]
fn classify_without_labels_names_the_token() {
    let input = b"Once upon a\n";
    let objects = objects(&run_with_input(&["classify", MODEL, "-", "--logprobs", "2"], input));
    assert!(objects[0]["token"].is_string() && objects[0]["logprob"].is_f64(), "{}", objects[0]);
    assert_eq!(objects[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[test]
fn csv_and_json_lines_give_what_their_texts_give_as_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let lines = ["The kernel allocates 64 bytes.", "The moon, she \"whispers\".", "See you, mate!"];
    let csv: String =
        lines.iter().map(|l| format!("1,\"{}\"\r\n", l.replace('"', "\"\""))).collect();
    let json: String =
        lines.iter().map(|l| format!("{}\n", serde_json::json!({ "body": l }))).collect();
    fs::write(path("a.txt"), lines.join("\n")).unwrap();
    fs::write(path("a.csv"), format!("id,body\r\n{csv}")).unwrap();
    fs::write(path("b.csv"), csv.replace("1,\"", "1;\"")).unwrap();
    fs::write(path("a.jsonl"), json).unwrap();
    let want = text(&classify(&[&path("a.txt")]));
    assert_eq!(want.lines().count(), 3);
    assert_eq!(text(&classify(&[&path("a.csv"), "--column", "body"])), want);
    assert_eq!(text(&classify(&[&path("a.jsonl"), "--field", "body"])), want);
    let semicolons = [&path("b.csv"), "--no-header", "--column", "2", "--delimiter", ";"];
    assert_eq!(text(&classify(&semicolons)), want);
}

#[test]
fn calibration_and_the_mean_change_the_probabilities() {
    let input = b"The kernel allocates 64 bytes.\n";
    let probability = |args: &[&str]| {
        let all =
            [&["classify", MODEL, "-", "--labels", "technical,something else"], args].concat();
        let object = objects(&run_with_input(&all, input)).remove(0);
        assert!(object["margin"].is_f64(), "{object}");
        object["labels"]["technical"].as_f64().unwrap()
    };
    let plain = probability(&[]);
    let empty = probability(&["--calibrate"]);
    let all = [
        plain,
        empty,
        probability(&["--calibrate", "N/A"]),
        probability(&["--label-scoring", "mean"]),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
    }
}

#[test]
fn metrics_go_to_stderr_and_tell_what_the_prompts_had_in_common() {
    let output = run_with_input(
        &["classify", MODEL, "-", "--labels", LABELS, "--metrics"],
        texts(20).as_bytes(),
    );
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["texts        20,", "texts/s", "failed       4", "from the cache"] {
        assert!(stderr.contains(part), "{part} is missing in {stderr}");
    }
}

/// A run of `--resume` over what `left` is of the whole output.
fn resumed(dir: &Path, input: &str, left: &[u8]) -> Output {
    let output = dir.join("broken.jsonl");
    fs::write(&output, left).unwrap();
    classify(&[input, "-o", output.to_str().unwrap(), "--resume", "--batch", "7"])
}

#[test]
fn a_broken_run_is_gone_on_with_from_wherever_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("texts.txt");
    fs::write(&input, texts(40)).unwrap();
    let input = input.to_str().unwrap();
    let whole = dir.path().join("whole.jsonl");
    let output = classify(&[input, "-o", whole.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    let whole = fs::read(&whole).unwrap();
    assert_eq!(whole.iter().filter(|b| **b == b'\n').count(), 40);
    for left in [0, 1, 500, whole.len() / 2, whole.len() - 1, whole.len()] {
        let output = resumed(dir.path(), input, &whole[..left]);
        assert!(output.status.success(), "{left}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read(dir.path().join("broken.jsonl")).unwrap(), whole, "{left}");
    }
    // A file that is there is not overwritten in silence.
    let again = classify(&[input, "-o", dir.path().join("whole.jsonl").to_str().unwrap()]);
    assert!(error(&again).contains("--resume"));
}

#[test]
fn what_another_run_has_left_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("texts.txt");
    fs::write(&input, texts(3)).unwrap();
    let input = input.to_str().unwrap();
    let whole = text(&classify(&[input]));
    let other = whole.replace("moon", "sun");
    let more = format!("{whole}{}", whole.lines().next().unwrap().to_owned() + "\n");
    for (left, reason) in [
        (other.as_str(), "line 2: it is not about the text"),
        (&more, "line 4:"),
        ("no JSON\n", "line 1: it is not one of our results"),
        ("{}\n", "line 1: it is not one of our results"),
        ("a text of one line", "line 1: it is not one of our results"),
        (&whole.replace("ethical", "moral"), "line 1: it has other labels"),
    ] {
        let said = error(&resumed(dir.path(), input, left.as_bytes()));
        assert!(said.contains(reason), "{said}");
        assert_eq!(
            fs::read_to_string(dir.path().join("broken.jsonl")).unwrap(),
            left,
            "it was changed"
        );
    }
}

/// The most memory that a process has held, in KiB.
#[cfg(target_os = "linux")]
fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// 40 MB through a pipe, in lines that need no model: memory after the first batch is memory at the end.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_input() {
    use std::io::{BufRead, BufReader, Write};
    let line = [&b"\xff"[..], &[b'x'; 5000], b"\n"].concat();
    for format in ["text", "csv", "jsonl"] {
        let args = ["classify", MODEL, "-", "--labels", LABELS, "--format", format];
        let args = [&args[..], &["--column", "1", "--no-header"]].concat();
        let mut child =
            command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut results = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pass = |batches: usize| {
            thread::scope(|scope| {
                let (stdin, line) = (&mut stdin, &line);
                scope.spawn(move || stdin.write_all(&line.repeat(64 * batches)).unwrap());
                for result in results.by_ref().take(64 * batches) {
                    assert!(result.unwrap().contains("error"));
                }
            });
            most_memory(child.id())
        };
        let (first, last) = (pass(4), pass(125));
        assert!(last - first < 8 << 10, "{format}: from {first} to {last} KiB");
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_whole_lines_that_can_be_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("texts.txt"), dir.path().join("out.jsonl"));
    fs::write(&input, texts(3000)).unwrap();
    let args = ["classify", MODEL, input.to_str().unwrap(), "--labels", LABELS, "--batch", "8"];
    let args = [&args[..], &["-o", output.to_str().unwrap()]].concat();
    let child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while fs::metadata(&output).map_or(0, |m| m.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    let left = fs::read_to_string(&output).unwrap();
    let done = left.lines().count();
    assert!(left.ends_with('\n') && done < 3000, "{done}");
    assert!(stderr.contains(&format!("{done} texts are done; --resume")), "{stderr}");
    run(&[&args[..], &["--resume"]].concat());
    let whole = fs::read_to_string(&output).unwrap();
    assert!(whole.starts_with(&left));
    let lines: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let all = texts(3000);
    assert!(lines.iter().map(|l| l["text"].as_str().unwrap()).eq(all.lines()));
}
