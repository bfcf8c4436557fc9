//! What the backend says where it can't run.

use crate::{CudaBackend, NAME};

const REASON: &str = "the cuda backend runs on Linux and Windows alone, where NVIDIA has drivers; elsewhere use cpu, or \
                      on a Mac metal";

inference_engine::elsewhere!(CudaBackend, NAME, REASON);
