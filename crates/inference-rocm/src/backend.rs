//! What the backend says of this machine.

pub(crate) use crate::compile::compile_if_asked;

use crate::{
    HipDriver, NAME, RocmBackend, choose,
    compile::{self, CACHE_DIR},
    diagnose::{HIDING, Machine, Problem},
    driver::GRAPH,
    hip::{DeviceInfo, Hip, HipDevice, load::LIB_DIR},
};
use inference_core::{
    Availability, Backend, Check, DeviceChoice, Error, Format, LoadOptions, Result, TextModel,
};
use std::{env, fmt::Write as _, path::Path};

/// Variables that change what HIP does, for a report.
const TELLING: [&str; 10] = [
    "HSA_OVERRIDE_GFX_VERSION",
    "HSA_ENABLE_SDMA",
    "HSA_XNACK",
    "HIPRTC_COMPILE_OPTIONS_APPEND",
    "HIPRTC_LINK_OPTIONS_APPEND",
    "AMD_SERIALIZE_KERNEL",
    "GPU_MAX_HW_QUEUES",
    "HIP_LAUNCH_BLOCKING",
    CACHE_DIR,
    GRAPH,
];

/// HIP and its devices, or the first thing that is wrong.
///
/// What the kernel says comes first, so that a machine without AMD's hardware opens no library. With [`LIB_DIR`] set only
/// that library is asked.
fn devices() -> Result<(&'static Hip, Vec<DeviceInfo>), Problem> {
    let mut archs = Vec::new();
    if !is_set(LIB_DIR) {
        let machine = Machine::this();
        if let Some(problem) = machine.problem() {
            return Err(problem);
        }
        archs = machine.offered;
    }
    let hip = Hip::of_this_machine()?;
    let is_set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let none = |error| Problem::of_hip(error, hip.version.to_string(), archs, &is_set);
    match DeviceInfo::all(hip) {
        Ok(devices) if !devices.is_empty() => Ok((hip, devices)),
        Ok(_) => Err(none(None)),
        Err(error) => Err(none(Some(error))),
    }
}

impl Backend for RocmBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn availability(&self) -> Availability {
        availability()
    }

    fn reads(&self, format: Format) -> bool {
        matches!(format, Format::Safetensors | Format::Gguf)
    }

    fn devices(&self) -> Vec<inference_core::DeviceInfo> {
        list()
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
        load(path, options)
    }

    fn report(&self) -> String {
        report()
    }

    fn self_test(&self, device: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
        self_test(device, each)
    }
}

/// Whether there is a device that is chosen by itself, and a compiler for it.
fn availability() -> Availability {
    match usable() {
        Ok(()) => Availability::Available,
        Err(reason) => Availability::Unavailable(reason),
    }
}

fn usable() -> Result<(), String> {
    let (hip, devices) = devices().map_err(|problem| problem.to_string())?;
    let best = choose::best(&devices).ok_or_else(|| choose::only_integrated(&devices))?;
    compile::objection(hip, best).map_or(Ok(()), |objection| Err(objection.to_string()))
}

/// The devices, in HIP's order.
fn list() -> Vec<inference_core::DeviceInfo> {
    let Ok((hip, devices)) = devices() else { return Vec::new() };
    let info = |device: &DeviceInfo| {
        let memory = HipDevice::open(hip, device.ordinal).and_then(|open| open.memory());
        let (free, total) = memory.unwrap_or((0, device.memory));
        let integrated = if device.integrated { ", integrated" } else { "" };
        let name = format!("{} ({}{integrated})", device.name, device.arch());
        inference_core::DeviceInfo::new(choose::stable_id(device, &devices), name, total, free)
    };
    devices.iter().map(info).collect()
}

fn load(path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
    let (hip, device) = chosen(options.device.as_ref())?;
    tracing::info!("{}", line(&device));
    if device.integrated && options.device.is_none() {
        tracing::warn!("{} is part of the processor and shares its memory", device.name);
    }
    if let Ok(version) = env::var("HSA_OVERRIDE_GFX_VERSION") {
        tracing::warn!(
            "HSA_OVERRIDE_GFX_VERSION={version} makes the card say another architecture; it is not needed"
        );
    }
    let name = device.name.clone();
    inference_gpu::load(path, options, NAME, name, move || HipDriver::open(hip, device.ordinal))
}

fn self_test(choice: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
    inference_gpu::self_test(open(choice)?, each)
}

/// The driver of the device that `choice` names, or else of the best.
///
/// # Errors
/// As [`Backend::self_test`].
pub fn open(choice: Option<&DeviceChoice>) -> Result<HipDriver> {
    let (hip, device) = chosen(choice)?;
    HipDriver::open(hip, device.ordinal)
}

/// What the device that `choice` names, or else the best, can do at most: for benches.
///
/// # Errors
/// As [`Backend::self_test`].
pub fn limits(choice: Option<&DeviceChoice>) -> Result<inference_gpu::Limits> {
    inference_gpu::limits(open(choice)?)
}

/// HIP, and the device to use.
fn chosen(choice: Option<&DeviceChoice>) -> Result<(&'static Hip, DeviceInfo)> {
    let (hip, devices) = devices().map_err(|problem| Error::BackendNotAvailable {
        name: NAME.to_owned(),
        reason: problem.to_string(),
    })?;
    Ok((hip, choose::choose(&devices, choice)?.clone()))
}

/// What there is to know about HIP and its devices here, for a bug report: lines of text.
fn report() -> String {
    let mut text = String::new();
    match devices() {
        Ok((hip, devices)) => {
            let _ = writeln!(text, "HIP {} at {}", hip.version, hip.path.display());
            match &hip.compiler {
                Ok(_) => {
                    let _ = writeln!(text, "hiprtc at {}", hip.compiler_path.display());
                }
                Err(reason) => {
                    let _ = writeln!(text, "no hiprtc: {reason}");
                }
            }
            for device in &devices {
                let _ = writeln!(text, "{}", line(device));
            }
        }
        Err(problem) => {
            let _ = writeln!(text, "{problem}");
            let _ = writeln!(text, "{:?}", Machine::this());
        }
    }
    for name in TELLING.iter().chain(&HIDING) {
        if let Ok(value) = env::var(name) {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}

/// A device, for a log or a report.
fn line(device: &DeviceInfo) -> String {
    let uuid = device.uuid.as_deref().unwrap_or("no UUID");
    let integrated = if device.integrated { ", integrated" } else { "" };
    format!(
        "rocm:{} {}, {}, {}, {uuid}, {} compute units, wave {}, {:.1} GiB{integrated}",
        device.ordinal,
        device.name,
        device.target,
        device.pci,
        device.compute_units(),
        device.wave,
        device.memory as f64 / f64::from(1 << 30),
    )
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
