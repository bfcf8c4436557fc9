//! Launches, checked against what the code object says of its kernel.

use super::{DeviceInfo, HipFunction, HipSlice, HipStream};
use crate::{code_object::Kernel, hip::HipError};
use bytemuck::Pod;
use std::{ffi::c_void, sync::Arc};

/// Blocks in y and z: HIP's limit.
const MANY_BLOCKS: u32 = 65_536;

/// The shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: [u32; 3],
    /// Lanes of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl LaunchConfig {
    /// What keeps `kernel` from running in this shape on `device`.
    pub(crate) fn check(&self, kernel: &Kernel, device: &DeviceInfo) -> Result<(), String> {
        let lanes = self.block.iter().map(|n| u64::from(*n)).product::<u64>();
        let most = u64::from(kernel.max_block.min(device.max_block));
        let shared = u64::from(kernel.shared_bytes) + u64::from(self.shared_bytes);
        let [x, y, z] = self.grid;
        let wrong = if self.grid.contains(&0) || lanes == 0 {
            format!("a grid of {:?} blocks of {:?} lanes is empty", self.grid, self.block)
        } else if lanes > most {
            format!("a block of {lanes} lanes, where {most} are the most")
        } else if shared > u64::from(device.shared_bytes) {
            format!("{shared} bytes of shared memory, where a block has {}", device.shared_bytes)
        } else if y > MANY_BLOCKS || z > MANY_BLOCKS {
            format!("a grid of {:?} blocks, where {MANY_BLOCKS} are the most in y and z", self.grid)
        } else if u64::from(x) * u64::from(self.block[0]) > u64::from(u32::MAX) {
            format!("{x} blocks of {} lanes are more than 2^32 lanes", self.block[0])
        } else {
            return Ok(());
        };
        Err(wrong)
    }
}

/// The values of a launch's arguments, packed as the kernel has them.
#[derive(Debug)]
pub struct Arguments {
    kernel: Arc<Kernel>,
    bytes: Box<[u8]>,
    /// How many are there.
    filled: usize,
}

impl Arguments {
    /// For `function`, none filled.
    pub fn new(function: &HipFunction) -> Self {
        Self::of(function.kernel().clone())
    }

    pub(super) fn of(kernel: Arc<Kernel>) -> Self {
        let bytes = vec![0; kernel.argument_bytes()].into_boxed_slice();
        Self { kernel, bytes, filled: 0 }
    }

    /// Fills the next.
    ///
    /// # Errors
    /// The kernel has no more, or that one has another size.
    pub fn push(&mut self, value: &[u8]) -> Result<(), HipError> {
        let at = self.filled;
        let Some(argument) = self.kernel.arguments.get(at) else {
            return Err(self.wrong(format!("more than {at} arguments")));
        };
        if argument.size != value.len() {
            let (size, len) = (argument.size, value.len());
            return Err(self.wrong(format!("argument {at} of {len} bytes, where it has {size}")));
        }
        self.bytes[argument.offset..argument.offset + value.len()].copy_from_slice(value);
        self.filled += 1;
        Ok(())
    }

    /// A pointer to each value, if all are there.
    pub(super) fn pointers(&mut self) -> Result<Vec<*mut c_void>, HipError> {
        let count = self.kernel.arguments.len();
        if self.filled != count {
            return Err(self.wrong(format!("{} arguments, where it has {count}", self.filled)));
        }
        let base = self.bytes.as_mut_ptr();
        let at = |offset: usize| base.wrapping_add(offset).cast();
        Ok(self.kernel.arguments.iter().map(|argument| at(argument.offset)).collect())
    }

    fn wrong(&self, reason: String) -> HipError {
        HipError::Launch { kernel: self.kernel.name.clone(), reason }
    }
}

/// A launch in the making; its arguments are checked one by one, and the first error is kept until it [runs](Self::run).
#[derive(Debug)]
pub struct LaunchBuilder<'a> {
    stream: &'a HipStream,
    function: &'a HipFunction,
    arguments: Arguments,
    wrong: Option<HipError>,
}

impl<'a> LaunchBuilder<'a> {
    pub(super) fn new(stream: &'a HipStream, function: &'a HipFunction) -> Self {
        Self { stream, function, arguments: Arguments::new(function), wrong: None }
    }

    /// The next argument, by value.
    #[must_use]
    pub fn value<T: Pod>(mut self, value: T) -> Self {
        if self.wrong.is_none() {
            self.wrong = self.arguments.push(bytemuck::bytes_of(&value)).err();
        }
        self
    }

    /// The next argument: a pointer to a slice's beginning.
    #[must_use]
    pub fn slice<T>(self, slice: &HipSlice<T>) -> Self {
        self.value(slice.address())
    }

    /// Starts it.
    ///
    /// # Errors
    /// Arguments or shape do not fit; or what HIP says.
    ///
    /// # Safety
    /// What the kernel reads and writes is in bounds, and alive until it has run.
    pub unsafe fn run(mut self, config: LaunchConfig) -> Result<(), HipError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut pointers = self.arguments.pointers()?;
        // SAFETY: the pointers are to values of the sizes that the kernel has; the rest is the caller's.
        unsafe { self.stream.launch_raw(self.function, config, &mut pointers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_object::Argument;

    fn device() -> DeviceInfo {
        DeviceInfo {
            ordinal: 0,
            name: String::new(),
            target: "gfx1100".to_owned(),
            pci: String::new(),
            uuid: None,
            wave: 32,
            multiprocessors: 48,
            shared_bytes: 65_536,
            max_block: 1024,
            integrated: false,
            memory: 0,
        }
    }

    fn kernel() -> Kernel {
        let arguments = vec![Argument { offset: 0, size: 8 }, Argument { offset: 8, size: 4 }];
        Kernel {
            name: "k".to_owned(),
            arguments,
            shared_bytes: 1024,
            max_block: 256,
            scratch_bytes: 0,
        }
    }

    #[test]
    fn shapes_that_cannot_run_are_refused() {
        let fits = |grid, block, shared_bytes| {
            LaunchConfig { grid, block, shared_bytes }.check(&kernel(), &device()).is_ok()
        };
        assert!(fits([1, 1, 1], [256, 1, 1], 64_512));
        assert!(fits([1 << 24, 65_536, 65_536], [64, 4, 1], 0));
        for (grid, block, shared_bytes) in [
            ([0, 1, 1], [1, 1, 1], 0),
            ([1, 1, 1], [1, 0, 1], 0),
            ([1, 1, 1], [257, 1, 1], 0),
            ([1, 1, 1], [64, 5, 1], 0),
            ([1, 1, 1], [u32::MAX, u32::MAX, 1], 0),
            ([1, 1, 1], [1, 1, 1], 64_513),
            ([1, 1, 1], [1, 1, 1], u32::MAX),
            ([1, 65_537, 1], [1, 1, 1], 0),
            ([1 << 24, 1, 1], [256, 1, 1], 0),
        ] {
            assert!(!fits(grid, block, shared_bytes), "{grid:?} {block:?} {shared_bytes}");
        }
    }

    #[test]
    fn arguments_have_the_kernel_s_number_and_sizes() {
        let mut arguments = Arguments::of(Arc::new(kernel()));
        assert!(arguments.push(&[0; 4]).is_err());
        arguments.push(&7u64.to_le_bytes()).expect("8 bytes");
        assert!(arguments.pointers().is_err(), "one is missing");
        arguments.push(&9u32.to_le_bytes()).expect("4 bytes");
        assert!(arguments.push(&[0; 4]).is_err(), "there are two");
        assert_eq!(arguments.pointers().expect("both").len(), 2);
        assert_eq!(*arguments.bytes, [7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]);
    }
}
