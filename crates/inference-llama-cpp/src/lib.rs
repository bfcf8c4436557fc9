//! The llama.cpp backend: GGUF files. The arithmetic is llama.cpp's; tokens, templates, samplers, streams and the
//! scheduling of a batch are ours, so that an option means the same as on every other backend.
#![deny(unsafe_code)]

mod context;
mod load;
mod system;

use inference_core::{Availability, Backend, DeviceInfo, Format, LoadOptions, Result, TextModel};
use llama_cpp_2::{
    LlamaBackendDevice, LogOptions, list_llama_ggml_backend_devices, llama_backend::LlamaBackend,
    send_logs_to_tracing,
};
use std::{path::Path, sync::LazyLock};

/// The name in the registry.
const NAME: &str = "llama_cpp";

/// The backend `llama_cpp`. Runs wherever it was built.
#[derive(Debug, Clone, Copy, Default)]
pub struct LlamaCppBackend;

/// llama.cpp, initialised once for the process; its log goes to `tracing`.
fn library() -> std::result::Result<&'static LlamaBackend, String> {
    static LIBRARY: LazyLock<std::result::Result<LlamaBackend, String>> = LazyLock::new(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|e| e.to_string())
    });
    LIBRARY.as_ref().map_err(Clone::clone)
}

/// The devices that llama.cpp was built for and finds here, the ones with memory of their own first.
fn devices() -> Vec<LlamaBackendDevice> {
    use llama_cpp_2::LlamaBackendDeviceType::{Cpu, Gpu};
    let mut all = list_llama_ggml_backend_devices();
    all.sort_by_key(|d| match d.device_type {
        Gpu => 0,
        Cpu => 2,
        _ => 1,
    });
    all
}

impl Backend for LlamaCppBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn availability(&self) -> Availability {
        match library() {
            Ok(_) => Availability::Available,
            Err(reason) => Availability::Unavailable(reason),
        }
    }

    fn reads(&self, format: Format) -> bool {
        format == Format::Gguf
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        if library().is_err() {
            return Vec::new();
        }
        let info = |d: LlamaBackendDevice| {
            let (total, free) = (d.memory_total as u64, d.memory_free as u64);
            DeviceInfo::new(d.name, d.description.trim(), total, free)
        };
        devices().into_iter().map(info).collect()
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
        Ok(Box::new(load::load(path, options)?))
    }
}
