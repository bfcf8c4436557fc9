//! What the backend says where it can't run.

use crate::{MetalBackend, NAME};

const REASON: &str = if cfg!(target_os = "macos") {
    "the metal backend runs on Apple silicon alone, not on Macs with a processor of Intel's, nor in a program that was \
     built for one; use cpu there"
} else {
    "the metal backend runs on macOS on Apple silicon alone; elsewhere use cpu, or rocm or cuda where there is such a card"
};

inference_engine::elsewhere!(MetalBackend, NAME, REASON);
