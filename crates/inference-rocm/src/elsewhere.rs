//! What the backend says where it can't run.

use crate::{NAME, RocmBackend};
use inference_core::{
    Availability, Backend, DeviceInfo, Error, Format, LoadOptions, Result, TextModel,
};
use std::path::Path;

const REASON: &str = "the rocm backend runs on 64-bit x86 Linux alone, where AMD has ROCm; elsewhere use cpu, on a \
                      Mac metal, or llama_cpp with Vulkan";

impl Backend for RocmBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn availability(&self) -> Availability {
        Availability::Unavailable(REASON.to_owned())
    }

    fn reads(&self, format: Format) -> bool {
        matches!(format, Format::Safetensors | Format::Gguf)
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn load(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn TextModel>> {
        Err(Error::BackendNotAvailable { name: NAME.to_owned(), reason: REASON.to_owned() })
    }
}

pub(crate) fn compile_if_asked() {}
