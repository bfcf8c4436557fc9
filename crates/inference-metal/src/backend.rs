//! What the backend says of this machine.

use crate::{
    AppleGpu, Candle, Kernels, MetalBackend, NAME,
    gpu::{find, name},
};
use candle_metal_kernels::metal;
use inference_core::{
    Availability, Backend, Check, DeviceChoice, DeviceInfo, Error, Format, LoadOptions, Result,
    TextModel,
};
use inference_engine::{
    Setup,
    check::{self, Tolerance},
};
use std::{fmt::Write as _, path::Path, process::Command};

/// Sequences at once: a decoding step reads every weight anyway, and up to 8 rows cost the GPU little more than one.
const SLOTS: usize = 16;

/// Prompt tokens of a step: enough that products are bound by arithmetic.
const STEP_TOKENS: usize = 512;

/// A part of the memory that macOS gives the GPU is left to activations, and to others: what a cache takes is taken from
/// every program.
const RESERVED: u64 = 4;

impl Backend for MetalBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn availability(&self) -> Availability {
        match find() {
            Ok(_) => Availability::Available,
            Err(reason) => Availability::Unavailable(reason),
        }
    }

    fn reads(&self, format: Format) -> bool {
        matches!(format, Format::Safetensors | Format::Gguf)
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let Ok(gpu) = find() else { return Vec::new() };
        let (held, most) = memory(&gpu);
        vec![DeviceInfo::new(NAME, name(&gpu), most, most.saturating_sub(held))]
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
        check_choice(options.device.as_ref())?;
        let gpu = gpu()?;
        tracing::info!("{}", line(&gpu));
        let setup = Setup {
            backend: NAME,
            device: name(&gpu),
            slots: SLOTS,
            step_tokens: STEP_TOKENS,
            reserve: memory(&gpu).1 / RESERVED,
        };
        Ok(Box::new(inference_engine::load(path, options, setup, open)?))
    }

    fn report(&self) -> String {
        let mut text = String::new();
        if let Ok(version) = Command::new("/usr/bin/sw_vers").arg("-productVersion").output() {
            let _ = write!(text, "macOS {}", String::from_utf8_lossy(&version.stdout));
        }
        let _ = match find() {
            Ok(gpu) => writeln!(text, "{}", line(&gpu)),
            Err(reason) => writeln!(text, "{reason}"),
        };
        text
    }

    fn self_test(&self, device: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
        check_choice(device)?;
        check::self_test(&open()?, Tolerance::default(), each);
        Ok(())
    }
}

fn open() -> Result<Candle<Kernels<AppleGpu>>> {
    Ok(Candle::new(Kernels::new(AppleGpu::open()?)))
}

fn gpu() -> Result<metal::Device> {
    find().map_err(|reason| Error::BackendNotAvailable { name: NAME.to_owned(), reason })
}

/// Bytes that this process holds, and that macOS recommends to hold at most: memory is one with the processor's.
fn memory(gpu: &metal::Device) -> (u64, u64) {
    (gpu.current_allocated_size() as u64, gpu.recommended_max_working_set_size() as u64)
}

/// There is one GPU only.
fn check_choice(choice: Option<&DeviceChoice>) -> Result<()> {
    match choice {
        None | Some(DeviceChoice::Index(0)) => Ok(()),
        Some(DeviceChoice::Id(id)) if id == NAME || id == "metal:0" => Ok(()),
        Some(other) => {
            let reason = format!("{other:?}; the only device of this backend is {NAME:?}");
            Err(Error::option("device", reason))
        }
    }
}

/// A GPU, for a report.
fn line(gpu: &metal::Device) -> String {
    let (held, most) = memory(gpu);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "{}, {}, {:.1} GiB of memory may be used, {:.1} GiB are",
        name(gpu),
        gpu.architecture_name(),
        gib(most),
        gib(held)
    )
}
