//! Chat templates: the checkpoint's own Jinja, rendered as `transformers` does.
//!
//! The template is not trusted. It has a budget of work and text, and runs on a thread of its own, with a stack that
//! is large enough for whatever it can nest within that budget.

mod chat;
mod environment;
mod kept;
mod marks;
mod methods;
mod python;
mod sources;
mod syntax;
#[cfg(test)]
mod tests;

pub(crate) use marks::Piece;
pub use marks::Rendered;
pub(crate) use sources::{DEFAULT, MOST_BYTES, MOST_TEMPLATES};

use crate::Tokenizer;
use environment::Raised;
use inference_core::{Error, Message, RenderOptions, Result};
use marks::ControlTokens;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};
use sources::Source;
use std::{collections::BTreeMap, error, fmt, path::Path, sync::Arc, thread};

/// The template that is taken when there are tools.
const TOOL_USE: &str = "tool_use";

/// What the one template in an environment is called.
const NAME: &str = "chat";

/// Bytes of the stack on which a template is parsed and rendered. Only what is used of it takes memory.
const STACK: usize = 64 << 20;

/// A checkpoint's chat templates.
pub struct ChatTemplate {
    templates: BTreeMap<String, Template>,
    special_tokens: BTreeMap<String, Value>,
}

struct Template {
    source: Source,
    control: Arc<ControlTokens>,
    /// Holds the template, as [`NAME`]; or what is wrong with it, if it can't be parsed.
    env: Result<Environment<'static>, String>,
}

impl ChatTemplate {
    /// The templates of the checkpoint in the folder `dir`; `None` if it has none. One that can't be parsed is an error
    /// only when it is rendered.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for templates that are no texts or too large; [`Error::Io`].
    pub fn open(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let sources = sources::sources(dir, tokenizer.config())?;
        let special_tokens = tokenizer.special_tokens().clone();
        match sources.is_empty() {
            true => Ok(None),
            false => {
                Ok(Some(Self::build(sources, special_tokens, |t| tokenizer.control_tokens(t))))
            }
        }
    }

    /// Templates by name, those of `origin`. `special_tokens` are variables of the templates; the texts that
    /// `control_tokens` gives for a template mean something in its chats, and nothing in a message.
    pub fn new(
        templates: BTreeMap<String, String>,
        special_tokens: BTreeMap<String, Value>,
        control_tokens: impl Fn(&str) -> Vec<String>,
        origin: &str,
    ) -> Self {
        let single = templates.len() == 1;
        let source = |(name, text): (String, String)| {
            let origin = match single {
                true => origin.to_owned(),
                false => format!("template `{name}` of {origin}"),
            };
            (name, Source { text, origin })
        };
        Self::build(templates.into_iter().map(source).collect(), special_tokens, control_tokens)
    }

    fn build(
        sources: BTreeMap<String, Source>,
        special_tokens: BTreeMap<String, Value>,
        control_tokens: impl Fn(&str) -> Vec<String>,
    ) -> Self {
        let template = |(name, source): (String, Source)| {
            let control = Arc::new(ControlTokens::new(control_tokens(&source.text)));
            let env = parsed(&source, Arc::clone(&control));
            (name, Template { source, control, env })
        };
        Self { templates: sources.into_iter().map(template).collect(), special_tokens }
    }

    /// The prompt that the template makes of `messages`.
    ///
    /// # Errors
    /// As [`render_values`](Self::render_values).
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Rendered> {
        let message =
            |m: &Message| serde_json::json!({"role": m.role.as_str(), "content": m.content});
        self.render_values(&messages.iter().map(message).collect::<Vec<_>>(), options)
    }

    /// The same for messages with further fields, such as `tool_calls`, or with content in parts.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the template's own words when it refuses the messages, else with what is wrong in
    /// it and where; [`Error::InvalidPrompt`] for messages that are none; [`Error::InvalidOption`].
    pub fn render_values(&self, messages: &[Value], options: &RenderOptions) -> Result<Rendered> {
        options.validate()?;
        let (_, template) = self.choose(options)?;
        let mut messages = chat::normalised(messages)?;
        chat::objects("a tool", &options.tools)?;
        chat::objects("a document", &options.documents)?;
        let open = match options.continue_final_message {
            true => Some(chat::Open::last(&mut messages, &template.source.text)?),
            false => None,
        };
        let context = self.context(messages, options, &template.control)?;
        let marked = template.run(&context)?;
        let marked = match open {
            Some(open) => open.cut(&marked)?,
            None => marked,
        };
        Ok(Rendered::new(&marked, &template.control))
    }

    /// The template that `options` ask for.
    fn choose(&self, options: &RenderOptions) -> Result<(&str, &Template)> {
        let wanted = match &options.template {
            Some(name) => name,
            None if !options.tools.is_empty() && self.templates.contains_key(TOOL_USE) => TOOL_USE,
            None => DEFAULT,
        };
        let found = self.templates.get_key_value(wanted);
        found.map(|(name, template)| (name.as_str(), template)).ok_or_else(|| {
            let names: Vec<_> = self.templates.keys().map(String::as_str).collect();
            let reason =
                format!("no template is called `{wanted}`; there are {}", names.join(", "));
            Error::ChatTemplate { reason }
        })
    }

    /// The variables of a template.
    fn context(
        &self,
        messages: Vec<Map<String, Value>>,
        options: &RenderOptions,
        control: &ControlTokens,
    ) -> Result<minijinja::Value> {
        let list = |values: &[Value]| match values.is_empty() {
            true => Ok(minijinja::Value::from(())),
            false => control.value(&Value::from(values)),
        };
        let plain = ControlTokens::default();
        let mut context = BTreeMap::new();
        for (name, token) in &self.special_tokens {
            context.insert(name.as_str(), plain.value(token)?);
        }
        for (name, value) in &options.variables {
            context.insert(name, control.value(value)?);
        }
        context
            .insert("messages", control.value(&messages.into_iter().map(Value::Object).collect())?);
        context.insert("tools", list(&options.tools)?);
        context.insert("documents", list(&options.documents)?);
        context.insert("add_generation_prompt", options.add_generation_prompt.into());
        Ok(minijinja::Value::from_pairs(context))
    }
}

impl Template {
    fn run(&self, context: &minijinja::Value) -> Result<String> {
        let failed = |reason: String| Error::ChatTemplate { reason };
        let env = self.env.as_ref().map_err(|fault| failed(fault.clone()))?;
        let render = || env.get_template(NAME)?.render(context);
        on_large_stack(|| render().map_err(|e| fault(&self.source.origin, &e))).map_err(failed)
    }
}

/// An environment with the template `source`, or where that is wrong.
fn parsed(source: &Source, control: Arc<ControlTokens>) -> Result<Environment<'static>, String> {
    let origin = &source.origin;
    let rewritten =
        syntax::rewritten(&source.text).map_err(|reason| format!("{origin}, {reason}"))?;
    let mut env = environment::environment(control);
    on_large_stack(|| env.add_template_owned(NAME, rewritten).map_err(|e| fault(origin, &e)))?;
    Ok(env)
}

/// Runs `work` on a thread of its own.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = spawned.map_err(|e| format!("no thread to render it: {e}"))?;
        thread.join().unwrap_or_else(|_| Err("the template engine failed on it".to_owned()))
    })
}

/// A template's own words, or what is wrong in it and where.
fn fault(origin: &str, error: &minijinja::Error) -> String {
    let mut cause: Option<&(dyn error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return message.clone();
        }
        cause = inner.source();
    }
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            format!("{origin}{line}: it takes too much work or makes too much text")
        }
        (kind, Some(detail)) => format!("{origin}{line}: {kind}: {detail}"),
        (kind, None) => format!("{origin}{line}: {kind}"),
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins: BTreeMap<_, _> =
            self.templates.iter().map(|(n, t)| (n, &t.source.origin)).collect();
        f.debug_struct("ChatTemplate").field("templates", &origins).finish_non_exhaustive()
    }
}
