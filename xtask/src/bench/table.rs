//! The report as lines for people.

use super::{
    candidate::Facts,
    report::{Report, Row},
    spread::Spread,
};
use std::{collections::BTreeSet, fmt::Write};

const GIB: f64 = (1_u64 << 30) as f64;

/// What stands where there is nothing to say.
const NOTHING: &str = "–";

/// The whole report.
pub(super) fn table(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a `String` never fails.
    let _ = write(report, &mut out);
    out
}

/// `12.3 (11.9–12.5)`
pub(super) fn spread(s: &Spread) -> String {
    format!("{} ({}–{})", number(s.median), number(s.min), number(s.max))
}

/// `0.71x (0.69–0.74)`
pub(super) fn ratio(s: &Spread) -> String {
    format!("{:.2}x ({:.2}–{:.2})", s.median, s.min, s.max)
}

/// `40 %`
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Three digits at least.
fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let m = &report.machine;
    writeln!(
        out,
        "{}, {} {}, {} cores, {:.1} GiB; measured with {} threads on {}",
        m.cpu,
        m.os,
        m.arch,
        m.cores,
        m.memory as f64 / GIB,
        report.before.threads,
        report.date
    )?;
    for (when, limits) in [("before", &report.before), ("after", &report.after)] {
        write!(
            out,
            "limits {when:6}  read {:.1} GB/s (median pass {:.1}), f32 {:.0} GFLOP/s",
            limits.read.best / 1e9,
            limits.read.median / 1e9,
            limits.f32.best / 1e9
        )?;
        if let Some(bf16) = limits.bf16 {
            write!(out, ", bf16 {:.0} GFLOP/s", bf16.best / 1e9)?;
        }
        if let Some(int8) = limits.int8 {
            write!(out, ", int8 {:.0} Gop/s", int8.best / 1e9)?;
        }
        writeln!(out)?;
    }
    let gpus: Vec<_> = report
        .candidates
        .iter()
        .filter_map(|f| Some((&f.backend, &f.gpu.as_ref()?.told)))
        .collect();
    for (backend, told) in gpus.iter().collect::<BTreeSet<_>>() {
        writeln!(out, "limits of {backend}: {told}")?;
    }
    writeln!(out)?;
    for facts in &report.candidates {
        writeln!(out, "{}", candidate(facts))?;
    }
    let limits = report.before.max(report.after);
    let (peak, quantised) = (limits.peak().1, limits.quantised_peak().1);
    let of_quantised = if report.candidates.iter().any(Facts::is_quantised) && quantised != peak {
        format!(" (of {quantised} where weights are quantised)")
    } else {
        String::new()
    };
    let of_gpu = if gpus.is_empty() { "" } else { "; on a GPU of its own limits" };
    let ratios = ratios(&report.candidates);
    writeln!(
        out,
        "\ntokens/s are medians (min–max); shares are of the {peak} peak for prefill{of_quantised}, of the best read rate for decode{of_gpu}{ratios}\n"
    )?;
    columns(out, &report.rows)
}

/// What ratios are to, if there are any.
fn ratios(candidates: &[Facts]) -> String {
    let Some((first, rest)) = candidates.split_first() else { return String::new() };
    if rest.is_empty() {
        return String::new();
    }
    let several = rest.iter().any(|f| (&f.model, &f.backend) == (&first.model, &first.backend));
    format!(
        "; ratios are to {}{}: of the medians (least–greatest of two runs side by side)",
        first.backend,
        if several { " with weights of as many bits" } else { "" }
    )
}

fn candidate(facts: &Facts) -> String {
    let note = if facts.note.is_empty() { String::new() } else { format!("; {}", facts.note) };
    format!(
        "{} on {}: {}, {} weights of {:.2} GiB{note}",
        facts.model,
        facts.backend,
        facts.device,
        facts.weights,
        facts.weight_bytes as f64 / GIB
    )
}

fn columns(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let heads = ["model", "", "backend", "weights", "tokens/s", "share", "ratio", "memory"];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    // What says nothing in any row is left out.
    let shown: Vec<usize> =
        (0..heads.len()).filter(|&c| lines.iter().skip(1).any(|l| l[c] != NOTHING)).collect();
    let width = |c: usize| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0);
    let mut before: Option<&Row> = None;
    for (line, row) in lines.iter().zip([None].into_iter().chain(rows.iter().map(Some))) {
        let new = row.zip(before).is_some_and(|(a, b)| (&a.model, &a.cell) != (&b.model, &b.cell));
        if new && rows.iter().any(|r| r.ratio.is_some()) {
            writeln!(out)?;
        }
        before = row;
        let cells = shown.iter().map(|&c| format!("{:1$}", line[c], width(c)));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 8] {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    [
        row.model.clone(),
        row.cell.clone(),
        row.backend.clone(),
        row.weights.clone(),
        or_nothing(row.tokens_per_second.as_ref().map(spread)),
        or_nothing(row.share.map(percent)),
        or_nothing(row.ratio.as_ref().map(ratio)),
        or_nothing(row.peak_memory.map(|bytes| format!("{:.2} GiB", bytes as f64 / GIB))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_was_not_run_is_a_dash() {
        let table = table(&super::super::report::tests::report());
        let rows: Vec<_> = table.lines().filter(|l| l.starts_with("m  ")).collect();
        assert_eq!(rows.len(), 21);
        assert!(rows.iter().all(|r| r.find("bf16") == rows[0].find("bf16")), "{table}");
        assert_eq!(
            rows[2].split("bf16").nth(1).map(|r| r.split_whitespace().collect()),
            Some(vec!["–"; 4])
        );
        assert!(rows[1].contains("0.50x (0.40–0.50)") && rows[0].contains("50 %"), "{table}");
    }
}
