//! The environment that chat templates expect: jinja2 as `transformers` sets it up.

use super::{
    kept::kept,
    marks::{ControlTokens, unmarked},
    methods,
    python::{self, items},
    syntax::{KEPT, PERCENT},
};
use jiff::Zoned;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use std::{fmt, sync::Arc};

/// Units of work that one rendering may take: about as many instructions, or 64 times as many bytes of text. A chat of
/// a thousand messages and a megabyte takes less than 200,000.
const FUEL: u64 = 2_000_000;

/// Most scopes within each other, where a macro counts several: enough for schemas of thirty levels.
const MOST_RECURSION: usize = 250;

/// Most bytes of a date's format.
const MOST_FORMAT: usize = 1000;

/// What a template says with `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An environment without a template. `control` are the tokens that mean something in its chats.
pub(super) fn environment(control: Arc<ControlTokens>) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("the usual delimiters are valid"));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(MOST_RECURSION);
    env.set_debug(false);
    env.set_formatter(|out, state, value| match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None => Ok(out.write_str(&python::text(state, value)?)?),
    });
    env.set_unknown_method_callback(methods::method);
    env.remove_global("debug");
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", |format: &str| match format.len() {
        ..=MOST_FORMAT => Ok(strftime(&Zoned::now(), format)),
        _ => Err(invalid("the format of a date is too long")),
    });
    env.add_filter("fromjson", move |text: &str| {
        let json =
            serde_json::from_str(&unmarked(text)).map_err(|e| invalid(format!("not JSON: {e}")))?;
        control.value(&json).map_err(|e| invalid(e.to_string()))
    });
    env.add_filter(KEPT, kept);
    env.add_filter(PERCENT, methods::percent);
    add_filters(&mut env);
    add_tests(&mut env);
    env
}

fn add_filters(env: &mut Environment<'static>) {
    env.add_filter("tojson", python::tojson);
    env.add_filter("string", |state: &State, value: &Value| match value.kind() {
        ValueKind::String => Ok(value.clone()),
        _ => python::text(state, value).map(Value::from),
    });
    env.add_filter("trim", |state: &State, value: &Value, chars: Option<&str>| {
        let text = python::text(state, value)?;
        Ok::<_, Error>(methods::stripped(&text, chars, true, true))
    });
    for name in ["escape", "e"] {
        env.add_filter(name, escape);
    }
    for name in ["length", "count"] {
        env.add_filter(name, length);
    }
    for name in ["default", "d"] {
        env.add_filter(name, default);
    }
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("center", |state: &mut State, text: &Value, width: Option<i64>| {
        let text = Value::from(python::text(state, text)?);
        methods::method(state, &text, "center", &[Value::from(width.unwrap_or(80))])
    });
    env.add_filter("wordcount", |text: &str| {
        text.split(methods::is_space).filter(|w| !w.is_empty()).count()
    });
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined
        ) || value.kind() == ValueKind::Iterable && value.len().is_some()
    });
    env.add_test("iterable", |value: &Value| {
        value.is_undefined() || !value.is_none() && value.try_iter().is_ok()
    });
    env.add_test("callable", |value: &Value| {
        let name = value.as_object().map_or("", |object| object.type_name());
        value.kind() == ValueKind::Plain || name.ends_with("::Macro")
    });
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = unmarked(&message.to_string()).into_owned();
    Err(invalid(message.clone()).with_source(Raised(message)))
}

/// `datetime.now().strftime(format)`: local time that does not know its zone.
fn strftime(now: &Zoned, format: &str) -> String {
    let now = now.datetime();
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        // A directive is one letter, perhaps with a flag of the C library before it.
        let len =
            after.find(|c: char| !matches!(c, '-' | '_' | '0' | '^' | '#')).unwrap_or(after.len());
        let end = len + after[len..].chars().next().map_or(0, char::len_utf8);
        let directive = &after[..end];
        match directive {
            "z" | "Z" => {}
            "f" => out.push_str(&format!("{:06}", now.subsec_nanosecond() / 1000)),
            _ => {
                let directive = format!("%{directive}");
                let known = jiff::fmt::strtime::format(&directive, now);
                out.push_str(&known.unwrap_or(directive));
            }
        }
        rest = &after[end..];
    }
    out + rest
}

/// For HTML, in the spelling of Python's markupsafe.
fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let text = python::text(state, value)?;
    let growth = text.matches(['&', '<', '>', '\'', '"']).count() as u64 * 4;
    state.consume_fuel(growth / python::BYTES_PER_FUEL)?;
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(Value::from_safe_string(text.replace('\'', "&#39;").replace('"', "&#34;")))
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.as_str() {
        Some(text) => Ok(unmarked(text).chars().count()),
        None if value.is_undefined() => Ok(0),
        None => value
            .len()
            .ok_or_else(|| invalid(format!("a value of type {} has no length", value.kind()))),
    }
}

fn default(
    value: &Value,
    other: Option<Value>,
    falsy: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let other = match other {
        Some(other) => other,
        None => kwargs.get::<Option<Value>>("default_value")?.unwrap_or_else(|| Value::from("")),
    };
    let falsy = match falsy {
        Some(falsy) => falsy,
        None => kwargs.get::<Option<Value>>("boolean")?.unwrap_or_default(),
    };
    kwargs.assert_all_used()?;
    let replaced = value.is_undefined() || falsy.is_true() && !value.is_true();
    Ok(if replaced { other } else { value.clone() })
}

fn join(
    state: &mut State,
    value: &Value,
    between: Option<Value>,
    attribute: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let between = match between {
        Some(between) => between,
        None => kwargs.get::<Option<Value>>("d")?.unwrap_or_else(|| Value::from("")),
    };
    let attribute = match attribute {
        Some(attribute) => attribute,
        None => kwargs.get::<Option<Value>>("attribute")?.unwrap_or_default(),
    };
    kwargs.assert_all_used()?;
    let between = python::text(state, &between)?;
    let value = match attribute.is_none() || attribute.is_undefined() {
        true => value.clone(),
        false => {
            let kwargs = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), Value::from(kwargs)])?
        }
    };
    let mut joined = String::new();
    for (i, item) in items(&value)?.enumerate() {
        joined.push_str(if i > 0 { &between } else { "" });
        let before = joined.len();
        joined.push_str(&python::text(state, &item?)?);
        let bytes = between.len() + joined.len() - before;
        state.consume_fuel(bytes as u64 / python::BYTES_PER_FUEL)?;
    }
    Ok(joined)
}

fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(width) => width,
        None => kwargs.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4)),
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let lines = text.matches('\n').count() as u64 + 1;
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let width = u64::try_from(i64::try_from(width)?).unwrap_or(0);
            state.consume_fuel(width)?;
            " ".repeat(usize::try_from(width).unwrap_or(0))
        }
    };
    state.consume_fuel(lines.saturating_mul(indention.len() as u64) / python::BYTES_PER_FUEL)?;
    let text = format!("{text}\n");
    let mut out = String::new();
    for (i, line) in methods::lines(&text, false).into_iter().enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        let indented = if i > 0 { blank || !line.is_empty() } else { first };
        out.push_str(if indented { &indention } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// What the filters `int` and `float` take for a number.
fn number(
    value: &Value,
    default: Option<Value>,
    kwargs: &Kwargs,
    zero: Value,
) -> Result<(Value, Value), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let default = match default {
        Some(default) => default,
        None => kwargs.get::<Option<Value>>("default")?.unwrap_or(zero),
    };
    let value = value.as_str().map_or_else(|| value.clone(), |text| Value::from(text.trim()));
    Ok((value, default))
}

fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let (value, default) = number(value, default, &kwargs, Value::from(0))?;
    if value.is_none() {
        return Ok(default);
    }
    let base = base.or(kwargs.get("base")?);
    kwargs.assert_all_used()?;
    let none = Kwargs::from_iter(None::<(&str, Value)>);
    Ok(minijinja::filters::int(state, &value, Some(default.clone()), base, none).unwrap_or(default))
}

fn float(
    state: &State,
    value: &Value,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let (value, default) = number(value, default, &kwargs, Value::from(0.0))?;
    if value.is_none() {
        return Ok(default);
    }
    kwargs.assert_all_used()?;
    let none = Kwargs::from_iter(None::<(&str, Value)>);
    Ok(minijinja::filters::float(state, &value, Some(default.clone()), none).unwrap_or(default))
}
