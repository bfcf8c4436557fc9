//! `inference info`: what a model is, as it was loaded.

use super::write_json;
use crate::{args::Info, failure::Result, interrupt::Interrupt, load, report};
use inference::{Error, Message, ModelInfo, RenderOptions, TextModel};
use serde_json::json;
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(args: &Info) -> Result {
    let _ = Interrupt::install()?;
    let model = load::load(&args.model)?;
    let chat = has_chat_template(model.as_ref());
    let mut out = io::stdout().lock();
    if args.json {
        let mut object = json!(model.info());
        object["chat_template"] = chat.into();
        write_json(&mut out, &object)?;
    } else {
        out.write_all(report::table(&rows(model.info(), chat)).as_bytes())?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A template that refuses this message still is one.
fn has_chat_template(model: &dyn TextModel) -> bool {
    let rendered = model.render(&[Message::user("Hello")], &RenderOptions::default());
    !matches!(rendered, Err(Error::NoChatTemplate { .. }))
}

fn rows(info: &ModelInfo, chat: bool) -> Vec<[String; 2]> {
    let quantisation = info.quantisation.map_or("none".to_owned(), report::quantisation);
    let cache = report::size(info.cache_bytes_per_token);
    [
        ("architecture", info.architecture.clone()),
        ("parameters", format!("{:.1} million", info.parameters as f64 / 1e6)),
        ("weights", report::size(info.weight_bytes)),
        ("quantisation", quantisation),
        ("layers", info.layers.to_string()),
        ("hidden size", info.hidden_size.to_string()),
        ("vocabulary", format!("{} tokens", info.vocab_size)),
        ("context", format!("{} tokens", info.context_len)),
        ("parallel", format!("{} sequences", info.parallel_slots)),
        ("cache", format!("{cache} a token")),
        ("chat template", if chat { "yes" } else { "no" }.to_owned()),
        ("backend", info.backend.clone()),
        ("device", info.device.clone()),
    ]
    .into_iter()
    .map(|(name, value)| [name.to_owned(), value])
    .collect()
}
