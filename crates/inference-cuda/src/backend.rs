//! What the backend says of this machine.

#[cfg(target_os = "linux")]
use crate::diagnose::Machine;
use crate::{
    Cuda, CudaBackend, CudaDriver, Device, NAME, choose,
    diagnose::{HIDING, Problem},
    driver::GRAPH,
    nvrtc::{CACHE_DIR, Nvrtc, PLACE},
};
use inference_core::{
    Availability, Backend, Check, DeviceChoice, Error, Format, LoadOptions, Result, TextModel,
};
use std::{env, fmt::Write as _, path::Path};

/// Variables that change what CUDA or this backend does, for a report.
const TELLING: [&str; 9] = [
    HIDING,
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "LD_LIBRARY_PATH",
    PLACE,
    CACHE_DIR,
    GRAPH,
];

/// CUDA and its devices, or the first thing that is wrong.
///
/// What the kernel says comes first, so that a machine without NVIDIA's hardware opens no library. It is asked again when
/// CUDA fails, which may have loaded the kernel's driver and made its device files by then.
fn devices() -> Result<(Cuda, Vec<Device>), Problem> {
    #[cfg(target_os = "linux")]
    {
        if let Some(problem) = Machine::this().problem().filter(Problem::stays) {
            return Err(problem);
        }
        seen().map_err(|problem| Machine::this().explain(problem))
    }
    #[cfg(not(target_os = "linux"))]
    seen()
}

/// What CUDA says itself.
fn seen() -> Result<(Cuda, Vec<Device>), Problem> {
    #[cfg(target_os = "linux")]
    let driver = || Machine::this().driver;
    #[cfg(not(target_os = "linux"))]
    let driver = || None;
    // An empty value counts: it hides every card.
    let is_set = |name: &str| env::var(name).ok();
    let cuda = Cuda::open().map_err(|error| Problem::of_opening(error, driver(), &is_set))?;
    match Device::all(cuda) {
        Ok(devices) if !devices.is_empty() => Ok((cuda, devices)),
        Ok(_) => Err(Problem::of_nothing(&is_set)),
        Err(error) => Err(Problem::of_error(error, &is_set)),
    }
}

impl Backend for CudaBackend {
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
        Err(problem) => Availability::Unavailable(problem.to_string()),
    }
}

fn usable() -> Result<(), Problem> {
    let (cuda, devices) = devices()?;
    let Some(best) = choose::best(&devices) else {
        return devices.first().and_then(choose::too_old).map_or(Err(Problem::NotSeen), Err);
    };
    Nvrtc::open(cuda.version.0, best.arch())?;
    Ok(())
}

/// The devices, in CUDA's order.
fn list() -> Vec<inference_core::DeviceInfo> {
    let Ok((_, devices)) = devices() else { return Vec::new() };
    let info = |device: &Device| {
        let (free, total) = device.memory().unwrap_or((0, device.memory));
        let (major, minor) = device.capability;
        let name = format!("{} (compute capability {major}.{minor})", device.name);
        inference_core::DeviceInfo::new(choose::stable_id(device), name, total, free)
    };
    devices.iter().map(info).collect()
}

fn load(path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
    let (cuda, device, nvrtc) = chosen(options.device.as_ref())?;
    tracing::info!("{}", line(&device));
    let name = device.name.clone();
    let open = move || CudaDriver::open(cuda, &device, nvrtc);
    inference_gpu::load(path, options, NAME, name, open)
}

fn self_test(choice: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
    inference_gpu::self_test(open(choice)?, each)
}

/// The driver of the device that `choice` names, or else of the best.
///
/// # Errors
/// As [`Backend::self_test`].
pub fn open(choice: Option<&DeviceChoice>) -> Result<CudaDriver> {
    let (cuda, device, nvrtc) = chosen(choice)?;
    CudaDriver::open(cuda, &device, nvrtc)
}

/// What the device that `choice` names, or else the best, can do at most: for benches.
///
/// # Errors
/// As [`Backend::self_test`].
pub fn limits(choice: Option<&DeviceChoice>) -> Result<inference_gpu::Limits> {
    inference_gpu::limits(open(choice)?)
}

/// CUDA, the device to use, and the compiler.
fn chosen(choice: Option<&DeviceChoice>) -> Result<(Cuda, Device, &'static Nvrtc)> {
    let unavailable = |problem: Problem| Error::BackendNotAvailable {
        name: NAME.to_owned(),
        reason: problem.to_string(),
    };
    let (cuda, devices) = devices().map_err(unavailable)?;
    let device = choose::choose(&devices, choice)?.clone();
    let nvrtc = Nvrtc::open(cuda.version.0, device.arch());
    let nvrtc = nvrtc.map_err(|error| unavailable(error.into()))?;
    Ok((cuda, device, nvrtc))
}

/// What there is to know about CUDA and its devices here, for a bug report: lines of text.
fn report() -> String {
    let mut text = String::new();
    #[cfg(target_os = "linux")]
    let _ = writeln!(text, "{:?}", Machine::this());
    match devices() {
        Ok((cuda, devices)) => {
            let _ = writeln!(text, "driver of CUDA {}.{}", cuda.version.0, cuda.version.1);
            let arch = choose::best(&devices).or(devices.first()).map_or(0, Device::arch);
            match Nvrtc::open(cuda.version.0, arch) {
                Ok(nvrtc) => {
                    let (major, minor) = nvrtc.version;
                    let _ = writeln!(text, "NVRTC {major}.{minor} at {}", nvrtc.path.display());
                }
                Err(error) => {
                    let _ = writeln!(text, "{error}");
                }
            }
            for device in &devices {
                let _ = writeln!(text, "{}", line(device));
            }
        }
        Err(problem) => {
            let _ = writeln!(text, "{problem}");
        }
    }
    for name in TELLING {
        if let Ok(value) = env::var(name) {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}

/// A device, for a log or a report.
fn line(device: &Device) -> String {
    let integrated = if device.integrated { ", integrated" } else { "" };
    format!(
        "cuda:{} {}, compute capability {}.{}, {}, {}, {} multiprocessors, {:.1} GiB{integrated}",
        device.ordinal,
        device.name,
        device.capability.0,
        device.capability.1,
        device.pci,
        device.uuid,
        device.multiprocessors,
        device.memory as f64 / f64::from(1 << 30),
    )
}
