//! Launches that are recorded and replayed, and what can go wrong with that.

use super::Kernel;
use crate::driver::Launch;
use inference_core::{Error, Result};
use std::{
    cell::RefCell,
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Launches that wait to be replayed.
#[derive(Debug)]
pub struct Graph(Vec<Recorded>);

/// A launch that waits to be replayed.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) kernel: Kernel,
    pub(super) launch: Launch,
    /// Each argument's bytes.
    pub(super) args: Vec<Vec<u64>>,
}

impl Recorded {
    /// # Safety
    /// `args` points to one value for each of the kernel's parameters, of its type.
    pub(super) unsafe fn new(kernel: &Kernel, launch: Launch, args: &[*mut c_void]) -> Self {
        let copy = |(pointer, size): (&*mut c_void, usize)| {
            let mut words = vec![0_u64; size.div_ceil(8)];
            // SAFETY: the caller's: a value of the parameter's type, which has this size.
            unsafe { words.as_mut_ptr().cast::<u8>().copy_from(pointer.cast(), size) };
            words
        };
        let args = args.iter().zip(kernel.sizes()).map(copy).collect();
        Self { kernel: kernel.clone(), launch, args }
    }
}

/// How recording and replaying go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be recorded, and the driver says so.
    CantRecord,
    /// What was recorded can't be made a graph.
    Record,
    /// A replay fails, counted from 1.
    Replay(usize),
    /// Replays leave out their last launch.
    LeaveOut,
}

/// What is being recorded.
#[derive(Debug, Default)]
pub(super) struct Recording {
    launches: RefCell<Option<Vec<Recorded>>>,
    replays: Arc<AtomicUsize>,
    fault: Option<Fault>,
}

impl Recording {
    pub(super) fn new(replays: Arc<AtomicUsize>, fault: Option<Fault>) -> Self {
        Self { launches: RefCell::default(), replays, fault }
    }

    pub(super) fn is_on(&self) -> bool {
        self.launches.borrow().is_some()
    }

    /// What a GPU does not do while launches are recorded.
    pub(super) fn refuse(&self, what: &str) -> Result<()> {
        if self.is_on() {
            let reason = format!("{what} while launches are recorded: only launches can be");
            return Err(Error::Device { reason });
        }
        Ok(())
    }

    pub(super) fn push(&self, launch: Recorded) {
        self.launches.borrow_mut().get_or_insert_default().push(launch);
    }

    pub(super) fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        self.refuse("a recording")?;
        if self.fault == Some(Fault::CantRecord) {
            return Ok(None);
        }
        *self.launches.borrow_mut() = Some(Vec::new());
        let done = f();
        let recorded = self.launches.borrow_mut().take().unwrap_or_default();
        if self.fault == Some(Fault::Record) {
            done.and(Err(fault()))
        } else {
            done.map(|()| Some(Graph(recorded)))
        }
    }

    /// The launches of a replay, which is counted.
    pub(super) fn replayed<'a>(&self, graph: &'a Graph) -> Result<&'a [Recorded]> {
        let nth = self.replays.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Some(Fault::Replay(n)) if n == nth => Err(fault()),
            Some(Fault::LeaveOut) => Ok(graph.0.split_last().map_or(&[], |(_, rest)| rest)),
            _ => Ok(&graph.0),
        }
    }
}

fn fault() -> Error {
    Error::Device { reason: "it goes wrong as it was told to".to_owned() }
}
