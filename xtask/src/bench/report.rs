//! What was measured.

use super::{
    candidate::Facts,
    grid::{Cell, Kind},
    measure::Sample,
    spread::Spread,
};
use crate::limits::Limits;
use inference::ModelInfo;
use serde::Serialize;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) arch: &'static str,
    pub(crate) os: &'static str,
    /// Physical ones, as far as this process may use them.
    pub(crate) cores: usize,
    /// Bytes.
    pub(super) memory: u64,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        // A system that does not tell is no reason not to measure.
        let mut system = sysinfo::System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_all();
            system.refresh_memory();
        }
        let cpu = system.as_ref().and_then(|s| Some(s.cpus().first()?.brand().trim().to_owned()));
        let parallel = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpu: cpu.unwrap_or_default(),
            arch: std::env::consts::ARCH,
            os: std::env::consts::OS,
            cores: sysinfo::System::physical_core_count().unwrap_or(parallel).min(parallel),
            memory: system.map_or(0, |s| s.total_memory()),
        }
    }
}

/// One speed of one candidate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) model: String,
    pub(super) backend: String,
    /// How the weights are held.
    pub(super) weights: String,
    pub(super) kind: Kind,
    /// What is measured, in few words.
    pub(super) cell: String,
    pub(super) prompt_tokens: usize,
    pub(super) generated_tokens: usize,
    pub(super) batch: usize,
    /// `None`: the candidate can't run this.
    pub(super) tokens_per_second: Option<Spread>,
    /// Tokens per second at the machine's limit, of candidates for which that is known.
    pub(super) limit: Option<f64>,
    /// Of the limit.
    pub(super) share: Option<f64>,
    /// To the speed of the one that it is compared with; `None` for that one.
    pub(super) ratio: Option<Spread>,
    /// Bytes; `None` where nobody tells.
    pub(super) peak_memory: Option<u64>,
}

/// What the limits need to know of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Operations of a prompt token, outside attention.
    operations_per_token: f64,
    /// Share of the weights that a step does not read.
    unread: f64,
}

impl Work {
    /// `tied`: whether embedding and head are one table.
    pub(super) fn of(info: &ModelInfo, tied: bool) -> Self {
        let embedding = info.vocab_size as f64 * info.hidden_size as f64;
        let parameters = info.parameters as f64;
        let tables = if tied { 1.0 } else { 2.0 };
        Self {
            operations_per_token: 2.0 * (parameters - tables * embedding).max(0.0),
            // A tied embedding is read as the head; an untied one only by the row.
            unread: if tied { 0.0 } else { embedding / parameters.max(1.0) },
        }
    }

    /// Most tokens per second of a cell that the limits allow a candidate.
    fn limit(&self, cell: Cell, kind: Kind, facts: &Facts, limits: &Limits) -> Option<f64> {
        let peak = match &facts.gpu {
            // Quantised weights are multiplied as 16-bit numbers there.
            Some(gpu) => gpu.operations,
            None if facts.is_quantised() => Some(limits.quantised_peak().0),
            None => Some(limits.peak().0),
        };
        let limit = match kind {
            Kind::Prefill => peak? / self.operations_per_token,
            Kind::Decode => {
                let batch = cell.batch as f64;
                let context = cell.prompt as f64 + cell.generate as f64 / 2.0;
                let cache = batch * context * facts.cache_bytes_per_token as f64;
                let bytes = facts.weight_bytes as f64 * (1.0 - self.unread) + cache;
                batch * facts.gpu.as_ref().map_or(limits.read.best, |gpu| gpu.bandwidth) / bytes
            }
        };
        let is_known = facts.on_cpu || facts.gpu.is_some();
        (is_known && limit.is_finite()).then_some(limit)
    }
}

/// All samples of one cell, a list for each candidate, in their order.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) cell: Cell,
    /// Empty where a candidate can't run the cell.
    pub(super) samples: Vec<Vec<Sample>>,
}

/// All candidates on one model.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) facts: Vec<Facts>,
    pub(super) work: Work,
    pub(super) measured: Vec<Measured>,
}

impl Comparison {
    /// One row for each speed of each candidate; what is compared stands together.
    fn rows(&self, limits: &Limits) -> Vec<Row> {
        let mut rows = Vec::new();
        for kind in [Kind::Prefill, Kind::Decode] {
            for measured in self.measured.iter().filter(|m| m.cell.kinds().any(|k| k == kind)) {
                let indices = 0..self.facts.len();
                rows.extend(indices.map(|at| self.row(measured, kind, at, limits)));
            }
        }
        rows
    }

    /// The candidate that `at` is compared with: the first, or that of the same backend with weights of as many bits.
    fn baseline(&self, at: usize) -> usize {
        let first = &self.facts[0];
        let alike = |f: &Facts| f.backend == first.backend && f.bits() == self.facts[at].bits();
        self.facts.iter().position(alike).unwrap_or(0)
    }

    fn row(&self, measured: &Measured, kind: Kind, at: usize, limits: &Limits) -> Row {
        let (facts, cell) = (&self.facts[at], measured.cell);
        let rates =
            |at: usize| -> Vec<f64> { measured.samples[at].iter().map(|s| s.rate(kind)).collect() };
        let rates_here = rates(at);
        let tokens_per_second = Spread::of(rates_here.iter().copied());
        let baseline = self.baseline(at);
        let limit = self.work.limit(cell, kind, facts, limits);
        Row {
            model: facts.model.clone(),
            backend: facts.backend.clone(),
            weights: facts.weights.clone(),
            kind,
            cell: cell.label(kind),
            prompt_tokens: cell.prompt,
            generated_tokens: cell.generate,
            batch: cell.batch,
            tokens_per_second,
            limit,
            share: tokens_per_second.zip(limit).map(|(speed, limit)| speed.median / limit),
            ratio: if at == baseline { None } else { Spread::ratio(&rates_here, &rates(baseline)) },
            peak_memory: measured.samples[at]
                .iter()
                .map(|s| s.peak_memory)
                .max()
                .filter(|bytes| *bytes > 0),
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Day of the measurement, such as `2026-01-31`.
    pub(super) date: String,
    pub(super) machine: Machine,
    /// Measured before the models.
    pub(super) before: Limits,
    /// Measured after the models.
    pub(super) after: Limits,
    pub(super) candidates: Vec<Facts>,
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// The shares are of the better limits of both measurements.
    pub(super) fn new(
        date: String,
        machine: Machine,
        before: Limits,
        after: Limits,
        comparisons: &[Comparison],
    ) -> Self {
        let limits = before.max(after);
        Self {
            date,
            machine,
            before,
            after,
            candidates: comparisons.iter().flat_map(|c| c.facts.clone()).collect(),
            rows: comparisons.iter().flat_map(|c| c.rows(&limits)).collect(),
        }
    }

    /// One JSON object, on one line.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are always JSON")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        bench::{bound::Bound, grid},
        limits::Rate,
    };

    fn rate(best: f64) -> Rate {
        Rate { best, median: best }
    }

    pub(crate) fn facts(backend: &str, weights: &str) -> Facts {
        Facts {
            model: "m".into(),
            backend: backend.into(),
            device: "d & <e>".into(),
            weights: weights.into(),
            note: String::new(),
            weight_bytes: 10_000,
            cache_bytes_per_token: 2,
            on_cpu: !matches!(backend, "gpu" | "metal" | "cuda"),
            gpu: matches!(backend, "metal" | "cuda").then(|| Bound {
                bandwidth: 201_600.0,
                operations: (backend == "cuda").then_some(160e4),
                large_product: None,
                told: "made up".into(),
            }),
        }
    }

    fn info() -> ModelInfo {
        let mut info = ModelInfo::default();
        (info.vocab_size, info.hidden_size, info.parameters) = (100, 10, 5000);
        info
    }

    /// Two backends on the grid, the second half as fast, and a peer that runs nothing.
    pub(crate) fn report() -> Report {
        report_of(["cpu", "gpu", "candle"])
    }

    /// The same with others.
    pub(crate) fn report_of(candidates: [&str; 3]) -> Report {
        let sample = |rate| Sample {
            prefill: 10.0 * rate,
            decode: rate,
            peak_memory: 7,
            ended_early: false,
        };
        let measured = grid::standard().into_iter().map(|cell| Measured {
            cell,
            samples: vec![
                [4.0, 4.0, 5.0].map(sample).to_vec(),
                [2.0, 2.0, 2.0].map(sample).to_vec(),
                Vec::new(),
            ],
        });
        let comparison = Comparison {
            facts: candidates.map(|b| facts(b, "bf16")).to_vec(),
            work: Work::of(&info(), true),
            measured: measured.collect(),
        };
        let machine = Machine { cpu: "c".into(), arch: "a", os: "o", cores: 2, memory: 1 };
        let before = Limits {
            threads: 2,
            read: rate(1000.0),
            f32: rate(8e4),
            bf16: Some(rate(64e4)),
            int8: Some(rate(128e4)),
        };
        let after = Limits { read: rate(100_800.0), ..before };
        Report::new("2026-01-31".into(), machine, before, after, &[comparison])
    }

    #[test]
    fn a_tied_embedding_is_read_once_and_an_untied_one_not() {
        let (tied, untied) = (Work::of(&info(), true), Work::of(&info(), false));
        assert_eq!((tied.operations_per_token, untied.operations_per_token), (8_000.0, 6_000.0));
        assert_eq!((tied.unread, untied.unread), (0.0, 0.2));
    }

    #[test]
    fn quantised_weights_are_limited_by_int8_where_there_is_any() {
        let (work, limits) = (Work::of(&info(), true), report().before);
        let prefill = Cell { prompt: 16, generate: 0, batch: 1, prefill: true };
        let limit = |weights: &str, limits: &Limits| {
            work.limit(prefill, Kind::Prefill, &facts("cpu", weights), limits)
        };
        assert_eq!((limit("bf16", &limits), limit("4 bit", &limits)), (Some(80.0), Some(160.0)));
        assert_eq!(limit("4 bit", &Limits { int8: None, ..limits }), Some(80.0));
    }

    #[test]
    fn where_only_the_bandwidth_is_known_decoding_has_a_limit() {
        let (work, limits) = (Work::of(&info(), true), report().before);
        let cell = Cell { prompt: 8, generate: 64, batch: 1, prefill: true };
        let limit = |kind| work.limit(cell, kind, &facts("metal", "bf16"), &limits);
        assert_eq!((limit(Kind::Prefill), limit(Kind::Decode)), (None, Some(201_600.0 / 10_080.0)));
    }

    #[test]
    fn a_gpu_that_was_measured_has_limits_of_its_own() {
        let (work, limits) = (Work::of(&info(), true), report().before);
        let cell = Cell { prompt: 8, generate: 64, batch: 1, prefill: true };
        for weights in ["bf16", "4 bit"] {
            let limit = |kind| work.limit(cell, kind, &facts("cuda", weights), &limits);
            assert_eq!(limit(Kind::Prefill), Some(160e4 / 8_000.0), "{weights}");
            assert_eq!(limit(Kind::Decode), Some(201_600.0 / 10_080.0), "{weights}");
        }
    }

    #[test]
    fn what_is_compared_has_as_many_bits() {
        let all = [
            ("cpu", "4 bit", 0),
            ("cpu", "8 bit", 1),
            ("llama_cpp", "q4_k_m", 0),
            ("llama_cpp", "q8_0", 1),
            ("candle", "f32", 0),
            ("openvino", "int8", 1),
        ];
        let comparison = Comparison {
            facts: all.iter().map(|(backend, weights, _)| facts(backend, weights)).collect(),
            work: Work::of(&info(), true),
            measured: Vec::new(),
        };
        for (at, (backend, weights, want)) in all.iter().enumerate() {
            assert_eq!(comparison.baseline(at), *want, "{backend} {weights}");
        }
    }

    #[test]
    fn shares_are_of_the_better_limits_and_ratios_to_the_first() {
        let report = report();
        let find = |cell: &str, backend: &str| {
            report.rows.iter().find(|r| r.cell == cell && r.backend == backend).unwrap()
        };
        let prefill = find("prefill 512", "cpu");
        assert_eq!((prefill.limit, prefill.share), (Some(80.0), Some(0.5)));
        // Cache: 8 tokens and half of 64, 2 bytes each.
        assert_eq!(find("decode 64 at 0", "cpu").limit, Some(100_800.0 / 10_080.0));
        assert_eq!(find("decode 64 at 0 x 4", "cpu").limit, Some(4.0 * 100_800.0 / 10_320.0));
        let second = find("decode 64 at 0", "gpu");
        assert_eq!(second.ratio, Some(Spread { median: 0.5, min: 0.4, max: 0.5 }));
        assert_eq!((second.limit, second.share), (None, None));
        assert_eq!(find("decode 64 at 0", "cpu").ratio, None);
        let nothing = find("decode 64 at 0", "candle");
        assert_eq!((nothing.tokens_per_second, nothing.share, nothing.ratio), (None, None, None));
        assert_eq!(report.rows.len(), 3 * 7);
        assert!(report.json().contains(r#""kind":"prefill""#));
    }
}
