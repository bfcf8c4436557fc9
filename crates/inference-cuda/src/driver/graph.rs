//! Recorded launches.

use super::{
    context::released_or_told,
    error::{CudaError, check},
    module::Kernel,
    stream::Stream,
};
use cudarc::driver::{
    result,
    sys::{CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode},
};
use std::{ptr, rc::Rc};

/// Recorded launches, ready to run again. Values of arguments are kept as they were.
#[derive(Debug)]
pub struct Graph {
    graph: CUgraph,
    exec: CUgraphExec,
    _kernels: Vec<Kernel>,
    stream: Rc<Stream>,
}

impl Graph {
    /// Records what `f` launches on `stream`, without running it. Nothing stays recorded where it fails.
    pub(super) fn record<E: From<CudaError>>(
        stream: &Rc<Stream>,
        f: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        if stream.recording().borrow().is_some() {
            return Err(CudaError::Recording("a recording").into());
        }
        let raw = stream.bound()?;
        // Thread-local: allocations of other threads do no harm.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive, and is not the default one.
        check("cuStreamBeginCapture", unsafe { result::stream::begin_capture(raw, mode) })?;
        *stream.recording().borrow_mut() = Some(Vec::new());
        let unfinished = Unfinished(stream);
        f()?;
        Ok(unfinished.finish()?)
    }

    /// Runs what was recorded.
    ///
    /// # Safety
    /// All memory that the recorded launches use is still alive.
    pub(super) unsafe fn replay(&self) -> Result<(), CudaError> {
        let raw = self.stream.bound()?;
        // SAFETY: both handles are alive; what the launches use is the caller's, and their code is kept.
        check("cuGraphLaunch", unsafe { result::graph::launch(self.exec, raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It must not run when it is destroyed; on a device that is lost it does not.
        let _ = self.stream.synchronize();
        let Ok(_) = self.stream.bound() else { return };
        if !self.exec.is_null() {
            // SAFETY: it is destroyed once.
            let destroyed = unsafe { result::graph::exec_destroy(self.exec) };
            released_or_told(check("cuGraphExecDestroy", destroyed));
        }
        if !self.graph.is_null() {
            // SAFETY: it is destroyed once.
            let destroyed = unsafe { result::graph::destroy(self.graph) };
            released_or_told(check("cuGraphDestroy", destroyed));
        }
    }
}

/// A recording that ends whatever happens, a panic among it.
struct Unfinished<'a>(&'a Rc<Stream>);

impl Unfinished<'_> {
    fn finish(self) -> Result<Graph, CudaError> {
        let mut graph = self.end()?;
        // SAFETY: the graph was just made.
        let exec = unsafe { result::graph::instantiate(graph.graph, CUgraphInstantiate_flags(0)) };
        graph.exec = check("cuGraphInstantiate", exec)?;
        Ok(graph)
    }

    /// Ends what is captured, once.
    fn end(&self) -> Result<Graph, CudaError> {
        let kernels = self.0.recording().borrow_mut().take();
        let raw = self.0.bound()?;
        // SAFETY: the stream is alive, and captures since `record`.
        let graph = check("cuStreamEndCapture", unsafe { result::stream::end_capture(raw) })?;
        let (exec, stream) = (ptr::null_mut(), self.0.clone());
        Ok(Graph { graph, exec, _kernels: kernels.unwrap_or_default(), stream })
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.0.recording().borrow().is_some() {
            // That nothing is captured any more after an error is no error of its own.
            drop(self.end());
        }
    }
}
