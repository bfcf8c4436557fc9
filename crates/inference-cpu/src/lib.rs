//! The CPU backend: threads that stay, instructions chosen at run time, dense weights where the file has them,
//! quantised ones packed.

mod attention;
mod device;
mod elementwise;
mod linear;
mod machine;
mod math;
mod memory;
mod pool;
mod simd;
mod tensor;

pub use device::Cpu;
pub use simd::Level;

use inference_core::{
    Availability, Backend, DeviceChoice, DeviceInfo, Error, Format, LoadOptions, Result, TextModel,
};
use inference_engine::Setup;
use std::path::Path;

/// The name in the registry.
const NAME: &str = "cpu";

/// Sequences at once: each adds little to a decoding step, which reads every weight anyway.
const SLOTS: usize = 32;

/// Prompt tokens of a step: enough that products are bound by arithmetic, and a fraction of a second on two cores.
const STEP_TOKENS: usize = 256;

/// Bytes for activations, and for whoever else is on the machine.
const RESERVE: u64 = 512 << 20;

/// The backend `cpu`. Runs everywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuBackend;

impl Backend for CpuBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn availability(&self) -> Availability {
        Availability::Available
    }

    fn reads(&self, format: Format) -> bool {
        matches!(format, Format::Safetensors | Format::Gguf)
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let (total, available) = machine::total_and_available();
        let name =
            format!("{}, {} cores, {:?}", machine::processor(), machine::cores(), Level::best());
        vec![DeviceInfo::new(NAME, name, total, available)]
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>> {
        match &options.device {
            None | Some(DeviceChoice::Index(0)) => {}
            Some(DeviceChoice::Id(id)) if id == NAME => {}
            Some(other) => {
                let reason = format!("{other:?}; the only device of this backend is {NAME:?}");
                return Err(Error::option("device", reason));
            }
        }
        let threads = options.threads.unwrap_or_else(machine::cores);
        let exact = options.exact_activations;
        Ok(Box::new(inference_engine::load(path, options, setup(), move || {
            Ok(Cpu::new(threads)?.exact_activations(exact))
        })?))
    }
}

/// What the engine is told of this backend and its device, for those who load onto a [`Cpu`] of their own.
pub fn setup() -> Setup {
    Setup {
        backend: NAME,
        device: machine::processor(),
        slots: SLOTS,
        step_tokens: STEP_TOKENS,
        reserve: RESERVE,
    }
}
