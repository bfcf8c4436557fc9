//! A family's fixture on a device, against the reference implementation's logits and greedy tokens.

use crate::{fixtures, greedy};
use inference_core::CacheDtype;
use inference_engine::{checkpoint::Checkpoint, device::Device, weights::DType};
use std::{ops::Range, path::Path};

/// The tolerances of `docs/correctness.md`: relative distance of the logits.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-3,
        _ => 2e-2,
    }
}

/// Prompts that every device is given.
pub const SHORT: Range<usize> = 0..1001;

/// Those that are longer: past windows, and past a rotation's original length.
pub const LONG: Range<usize> = 1001..usize::MAX;

/// Compares a fixture in `dtype` on `device` with its golden values: prompts of so many tokens, all at the same time, in
/// chunks of `chunk`.
///
/// # Panics
/// Where they differ by more than the tolerance, or the device fails.
pub fn check<D: Device>(
    device: &D,
    what: &str,
    name: &str,
    dtype: DType,
    chunk: usize,
    lengths: Range<usize>,
) {
    let dir = tempfile::tempdir().expect("a folder");
    fixtures::convert(name, dtype, dir.path());
    check_model(device, what, name, dir.path(), dtype, chunk, lengths);
}

/// The same for the model at `path`, which is the fixture in `dtype`.
///
/// # Panics
/// As [`check`].
pub fn check_model<D: Device>(
    device: &D,
    what: &str,
    name: &str,
    path: &Path,
    dtype: DType,
    chunk: usize,
    lengths: Range<usize>,
) {
    let cache = match dtype {
        DType::F32 => CacheDtype::F32,
        DType::F16 => CacheDtype::F16,
        _ => CacheDtype::Bf16,
    };
    let golden = fixtures::golden(name);
    let prompts: Vec<_> =
        golden.prompts.iter().filter(|p| lengths.contains(&p.tokens.len())).collect();
    if prompts.is_empty() {
        return;
    }
    let checkpoint = Checkpoint::open(path).expect("is described");
    let weights = checkpoint.weights().expect("opens");
    let source = checkpoint.source(&*weights, &|_| {});
    let architecture = checkpoint.architecture().clone();
    let found = greedy::run_together(device, architecture, source, &prompts, cache, chunk);
    for (prompt, (logits, tokens)) in prompts.iter().zip(found) {
        let at = format!("{name} in {dtype:?} on {what}, prompt {:?}", prompt.name);
        greedy::compare(&at, prompt, &logits, &tokens, tolerance(dtype));
    }
}
