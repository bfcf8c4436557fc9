//! What a code object says of its kernels: an ELF file with a note in MessagePack.
//!
//! Format: <https://llvm.org/docs/AMDGPUUsage.html#code-object-v3-metadata>. HIP is given no length when it loads one, so
//! whatever is cut off is refused here.

use object::{
    LittleEndian,
    elf::FileHeader64,
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _},
};
use rmpv::Value;

/// `NT_AMDGPU_METADATA`.
const METADATA: u32 = 32;

/// The kernels of a code object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeObject {
    /// The architecture, with its settings: `gfx90a:xnack-`; empty if it doesn't say.
    pub(crate) target: String,
    /// In the order of the file.
    pub(crate) kernels: Vec<Kernel>,
}

/// A kernel, as its compiler describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Those that a launch passes; what the runtime adds is left out.
    pub(crate) arguments: Vec<Argument>,
    /// Bytes of static shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Bytes of scratch of a lane: 0, or registers were spilled.
    pub(crate) scratch_bytes: u32,
    /// Most lanes of a block.
    pub(crate) max_block: u32,
}

/// Where an argument is among a kernel's arguments, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

impl Kernel {
    /// Bytes of all arguments.
    pub(crate) fn argument_bytes(&self) -> usize {
        self.arguments.iter().map(|a| a.offset + a.size).max().unwrap_or_default()
    }
}

/// Most bytes of arguments that a kernel is believed to have.
const MANY_ARGUMENT_BYTES: usize = 4096;

impl CodeObject {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// In words, what is wrong with them.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| "no ELF file")?;
        let little = header.endian().map_err(|_| "not little-endian")?;
        let broken = |error: object::read::Error| format!("a damaged ELF file: {error}");
        let segments = header.program_headers(little, bytes).map_err(broken)?;
        let sections = header.section_headers(little, bytes).map_err(broken)?;
        for section in sections {
            section.data(little, bytes).map_err(broken)?;
        }
        let mut metadata = None;
        for segment in segments {
            segment.data(little, bytes).map_err(|()| "cut off")?;
            let Some(mut notes) = segment.notes(little, bytes).map_err(broken)? else { continue };
            while let Some(note) = notes.next().map_err(broken)? {
                if note.name() == b"AMDGPU" && note.n_type(little).0 == METADATA {
                    metadata = Some(note.desc());
                }
            }
        }
        Self::of_metadata(metadata.ok_or("no metadata of AMD's")?)
    }

    fn of_metadata(mut bytes: &[u8]) -> Result<Self, String> {
        let root = rmpv::decode::read_value_with_max_depth(&mut bytes, 32)
            .map_err(|error| format!("damaged metadata: {error}"))?;
        let target = root.text("amdhsa.target").unwrap_or_default();
        // A triple is before it, of which LLVM has written more than one form.
        let target = target.rfind("gfx").map_or("", |at| &target[at..]).to_owned();
        let kernels = root.list("amdhsa.kernels").ok_or("metadata without kernels")?;
        let kernels: Option<Vec<Kernel>> = kernels.iter().map(Kernel::read).collect();
        Ok(Self { target, kernels: kernels.ok_or("a kernel without name or sizes")? })
    }

    /// The kernel `name`.
    pub(crate) fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Whether a device of this architecture runs it; settings are the loader's affair.
    pub(crate) fn is_for(&self, arch: &str) -> bool {
        self.target.is_empty() || self.target.split(':').next() == Some(arch)
    }
}

impl Kernel {
    fn read(value: &Value) -> Option<Self> {
        let number = |key| value.number(key).and_then(|n| u32::try_from(n).ok());
        let arguments = value.list(".args").unwrap_or_default().iter();
        let arguments = arguments
            .filter(|a| !a.text(".value_kind").is_some_and(|kind| kind.starts_with("hidden_")));
        let arguments: Option<Vec<_>> = arguments.map(Argument::read).collect();
        let kernel = Self {
            name: value.text(".name")?.to_owned(),
            arguments: arguments?,
            shared_bytes: number(".group_segment_fixed_size")?,
            scratch_bytes: number(".private_segment_fixed_size")?,
            max_block: number(".max_flat_workgroup_size")?,
        };
        (kernel.argument_bytes() <= MANY_ARGUMENT_BYTES).then_some(kernel)
    }
}

impl Argument {
    fn read(value: &Value) -> Option<Self> {
        // Each below the most, so that their sum is a number.
        let number = |key| value.number(key).and_then(|n| usize::try_from(n).ok());
        let within = |n: &usize| *n <= MANY_ARGUMENT_BYTES;
        Some(Self {
            offset: number(".offset").filter(within)?,
            size: number(".size").filter(within)?,
        })
    }
}

/// Fields of a map.
trait Fields {
    fn field(&self, key: &str) -> Option<&Value>;

    fn text(&self, key: &str) -> Option<&str> {
        self.field(key)?.as_str()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.field(key)?.as_u64()
    }

    fn list(&self, key: &str) -> Option<&[Value]> {
        self.field(key)?.as_array().map(Vec::as_slice)
    }
}

impl Fields for Value {
    fn field(&self, key: &str) -> Option<&Value> {
        self.as_map()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }
}

#[cfg(test)]
#[path = "code_object_tests.rs"]
pub(crate) mod tests;
