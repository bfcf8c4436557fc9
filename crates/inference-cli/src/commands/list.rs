//! `inference list`: the models in a folder.

use super::write_json;
use crate::{args::List, failure::Result, report};
use inference::{Discovered, discover, discover_all};
use serde_json::json;
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(args: &List) -> Result {
    let found = if args.all { discover_all(&args.dir) } else { discover(&args.dir) }?;
    let mut out = io::stdout().lock();
    if args.json {
        for model in &found {
            write_json(&mut out, &json!(model))?;
        }
    } else if found.is_empty() {
        let deeper = if args.all { "" } else { "; --all looks all the way down" };
        report::to_stderr(format_args!("no models in {}{deeper}", args.dir.display()));
    } else {
        let head = ["MODEL", "TYPE", "FORMAT", "QUANTISED", "SIZE"].map(str::to_owned);
        let rows: Vec<_> = [head].into_iter().chain(found.iter().map(row)).collect();
        out.write_all(report::table(&rows).as_bytes())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn row(model: &Discovered) -> [String; 5] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let format = match json!(model.format) {
        serde_json::Value::String(name) => name,
        other => other.to_string(),
    };
    [
        model.path.display().to_string(),
        or_dash(&model.model_type),
        format,
        model.quantisation.map_or("-".to_owned(), report::quantisation),
        report::size(model.bytes),
    ]
}
