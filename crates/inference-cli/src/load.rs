//! Loading with a progress bar, for those who watch.

use crate::{args::ModelArgs, failure::Result};
use indicatif::{ProgressBar, ProgressStyle};
use inference::TextModel;
use std::io::IsTerminal;

/// Loads the model that the arguments name. The bar is on stderr, and only if that is a terminal.
pub(crate) fn load(args: &ModelArgs) -> Result<Box<dyn TextModel>> {
    let mut options = args.options();
    let bar = progress_bar("loading");
    if let Some(bar) = bar.clone() {
        options = options.progress(move |p| {
            bar.set_length(p.total);
            bar.set_position(p.done);
        });
    }
    let loaded = inference::registry().load_model(&args.model, &options);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let model = loaded?;
    let info = model.info();
    tracing::info!(
        architecture = %info.architecture,
        backend = %info.backend,
        device = %info.device,
        context_len = info.context_len,
        "loaded {}",
        args.model.display()
    );
    Ok(model)
}

/// A bar for bytes, on stderr; none if nobody watches.
pub(crate) fn progress_bar(what: &'static str) -> Option<ProgressBar> {
    let style =
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = || ProgressBar::no_length().with_style(style).with_message(what);
    std::io::stderr().is_terminal().then(bar)
}
