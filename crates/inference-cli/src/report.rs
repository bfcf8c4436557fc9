//! Lines for people: metrics, sizes, tables.

use inference::{FinishReason, Metrics, Quantisation};
use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

/// Writes a line to stderr; whether anyone can read it is not our concern.
pub(crate) fn to_stderr(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How a call went, on stderr.
pub(crate) fn metrics(metrics: &Metrics, reason: Option<FinishReason>) {
    let m = metrics;
    let cached = match m.cached_tokens {
        0 => String::new(),
        n => format!(" ({n} from the cache)"),
    };
    let ended = match reason {
        Some(FinishReason::Stop) => ", ended by the model or a stop",
        Some(FinishReason::Length) => ", ended by the length",
        Some(FinishReason::Cancelled) => ", cancelled",
        Some(FinishReason::TimedOut) => ", timed out",
        _ => "",
    };
    let first = m.total.saturating_sub(m.decode).as_secs_f64();
    let total = m.total.as_secs_f64();
    to_stderr(format_args!(
        "prompt       {} tokens{cached}, {:.1} tokens/s",
        m.prompt_tokens,
        m.prefill_rate()
    ));
    to_stderr(format_args!(
        "generated    {} tokens, {:.1} tokens/s{ended}",
        m.generated_tokens,
        m.decode_rate()
    ));
    to_stderr(format_args!("first token  after {first:.3} s, all after {total:.3} s"));
    to_stderr(format_args!("peak memory  {}", size(m.peak_memory)));
}

/// Bits, and groups where there are any.
pub(crate) fn quantisation(quantisation: Quantisation) -> String {
    match quantisation.group_size {
        Some(group) => format!("{} bit, groups of {group}", quantisation.bits),
        None => format!("{} bit", quantisation.bits),
    }
}

/// Bytes in the largest unit that leaves a whole: `1.21 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

/// Rows in aligned columns, two spaces apart, each ended by a line break.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a `String` never fails.
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(
            [0, 1023, 1024, 1 << 30].map(size),
            ["0 B", "1023 B", "1.00 KiB", "1.00 GiB"].map(str::to_owned)
        );
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "b".to_owned()], ["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a    b\nccc\n");
    }
}
