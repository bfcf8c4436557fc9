//! What jinja2 understands and minijinja does not, rewritten before a template is parsed. Lines stay where they are.

use std::ops::Range;

/// The filter that every assigned value goes through.
pub(super) const KEPT: &str = "_kept";

/// The filter that is Python's `%` on a text.
pub(super) const PERCENT: &str = "_percent";

/// Most bytes of code between two delimiters, texts not counted: what walks over an expression recurses.
const MOST_CODE: usize = 16 << 10;

/// Most brackets and filters there: each may put a list around another.
const MOST_NESTING: usize = 400;

/// Most colons in square brackets there: each slice is a view of what it slices, which takes its time.
const MOST_SLICES: usize = 8;

/// Most `elif` of a template: the parser nests each in the one before.
const MOST_BRANCHES: usize = 2000;

/// Rewrites a template:
/// - line breaks become `\n`, as jinja2 has them;
/// - `{% generation %}` becomes a scope of its own, which is all that it does to the text;
/// - the value of `{% set %}` goes through [`KEPT`];
/// - `'…' % value` becomes a filter.
pub(super) fn rewritten(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut branches = 0;
    while let Some(at) = tag_start(rest) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let line = || 1 + out.matches('\n').count();
        let (open, after) = rest.split_at(2);
        let close = match open {
            "{{" => code_end(after, "}}"),
            "{%" => code_end(after, "%}"),
            _ => after.find("#}"),
        };
        let end = close.ok_or_else(|| format!("line {}: a `{open}` without its end", line()))?;
        let code = &after[..end];
        let mut next = 2 + end + 2;
        branches += usize::from(open == "{%" && word(code) == Some("elif"));
        if open != "{#" && !is_simple(code) || branches > MOST_BRANCHES {
            return Err(format!("line {}: more than is reasonable in one statement", line()));
        }
        out.push_str(open);
        out.push_str(&match open {
            "{{" => percents(code),
            "{%" => statement(&percents(code)),
            _ => code.to_owned(),
        });
        out.push_str(&after[end..end + 2]);
        if open == "{%" && word(code) == Some("raw") {
            let raw = raw_end(&rest[next..]);
            out.push_str(&rest[next..next + raw]);
            next += raw;
        }
        rest = &rest[next..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether what stands between two delimiters is within bounds.
fn is_simple(code: &str) -> bool {
    let (mut bytes, mut nesting, mut slices) = (0, 0, 0);
    let mut open = Vec::new();
    for b in blanked(code).bytes() {
        match b {
            b' ' => continue,
            b'(' | b'[' | b'{' => open.push(b),
            b')' | b']' | b'}' => drop(open.pop()),
            b':' if open.last() == Some(&b'[') => slices += 1,
            _ => {}
        }
        bytes += 1;
        nesting += usize::from(b"([{|".contains(&b));
    }
    bytes <= MOST_CODE && nesting <= MOST_NESTING && slices <= MOST_SLICES
}

/// Where the next tag begins.
fn tag_start(text: &str) -> Option<usize> {
    let is_tag = |at: &usize| text[at + 1..].starts_with(['{', '%', '#']);
    text.match_indices('{').map(|(at, _)| at).find(is_tag)
}

/// `code` with the insides of its texts blanked out, byte for byte.
fn blanked(code: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let blank = |b: u8| match (quote, b) {
        (None, b'\'' | b'"') => {
            quote = Some(b);
            b
        }
        (Some(q), b) if b == q && !escaped => {
            quote = None;
            b
        }
        (Some(_), b) => {
            escaped = b == b'\\' && !escaped;
            b' '
        }
        (None, b) if b.is_ascii() => b,
        (None, _) => b'?',
    };
    code.bytes().map(blank).map(char::from).collect()
}

/// Where `close` stands outside of texts and brackets.
fn code_end(code: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    let mut bytes = code.bytes().enumerate();
    while let Some((at, b)) = bytes.next() {
        match (quote, b) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(q), b) if b == q => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(b),
            (None, b'%' | b'}') if depth == 0 && code[at..].starts_with(close) => return Some(at),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

/// A statement's first word. A sign for white space may stand before it.
fn word(code: &str) -> Option<&str> {
    let code = code.strip_prefix(['-', '+']).unwrap_or(code);
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|w| !w.is_empty())
}

fn statement(code: &str) -> String {
    match word(code) {
        Some("generation") => code.replacen("generation", "with", 1),
        Some("endgeneration") => code.replacen("endgeneration", "endwith", 1),
        Some("set") => assignment(code),
        _ => code.to_owned(),
    }
}

/// `set a = b` with the value kept; `set a | f`, which begins a block, as well.
fn assignment(code: &str) -> String {
    let (code, sign) = match code.strip_suffix(['-', '+']) {
        Some(before) => (before, &code[before.len()..]),
        None => (code, ""),
    };
    let blank = blanked(code);
    let Some(at) = blank.find(['=', '|']) else { return format!("{code}{sign}") };
    let target = code[..at].split_whitespace().last().unwrap_or_default();
    let inside = match target.split_once('.') {
        Some((namespace, _)) => format!("({namespace})"),
        None => String::new(),
    };
    let (before, value) = code.split_at(at);
    match value.strip_prefix('=') {
        Some(value) => format!("{before}= ({value})|{KEPT}{inside}{sign}"),
        None => format!("{before}{value}|{KEPT}{inside}{sign}"),
    }
}

/// Bytes up to and with the `{% endraw %}`.
fn raw_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let code = &text[from + at + 2..];
        if word(code) == Some("endraw") {
            return code.find("%}").map_or(text.len(), |end| from + at + 2 + end + 2);
        }
        from += at + 2;
    }
    text.len()
}

/// `'…' % value` as a filter, wherever a text stands before a `%`.
fn percents(code: &str) -> String {
    let blank = blanked(code);
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in blank.match_indices('%') {
        if at < done || !blank[..at].trim_end().ends_with(['\'', '"']) {
            continue;
        }
        let value = operand(&blank, at + 1);
        out.push_str(&code[done..at]);
        out.push_str(&format!("|{PERCENT}({})", &code[value.clone()]));
        done = value.end;
    }
    out + &code[done..]
}

/// The operand that begins at `from`: a name, a literal or something in brackets, with all that is appended to it.
fn operand(blank: &str, from: usize) -> Range<usize> {
    let bytes = blank.as_bytes();
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'?';
    let space = |at: usize| at + bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut at = space(from);
    if matches!(bytes.get(at), Some(b'-' | b'+')) {
        at = space(at + 1);
    }
    let mut whole = false; // something stands there, to which more can be appended
    loop {
        let here = space(at);
        let next = match bytes.get(here) {
            Some(b'(' | b'[') => closing(bytes, here),
            Some(b'{') if !whole => closing(bytes, here),
            Some(quote @ (b'\'' | b'"')) if !whole => {
                here + 1 + bytes[here + 1..].iter().take_while(|b| *b != quote).count() + 1
            }
            Some(b'.' | b'|') if whole => {
                let name = space(here + 1);
                name + bytes[name..].iter().take_while(|b| is_word(b)).count()
            }
            Some(b) if !whole && is_word(b) => {
                here + bytes[here..].iter().take_while(|b| is_word(b)).count()
            }
            _ => return from..at,
        };
        whole = true;
        at = next.min(bytes.len());
    }
}

/// Behind the bracket that closes the one at `open`.
fn closing(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, b) in bytes.iter().enumerate().skip(open) {
        match b {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}
