//! What was measured, as a table and as JSON.

use super::{
    latency::{ALLOWED, Late, Latency},
    texts::Texts,
    ways::{Kind, Measured},
};
use crate::bench::{
    report::Machine,
    spread::Spread,
    table::{percent, ratio, spread},
};
use serde::Serialize;
use std::fmt::Write;

/// Probabilities of one sentence differ by no more than this where they are the same.
const SAME: f32 = 1e-5;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Report {
    /// Day of the measurement.
    date: String,
    machine: Machine,
    threads: usize,
    sentences: usize,
    rounds: usize,
    labels: Vec<String>,
    /// Tokens that all prompts have in common.
    shared_tokens: usize,
    /// Mean tokens behind those.
    suffix_tokens: f64,
    rows: Vec<Row>,
    latencies: Vec<Latency>,
}

/// A way.
#[derive(Debug, Serialize)]
struct Row {
    backend: String,
    weights: String,
    way: Kind,
    sentences_per_second: Spread,
    suffix_tokens_per_second: Spread,
    /// Of a prefill of 512 tokens by the same model, where it is measured.
    prefill_512: Option<Spread>,
    /// Suffix tokens per second, of that.
    share: Option<f64>,
    /// Sentences per second of the first way, over those of this one.
    first_is_faster: Option<Spread>,
    /// Tokens that were taken from the cache.
    cached_tokens: usize,
    /// Sentences with the best label that the first way finds.
    same_labels: usize,
    /// Sentences all of whose probabilities are those of the first way.
    same_probabilities: usize,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        threads: usize,
        texts: &Texts,
        rounds: usize,
        measured: &[Measured],
        latencies: Vec<Latency>,
    ) -> Self {
        let suffixes: usize = texts.suffixes.iter().sum();
        Self {
            date: jiff::Zoned::now().date().to_string(),
            machine,
            threads,
            sentences: texts.prompts.len(),
            rounds,
            labels: texts.labels.clone(),
            shared_tokens: texts.shared,
            suffix_tokens: suffixes as f64 / texts.suffixes.len() as f64,
            rows: measured.iter().filter_map(|m| row(m, measured)).collect(),
            latencies,
        }
    }

    /// One JSON object, on one line.
    pub(in crate::bench) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are always JSON")
    }

    /// Lines for people.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a `String` never fails.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let m = &self.machine;
        writeln!(
            out,
            "{}, {} {}, {} cores; measured with {} threads on {}",
            m.cpu, m.os, m.arch, m.cores, self.threads, self.date
        )?;
        writeln!(
            out,
            "{} sentences behind {} tokens, {:.1} more each, in {} turns; labels {}\n",
            self.sentences,
            self.shared_tokens,
            self.suffix_tokens,
            self.rounds,
            self.labels.join(", ")
        )?;
        let mut rows = vec![
            ["way", "sentences/s", "first is", "suffix tokens/s", "of prefill 512", "same labels"]
                .map(str::to_owned),
        ];
        for row in &self.rows {
            let prefill = row
                .share
                .zip(row.prefill_512)
                .map(|(share, prefill)| format!("{} of {}", percent(share), spread(&prefill)));
            rows.push([
                format!("{} {}, {}", row.backend, row.weights, row.way.name()),
                spread(&row.sentences_per_second),
                row.first_is_faster.as_ref().map(ratio).unwrap_or_default(),
                spread(&row.suffix_tokens_per_second),
                prefill.unwrap_or_default(),
                format!(
                    "{} of {}, same probabilities {}",
                    row.same_labels, self.sentences, row.same_probabilities
                ),
            ]);
        }
        columns(out, &rows)?;
        for l in &self.latencies {
            let late = |late: &Late| {
                format!(
                    "{} of {} tokens, the latest of a round {} late",
                    late.too_late,
                    late.tokens,
                    spread(&late.most)
                )
            };
            let ms =
                |s: Spread| Spread { median: 1e3 * s.median, min: 1e3 * s.min, max: 1e3 * s.max };
            writeln!(
                out,
                "\n{} {}: {} streams decode, {} prompt tokens come, whose first token takes {} s\n  \
                 usual interval {} ms; more than {ALLOWED} usual intervals late:\n  \
                 without the prompt  {}\n  beside the prompt   {}",
                l.backend,
                l.weights,
                l.streams,
                l.prompt_tokens,
                spread(&l.first_token),
                spread(&ms(l.usual)),
                late(&l.without),
                late(&l.beside),
            )?;
        }
        Ok(())
    }
}

/// `None` without any round.
fn row(m: &Measured, all: &[Measured]) -> Option<Row> {
    let first = all.first()?;
    // Both ways of a loaded model have the rate that one of them measured.
    let same_model = |o: &&Measured| o.facts.name() == m.facts.name() && o.kind == Kind::Shared;
    let prefill = all.iter().find(same_model).map_or(&[][..], |o| &o.prefill);
    let tokens = Spread::of(m.tokens.iter().copied())?;
    let prefill = Spread::of(prefill.iter().copied());
    let best = |p: &Vec<f32>| (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]));
    let pairs = || m.probabilities.iter().zip(&first.probabilities);
    let is_first = std::ptr::eq(m, first);
    Some(Row {
        backend: m.facts.backend.clone(),
        weights: m.facts.weights.clone(),
        way: m.kind,
        sentences_per_second: Spread::of(m.rates.iter().copied())?,
        suffix_tokens_per_second: tokens,
        prefill_512: prefill,
        share: prefill.map(|p| tokens.median / p.median),
        first_is_faster: if is_first { None } else { Spread::ratio(&first.rates, &m.rates) },
        cached_tokens: m.cached,
        same_labels: pairs().filter(|(a, b)| best(a) == best(b)).count(),
        same_probabilities: pairs()
            .filter(|(a, b)| a.iter().zip(*b).all(|(a, b)| (a - b).abs() <= SAME))
            .count(),
    })
}

fn columns<const N: usize>(out: &mut String, rows: &[[String; N]]) -> std::fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::bench) mod tests {
    use super::*;
    use crate::bench::report::tests::facts;

    fn measured(backend: &str, kind: Kind, rate: f64, probability: f32) -> Measured {
        Measured {
            facts: facts(backend, "8 bit"),
            kind,
            rates: vec![rate; 3],
            tokens: vec![20.0 * rate; 3],
            prefill: if kind == Kind::Shared { vec![25.0 * rate; 3] } else { Vec::new() },
            cached: 5,
            probabilities: vec![vec![probability, 1.0 - probability]; 4],
        }
    }

    #[test]
    fn ways_are_compared_with_the_first() {
        let all = [
            measured("cpu", Kind::Shared, 40.0, 0.9),
            measured("cpu", Kind::OneByOne, 20.0, 0.9),
            measured("llama_cpp", Kind::Shared, 10.0, 0.1),
        ];
        let rows: Vec<_> = all.iter().filter_map(|m| row(m, &all)).collect();
        let ratios: Vec<_> = rows.iter().map(|r| r.first_is_faster.map(|s| s.median)).collect();
        assert_eq!(ratios, [None, Some(2.0), Some(4.0)]);
        let shares: Vec<_> = rows.iter().map(|r| r.share).collect();
        assert_eq!(shares, [Some(0.8), Some(0.4), Some(0.8)]);
        let same: Vec<_> = rows.iter().map(|r| (r.same_labels, r.same_probabilities)).collect();
        assert_eq!(same, [(4, 4), (4, 4), (0, 0)]);
    }

    /// Two ways of one model, and streams beside a prompt.
    pub(in crate::bench) fn report() -> Report {
        let texts = Texts {
            prompts: vec!["a".to_owned(); 4],
            warm_up: Vec::new(),
            labels: vec!["x".to_owned(), "y".to_owned()],
            shared: 60,
            suffixes: vec![20; 4],
        };
        let of = |x: f64| Spread { median: x, min: 0.5 * x, max: 1.5 * x };
        let latency = Latency {
            backend: "cpu".to_owned(),
            weights: "8 bit".to_owned(),
            streams: 8,
            prompt_tokens: 2000,
            usual: of(0.02),
            without: Late { most: of(0.5), too_late: 0, tokens: 7 },
            beside: Late { most: of(2.5), too_late: 1, tokens: 9 },
            first_token: of(4.0),
        };
        let all =
            [measured("cpu", Kind::Shared, 40.0, 0.9), measured("cpu", Kind::Unshared, 10.0, 0.9)];
        Report::new(Machine::here(), 2, &texts, 3, &all, vec![latency])
    }

    #[test]
    fn the_table_and_the_json_have_all_of_it() {
        let report = report();
        let table = report.table();
        for part in [
            "4 sentences behind 60 tokens, 20.0 more each, in 3 turns; labels x, y",
            "cpu 8 bit, unshared",
            "4.00x (4.00–4.00)",
            "80 % of 1000 (1000–1000)",
            "2000 prompt tokens come, whose first token takes 4.0 (2.0–6.0) s",
            "usual interval 20.0 (10.0–30.0) ms; more than 2 usual intervals late:",
            "without the prompt  0 of 7 tokens, the latest of a round 0.5 (0.2–0.8) late",
            "beside the prompt   1 of 9 tokens, the latest of a round 2.5 (1.2–3.8) late",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        assert!(report.json().contains(r#""way":"unshared""#));
    }
}
