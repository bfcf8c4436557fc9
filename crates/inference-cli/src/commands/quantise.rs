//! `inference quantise`: a copy of a model with fewer bits a weight.

use crate::{
    args::Quantise,
    failure::{Failure, Result},
    interrupt::Interrupt,
    load, report,
};
use inference::{Error, discover};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(args: &Quantise) -> Result {
    let interrupt = Interrupt::install()?;
    let mut options = args.options(interrupt.guard());
    options.validate()?;
    let bar = load::progress_bar("quantising");
    if let Some(bar) = bar.clone() {
        options = options.progress(move |p| {
            bar.set_length(p.total);
            bar.set_position(p.done);
        });
    }
    let made = inference::quantise(&args.from, &args.to, &options);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let made = made.map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            let to = args.to.display();
            Failure::Input(format!(
                "{to}: the folder is not empty; --force replaces the model in it"
            ))
        }
        error => error.into(),
    })?;
    let before = discover(&args.from)?.first().map_or(0, |model| model.bytes);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}: {}, before {}",
        args.to.display(),
        report::size(made.bytes),
        report::size(before)
    )?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
