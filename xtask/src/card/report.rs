//! What all steps found: as a page for people, and as JSON.

use crate::bench::Machine;
use inference::DeviceInfo;
use serde::Serialize;
use serde_json::Value;
use std::fmt::{self, Write};

/// Bytes of a step's output that the page shows, of its end.
const SHOWN: usize = 24 << 10;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Day of the run.
    pub(super) date: String,
    /// What was checked out.
    pub(super) commit: String,
    pub(super) backend: String,
    pub(super) short: bool,
    pub(super) devices: Vec<DeviceInfo>,
    /// What the backend says of drivers and devices.
    pub(super) told: String,
    pub(super) machine: Machine,
    pub(super) steps: Vec<Done>,
}

/// A step that has ended.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) outcome: Outcome,
    pub(super) seconds: f64,
    /// What it printed.
    pub(super) output: String,
    /// What it measured: a report of `bench`, or of `bench classify`.
    pub(super) json: Option<Value>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// As it should.
    Right,
    /// It was not run.
    LeftOut(String),
    /// It ended so.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("right"),
            Self::LeftOut(reason) => write!(f, "left out: {reason}"),
            Self::Failed(how) => write!(f, "FAILED: {how}"),
        }
    }
}

impl Report {
    /// Steps that failed.
    pub(super) fn failed(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.outcome, Outcome::Failed(_))).count()
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("numbers and texts are always JSON");
        text + "\n"
    }

    /// The page.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a `String` never fails.
        let _ = self.page(&mut out);
        out
    }

    /// How the steps ended, and what was measured: tables.
    pub(super) fn summary(&self) -> String {
        let mut out = String::new();
        let _ = self.tables(&mut out);
        out
    }

    fn page(&self, out: &mut String) -> fmt::Result {
        let names: Vec<_> = self.devices.iter().map(|d| d.name.as_str()).collect();
        writeln!(out, "# {} on {}\n", self.backend, names.join(", "))?;
        let m = &self.machine;
        writeln!(
            out,
            "{}, commit {}{}",
            self.date,
            self.commit,
            if self.short { ", --short" } else { "" }
        )?;
        writeln!(out, "on {}, {} {}, {} cores.\n", m.cpu, m.os, m.arch, m.cores)?;
        writeln!(out, "```text\n{}\n```\n", self.told.trim_end())?;
        self.tables(out)?;
        for step in self.steps.iter().filter(|s| !s.output.is_empty()) {
            writeln!(out, "\n## {}\n\n`{}`\n", step.name, step.command)?;
            writeln!(out, "```text\n{}\n```", end(&step.output, SHOWN).trim_end())?;
        }
        Ok(())
    }

    fn tables(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "| step | | seconds |\n| --- | --- | --- |")?;
        for step in &self.steps {
            let parts = parts_left_out(&step.output);
            let parts =
                if parts > 0 { format!(", {parts} parts of it left out") } else { String::new() };
            writeln!(out, "| {} | {}{parts} | {:.0} |", step.name, step.outcome, step.seconds)?;
        }
        let measured = || self.steps.iter().filter_map(|step| step.json.as_ref());
        let limits: Vec<_> = measured().flat_map(limits).collect();
        if let Some(first) = limits.first() {
            writeln!(out, "\n{first}.")?;
        }
        let speeds: Vec<_> = measured().flat_map(speeds).collect();
        if !speeds.is_empty() {
            writeln!(out, "\n| model | weights | | tokens/s | share of the limit |")?;
            writeln!(out, "| --- | --- | --- | --- | --- |")?;
            speeds.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        let ways: Vec<_> = measured().flat_map(ways).collect();
        if !ways.is_empty() {
            writeln!(out, "\n| classification | weights | sentences/s | of prefill's rate |")?;
            writeln!(out, "| --- | --- | --- | --- |")?;
            ways.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        Ok(())
    }
}

/// The last `most` bytes of a text, from a line's beginning.
fn end(text: &str, most: usize) -> &str {
    let Some(cut) = text.len().checked_sub(most).filter(|cut| *cut > 0) else { return text };
    let rest = text.as_bytes()[cut..].iter().position(|b| *b == b'\n');
    rest.map_or("", |line| &text[cut + line + 1..])
}

/// Parts of a test that say that they were skipped.
fn parts_left_out(output: &str) -> usize {
    output.matches("skipped: ").count()
}

fn rows<'a>(measured: &'a Value, with: &'static str) -> impl Iterator<Item = &'a Value> {
    let rows = measured["rows"].as_array().into_iter().flatten();
    rows.filter(move |row| !row[with].is_null())
}

/// What the card did at best, as a report of `bench` tells.
fn limits(measured: &Value) -> impl Iterator<Item = String> + '_ {
    let candidates = measured["candidates"].as_array().into_iter().flatten();
    candidates.filter_map(|c| Some(c["gpu"]["told"].as_str()?.to_owned()))
}

/// Lines of a table, from a report of `bench`.
fn speeds(measured: &Value) -> impl Iterator<Item = String> + '_ {
    rows(measured, "tokens_per_second").map(|row| {
        format!(
            "| {} | {} | {} | {} | {} |",
            text(&row["model"]),
            text(&row["weights"]),
            text(&row["cell"]),
            number(&row["tokens_per_second"]["median"]),
            share(&row["share"])
        )
    })
}

/// Lines of a table, from a report of `bench classify`.
fn ways(measured: &Value) -> impl Iterator<Item = String> + '_ {
    rows(measured, "sentences_per_second").map(|row| {
        format!(
            "| {} | {} | {} | {} |",
            text(&row["way"]).replace('_', " "),
            text(&row["weights"]),
            number(&row["sentences_per_second"]["median"]),
            share(&row["share"])
        )
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "?".to_owned(), |n| format!("{n:.1}"))
}

fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::made_up;

    fn done(name: &str, outcome: Outcome, output: &str, json: Option<String>) -> Done {
        let json = json.map(|text| serde_json::from_str(&text).expect("it is JSON"));
        let output = output.to_owned();
        Done {
            name: name.to_owned(),
            command: "a b".to_owned(),
            outcome,
            seconds: 7.0,
            output,
            json,
        }
    }

    fn report(steps: Vec<Done>) -> Report {
        Report {
            date: "2026-01-31".to_owned(),
            commit: "abc".to_owned(),
            backend: "cuda".to_owned(),
            short: false,
            devices: vec![DeviceInfo::new("0000:01:00.0", "a card", 1 << 34, 1 << 33)],
            told: "driver of CUDA 99.9\n".to_owned(),
            machine: Machine::here(),
            steps,
        }
    }

    #[test]
    fn all_that_was_measured_is_in_the_tables() {
        let report = report(vec![
            done("self-test", Outcome::Right, "right  all\n", None),
            done("tests", Outcome::Right, "test a ... skipped: no graphs\nok\n", None),
            done("bench", Outcome::Right, "a table\n", Some(made_up::bench())),
            done("classify", Outcome::Right, "", Some(made_up::classify())),
            done("large", Outcome::LeftOut("it needs 18 GiB".to_owned()), "", None),
        ]);
        let page = report.markdown();
        for part in [
            "# cuda on a card",
            "driver of CUDA 99.9",
            "| self-test | right | 7 |",
            "| tests | right, 1 parts of it left out | 7 |",
            "| large | left out: it needs 18 GiB | 7 |",
            "\nmade up.\n",
            "| m | bf16 | prefill 512 | 40.0 | 20 % |",
            "| unshared | 8 bit | 10.0 | 20 % |",
            "a table",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains("FAILED"));
        assert_eq!(report.failed(), 0);
        let json: Value = serde_json::from_str(&report.json()).expect("it is JSON");
        assert_eq!(json["steps"].as_array().map(Vec::len), Some(5));
        assert_eq!(json["steps"][0]["outcome"], "right");
        assert_eq!(json["steps"][4]["outcome"]["left_out"], "it needs 18 GiB");
    }

    #[test]
    fn a_step_that_failed_is_seen_at_once_and_its_last_words_are_kept() {
        let long = "line\n".repeat(SHOWN);
        let failed = Outcome::Failed("exit status: 101".to_owned());
        let report = report(vec![done("tests", failed, &format!("{long}the last words\n"), None)]);
        let page = report.markdown();
        assert!(page.contains("| tests | FAILED: exit status: 101 | 7 |"), "{page}");
        assert!(page.contains("the last words") && page.len() < 2 * SHOWN);
        assert_eq!(report.failed(), 1);
        assert_eq!(end("äöü\nx\n", 3), "x\n");
        assert_eq!(end("short", 9), "short");
    }
}
