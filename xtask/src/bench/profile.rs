//! `--profile`: where the time of a step goes, operation by operation.

use super::{
    Args,
    checkpoint::Checkpoint,
    grid::Cell,
    measure,
    profiled::{Phase, Profile, Profiled},
    prompt,
    source::Form,
};
use crate::{
    Result,
    limits::{self, Limits},
};
use inference::{CacheDtype, Format, GenerateOptions, LoadOptions, TextModel};
use inference_cpu::Cpu;
use std::{
    fmt::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Profiles every cell with every form of the model that the backend `cpu` reads.
pub(super) fn run(args: &Args, path: &Path, cells: &[Cell], threads: usize) -> Result {
    let checkpoint = Checkpoint::read(path)?;
    let readable = |format| matches!(format, Format::Safetensors | Format::Gguf);
    eprintln!("measuring this machine with {threads} threads");
    let limits = limits::measure(threads);
    for form in args.asked(&checkpoint.dtype).forms(path, readable)? {
        let profile = Arc::new(Mutex::new(Profile::default()));
        let model = load(&form, cells, threads, args.cache_dtype, Arc::clone(&profile))?;
        let bits = form.quantise.map_or_else(String::new, |bits| format!(", {bits} bit"));
        println!("{}{bits} on cpu with {threads} threads", form.source.display());
        for cell in cells {
            let bans = checkpoint.end_tokens.iter().map(|id| (*id, f32::NEG_INFINITY));
            let options = GenerateOptions::default().max_tokens(cell.generate + 1).logit_bias(bans);
            // The first is a warm-up.
            for run in 0..=args.runs {
                if run <= 1 {
                    *profile.lock().unwrap_or_else(PoisonError::into_inner) = Profile::default();
                }
                let prompts: Vec<_> = (0..cell.batch)
                    .map(|at| {
                        prompt::common(&[&model], cell.prompt, (run * cell.batch + at) as u64)
                    })
                    .collect::<Result<_>>()?;
                measure::run(&model, &prompts, &options)?;
            }
            let profile = profile.lock().unwrap_or_else(PoisonError::into_inner);
            println!("\n{}", table(cell, &profile, &limits));
        }
    }
    Ok(())
}

/// The model on a CPU that writes down what it does.
fn load(
    form: &Form,
    cells: &[Cell],
    threads: usize,
    cache_dtype: Option<CacheDtype>,
    profile: Arc<Mutex<Profile>>,
) -> Result<impl TextModel + use<>> {
    let context = cells.iter().map(|c| c.prompt + c.generate + 1).max().unwrap_or(1);
    let batch = cells.iter().map(|c| c.batch).max().unwrap_or(1);
    let mut options =
        LoadOptions::default().context_len(context).threads(threads).parallel_slots(batch);
    options.quantise = form.quantise;
    options.prefix_cache = Some(0);
    options.cache_dtype = cache_dtype;
    let open = move || Ok(Profiled::new(Cpu::new(threads)?, profile));
    inference_engine::load(&form.source, &options, inference_cpu::setup(), open)
        .map_err(|e| e.to_string())
}

/// The operations of each phase, those that take longest first.
fn table(cell: &Cell, profile: &Profile, limits: &Limits) -> String {
    let mut out = String::new();
    for (phase, name) in [(Phase::Prefill, "prefill"), (Phase::Decode, "decode")] {
        let steps = profile.steps(phase);
        if steps.count == 0 {
            continue;
        }
        let of_step = 1e3 / steps.count as f64;
        // Writing to a `String` never fails.
        let _ = writeln!(
            out,
            "{name} of a prompt of {} tokens x {}: {} steps of {:.2} ms",
            cell.prompt,
            cell.batch,
            steps.count,
            steps.seconds * of_step
        );
        let mut lines = vec![
            ["operation", "calls", "ms", "of step", "GB/s", "Gop/s", "of limit"].map(str::to_owned),
        ];
        let mut operations = profile.operations(phase);
        operations.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        let inside: f64 = operations.iter().map(|(_, o)| o.seconds).sum();
        for (operation, o) in operations {
            let rate = |amount: f64| {
                if amount == 0.0 { "–".to_owned() } else { rounded(amount / o.seconds / 1e9) }
            };
            let share = (o.least(limits) / o.seconds * 100.0, o.bytes + o.operations > 0.0);
            lines.push([
                operation.clone(),
                format!("{:.1}", o.calls as f64 / steps.count as f64),
                format!("{:.3}", o.seconds * of_step),
                format!("{:.1} %", o.seconds / steps.seconds * 100.0),
                rate(o.bytes),
                rate(o.operations),
                if share.1 { format!("{:.0} %", share.0) } else { "–".to_owned() },
            ]);
        }
        let rest = steps.seconds - inside;
        let mut line = ["outside of operations", "", "", "", "–", "–", "–"].map(str::to_owned);
        line[2] = format!("{:.3}", rest * of_step);
        line[3] = format!("{:.1} %", rest / steps.seconds * 100.0);
        lines.push(line);
        aligned(&mut out, &lines);
    }
    out
}

fn rounded(x: f64) -> String {
    if x >= 100.0 { format!("{x:.0}") } else { format!("{x:.1}") }
}

/// The first column to the left, the others to the right.
fn aligned(out: &mut String, lines: &[[String; 7]]) {
    let widths: [usize; 7] = std::array::from_fn(|c| {
        lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0)
    });
    for line in lines {
        let _ = write!(out, "  {:1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(widths).skip(1) {
            let _ = write!(out, "  {cell:>width$}");
        }
        let _ = writeln!(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::report, root};

    #[test]
    fn a_step_is_its_operations() {
        let form =
            Form { source: root().join("models-fixtures").join("storyteller"), quantise: Some(8) };
        let cell = Cell { prompt: 20, generate: 4, batch: 1, prefill: true };
        let profile = Arc::new(Mutex::new(Profile::default()));
        let model = load(&form, &[cell], 2, None, Arc::clone(&profile)).unwrap();
        let prompt = prompt::common(&[&model], cell.prompt, 1).unwrap();
        let options = GenerateOptions::default().max_tokens(cell.generate + 1);
        measure::run(&model, &[prompt], &options).unwrap();
        let profile = profile.lock().unwrap();
        let [prefill, decode] = [Phase::Prefill, Phase::Decode].map(|phase| {
            let inside: f64 = profile.operations(phase).iter().map(|(_, o)| o.seconds).sum();
            assert!(inside > 0.0 && inside <= profile.steps(phase).seconds);
            profile.steps(phase).count
        });
        assert!(prefill == 1 && (1..=cell.generate).contains(&decode), "{prefill} {decode}");
        // Of the last layer, only the row that reaches the head goes through the matrices after attention.
        let down = profile.operations(Phase::Prefill);
        let down = down.iter().find(|(name, _)| name.ends_with("576→192 (8 bit)")).unwrap().1;
        let rows = f64::from(4 * 20 + 1);
        assert_eq!((down.calls, down.operations), (5, rows * 2.0 * 576.0 * 192.0));
        let table = table(&cell, &profile, &report::tests::report().before);
        assert!(table.contains("prefill of a prompt of 20 tokens") && table.contains("attend"));
    }
}
