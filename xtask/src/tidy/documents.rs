//! Rules of the documents: links lead somewhere.

use super::{Fault, File};
use crate::root;
use std::path::Path;

/// Checks the links of every Markdown file.
pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let documents = files.iter().filter(|f| f.path.ends_with(".md"));
    documents.flat_map(|file| broken(file, |path| root().join(path).exists())).collect()
}

/// Links to files that are not there.
fn broken(file: &File, exists: impl Fn(&Path) -> bool) -> Vec<Fault> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut fenced = false;
    let mut faults = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in links(line) {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !path.is_empty() && !exists(&folder.join(path)) {
                let text = format!("the link {target} leads nowhere; correct it or add the file");
                faults.push(Fault::new(&file.path, at + 1, text));
            }
        }
    }
    faults
}

/// Targets of `[text](target)` and `[text]: target`, outside code.
fn links(line: &str) -> Vec<&str> {
    let outside_code: Vec<&str> = line.split('`').step_by(2).collect();
    let mut found = Vec::new();
    // A link whose text is code is split at the backticks: its target begins the next part.
    for part in outside_code {
        let inline = part.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        found.extend(inline.map(|t| t.trim_matches(['<', '>'])));
    }
    if let Some((name, target)) = line.split_once("]: ")
        && name.starts_with('[')
        && !name.starts_with("[^")
    {
        found.extend(target.split_whitespace().next());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_must_lead_somewhere() {
        let text = "[a](b.md) [c](../d.md#part) [e](https://example.org) [f](#g) `[h](no)`\n```\n[i](no)\n```\n[j]: k.md\n[`l`](m.md)\n";
        let file = File { path: "docs/x.md".to_owned(), text: text.to_owned() };
        let there = |path: &Path| path.ends_with("b.md");
        let found: Vec<_> = broken(&file, there).iter().map(Fault::to_string).collect();
        let starts = [
            "docs/x.md:1: the link ../d.md#part",
            "docs/x.md:5: the link k.md",
            "docs/x.md:6: the link m.md",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (fault, start) in found.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault}");
        }
    }
}
