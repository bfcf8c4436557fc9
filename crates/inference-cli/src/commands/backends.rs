//! `inference backends`: what this build can run on, and why not where it can't.

use super::write_json;
use crate::{args::Backends, failure::Result, report};
use inference::{Availability, Backend, Check, DeviceChoice, Format};
use serde_json::json;
use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

pub(super) fn run(args: &Backends) -> Result {
    let backends = inference::registry().backends();
    if backends.is_empty() && !args.json {
        report::to_stderr(format_args!("{}", inference::Error::NoBackends));
    }
    let mut out = io::stdout().lock();
    if args.self_test {
        return self_test(args, &mut out);
    }
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

/// The backend called `name`.
fn named(name: &str) -> std::result::Result<Arc<dyn Backend>, inference::Error> {
    inference::get(name).ok_or_else(|| inference::Error::BackendNotRegistered {
        name: name.to_owned(),
        known: inference::list(),
    })
}

/// Tests the named backend, or all that are available.
fn self_test(args: &Backends, out: &mut impl Write) -> Result {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    writeln!(out, "inference {}, {os} on {arch}", env!("CARGO_PKG_VERSION"))?;
    let backends = match &args.backend {
        Some(name) => vec![named(name)?],
        None => inference::registry().backends(),
    };
    let mut right = true;
    for backend in backends {
        writeln!(out)?;
        describe(out, backend.as_ref())?;
        for line in backend.report().lines() {
            writeln!(out, "  {line}")?;
        }
        if !backend.availability().is_available() && args.device.is_none() {
            // That it is not available is no fault, unless it was asked for.
            right &= args.backend.is_none();
            continue;
        }
        right &= test(backend.as_ref(), args.device.as_ref(), out)?;
    }
    out.flush()?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all checks of a backend found what they should.
fn test(
    backend: &dyn Backend,
    device: Option<&DeviceChoice>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let (mut right, mut failed) = (true, Ok(()));
    let mut each = |check: Check| {
        right &= check.outcome.is_ok();
        let seconds = check.duration.as_secs_f64();
        let line = match check.outcome {
            Ok(worst) => format!("right  {}: at most {worst:.1e} off", check.name),
            Err(e) => format!("WRONG  {}: {e}", check.name),
        };
        if failed.is_ok() {
            failed = writeln!(out, "  {line}, {seconds:.1} s").and_then(|()| out.flush());
        }
    };
    let outcome = backend.self_test(device, &mut each);
    failed?;
    match outcome {
        Ok(()) => Ok(right),
        Err(inference::Error::Unsupported { .. }) => {
            writeln!(out, "  it has no self-test")?;
            Ok(true)
        }
        Err(e) => {
            writeln!(out, "  WRONG  {e}")?;
            Ok(false)
        }
    }
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
