//! The prompt around each text.

use crate::{
    args::Classify,
    failure::{Failure, Result},
};

/// The wording that the original's users classify with.
const INSTRUCTION: &str =
    "Classify this text into exactly one category: {labels}.\n\nText: {text}\n\nCategory:";

/// What stands before a text, and what behind it.
pub(super) struct Template {
    before: String,
    after: String,
}

impl Template {
    pub(super) fn new(args: &Classify) -> Result<Self> {
        let given = args.template.as_deref();
        let template = given.unwrap_or(if args.labels.is_empty() { "{text}" } else { INSTRUCTION });
        let labels: Vec<_> = args.labels.iter().map(|l| l.trim()).collect();
        let filled = |part: &str| part.replace("{labels}", &labels.join(", "));
        let (before, after) = template
            .split_once("{text}")
            .ok_or_else(|| Failure::Input("--template has no {text} in it".to_owned()))?;
        Ok(Self { before: filled(before), after: filled(after) })
    }

    pub(super) fn prompt(&self, text: &str) -> String {
        [&self.before, text, &self.after].concat()
    }
}
