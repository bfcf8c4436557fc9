//! Rules of the sources: `unsafe`, length, `unwrap`, lints, paths of a machine.

use super::{
    Fault, File,
    code::{code_only, has_word, test_lines},
};

/// Where `unsafe` may stand: files, or folders that end with `/`.
const UNSAFE: [&str; 21] = [
    "crates/inference-engine/src/weights/mapped.rs",
    "crates/inference-cpu/src/device.rs",
    "crates/inference-cpu/src/elementwise.rs",
    "crates/inference-cpu/src/memory.rs",
    "crates/inference-cpu/src/pool.rs",
    "crates/inference-cpu/src/simd/",
    "crates/inference-cpu/src/linear/",
    "crates/inference-cpu/src/attention/",
    "crates/inference-llama-cpp/src/system.rs",
    "crates/inference-gpu/src/driver.rs",
    "crates/inference-gpu/src/launch.rs",
    "crates/inference-gpu/src/replay.rs",
    "crates/inference-gpu/src/cpu/",
    "crates/inference-rocm/src/driver.rs",
    "crates/inference-rocm/src/hip/",
    "crates/inference-rocm/tests/",
    "crates/inference-cuda/src/driver/",
    "tests/src/card.rs",
    "tests/src/metal.rs",
    "tests/tests/sanitised.rs",
    "xtask/src/limits.rs",
];

/// Lines of a Rust file: more are a warning, and more are a fault.
const MANY_LINES: usize = 400;
const TOO_MANY_LINES: usize = 600;

/// Beginnings of paths that are only on somebody's machine; written so that this file is none of those that hold them.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Checks every file.
pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        faults.extend(machine_paths(file));
        if file.path.ends_with("Cargo.toml") {
            faults.extend(lints(file));
        }
        if file.path.ends_with(".rs") {
            let code = code_only(&file.text);
            faults.extend(length(file));
            faults.extend(unsafe_code(file, &code));
            if is_library(&file.path) {
                faults.extend(unwraps(file, &code));
            }
        }
    }
    faults
}

/// Sources of library crates that are no tests by their name.
fn is_library(path: &str) -> bool {
    let parts: Vec<_> = path.split('/').collect();
    parts.first() == Some(&"crates")
        && parts.get(1) != Some(&"inference-cli")
        && parts.get(2) == Some(&"src")
        && !parts.iter().any(|p| *p == "tests" || *p == "tests.rs" || p.ends_with("_tests.rs"))
}

fn length(file: &File) -> Option<Fault> {
    let lines = file.text.lines().count();
    let fault =
        |most| Fault::new(&file.path, None, format!("{lines} lines; split it, {most} is the aim"));
    match lines {
        n if n > TOO_MANY_LINES => Some(fault(MANY_LINES)),
        n if n > MANY_LINES => Some(fault(MANY_LINES).warning()),
        _ => None,
    }
}

fn unsafe_code(file: &File, code: &str) -> Vec<Fault> {
    let allowed = UNSAFE
        .iter()
        .any(|place| *place == file.path || (place.ends_with('/') && file.path.starts_with(place)));
    let source: Vec<&str> = file.text.lines().collect();
    let code: Vec<&str> = code.lines().collect();
    let mut faults = Vec::new();
    for (at, line) in code.iter().enumerate().filter(|(_, line)| has_word(line, "unsafe")) {
        if !allowed {
            let text = "unsafe outside the listed files; write it safely, or add the file to xtask/src/tidy/sources.rs";
            faults.push(Fault::new(&file.path, at + 1, text));
        } else if needs_comment(line) && !has_comment(&source, &code, at) {
            let text = "unsafe without a comment; say in `// SAFETY:` before it which invariant holds and who upholds it";
            faults.push(Fault::new(&file.path, at + 1, text));
        }
    }
    faults
}

/// A block or an implementation; functions have a `# Safety` section instead, which clippy asks for.
fn needs_comment(line: &str) -> bool {
    let after = line.split("unsafe").nth(1).unwrap_or_default().trim_start();
    after.is_empty() || after.starts_with('{') || after.starts_with("impl")
}

/// Whether the comment right before the statement of line `at` (from 0), or one on its line, begins with `SAFETY:`.
fn has_comment(source: &[&str], code: &[&str], at: usize) -> bool {
    if source[at].contains("SAFETY:") {
        return true;
    }
    let mut in_comment = false;
    for line in (0..at).rev() {
        let text = source[line].trim();
        if text.starts_with("//") {
            in_comment = true;
            if text.contains("SAFETY:") {
                return true;
            }
            continue;
        }
        // The statement may have begun on an earlier line, or carry attributes; a comment stands before it.
        let ended = code[line].trim_end();
        let attribute = text.starts_with("#[");
        if in_comment || text.is_empty() || (!attribute && ended.ends_with([';', '{', '}'])) {
            return false;
        }
    }
    false
}

fn unwraps(file: &File, code: &str) -> Vec<Fault> {
    let in_test = test_lines(code);
    let found =
        code.lines().enumerate().filter(|(at, line)| line.contains(".unwrap()") && !in_test[*at]);
    let text = "unwrap in a library; return an error, or say in `expect` why it holds";
    found.map(|(at, _)| Fault::new(&file.path, at + 1, text)).collect()
}

fn lints(file: &File) -> Option<Fault> {
    let is_package = file.text.lines().any(|l| l.trim() == "[package]");
    let mut section = "";
    let inherited = file.text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let line: String = line.split_whitespace().collect();
        line == "lints.workspace=true" || (section == "[lints]" && line == "workspace=true")
    });
    let text = "the crate has lints of its own; write `[lints]` and `workspace = true`";
    (is_package && !inherited).then(|| Fault::new(&file.path, None, text))
}

fn machine_paths(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for path in MACHINE_PATHS {
            let stands = |(start, _): (usize, &str)| {
                !line[..start].ends_with(|c: char| c.is_alphanumeric() || "_-.~/}".contains(c))
            };
            if line.match_indices(path).any(stands) {
                let text =
                    format!("{path} is a path of one machine; write it relative to the repository");
                faults.push(Fault::new(&file.path, at + 1, text));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&[file]).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn unsafe_is_only_in_listed_files_and_has_a_comment() {
        let engine = "crates/inference-engine/src/step.rs";
        assert_eq!(
            found(engine, "// unsafe\nlet s = \"unsafe\";\n#![forbid(unsafe_code)]\n").len(),
            0
        );
        assert!(
            found(engine, "fn a() {\n    unsafe { b() }\n}\n")[0]
                .starts_with("crates/inference-engine/src/step.rs:2: unsafe outside")
        );
        let cpu = "crates/inference-cpu/src/simd/avx2.rs";
        assert_eq!(found(cpu, "fn a() {\n    unsafe { b() }\n}\n").len(), 1);
        assert_eq!(
            found(cpu, "fn a() {\n    // SAFETY: b asks nothing.\n    unsafe { b() }\n}\n").len(),
            0
        );
        assert_eq!(
            found(cpu, "// SAFETY: one\n// and more\n#[inline]\nlet a =\n    unsafe { b() };\n")
                .len(),
            0
        );
        assert_eq!(found(cpu, "// SAFETY: of another\nc();\nlet a = unsafe { b() };\n").len(), 1);
        assert_eq!(found(cpu, "/// # Safety\npub unsafe fn a() {}\n").len(), 0);
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text = "fn a() {\n    b().unwrap();\n}\n#[cfg(test)]\nmod tests {\n    fn c() {\n        b().unwrap();\n    }\n}\n";
        assert_eq!(found("crates/inference-core/src/a.rs", text).len(), 1);
        for path in [
            "crates/inference-core/tests/a.rs",
            "crates/inference-core/src/a/tests.rs",
            "crates/inference-cli/src/a.rs",
            "xtask/src/a.rs",
        ] {
            assert_eq!(found(path, text).len(), 0, "{path}");
        }
    }

    #[test]
    fn long_files_are_told() {
        assert_eq!(found("a.rs", &"\n".repeat(400)).len(), 0);
        assert!(found("a.rs", &"\n".repeat(401))[0].contains("warning"));
        assert!(!found("a.rs", &"\n".repeat(601))[0].contains("warning"));
    }

    #[test]
    fn lints_are_the_workspace_s() {
        assert_eq!(found("a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").len(), 0);
        assert_eq!(found("a/Cargo.toml", "[package]\nlints.workspace = true\n").len(), 0);
        assert_eq!(found("a/Cargo.toml", "[package]\n[dependencies]\n").len(), 1);
        assert_eq!(found("Cargo.toml", "[workspace]\n").len(), 0);
    }

    #[test]
    fn paths_of_a_machine_are_told_but_not_parts_of_others() {
        let path = MACHINE_PATHS[2];
        assert_eq!(found("a.md", &format!("see {path}me/x\n")).len(), 1);
        assert_eq!(found("a.md", &format!("see https://example.org{path}x\n")).len(), 0);
    }
}
