//! A conversation as templates see it, and the last message left open.

use super::{marks::unmarked, methods::stripped};
use inference_core::{Error, Result};
use serde_json::{Map, Value};

/// What is appended to the last message's text, to find where it ends in the rendering.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The names under which a message's reasoning is known; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages without empty fields, and with their reasoning under the names that templates read.
pub(super) fn normalised(messages: &[Value]) -> Result<Vec<Map<String, Value>>> {
    if messages.is_empty() {
        return Err(invalid("a chat needs at least one message"));
    }
    let message = |message: &Value| {
        let fields = message.as_object().ok_or_else(|| invalid("a message is not an object"))?;
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        let fields: Map<_, _> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(with_reasoning(fields))
    };
    messages.iter().map(message).collect()
}

fn with_reasoning(fields: Map<String, Value>) -> Map<String, Value> {
    let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() else {
        return fields;
    };
    let mut all = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    all.extend(fields);
    all.insert(REASONING[0].to_owned(), reasoning);
    all
}

/// That each of `values` is an object.
pub(super) fn objects(what: &str, values: &[Value]) -> Result<()> {
    match values.iter().all(Value::is_object) {
        true => Ok(()),
        false => Err(invalid(format!("{what} is not an object"))),
    }
}

/// The last message's text, when that message is to be continued.
pub(super) struct Open {
    text: String,
}

impl Open {
    /// Tags the end of the last message's text. `source` is the template.
    pub(super) fn last(messages: &mut [Map<String, Value>], source: &str) -> Result<Self> {
        if !source.contains("content") {
            return Err(unfit("it reads no `content`, so that a message can't be continued"));
        }
        let content = messages.last_mut().and_then(|last| last.get_mut("content"));
        let text = match content {
            Some(Value::Array(parts)) => {
                parts.iter_mut().rev().find_map(|part| part.get_mut("text"))
            }
            content => content,
        };
        match text {
            Some(Value::String(text)) => {
                let open = Self { text: text.clone() };
                text.push_str(TAG);
                Ok(open)
            }
            _ => Err(invalid("the last message has no text that could be continued")),
        }
    }

    /// `rendered` up to the end of the message's text.
    pub(super) fn cut(&self, rendered: &str) -> Result<String> {
        let missing =
            || unfit("it does not show the last message as it is, so that it can't be continued");
        let at = rendered.rfind(TAG.trim_end()).ok_or_else(missing)?;
        if !unmarked(rendered).contains(unmarked(&self.text).trim()) {
            return Err(missing());
        }
        let before = &rendered[..at];
        // A template that strips the tag's own space would have stripped what the message ends with.
        let cut = match rendered[at..].starts_with(TAG) {
            true => before.to_owned(),
            false => stripped(before, None, false, true),
        };
        Ok(cut)
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidPrompt { reason: reason.into() }
}

fn unfit(reason: &str) -> Error {
    Error::ChatTemplate { reason: reason.to_owned() }
}
