//! What the backend says where it can't run.

use crate::{MetalBackend, NAME};
use inference_core::{
    Availability, Backend, DeviceInfo, Error, Format, LoadOptions, Result, TextModel,
};
use std::path::Path;

const REASON: &str = if cfg!(target_os = "macos") {
    "the metal backend runs on Apple silicon alone, not on Macs with a processor of Intel's, nor in a program that was \
     built for one; use cpu there"
} else {
    "the metal backend runs on macOS on Apple silicon alone; elsewhere use cpu, or rocm or cuda where there is such a card"
};

impl Backend for MetalBackend {
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
