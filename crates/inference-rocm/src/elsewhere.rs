//! What the backend says where it can't run.

use crate::{NAME, RocmBackend};

const REASON: &str = "the rocm backend runs on 64-bit x86 Linux alone, where AMD has ROCm; elsewhere use cpu, on a \
                      Mac metal, or llama_cpp with Vulkan";

inference_engine::elsewhere!(RocmBackend, NAME, REASON);

pub(crate) fn compile_if_asked() {}
