//! What HIP knows of a device.

use crate::hip::{
    HipError,
    load::Hip,
    sys::{ARCH_NAME_LEN, ARCH_NAME_R0000, ARCH_NAME_R0600, attribute, hipUUID},
};
use std::ffi::{CStr, c_int};

/// Bytes that hold `hipDeviceProp_t` of any release, with room: 1472 are known.
const PROPERTIES: usize = 8192;

/// Integrated GPUs with the units and the memory for models: Ryzen 7040 and later, Ryzen AI, MI300A.
const APUS: [&str; 6] = ["gfx942", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"];

/// Integrated GPUs that come in sizes that only show a desktop.
const DISPLAYS: [&str; 4] = ["gfx90c", "gfx1035", "gfx1036", "gfx1037"];

/// A device, as HIP describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its place among the visible devices.
    pub ordinal: i32,
    /// As AMD calls it.
    pub name: String,
    /// The whole name of its architecture, such as `gfx90a:sramecc+:xnack-`.
    pub target: String,
    /// Its PCI address, such as `0000:03:00.0`; empty if unknown.
    pub pci: String,
    /// `GPU-` and 16 hexadecimal digits; `None` where the card has none of its own.
    pub uuid: Option<String>,
    /// Lanes of a wave.
    pub wave: u32,
    /// What HIP counts as multiprocessors: compute units; on RDNA pairs of them.
    pub multiprocessors: u32,
    /// Bytes of shared memory (LDS) that a block may have.
    pub shared_bytes: u32,
    /// Lanes that a block may have.
    pub max_block: u32,
    /// Part of the processor.
    pub integrated: bool,
    /// Bytes of memory.
    pub memory: u64,
}

impl DeviceInfo {
    /// The architecture without what follows the first colon: code for it runs whatever the settings.
    pub fn arch(&self) -> &str {
        self.target.split(':').next().unwrap_or_default()
    }

    /// Whether it is of the RDNA line (gfx10 and later): waves of 32, two compute units in a work-group processor.
    pub fn is_rdna(&self) -> bool {
        self.arch().strip_prefix("gfx1").is_some_and(|rest| rest.len() == 3)
    }

    /// Compute units.
    pub fn compute_units(&self) -> u32 {
        if self.is_rdna() { self.multiprocessors * 2 } else { self.multiprocessors }
    }

    /// Whether it may be chosen unasked: a card, or a processor's graphics that are made to compute.
    ///
    /// Not so the 2 units of a desktop processor, which sit beside the card that is meant. Some drivers don't say of them
    /// that they are integrated.
    pub fn is_worth_choosing(&self) -> bool {
        let is_small = self.multiprocessors <= 4 && DISPLAYS.contains(&self.arch());
        if self.integrated { APUS.contains(&self.arch()) } else { !is_small }
    }

    /// All visible devices that can be described; of the others the log says why not.
    ///
    /// # Errors
    /// What HIP says, of the first device if none can be described; no device is one of its errors.
    pub fn all(hip: &Hip) -> Result<Vec<Self>, HipError> {
        let mut count = 0;
        // SAFETY: takes no pointer.
        unsafe { hip.runtime.hipInit(0) }?;
        // SAFETY: the pointer is to a live integer.
        unsafe { hip.runtime.hipGetDeviceCount(&mut count) }?;
        let (mut devices, mut first) = (Vec::new(), None);
        for ordinal in 0..count {
            match Self::read(hip, ordinal) {
                Ok(device) => devices.push(device),
                Err(error) => {
                    tracing::warn!("device {ordinal} of HIP can't be used: {error}");
                    first.get_or_insert(error);
                }
            }
        }
        first.filter(|_| devices.is_empty()).map_or(Ok(devices), Err)
    }

    /// The device `ordinal`.
    ///
    /// # Errors
    /// What HIP says.
    pub fn read(hip: &Hip, ordinal: i32) -> Result<Self, HipError> {
        let runtime = &hip.runtime;
        let attribute = |which| -> Result<c_int, HipError> {
            let mut value = 0;
            // SAFETY: the pointer is to a live integer.
            unsafe { runtime.hipDeviceGetAttribute(&mut value, which, ordinal) }?;
            Ok(value)
        };
        let unsigned =
            |which| attribute(which).map(|value| u32::try_from(value).unwrap_or_default());
        let mut memory = 0;
        // SAFETY: the pointer is to a live integer.
        unsafe { runtime.hipDeviceTotalMem(&mut memory, ordinal) }?;
        // SAFETY: the buffer is of the length that is passed.
        let name = text_of(|buffer, len| unsafe {
            runtime.hipDeviceGetName(buffer.cast(), len, ordinal)
        })?;
        // SAFETY: as above.
        let pci = text_of(|buffer, len| unsafe {
            runtime.hipDeviceGetPCIBusId(buffer.cast(), len, ordinal)
        });
        Ok(Self {
            ordinal,
            name,
            target: target(hip, ordinal)?,
            pci: pci.unwrap_or_default().to_lowercase(),
            uuid: uuid(hip, ordinal),
            wave: unsigned(attribute::WARP_SIZE)?,
            multiprocessors: unsigned(attribute::MULTIPROCESSOR_COUNT)?,
            shared_bytes: unsigned(attribute::MAX_SHARED_MEMORY_PER_BLOCK)?,
            max_block: unsigned(attribute::MAX_THREADS_PER_BLOCK)?,
            integrated: attribute(attribute::INTEGRATED)? != 0,
            memory: memory as u64,
        })
    }
}

fn text_of(fill: impl FnOnce(*mut u8, c_int) -> Result<(), HipError>) -> Result<String, HipError> {
    let mut buffer = [0u8; 256];
    fill(buffer.as_mut_ptr(), 255)?;
    Ok(until_nul(&buffer))
}

fn until_nul(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
}

fn uuid(hip: &Hip, ordinal: i32) -> Option<String> {
    let mut uuid = hipUUID::default();
    // SAFETY: the pointer is to 16 live bytes.
    unsafe { hip.runtime.hipDeviceGetUuid(&mut uuid, ordinal) }.ok()?;
    let text = std::str::from_utf8(&uuid.bytes).ok()?;
    let is_own = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0');
    is_own.then(|| format!("GPU-{}", text.to_lowercase()))
}

/// The architecture's name from `hipDeviceProp_t`. The function without a suffix fills the old layout in every release;
/// all else in that structure moved, and is asked for by attribute.
fn target(hip: &Hip, ordinal: i32) -> Result<String, HipError> {
    let mut properties = vec![0u64; PROPERTIES / 8];
    let pointer = properties.as_mut_ptr().cast();
    // SAFETY: the buffer is larger than the structure of any release, and aligned for it.
    let (newer, old, older) = unsafe {
        let runtime = &hip.runtime;
        match runtime.hipGetDevicePropertiesR0600(pointer, ordinal) {
            Some(result) => (Some(result), None, None),
            None => match runtime.hipGetDevicePropertiesR0000(pointer, ordinal) {
                Some(result) => (None, Some(result), None),
                None => (None, None, runtime.hipGetDeviceProperties(pointer, ordinal)),
            },
        }
    };
    let at = if newer.is_some() { ARCH_NAME_R0600 } else { ARCH_NAME_R0000 };
    newer.or(old).or(older).unwrap_or(Ok(()))?;
    let bytes: &[u8] = bytemuck::cast_slice(&properties);
    let name = until_nul(&bytes[at..at + ARCH_NAME_LEN]);
    if is_target(&name) {
        return Ok(name);
    }
    Err(HipError::CodeObject(format!(
        "device {ordinal} has an architecture without a name: {name:?}"
    )))
}

/// `gfx` and hexadecimal digits, then settings such as `:xnack-`.
fn is_target(name: &str) -> bool {
    let mut parts = name.split(':');
    let arch = parts.next().and_then(|arch| arch.strip_prefix("gfx")).unwrap_or_default();
    let is_setting = |part: &str| {
        let letters = part.strip_suffix(['+', '-']).unwrap_or_default();
        !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
    };
    !arch.is_empty() && arch.bytes().all(|b| b.is_ascii_hexdigit()) && parts.all(is_setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_architectures_are_told_from_garbage() {
        for name in ["gfx906", "gfx90a:sramecc+:xnack-", "gfx1201", "gfx942:xnack+"] {
            assert!(is_target(name), "{name}");
        }
        for name in ["", "gfx", "gfx11zz", "sm_90", "gfx90a:", "gfx90a:xnack", "\u{fffd}gfx906"] {
            assert!(!is_target(name), "{name}");
        }
    }
}
