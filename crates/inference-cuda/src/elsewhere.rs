//! What the backend says where it can't run.

use crate::{CudaBackend, NAME};
use inference_core::{
    Availability, Backend, DeviceInfo, Error, Format, LoadOptions, Result, TextModel,
};
use std::path::Path;

const REASON: &str = "the cuda backend runs on Linux and Windows alone, where NVIDIA has drivers; elsewhere use cpu, or \
                      on a Mac metal";

impl Backend for CudaBackend {
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
