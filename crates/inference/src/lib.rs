//! Local text generation: one contract, several engines, checkpoints as they are published.
//!
//! ```no_run
//! use inference::{GenerateOptions, LoadOptions, Message, load_model};
//!
//! fn main() -> inference::Result<()> {
//!     let model = load_model("path/to/checkpoint", &LoadOptions::default())?;
//!     let options = GenerateOptions::default().max_tokens(100);
//!     for token in model.chat(&[Message::user("What colour is the sky?")], &options)? {
//!         print!("{}", token?.text);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A checkpoint is a folder with `config.json`, `tokenizer.json` and `*.safetensors`, or a GGUF file. Which engines there are, the
//! crate's features say; [`load_model`] takes the first that is available and reads the checkpoint, unless
//! [`LoadOptions::backend`] names one.
//!
//! | feature | backend | |
//! | --- | --- | --- |
//! | `cpu` (default) | `cpu` | any machine |
//! | `rocm` | `rocm` | AMD's GPUs on 64-bit x86 Linux; nothing of ROCm is needed to build |
//! | `cuda` | `cuda` | NVIDIA's GPUs on Linux and Windows; no toolkit is needed to build |
//! | `metal` | `metal` | the GPU of Apple silicon |
//! | `llama-cpp` | `llama_cpp` | llama.cpp, for GGUF files alone; needs cmake, a C++ compiler and libclang to build |
//! | `llama-cpp-metal`, `-rocm`, `-cuda`, `-vulkan` | the same | on a GPU, by llama.cpp's own kernels |
//! | `async` | – | [`TokenStream`] as a `futures_core::Stream` |
#![forbid(unsafe_code)]

pub use inference_core::*;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

use std::{path::Path, sync::Arc, sync::OnceLock};

/// The registry of this process, with the backends whose features are on. A program may [`register`] its own.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let registry = Registry::new();
        #[cfg(feature = "cpu")]
        registry.register(inference_cpu::CpuBackend);
        #[cfg(feature = "rocm")]
        registry.register(inference_rocm::RocmBackend);
        #[cfg(feature = "cuda")]
        registry.register(inference_cuda::CudaBackend);
        #[cfg(feature = "metal")]
        registry.register(inference_metal::MetalBackend);
        #[cfg(feature = "llama-cpp")]
        registry.register(inference_llama_cpp::LlamaCppBackend);
        registry
    })
}

/// Call it first in `main`, before anything is read or printed: it lets the backend `rocm` compile for cards that its
/// compiler may not know, in another process of this program, where a crash of the compiler is an error like others. If
/// this process was started for that, it does so and exits, and else returns at once.
///
/// A program that doesn't call it works as well, but refuses such cards.
pub fn compile_if_asked() {
    #[cfg(feature = "rocm")]
    inference_rocm::compile_if_asked();
}

/// Adds a backend to [`registry`]; one of the same name is replaced.
pub fn register(backend: impl Backend + 'static) {
    registry().register(backend);
}

/// The backend called `name`.
pub fn get(name: &str) -> Option<Arc<dyn Backend>> {
    registry().get(name)
}

/// The names of all backends, sorted.
pub fn list() -> Vec<String> {
    registry().list()
}

/// The first backend in the order of preference that is available.
///
/// # Errors
/// As [`Registry::default_backend`].
pub fn default_backend() -> Result<Arc<dyn Backend>> {
    registry().default_backend()
}

/// Loads the model at `path`: a folder of safetensors, or whatever else a backend reads.
///
/// # Errors
/// As [`Registry::load_model`].
pub fn load_model(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
    registry().load_model(path, options)
}

/// Quantises the checkpoint in the folder `from`, whose weights are f32, f16 or bf16, into the folder `to`, in the form
/// of MLX, which `mlx_lm` loads as well. Says what is there then.
///
/// ```no_run
/// # fn main() -> inference::Result<()> {
/// let options = inference::QuantiseOptions::default().bits(4).group_size(64);
/// inference::quantise("qwen3-0.6b", "qwen3-0.6b-4bit", &options)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`inference_engine::quantise`].
pub fn quantise(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: &QuantiseOptions,
) -> Result<Discovered> {
    inference_engine::quantise(from.as_ref(), to.as_ref(), options)
}
