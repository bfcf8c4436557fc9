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
    Availability, Backend, Check, DeviceChoice, DeviceInfo, Error, Format, LoadOptions, Result,
    TextModel,
};
use inference_engine::{
    Setup,
    check::{self, Tolerance},
};
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
        check_choice(options.device.as_ref())?;
        let threads = options.threads.unwrap_or_else(machine::cores);
        let exact = options.exact_activations;
        Ok(Box::new(inference_engine::load(path, options, setup(), move || {
            Ok(Cpu::new(threads)?.exact_activations(exact))
        })?))
    }

    fn report(&self) -> String {
        let levels = Level::available();
        format!("levels of instructions: {levels:?}, of which {:?} is used\n", Level::best())
    }

    fn self_test(&self, device: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
        check_choice(device)?;
        // Activations are rounded to 8 bits for quantised weights, and a gated product multiplies two that are.
        let tolerance = Tolerance { rounded: 1.2e-2, each: 40.0, ..Tolerance::default() };
        check::self_test(&Cpu::new(machine::cores())?, tolerance, each);
        Ok(())
    }
}

/// There is one device only.
fn check_choice(device: Option<&DeviceChoice>) -> Result<()> {
    match device {
        None | Some(DeviceChoice::Index(0)) => Ok(()),
        Some(DeviceChoice::Id(id)) if id == NAME => Ok(()),
        Some(other) => {
            let reason = format!("{other:?}; the only device of this backend is {NAME:?}");
            Err(Error::option("device", reason))
        }
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
