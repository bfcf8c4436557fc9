//! The driver's library, and the devices that it shows.

use super::{
    context::Context,
    error::{CudaError, check},
};
use cudarc::driver::{
    result,
    sys::{self, CUdevice_attribute as Attribute},
};
use std::sync::OnceLock;

/// The oldest CUDA whose driver has all functions that are called.
const OLDEST: (u32, u32) = (11, 4);

/// The CUDA driver, opened and initialised. It stays open until the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuda {
    /// The newest CUDA that the driver knows, major and minor.
    pub version: (u32, u32),
}

/// Why there is no CUDA driver.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The library is not there.
    #[error("the library of the CUDA driver can't be opened")]
    NoLibrary,
    /// It is from before what is needed.
    #[error("the driver knows CUDA {}.{}", .0.0, .0.1)]
    TooOld((u32, u32)),
    /// It can't start.
    #[error(transparent)]
    Refused(#[from] CudaError),
}

impl Cuda {
    /// The driver of this machine.
    ///
    /// # Errors
    /// It is not there, too old, or says why it can't start. The first answer is that of all later calls.
    pub fn open() -> Result<Self, OpenError> {
        static OPENED: OnceLock<Result<Cuda, OpenError>> = OnceLock::new();
        OPENED.get_or_init(Self::open_now).clone()
    }

    fn open_now() -> Result<Self, OpenError> {
        // SAFETY: opens the vendor's library, whose initialisers have no conditions.
        if !unsafe { sys::is_culib_present() } {
            return Err(OpenError::NoLibrary);
        }
        let mut number = 0;
        // SAFETY: the library is there; the pointer is to an int. This may be asked before `cuInit`.
        let version = unsafe { sys::cuDriverGetVersion(&mut number) }.result();
        check("cuDriverGetVersion", version)?;
        let number = number.unsigned_abs();
        let version = (number / 1000, number % 1000 / 10);
        if version < OLDEST {
            return Err(OpenError::TooOld(version));
        }
        check("cuInit", result::init())?;
        Ok(Self { version })
    }
}

/// A device as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its place in CUDA's order.
    pub ordinal: i32,
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// `0000:01:00.0`
    pub pci: String,
    /// `GPU-` and its UUID.
    pub uuid: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that a block may have without asking, in bytes.
    pub shared_bytes: u32,
    /// All of its memory, in bytes.
    pub memory: u64,
    /// Whether it shares the processor's memory.
    pub integrated: bool,
}

impl Device {
    /// All devices, in CUDA's order.
    ///
    /// # Errors
    /// What CUDA says.
    pub fn all(_: Cuda) -> Result<Vec<Self>, CudaError> {
        let count = check("cuDeviceGetCount", result::device::get_count())?;
        (0..count).map(Self::of).collect()
    }

    fn of(ordinal: i32) -> Result<Self, CudaError> {
        let device = check("cuDeviceGet", result::device::get(ordinal))?;
        let attribute = |attribute| {
            // SAFETY: the device is one that CUDA has just named.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            check("cuDeviceGetAttribute", value).map(i32::unsigned_abs)
        };
        // SAFETY: as above.
        let memory = check("cuDeviceTotalMem", unsafe { result::device::total_mem(device) })?;
        let uuid = check("cuDeviceGetUuid", result::device::get_uuid(device))?;
        Ok(Self {
            ordinal,
            name: check("cuDeviceGetName", result::device::get_name(device))?,
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            pci: format!(
                "{:04x}:{:02x}:{:02x}.0",
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
            ),
            uuid: uuid_text(uuid.bytes.map(|byte| byte as u8)),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?,
            memory: memory as u64,
            integrated: attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
        })
    }

    /// Free and total memory, in bytes. Starts a context, which takes a tenth of a second and some memory; the one that this
    /// thread had is its current one afterwards.
    ///
    /// # Errors
    /// What CUDA says.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        Context::aside(self.ordinal, Context::memory)
    }

    /// Its compute capability as compilers write it: 90 for 9.0.
    pub fn arch(&self) -> u32 {
        self.capability.0 * 10 + self.capability.1
    }
}

/// As `nvidia-smi -L` prints it.
fn uuid_text(bytes: [u8; 16]) -> String {
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!("GPU-{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_nvidia_smi_writes_it() {
        let bytes = std::array::from_fn(|i| 0xf0 + i as u8);
        assert_eq!(uuid_text(bytes), "GPU-f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff");
    }
}
