//! Compiled kernels, and launches whose arguments are those that the kernel's text declares.

use crate::{
    driver::{Driver, Launch},
    source::{Declared, Kind, Module, declared},
};
use inference_core::{Error, Result};
use std::{cell::RefCell, collections::HashMap, ffi::c_void, rc::Rc};

/// Most blocks of a grid in y, and in z.
pub(crate) const MOST_IN_Y: usize = 65_535;

/// Most arguments of a kernel.
const MOST: usize = 24;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    /// An address; 0 where there is none.
    Pointer(u64),
    U32(u32),
    I32(i32),
    F32(f32),
}

impl Arg {
    fn kind(self) -> Kind {
        match self {
            Self::Pointer(_) => Kind::Pointer,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
        }
    }

    /// Its bits; the machines that have GPUs begin with the lowest byte.
    fn bits(self) -> u64 {
        match self {
            Self::Pointer(p) => p,
            Self::U32(n) => u64::from(n),
            Self::I32(n) => u64::from(n.cast_unsigned()),
            Self::F32(x) => u64::from(x.to_bits()),
        }
    }
}

/// Makes an [`Arg`] of a number: a `u64` is an address, a `usize` a count that kernels know as `u32`.
impl From<u64> for Arg {
    fn from(address: u64) -> Self {
        Self::Pointer(address)
    }
}
impl From<usize> for Arg {
    fn from(count: usize) -> Self {
        Self::U32(u32::try_from(count).expect("a count that was checked"))
    }
}
impl From<u32> for Arg {
    fn from(count: u32) -> Self {
        Self::U32(count)
    }
}
impl From<i32> for Arg {
    fn from(number: i32) -> Self {
        Self::I32(number)
    }
}
impl From<f32> for Arg {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

type Loaded<K> = Rc<HashMap<String, (Declared, K)>>;

/// A driver and the modules that it has compiled.
pub(crate) struct Kernels<D: Driver> {
    driver: Rc<D>,
    modules: RefCell<HashMap<Module, Loaded<D::Kernel>>>,
}

impl<D: Driver> Kernels<D> {
    pub(crate) fn new(driver: Rc<D>) -> Self {
        Self { driver, modules: RefCell::default() }
    }

    /// Compiles a module, unless it is there.
    pub(crate) fn load(&self, module: Module) -> Result<Loaded<D::Kernel>> {
        if let Some(loaded) = self.modules.borrow().get(&module) {
            return Ok(loaded.clone());
        }
        let source = module.source();
        let kernels = declared(&source);
        let names: Vec<_> = kernels.iter().map(|k| k.name.as_str()).collect();
        let found = self.driver.compile(&source, &module.defines(), &names)?;
        let named = kernels.iter().map(|k| k.name.clone());
        let loaded: Loaded<_> =
            Rc::new(named.zip(kernels.iter().cloned().zip(found)).collect::<HashMap<_, _>>());
        self.modules.borrow_mut().insert(module, loaded.clone());
        Ok(loaded)
    }

    /// Starts kernel `name` of `module`, with as much shared memory as its text declares.
    pub(crate) fn run(
        &self,
        module: Module,
        name: &str,
        grid: [usize; 3],
        block: u32,
        args: &[Arg],
    ) -> Result<()> {
        let loaded = self.load(module)?;
        let wrong = |reason: String| Error::Device { reason: format!("kernel {name}: {reason}") };
        let (declared, kernel) =
            loaded.get(name).ok_or_else(|| wrong(format!("not in {module}")))?;
        if !args.iter().map(|a| a.kind()).eq(declared.params.iter().copied()) {
            return Err(wrong(format!("{args:?} are not {:?}", declared.params)));
        }
        let [x, y, z] = grid.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        if block > declared.threads
            || x == 0
            || x > i32::MAX as u32
            || y as usize > MOST_IN_Y
            || z as usize > MOST_IN_Y
        {
            return Err(wrong(format!("{grid:?} blocks of {block} threads")));
        }
        if args.len() > MOST {
            return Err(wrong(format!("{} arguments, more than {MOST}", args.len())));
        }
        let (mut values, mut pointers) = ([0_u64; MOST], [std::ptr::null_mut::<c_void>(); MOST]);
        for ((value, pointer), arg) in values.iter_mut().zip(&mut pointers).zip(args) {
            *value = arg.bits().to_le();
            *pointer = std::ptr::from_mut(value).cast();
        }
        let launch = Launch { grid: [x, y, z], block, shared_bytes: 0 };
        // SAFETY: number and types of the arguments have just been compared with the kernel's own text. The operations of
        // this crate, which alone call this, pass memory of arenas and weights that lives as long as the stream needs it,
        // and the sizes that it was lent with; the device suite checks them on the CPU.
        unsafe { self.driver.launch(kernel, launch, &mut pointers[..args.len()]) }
    }
}
