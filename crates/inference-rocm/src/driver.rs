//! HIP as the driver of `inference_gpu`'s device.

use crate::{
    compile::Compiler,
    hip::{
        DeviceInfo, Hip, HipDevice, HipFunction, HipGraph, HipModule, HipSlice, HipStream, Kind,
        LaunchConfig, Version,
    },
};
use inference_core::Result;
use inference_gpu::{Driver, Launch, Memory, Target, code_cache::loaded};
use std::{env, ffi::c_void, sync::Arc};

/// `0`: never record launches; `1`: do so even where it is known to go wrong.
pub(crate) const GRAPH: &str = "INFERENCE_ROCM_GRAPH";

/// The first HIP whose graphs are used, that of ROCm 7.2.1 (7.2.0's is 7.2.26015): before it, replays ran in the wrong
/// order (kokkos/kokkos#8359), stale state of one recording broke the next (ROCm 6.4.0), and older ones had more.
const GRAPHS_SINCE: Version = Version { major: 7, minor: 2, patch: 53_211 };

/// One device, one stream.
#[derive(Debug)]
pub struct HipDriver {
    device: Arc<HipDevice>,
    stream: Arc<HipStream>,
    compiler: Compiler,
    target: Target,
    records: bool,
}

impl HipDriver {
    /// The device `ordinal` of `hip`, with the user's cache of kernels.
    ///
    /// # Errors
    /// What HIP says.
    pub fn open(hip: &'static Hip, ordinal: i32) -> Result<Self> {
        let device = HipDevice::open(hip, ordinal)?;
        let compiler = Compiler::new(hip, device.info());
        Self::over(device, compiler)
    }

    /// A device with a compiler of the caller's.
    ///
    /// # Errors
    /// What HIP says.
    pub fn over(device: Arc<HipDevice>, compiler: Compiler) -> Result<Self> {
        let info = device.info();
        let target = Target::new(info.arch(), info.wave, info.compute_units(), info.shared_bytes);
        let records = records(device.hip().version, info, env::var(GRAPH).ok().as_deref());
        let stream = HipStream::new(&device)?;
        Ok(Self { device, stream, compiler, target, records })
    }
}

/// Whether launches may be recorded and replayed: not on RDNA 1 and 2, where recording hangs (gfx1010, gfx1013) or has not
/// been seen to work, nor on gfx950, where a replay reads what a copy right before it was to replace (ROCm/hip#3902).
fn records(version: Version, device: &DeviceInfo, variable: Option<&str>) -> bool {
    match variable {
        Some("0") => false,
        Some("1") => true,
        _ => {
            let arch = device.arch();
            version >= GRAPHS_SINCE && !arch.starts_with("gfx10") && arch != "gfx950"
        }
    }
}

impl Driver for HipDriver {
    type Buffer = HipSlice<u8>;
    type Kernel = HipFunction;
    type Graph = HipGraph;

    fn target(&self) -> &Target {
        &self.target
    }

    fn memory(&self) -> Result<Memory> {
        let (free, total) = self.device.memory()?;
        Ok(Memory { free, total })
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer> {
        self.stream.only_launches("an allocation")?;
        Ok(HipSlice::new(&self.device, bytes)?)
    }

    fn address(&self, buffer: &Self::Buffer) -> u64 {
        buffer.address()
    }

    fn upload(&self, into: &Self::Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.upload(into, at, bytes)?)
    }

    fn download(&self, from: &Self::Buffer, at: usize, bytes: &mut [u8]) -> Result<()> {
        Ok(self.stream.download(from, at, bytes)?)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn compile(
        &self,
        source: &str,
        defines: &[String],
        names: &[&str],
    ) -> Result<Vec<Self::Kernel>> {
        self.stream.only_launches("a compilation")?;
        let module = loaded(
            |code| HipModule::load(&self.device, code.to_vec()),
            |error| error.kind() == Kind::NoBinary,
            |fits| self.compiler.compile(source, defines, fits),
        )?;
        let function = |name: &&str| {
            let function = module.function(name)?;
            if function.scratch_bytes() > 0 {
                tracing::warn!(
                    "kernel `{name}` spills registers on {}: it will be slow",
                    self.target.arch
                );
            }
            Ok(function)
        };
        names.iter().map(function).collect()
    }

    unsafe fn launch(
        &self,
        kernel: &Self::Kernel,
        launch: Launch,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        let Launch { grid, block, shared_bytes } = launch;
        let config = LaunchConfig { grid, block: [block, 1, 1], shared_bytes };
        // SAFETY: the caller's.
        Ok(unsafe { self.stream.launch_raw(kernel, config, args) }?)
    }

    fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Graph>> {
        if !self.records {
            return Ok(None);
        }
        HipGraph::record(&self.stream, f).map(Some)
    }

    unsafe fn replay(&self, graph: &Self::Graph) -> Result<()> {
        // SAFETY: the caller's.
        Ok(unsafe { graph.replay() }?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_recorded_where_that_is_known_to_work() {
        let device = |target: &str| DeviceInfo {
            ordinal: 0,
            name: String::new(),
            target: target.to_owned(),
            pci: String::new(),
            uuid: None,
            wave: 32,
            multiprocessors: 48,
            shared_bytes: 65_536,
            max_block: 1024,
            integrated: false,
            memory: 0,
        };
        for (number, target, variable, expected) in [
            (70_253_211, "gfx1100", None, true),
            (70_253_211, "gfx942:sramecc+:xnack-", None, true),
            (70_253_211, "gfx1030", None, false),
            (70_253_211, "gfx950", None, false),
            (71_460_850, "gfx1100", None, true),
            (70_226_015, "gfx1100", None, false),
            (60_443_484, "gfx1100", None, false),
            (60_443_484, "gfx1100", Some("1"), true),
            (70_253_211, "gfx1100", Some("0"), false),
            (70_253_211, "gfx1100", Some(""), true),
        ] {
            let records = records(Version::from_number(number), &device(target), variable);
            assert_eq!(records, expected, "{number} {target} {variable:?}");
        }
    }
}
