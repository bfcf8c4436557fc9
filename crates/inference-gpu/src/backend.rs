//! What the backends of every GPU have in common.

use crate::{Driver, Gpu};
use inference_core::{Check, LoadOptions, Result, TextModel};
use inference_engine::{
    Setup,
    check::{self, Tolerance},
};
use std::path::Path;

/// Sequences at once: a decoding step reads every weight anyway, and a card has arithmetic to spare.
pub(crate) const SLOTS: usize = 32;

/// Prompt tokens of a step: enough that products are bound by arithmetic on a large card.
const STEP_TOKENS: usize = 512;

/// Bytes for activations and code, and for the desktop: a full card can stop it.
const RESERVE: u64 = 1 << 30;

/// Loads the model at `path` for the backend of this name, onto a device, as its maker calls it, that `open` opens on the
/// model's thread.
///
/// # Errors
/// As [`inference_engine::load`]; what `open` says.
pub fn load<D: Driver>(
    path: &Path,
    options: &LoadOptions,
    backend: &'static str,
    device: String,
    open: impl FnOnce() -> Result<D> + Send + 'static,
) -> Result<Box<dyn TextModel>> {
    let setup = Setup { backend, device, slots: SLOTS, step_tokens: STEP_TOKENS, reserve: RESERVE };
    let rows = STEP_TOKENS + options.parallel_slots.unwrap_or(SLOTS);
    Ok(Box::new(inference_engine::load(path, options, setup, move || Gpu::new(open()?, rows))?))
}

/// All checks of a device, each told to `each` when it ends.
///
/// # Errors
/// A kernel that can't be compiled; the driver's own.
pub fn self_test<D: Driver>(driver: D, each: &mut dyn FnMut(Check)) -> Result<()> {
    check::self_test(&Gpu::new(driver, STEP_TOKENS)?, Tolerance::default(), each);
    Ok(())
}
