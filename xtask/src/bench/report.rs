//! What was measured, for people and for programs.

use super::{checkpoint::Checkpoint, measure::Sample};
use crate::limits::Limits;
use inference::ModelInfo;
use serde::Serialize;
use std::fmt::Write;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) arch: &'static str,
    pub(super) os: &'static str,
    pub(super) physical_cores: usize,
    /// Bytes.
    pub(super) memory: u64,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        // A system that does not tell is no reason not to measure.
        let mut system = sysinfo::System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_all();
            system.refresh_memory();
        }
        let cpu = system.as_ref().and_then(|s| Some(s.cpus().first()?.brand().trim().to_owned()));
        let parallel = |_| std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpu: cpu.unwrap_or_default(),
            arch: std::env::consts::ARCH,
            os: std::env::consts::OS,
            physical_cores: sysinfo::System::physical_core_count().unwrap_or_else(parallel),
            memory: system.map_or(0, |s| s.total_memory()),
        }
    }
}

/// Several runs of the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.collect();
        all.sort_by(f64::total_cmp);
        let at = |i: usize| all.get(i).copied().unwrap_or_default();
        let n = all.len();
        let median = if n.is_multiple_of(2) {
            f64::midpoint(at((n / 2).saturating_sub(1)), at(n / 2))
        } else {
            at(n / 2)
        };
        Self { median, min: at(0), max: at(n.saturating_sub(1)) }
    }
}

/// One model on one backend.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    model: String,
    backend: String,
    device: String,
    /// How the weights are stored.
    weights: String,
    prompt_tokens: usize,
    generated_tokens: usize,
    batch: usize,
    /// Prompt tokens per second.
    prefill: Spread,
    /// Generated tokens per second, of the whole batch.
    decode: Spread,
    peak_memory: u64,
    /// Operations that a prompt token needs, outside attention.
    operations_per_token: f64,
    /// Bytes that a step must read.
    bytes_per_step: f64,
    /// Of the peak of arithmetic; of the backend cpu.
    share_of_arithmetic: Option<f64>,
    /// Of the rate of reading; of the backend cpu.
    share_of_bandwidth: Option<f64>,
}

impl Row {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        info: &ModelInfo,
        samples: &[Sample],
        prompt: usize,
        generate: usize,
        batch: usize,
    ) -> Self {
        let embedding = info.vocab_size as f64 * info.hidden_size as f64;
        let parameters = info.parameters as f64;
        let tables = if checkpoint.tied { 1.0 } else { 2.0 };
        // A tied embedding is read as the head; an untied one only by the row.
        let unread = if checkpoint.tied { 0.0 } else { embedding / parameters.max(1.0) };
        let context = prompt as f64 + generate as f64 / 2.0;
        let cache = batch as f64 * context * info.cache_bytes_per_token as f64;
        Self {
            model: checkpoint.name.clone(),
            backend: info.backend.clone(),
            device: info.device.clone(),
            weights: info
                .quantisation
                .map_or(checkpoint.dtype.clone(), |q| format!("{} bit", q.bits)),
            prompt_tokens: prompt,
            generated_tokens: generate,
            batch,
            prefill: Spread::of(samples.iter().map(|s| s.prefill)),
            decode: Spread::of(samples.iter().map(|s| s.decode)),
            peak_memory: samples.iter().map(|s| s.peak_memory).max().unwrap_or_default(),
            operations_per_token: 2.0 * (parameters - tables * embedding).max(0.0),
            bytes_per_step: info.weight_bytes as f64 * (1.0 - unread) + cache,
            share_of_arithmetic: None,
            share_of_bandwidth: None,
        }
    }

    fn set_shares(&mut self, limits: &Limits) {
        if self.backend == "cpu" {
            let steps = self.decode.median / self.batch as f64;
            self.share_of_bandwidth = Some(self.bytes_per_step * steps / limits.read.best);
            self.share_of_arithmetic =
                Some(self.operations_per_token * self.prefill.median / limits.peak().0);
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Measured before the models.
    before: Limits,
    /// Measured after the models.
    after: Limits,
    rows: Vec<Row>,
}

impl Report {
    /// With the shares of the better of both measurements.
    pub(super) fn new(machine: Machine, before: Limits, after: Limits, mut rows: Vec<Row>) -> Self {
        let best = before.max(after);
        rows.iter_mut().for_each(|row| row.set_shares(&best));
        Self { machine, before, after, rows }
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
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
        let gib = (1_u64 << 30) as f64;
        writeln!(
            out,
            "{}, {} {}, {} physical cores, {:.1} GiB; measured with {} threads",
            m.cpu,
            m.os,
            m.arch,
            m.physical_cores,
            m.memory as f64 / gib,
            self.before.threads
        )?;
        for (when, limits) in [("before", &self.before), ("after", &self.after)] {
            write!(
                out,
                "limits {when:6}  read {:.1} GB/s (median pass {:.1}), f32 {:.0} GFLOP/s",
                limits.read.best / 1e9,
                limits.read.median / 1e9,
                limits.f32.best / 1e9
            )?;
            match limits.bf16 {
                Some(bf16) => writeln!(out, ", bf16 {:.0} GFLOP/s", bf16.best / 1e9)?,
                None => writeln!(out)?,
            }
        }
        let peak = self.before.max(self.after).peak().1;
        writeln!(
            out,
            "tokens/s are medians (min-max); shares are of the best read rate and of the {peak} peak\n"
        )?;
        let mut lines = vec![
            [
                "model",
                "backend",
                "weights",
                "prompt+new x batch",
                "prefill",
                "share",
                "decode",
                "share",
                "memory",
            ]
            .map(str::to_owned),
        ];
        lines.extend(self.rows.iter().map(Row::cells));
        let width =
            |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..9).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let spread = |s: &Spread| format!("{:.1} ({:.1}-{:.1})", s.median, s.min, s.max);
        let share = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{:.0} %", 100.0 * s));
        [
            self.model.clone(),
            self.backend.clone(),
            self.weights.clone(),
            format!("{}+{} x {}", self.prompt_tokens, self.generated_tokens, self.batch),
            spread(&self.prefill),
            share(self.share_of_arithmetic),
            spread(&self.decode),
            share(self.share_of_bandwidth),
            format!("{:.2} GiB", self.peak_memory as f64 / (1_u64 << 30) as f64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rate;

    fn rate(best: f64) -> Rate {
        Rate { best, median: best }
    }

    fn row(tied: bool) -> Row {
        let checkpoint =
            Checkpoint { name: "m".into(), dtype: "bfloat16".into(), tied, end_tokens: [].into() };
        let mut info = ModelInfo::default();
        info.backend = "cpu".to_owned();
        (info.vocab_size, info.hidden_size) = (100, 10);
        (info.parameters, info.weight_bytes, info.cache_bytes_per_token) = (5000, 10_000, 2);
        let sample = Sample { prefill: 10.0, decode: 4.0, peak_memory: 7, ended_early: false };
        Row::new(&checkpoint, &info, &[sample], 100, 10, 2)
    }

    #[test]
    fn a_tied_embedding_is_read_once_and_an_untied_one_not() {
        let (tied, untied) = (row(true), row(false));
        let cache = 2.0 * 105.0 * 2.0;
        assert_eq!(
            (tied.bytes_per_step, untied.bytes_per_step),
            (10_000.0 + cache, 8_000.0 + cache)
        );
        assert_eq!((tied.operations_per_token, untied.operations_per_token), (8_000.0, 6_000.0));
    }

    #[test]
    fn shares_are_of_the_better_limits() {
        let machine = Machine { cpu: "c".into(), arch: "a", os: "o", physical_cores: 2, memory: 1 };
        let before =
            Limits { threads: 2, read: rate(1000.0), f32: rate(8e4), bf16: Some(rate(16e4)) };
        let after = Limits { read: rate(41_680.0), ..before };
        let report = Report::new(machine, before, after, vec![row(true)]);
        assert_eq!(report.rows[0].share_of_bandwidth, Some(0.5));
        assert_eq!(report.rows[0].share_of_arithmetic, Some(0.5));
        assert!(report.table().contains("50 %") && report.json().contains("\"backend\":\"cpu\""));
    }

    #[test]
    fn medians() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0].into_iter()),
            Spread { median: 2.0, min: 1.0, max: 3.0 }
        );
        assert_eq!(Spread::of([3.0, 1.0].into_iter()).median, 2.0);
    }
}
