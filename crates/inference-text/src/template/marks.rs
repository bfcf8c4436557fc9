//! Control tokens that users spell: marked before rendering, so that they can be told from the template's own after it.

use inference_core::{Error, Result};
use minijinja::Value;
use std::{borrow::Cow, collections::HashSet, iter};

/// Stands before and behind a control token in what users write. Private use, as `transformers` has them.
const START: char = '\u{f0000}';
const END: char = '\u{f0001}';

/// Most levels of lists and objects in a message, a tool or a variable.
const MOST_LEVELS: usize = 100;

/// Whether `c` is one of the two marks.
pub(super) fn is_mark(c: char) -> bool {
    c == START || c == END
}

/// `text` without marks.
pub(super) fn unmarked(text: &str) -> Cow<'_, str> {
    match text.contains(is_mark) {
        true => Cow::Owned(text.replace(is_mark, "")),
        false => Cow::Borrowed(text),
    }
}

/// The tokens that mean something in a chat.
#[derive(Debug, Clone, Default)]
pub(super) struct ControlTokens {
    tokens: HashSet<String>,
    /// Their lengths in bytes, the longest first.
    lengths: Vec<usize>,
}

impl ControlTokens {
    pub(super) fn new(tokens: impl IntoIterator<Item = String>) -> Self {
        let tokens: HashSet<_> = tokens.into_iter().filter(|t| !t.is_empty()).collect();
        let mut lengths: Vec<_> = tokens.iter().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { tokens, lengths }
    }

    /// The longest token that `text` begins with.
    fn first<'a>(&self, text: &'a str) -> Option<&'a str> {
        let begins = |len: &usize| text.get(..*len).filter(|t| self.tokens.contains(*t));
        self.lengths.iter().find_map(begins)
    }

    /// `text` with its control tokens marked, and without marks that it brings.
    pub(super) fn mark(&self, text: &str) -> String {
        let text = unmarked(text);
        let mut marked = String::with_capacity(text.len());
        let mut rest = &*text;
        while let Some(c) = rest.chars().next() {
            let len = match self.first(rest) {
                Some(token) => {
                    marked.extend([START]);
                    marked.push_str(token);
                    marked.extend([END]);
                    token.len()
                }
                None => {
                    marked.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[len..];
        }
        marked
    }

    /// `json` as templates see it, with the control tokens in all its texts marked.
    pub(super) fn value(&self, json: &serde_json::Value) -> Result<Value> {
        self.value_within(json, MOST_LEVELS)
    }

    fn value_within(&self, json: &serde_json::Value, levels: usize) -> Result<Value> {
        use serde_json::Value as Json;
        let Some(levels) = levels.checked_sub(1) else {
            let reason = format!(
                "a message or variable has more than {MOST_LEVELS} levels of lists and objects"
            );
            return Err(Error::InvalidPrompt { reason });
        };
        Ok(match json {
            Json::Null => Value::from(()),
            Json::Bool(b) => Value::from(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::from(n),
                (None, Some(n)) => Value::from(n),
                (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::from(self.mark(text)),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.value_within(item, levels));
                Value::from(items.collect::<Result<Vec<_>>>()?)
            }
            Json::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, field)| Ok((self.mark(name), self.value_within(field, levels)?)));
                Value::from_pairs(fields.collect::<Result<Vec<_>>>()?)
            }
        })
    }
}

/// What a template made of a chat.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Without marks.
    text: String,
    /// Where each piece ends, in bytes, and whether it is a [`Piece::Literal`].
    pieces: Vec<(usize, bool)>,
}

/// A part of a rendered chat. The first is a text, which may be empty; of the others none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// What the template wrote, or text in which no control token is spelled.
    Text(&'a str),
    /// A control token that a message spells: to be encoded as text.
    Literal(&'a str),
}

impl Rendered {
    /// Of a rendering with marks. A mark that a template has parted from its token (with `split`, say) is dropped, but
    /// still ends a piece: what stands around it must not join to a control token.
    pub(super) fn new(marked: &str, control: &ControlTokens) -> Self {
        let mut text = String::with_capacity(marked.len());
        let mut pieces = Vec::new();
        let mut rest = marked;
        while let Some(at) = rest.find(is_mark) {
            text.push_str(&rest[..at]);
            if pieces.is_empty() || at > 0 {
                pieces.push((text.len(), false));
            }
            let mark = rest[at..].chars().next().unwrap_or(END);
            rest = &rest[at + mark.len_utf8()..];
            let token =
                control.first(rest).filter(|t| mark == START && rest[t.len()..].starts_with(END));
            if let Some(token) = token {
                text.push_str(token);
                pieces.push((text.len(), true));
                rest = &rest[token.len() + END.len_utf8()..];
            }
        }
        if pieces.is_empty() || !rest.is_empty() {
            text.push_str(rest);
            pieces.push((text.len(), false));
        }
        Self { text, pieces }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The text in pieces, each of which is to be encoded by itself.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let starts = iter::once(0).chain(self.pieces.iter().map(|(end, _)| *end));
        self.pieces.iter().zip(starts).map(|((end, literal), start)| match literal {
            true => Piece::Literal(&self.text[start..*end]),
            false => Piece::Text(&self.text[start..*end]),
        })
    }
}
