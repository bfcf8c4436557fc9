//! Python's methods of texts, as far as they are not in minijinja-contrib, or must know of marks.
//!
//! A mark counts as nothing where a text's ends matter: what a template strips, or looks for at the beginning, is the
//! same whether a control token is marked or not.

use super::{
    marks::{is_mark, unmarked},
    python::{BYTES_PER_FUEL, items, text},
};
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, ValueKind, from_args},
};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Parts of a text that one unit of fuel pays for.
const PARTS_PER_FUEL: u64 = 2;

/// What is called as a method of a value that does not have it itself.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => of_text(state, value, name, args),
        ValueKind::Seq | ValueKind::Iterable => of_list(state, value, name, args),
        ValueKind::Map if name == "copy" => Ok(value.clone()),
        _ => unknown_method_callback(state, value, name, args),
    }
}

fn of_list(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "copy" => Ok(value.clone()),
        "index" => {
            let (what,): (Value,) = from_args(args)?;
            for (i, item) in items(value)?.enumerate() {
                if item? == what {
                    return Ok(Value::from(i));
                }
            }
            Err(not_found())
        }
        "count" => {
            let (what,): (Value,) = from_args(args)?;
            let mut count = 0;
            for item in items(value)? {
                count += usize::from(item? == what);
            }
            Ok(Value::from(count))
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

fn of_text(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let s = value.as_str().unwrap_or_default();
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(stripped(s, chars, name != "rstrip", name != "lstrip"))
        }
        "startswith" | "endswith" => {
            let (parts, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let s = unmarked(s);
            let s = part(&s, start, end).1;
            let is_there = |part: &str| match name {
                "startswith" => s.starts_with(&*unmarked(part)),
                _ => s.ends_with(&*unmarked(part)),
            };
            Value::from(texts(parts)?.iter().any(|part| is_there(part)))
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest = match name {
                "removeprefix" => s.strip_prefix(part),
                _ => s.strip_suffix(part),
            };
            Value::from(rest.unwrap_or(s))
        }
        "split" | "rsplit" | "splitlines" => parted(state, s, name, args)?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found = if name == "partition" { s.find(separator) } else { s.rfind(separator) };
            let parts = match found {
                Some(at) => [&s[..at], separator, &s[at + separator.len()..]],
                None if name == "partition" => [s, "", ""],
                None => ["", "", s],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => found(s, name, args)?,
        "ljust" | "rjust" | "center" | "zfill" => padded(state, s, name, args)?,
        "join" => joined(state, s, args)?,
        "title" => Value::from(titled(s)),
        "casefold" => Value::from(s.to_lowercase().replace('ß', "ss")),
        "swapcase" => Value::from(swapped(s)),
        "isdecimal" => Value::from(!s.is_empty() && s.chars().all(|c| c.is_ascii_digit())),
        "isspace" => Value::from(!s.is_empty() && s.chars().all(is_space)),
        "format" => {
            pay_for_format(state, s, args)?;
            unknown_method_callback(state, value, name, args)?
        }
        _ => unknown_method_callback(state, value, name, args)?,
    })
}

/// `split`, `rsplit` and `splitlines`.
fn parted(state: &mut State, s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    if name == "splitlines" {
        let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
        let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
        state.consume_fuel(s.matches(is_break).count() as u64 / PARTS_PER_FUEL)?;
        return Ok(lines(s, keep).into_iter().map(Value::from).collect());
    }
    let (separator, most, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => separator,
        None => kwargs.get::<Option<Value>>("sep")?.unwrap_or_default(),
    };
    let most = match most {
        Some(most) => Some(most),
        None => kwargs.get("maxsplit")?,
    };
    kwargs.assert_all_used()?;
    let most = most.and_then(|m| usize::try_from(m).ok()).unwrap_or(usize::MAX - 1);
    let breaks = match separator.as_str() {
        Some(separator) if !separator.is_empty() => s.matches(separator).count(),
        _ => s.matches(is_space).count(),
    };
    state.consume_fuel(breaks.min(most) as u64 / PARTS_PER_FUEL)?;
    split(s, &separator, most, name == "rsplit")
}

/// `find`, `rfind`, `index`, `rindex` and `count`.
fn found(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let (skipped, s) = part(s, start, end);
    let found = match name {
        "count" => return Ok(Value::from(s.matches(what).count())),
        "find" | "index" => s.find(what),
        _ => s.rfind(what),
    };
    match found {
        Some(at) => Ok(Value::from(skipped + s[..at].chars().count())),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(not_found()),
    }
}

fn joined(state: &mut State, between: &str, args: &[Value]) -> Result<Value, Error> {
    let (parts,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (i, part) in items(parts)?.enumerate() {
        let part = part?;
        let part = part.as_str().ok_or_else(|| {
            invalid(format!("sequence item {i}: expected a text, found {}", part.kind()))
        })?;
        state.consume_fuel((between.len() + part.len()) as u64 / BYTES_PER_FUEL)?;
        joined.push_str(if i > 0 { between } else { "" });
        joined.push_str(part);
    }
    Ok(Value::from(joined))
}

/// What `format` may make at most. It makes room for any width that it is told.
fn pay_for_format(state: &State, format: &str, args: &[Value]) -> Result<(), Error> {
    let digits = format.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if digits.is_some_and(|digits| digits > 4) {
        return Err(invalid("a width in a format is too large"));
    }
    let fields = format.matches('{').count() as u64;
    let mut longest = 10_000;
    for arg in args {
        longest += text(state, arg)?.len() as u64;
    }
    state.consume_fuel(fields.saturating_mul(longest) / BYTES_PER_FUEL)
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

fn not_found() -> Error {
    invalid("it is not there")
}

/// White space as Python has it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `s` without the characters of `chars`, or white space, at its ends. Marks there stay.
pub(super) fn stripped(s: &str, chars: Option<&str>, left: bool, right: bool) -> String {
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let passes = |c: char| goes(c) || is_mark(c);
    let marks = |s: &str| s.chars().filter(|c| is_mark(*c)).collect::<String>();
    let middle = if left { s.trim_start_matches(passes) } else { s };
    let before = marks(&s[..s.len() - middle.len()]);
    let kept = if right { middle.trim_end_matches(passes) } else { middle };
    let after = marks(&middle[kept.len()..]);
    before + kept + &after
}

/// A text, or all texts of a tuple.
fn texts(value: &Value) -> Result<Vec<String>, Error> {
    let text =
        |v: Value| v.as_str().map(str::to_owned).ok_or_else(|| invalid("a text is expected"));
    match value.is_tuple() || value.kind() == ValueKind::Seq {
        true => items(value)?.map(|item| text(item?)).collect(),
        false => Ok(vec![text(value.clone())?]),
    }
}

/// The characters from `start` to `end`, as a slice takes them, and how many stand before.
fn part(s: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    if start.is_none() && end.is_none() {
        return (0, s);
    }
    let len = s.chars().count();
    let place = |at: i64| match usize::try_from(at) {
        Ok(at) => at.min(len),
        Err(_) => len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(len)),
    };
    let start = start.map_or(0, place);
    let end = end.map_or(len, place).max(start);
    let byte = |at: usize| s.char_indices().nth(at).map_or(s.len(), |(i, _)| i);
    (start, &s[byte(start)..byte(end)])
}

fn split(s: &str, separator: &Value, most: usize, from_the_right: bool) -> Result<Value, Error> {
    let mut parts: Vec<&str> = match separator.as_str() {
        Some("") => return Err(invalid("empty separator")),
        Some(separator) if from_the_right => s.rsplitn(most + 1, separator).collect(),
        Some(separator) => s.splitn(most + 1, separator).collect(),
        None if separator.is_none() || separator.is_undefined() => {
            let mut parts = Vec::new();
            let trimmed = |s| match from_the_right {
                true => str::trim_end_matches(s, is_space),
                false => str::trim_start_matches(s, is_space),
            };
            let mut rest = trimmed(s);
            while !rest.is_empty() {
                let (part, more) = match from_the_right {
                    _ if parts.len() == most => (rest, ""),
                    true => {
                        let at = rest.trim_end_matches(|c| !is_space(c)).len();
                        (&rest[at..], &rest[..at])
                    }
                    false => rest.split_at(rest.find(is_space).unwrap_or(rest.len())),
                };
                parts.push(part);
                rest = trimmed(more);
            }
            parts
        }
        None => return Err(invalid("the separator must be a text")),
    };
    if from_the_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Whether Python's `splitlines` ends a line at `c`.
fn is_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The lines, as `splitlines` has them.
pub(super) fn lines(s: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(is_break) {
        let len = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep_ends { at + len } else { at }]);
        rest = &rest[at + len..];
    }
    lines.extend(Some(rest).filter(|r| !r.is_empty()));
    lines
}

/// `ljust`, `rjust`, `center` and `zfill`.
fn padded(state: &mut State, s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<char>) = from_args(args)?;
    let fill = fill.unwrap_or(if name == "zfill" { '0' } else { ' ' });
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(s.chars().count());
    state.consume_fuel(missing as u64)?;
    let (sign, digits) = match (name, s.strip_prefix(['+', '-'])) {
        ("zfill", Some(digits)) => s.split_at(s.len() - digits.len()),
        _ => ("", s),
    };
    // Which side gets the odd one is CPython's choice.
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(Value::from(format!("{sign}{}{digits}{}", fill(left), fill(missing - left))))
}

fn swapped(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c.is_uppercase() {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
    }
    out
}

/// Each run of letters with a capital first.
fn titled(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

/// The filter behind `'…' % value`.
pub(super) fn percent(state: &mut State, format: &str, value: Value) -> Result<Value, Error> {
    let values = match value.is_tuple() {
        true => items(&value)?.collect::<Result<Vec<_>, _>>()?,
        false => vec![value],
    };
    let printed = |value: Value| match value.kind() {
        ValueKind::Bool | ValueKind::Number | ValueKind::Map | ValueKind::String => Ok(value),
        _ => text(state, &value).map(Value::from),
    };
    let values = values.into_iter().map(printed).collect::<Result<Vec<_>, _>>()?;
    let args: Vec<_> = std::iter::once(Value::from(format)).chain(values).collect();
    state.apply_filter("format", &args)
}
