//! How Python writes values: `str`, `repr` and `json.dumps`.

use super::marks::is_mark;
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{DynObject, Kwargs, ValueKind},
};
use std::fmt::Write;

/// Most levels of lists and dictionaries in a value that is written.
const MOST_LEVELS: usize = 200;

/// Bytes of text that one unit of fuel pays for, where they are copied.
pub(super) const BYTES_PER_FUEL: u64 = 64;

/// And where they are written one by one.
const WRITTEN_PER_FUEL: u64 = 16;

/// `str(value)`. An undefined value is an empty text.
pub(super) fn text(state: &State, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.to_string()),
        _ => {
            let mut writer = Writer::new(state);
            writer.repr(value, MOST_LEVELS)?;
            Ok(writer.out)
        }
    }
}

/// The items of a list, or of whatever can be walked through.
pub(super) fn items(value: &Value) -> Result<impl Iterator<Item = Result<Value, Error>>, Error> {
    match value.is_none() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "none is not iterable")),
        false => Ok(value.try_iter()?.checked()),
    }
}

/// Keys and values of a dictionary.
pub(super) fn pairs(value: &Value) -> Vec<(Value, Value)> {
    let pairs = value.as_object().and_then(DynObject::try_iter_pairs);
    pairs.map(Iterator::collect).unwrap_or_default()
}

fn float(value: &Value) -> Option<f64> {
    let float = value.kind() == ValueKind::Number && !value.is_integer();
    if float { f64::try_from(value.clone()).ok() } else { None }
}

/// `repr` of a float: the shortest digits that give it back, with an exponent from 1e16 on and below 1e-4.
fn float_repr(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// Whether Python's `repr` shows `c` as it is.
fn is_printable(c: char) -> bool {
    // Behind another character, `escape_debug` leaves combining marks alone, and knows the same categories as Python.
    c.is_ascii_graphic()
        || c == ' '
        || is_mark(c)
        || ['a', c].iter().collect::<String>().escape_debug().nth(1) == Some(c)
}

/// How `json.dumps` is to write.
struct Json {
    ascii: bool,
    indent: Option<String>,
    between: String,
    colon: String,
    sorted: bool,
}

/// The filter `tojson`, with the arguments that `transformers` gives it.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let argument = |given: Option<Value>, name| match given {
        Some(given) => Ok(Some(given)),
        None => kwargs.get::<Option<Value>>(name),
    };
    let indent = match argument(indent, "indent")? {
        Some(indent) if indent.is_none() || indent.is_undefined() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize),
        }),
        None => None,
    };
    let ascii = argument(ensure_ascii, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let sorted = argument(None, "sort_keys")?.is_some_and(|v| v.is_true());
    let separators = argument(None, "separators")?.filter(|v| !v.is_none());
    let (between, colon) = match separators {
        Some(two) => {
            let two = items(&two)?.collect::<Result<Vec<_>, _>>()?;
            let texts: Vec<_> = two.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            <[String; 2]>::try_from(texts).map(|[a, b]| (a, b)).map_err(|_| {
                Error::new(ErrorKind::InvalidOperation, "separators must be two texts")
            })?
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    kwargs.assert_all_used()?;
    let mut writer = Writer::new(state);
    writer.json(value, &Json { ascii, indent, between, colon, sorted }, 0)?;
    Ok(writer.out)
}

/// Writes values as long as there is fuel.
struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    /// Bytes of `out` that are paid for.
    paid: usize,
}

impl<'a, 'b, 'c> Writer<'a, 'b, 'c> {
    fn new(state: &'a State<'b, 'c>) -> Self {
        Self { state, out: String::new(), paid: 0 }
    }

    /// Pays for what has been written since, and for the value that comes.
    fn pay(&mut self) -> Result<(), Error> {
        let bytes = (self.out.len() - self.paid) as u64;
        self.paid = self.out.len();
        self.state.consume_fuel(1 + bytes / WRITTEN_PER_FUEL)
    }

    fn too_deep() -> Error {
        Error::new(ErrorKind::InvalidOperation, "a value has too many levels to be written")
    }

    /// `repr(value)`.
    fn repr(&mut self, value: &Value, levels: usize) -> Result<(), Error> {
        let levels = levels.checked_sub(1).ok_or_else(Self::too_deep)?;
        self.pay()?;
        match value.kind() {
            ValueKind::Undefined => self.out.push_str("Undefined"),
            ValueKind::String => self.text_repr(value.as_str().unwrap_or_default()),
            ValueKind::Number => match float(value) {
                Some(f) if f.is_nan() => self.out.push_str("nan"),
                Some(f) => self.out.push_str(&float_repr(f)),
                None => self.display(value),
            },
            ValueKind::Map => {
                self.out.push('{');
                for (i, (key, value)) in pairs(value).iter().enumerate() {
                    self.out.push_str(if i > 0 { ", " } else { "" });
                    self.repr(key, levels)?;
                    self.out.push_str(": ");
                    self.repr(value, levels)?;
                }
                self.out.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let tuple = value.is_tuple();
                self.out.push(if tuple { '(' } else { '[' });
                let mut count = 0;
                for item in items(value)? {
                    self.out.push_str(if count > 0 { ", " } else { "" });
                    self.repr(&item?, levels)?;
                    count += 1;
                }
                self.out.push_str(match (tuple, count) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                });
            }
            _ => self.display(value),
        }
        Ok(())
    }

    /// A value that is no container and no float: these are printed as Python does.
    fn display(&mut self, value: &Value) {
        self.out.push_str(&value.to_string());
    }

    fn text_repr(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c if c == quote || c == '\\' => self.out.extend(['\\', c]),
                c if is_printable(c) => self.out.push(c),
                c => {
                    let _infallible = match u32::from(c) {
                        n @ ..=0xff => write!(self.out, "\\x{n:02x}"),
                        n @ ..=0xffff => write!(self.out, "\\u{n:04x}"),
                        n => write!(self.out, "\\U{n:08x}"),
                    };
                }
            }
        }
        self.out.push(quote);
    }

    fn json(&mut self, value: &Value, how: &Json, level: usize) -> Result<(), Error> {
        if level > MOST_LEVELS {
            return Err(Self::too_deep());
        }
        self.pay()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.json_number(value),
            ValueKind::String => self.json_text(value.as_str().unwrap_or_default(), how.ascii),
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut count = 0;
                for item in items(value)? {
                    self.json_item(how, level + 1, count);
                    self.json(&item?, how, level + 1)?;
                    count += 1;
                }
                self.json_end(how, level, count, ']');
            }
            ValueKind::Map => {
                let mut pairs = pairs(value);
                if how.sorted {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    self.json_item(how, level + 1, i);
                    self.json_key(key, how)?;
                    self.out.push_str(&how.colon);
                    self.json(value, how, level + 1)?;
                }
                self.json_end(how, level, pairs.len(), '}');
            }
            kind => return Err(unserialisable(kind)),
        }
        Ok(())
    }

    fn json_item(&mut self, how: &Json, level: usize, before: usize) {
        self.out.push_str(if before > 0 { &how.between } else { "" });
        self.json_line(how, level);
    }

    fn json_end(&mut self, how: &Json, level: usize, items: usize, close: char) {
        if items > 0 {
            self.json_line(how, level);
        }
        self.out.push(close);
    }

    fn json_line(&mut self, how: &Json, level: usize) {
        if let Some(indent) = &how.indent {
            self.out.push('\n');
            (0..level).for_each(|_| self.out.push_str(indent));
        }
    }

    fn json_key(&mut self, key: &Value, how: &Json) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.json_text(key.as_str().unwrap_or_default(), how.ascii),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"');
                self.json(key, how, 0)?;
                self.out.push('"');
            }
            kind => return Err(unserialisable(kind)),
        }
        Ok(())
    }

    fn json_number(&mut self, value: &Value) {
        match float(value) {
            Some(f) if f.is_nan() => self.out.push_str("NaN"),
            Some(f) if f.is_infinite() => {
                self.out.push_str(if f > 0.0 { "Infinity" } else { "-Infinity" });
            }
            Some(f) => self.out.push_str(&float_repr(f)),
            None => self.display(value),
        }
    }

    fn json_text(&mut self, text: &str, ascii: bool) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || ascii && !c.is_ascii() && !is_mark(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _infallible = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn unserialisable(kind: ValueKind) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a value of type {kind} can't be written as JSON"),
    )
}
