//! `inference backends`: what this build can run on, and why not where it can't.

use super::write_json;
use crate::{args::Backends, failure::Result, report};
use inference::{Availability, Backend, Format};
use serde_json::json;
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(args: &Backends) -> Result {
    let backends = inference::registry().backends();
    if backends.is_empty() && !args.json {
        report::to_stderr(format_args!("{}", inference::Error::NoBackends));
    }
    let mut out = io::stdout().lock();
    for backend in backends {
        if args.json {
            write_json(&mut out, &object(backend.as_ref()))?;
        } else {
            describe(&mut out, backend.as_ref())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn object(backend: &dyn Backend) -> serde_json::Value {
    let (available, reason) = match backend.availability() {
        Availability::Available => (true, None),
        Availability::Unavailable(reason) => (false, Some(reason)),
    };
    json!({
        "name": backend.name(),
        "available": available,
        "reason": reason,
        "reads": formats(backend),
        "devices": backend.devices(),
    })
}

fn describe(out: &mut impl Write, backend: &dyn Backend) -> io::Result<()> {
    match backend.availability() {
        Availability::Available => {
            let reads: Vec<_> = formats(backend).iter().map(Format::to_string).collect();
            writeln!(out, "{}: available, reads {}", backend.name(), reads.join(" and "))?;
        }
        Availability::Unavailable(reason) => {
            writeln!(out, "{}: not available: {reason}", backend.name())?;
        }
    }
    for (index, device) in backend.devices().iter().enumerate() {
        let (memory, free) = (report::size(device.memory), report::size(device.available));
        writeln!(
            out,
            "  device {index}: {} (id {}), {memory}, of which {free} free",
            device.name, device.id
        )?;
    }
    Ok(())
}

fn formats(backend: &dyn Backend) -> Vec<Format> {
    let all = [Format::Safetensors, Format::Gguf, Format::Url];
    all.into_iter().filter(|f| backend.reads(*f)).collect()
}
