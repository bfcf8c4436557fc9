//! Values of flags: sizes, durations, pairs, escapes.

use inference::{DeviceChoice, GpuLayers};
use serde_json::Value;
use std::time::Duration;

/// A number of bytes: `8GiB`, `500MB`, `2G` (= GiB), `1048576`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("unknown unit {unit:?}: use KiB, MiB, GiB, KB, MB or GB")),
    };
    let bytes = number * factor as f64;
    if !(1.0..u64::MAX as f64).contains(&bytes) {
        return Err("it must be at least one byte, and fit in 64 bits".to_owned());
    }
    Ok(bytes as u64)
}

/// The same, or 0.
pub(crate) fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { bytes(text) }
}

/// One character of one byte; `\t` is a tab.
pub(crate) fn delimiter(text: &str) -> Result<u8, String> {
    match unescape(text).unwrap_or_default().as_bytes() {
        [byte] => Ok(*byte),
        _ => Err("it must be a single character of one byte, such as ; or \\t".to_owned()),
    }
}

/// A time: `30s`, `500ms`, `2m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn number_and_unit(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| "it must begin with a number".to_owned())?;
    Ok((number, unit.trim()))
}

/// `all`, `none` or a number.
pub(crate) fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text {
        "all" => Ok(GpuLayers::All),
        "none" => Ok(GpuLayers::None),
        _ => text.parse().map(GpuLayers::Count).map_err(|_| "use all, none or a number".to_owned()),
    }
}

/// A number is the place in the backend's list, anything else a stable id.
pub(crate) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text.parse() {
        Ok(index) => Ok(DeviceChoice::Index(index)),
        Err(_) if text.trim().is_empty() => Err("it is empty".to_owned()),
        Err(_) => Ok(DeviceChoice::Id(text.to_owned())),
    }
}

/// `ID=BIAS`; the bias may be `-inf`.
pub(crate) fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("write ID=BIAS, such as 42=-inf")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is no token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("{bias:?} is no number"))?;
    Ok((id, bias))
}

/// `NAME=JSON`.
pub(crate) fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, json) = text.split_once('=').ok_or("write NAME=JSON, such as thinking=false")?;
    if name.trim().is_empty() {
        return Err("the name is empty".to_owned());
    }
    let value = serde_json::from_str(json)
        .map_err(|e| format!("{json:?} is not JSON ({e}); a text needs quotes: '\"text\"'"))?;
    Ok((name.trim().to_owned(), value))
}

/// Turns `\n`, `\t`, `\r` and `\\` into what they mean; other backslashes stay.
pub(crate) fn unescape(text: &str) -> Result<String, std::convert::Infallible> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("1048576", 1 << 20),
            ("8GiB", 8 << 30),
            ("1.5 KiB", 1536),
            ("2g", 2 << 30),
            ("3MB", 3_000_000),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "GiB", "8 parsecs", "0", "-1", "99999999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "soon", "3 days", "1e400", "-2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_and_choices() {
        assert_eq!(logit_bias("7=-inf"), Ok((7, f32::NEG_INFINITY)));
        assert!(logit_bias("7").is_err() && logit_bias("x=1").is_err());
        assert_eq!(variable("a=false"), Ok(("a".to_owned(), Value::Bool(false))));
        assert!(variable("a=yes").is_err() && variable("=1").is_err());
        assert_eq!(gpu_layers("12"), Ok(GpuLayers::Count(12)));
        assert_eq!(device("0"), Ok(DeviceChoice::Index(0)));
        assert_eq!(device("0000:03:00.0"), Ok(DeviceChoice::Id("0000:03:00.0".to_owned())));
    }

    #[test]
    fn delimiters() {
        assert_eq!([delimiter(";"), delimiter("\\t")], [Ok(b';'), Ok(b'\t')]);
        assert!(delimiter("").is_err() && delimiter(";;").is_err() && delimiter("é").is_err());
        assert_eq!((bytes_or_none("0"), bytes_or_none("1KiB")), (Ok(0), Ok(1024)));
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"a\nb\\n\d\").as_deref(), Ok("a\nb\\n\\d\\"));
    }
}
