//! Recorded launches.

use super::{HipFunction, HipStream, launch::Arguments};
use crate::hip::{
    HipError,
    sys::{CAPTURE_THREAD_LOCAL, hipGraph_t, hipGraphExec_t},
};
use std::{ffi::c_void, ptr, slice, sync::Arc};

/// Launches of one graph. Replaying one of about 200 and more read stale pointers on gfx1201 (ROCm/hip#3887), so longer
/// recordings become several, one after the other.
const PART: usize = 160;

/// Recorded launches, ready to run again. Values of arguments are kept as they were.
pub struct HipGraph {
    parts: Vec<Part>,
    stream: Arc<HipStream>,
}

impl std::fmt::Debug for HipGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HipGraph({} launches)", self.launches())
    }
}

/// One graph, with what its launches use.
struct Part {
    graph: hipGraph_t,
    exec: hipGraphExec_t,
    kept: Vec<(Arguments, HipFunction)>,
}

/// Launches on their way into a graph.
pub(super) struct Recording {
    parts: Vec<Part>,
    kept: Vec<(Arguments, HipFunction)>,
    /// Of graphs that were dropped meanwhile: the stream can't be waited for before the end.
    retired: Vec<Part>,
}

// SAFETY: HIP's handles may be used from any thread, one at a time.
unsafe impl Send for Part {}

impl HipGraph {
    /// Records what `f` launches on `stream`, without running it.
    ///
    /// # Errors
    /// What `f` fails with, or what HIP says. Nothing stays recorded.
    pub fn record<E: From<HipError>>(
        stream: &Arc<HipStream>,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        stream.synchronize()?;
        begin(stream)?;
        let recorded = Unfinished(stream);
        f()?;
        let parts = recorded.finish()?;
        Ok(Self { parts, stream: stream.clone() })
    }

    /// Runs what was recorded.
    ///
    /// # Errors
    /// What HIP says.
    ///
    /// # Safety
    /// All memory that the recorded launches use is still alive.
    pub unsafe fn replay(&self) -> Result<(), HipError> {
        self.stream.only_launches("a replay")?;
        let (device, raw) = (self.stream.device(), self.stream.raw());
        for part in &self.parts {
            // SAFETY: both handles are alive; what the launches use is the caller's, and their arguments are kept.
            device.call(|runtime| unsafe { runtime.hipGraphLaunch(part.exec, raw) })?;
        }
        Ok(())
    }

    /// How many launches it has.
    pub fn launches(&self) -> usize {
        self.parts.iter().map(|part| part.kept.len()).sum()
    }
}

impl Drop for HipGraph {
    fn drop(&mut self) {
        match self.stream.recording().as_mut() {
            Some(recording) => recording.retired.append(&mut self.parts),
            None => retire(&self.stream, std::mem::take(&mut self.parts)),
        }
    }
}

impl Recording {
    /// Copies the values that `arguments` point to, and keeps them with their function.
    ///
    /// # Safety
    /// There are as many pointers as the kernel has arguments, each to a value of its type.
    pub(super) unsafe fn keep(
        &mut self,
        function: &HipFunction,
        arguments: &[*mut c_void],
    ) -> Result<Vec<*mut c_void>, HipError> {
        let mut copies = Arguments::new(function);
        for (argument, pointer) in function.kernel().arguments.iter().zip(arguments) {
            // SAFETY: the caller's: it points to a value of this size.
            copies.push(unsafe { slice::from_raw_parts(pointer.cast::<u8>(), argument.size) })?;
        }
        let pointers = copies.pointers()?;
        self.kept.push((copies, function.clone()));
        Ok(pointers)
    }

    /// Ends a graph that is long enough, and begins the next.
    pub(super) fn launched(&mut self, stream: &HipStream) -> Result<(), HipError> {
        if self.kept.len() < PART {
            return Ok(());
        }
        self.end(stream)?;
        capture(stream)
    }

    /// Makes a graph of what was captured, if that is anything.
    fn end(&mut self, stream: &HipStream) -> Result<(), HipError> {
        let kept = std::mem::take(&mut self.kept);
        let mut part = Part { graph: ptr::null_mut(), exec: ptr::null_mut(), kept };
        let device = stream.device();
        // SAFETY: the stream captures since `capture`; the pointers are to live handles, and no log is asked for.
        let made = device.call(|runtime| unsafe {
            runtime.hipStreamEndCapture(stream.raw(), &mut part.graph)?;
            if part.kept.is_empty() {
                return Ok(());
            }
            let (exec, none) = (&mut part.exec, ptr::null_mut());
            runtime.hipGraphInstantiate(exec, part.graph, none, ptr::null_mut(), 0)?;
            runtime.hipGraphUpload(part.exec, stream.raw()).unwrap_or(Ok(()))
        });
        match made {
            Ok(()) if part.kept.is_empty() => destroy(stream, part),
            Ok(()) => self.parts.push(part),
            Err(error) => {
                if part.graph.is_null() {
                    abandon(stream, &mut part.graph);
                }
                destroy(stream, part);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A recording that ends whatever happens, a panic among it.
struct Unfinished<'a>(&'a HipStream);

impl Unfinished<'_> {
    fn finish(self) -> Result<Vec<Part>, HipError> {
        let mut recording = self.0.recording();
        let Some(mut recorded) = recording.take() else { return Ok(Vec::new()) };
        let result = recorded.end(self.0);
        retire(self.0, std::mem::take(&mut recorded.retired));
        if result.is_ok() {
            return Ok(recorded.parts);
        }
        recorded.parts.drain(..).for_each(|part| destroy(self.0, part));
        result.map(|()| Vec::new())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(mut recorded) = self.0.recording().take() else { return };
        let mut graph = ptr::null_mut();
        abandon(self.0, &mut graph);
        retire(self.0, std::mem::take(&mut recorded.retired));
        recorded.parts.drain(..).for_each(|part| destroy(self.0, part));
        let kept = std::mem::take(&mut recorded.kept);
        destroy(self.0, Part { graph, exec: ptr::null_mut(), kept });
    }
}

fn begin(stream: &HipStream) -> Result<(), HipError> {
    let mut recording = stream.recording();
    if recording.is_some() {
        return Err(HipError::Capturing("a recording"));
    }
    capture(stream)?;
    *recording = Some(Recording { parts: Vec::new(), kept: Vec::new(), retired: Vec::new() });
    Ok(())
}

/// Starts to capture, so that allocations of other threads do no harm.
fn capture(stream: &HipStream) -> Result<(), HipError> {
    // SAFETY: the handle is alive.
    stream.device().call(|runtime| unsafe {
        runtime.hipStreamBeginCapture(stream.raw(), CAPTURE_THREAD_LOCAL)
    })
}

/// Ends what is captured, whatever came before. That nothing is captured any more after an error is no error of its own.
fn abandon(stream: &HipStream, graph: &mut hipGraph_t) {
    // SAFETY: the handle is alive, the pointer is to a live handle.
    stream.device().release(|runtime| unsafe {
        runtime.hipStreamEndCapture(stream.raw(), graph).ok();
        Ok(())
    });
}

/// Destroys graphs that may still run.
fn retire(stream: &HipStream, parts: Vec<Part>) {
    if parts.is_empty() {
        return;
    }
    // SAFETY: the handle is alive. A graph must not run when it is destroyed.
    stream.device().release(|runtime| unsafe { runtime.hipStreamSynchronize(stream.raw()) });
    parts.into_iter().for_each(|part| destroy(stream, part));
}

fn destroy(stream: &HipStream, part: Part) {
    // SAFETY: each handle is destroyed once, and what the launches use is dropped after it.
    stream.device().release(|runtime| unsafe {
        let exec =
            if part.exec.is_null() { Ok(()) } else { runtime.hipGraphExecDestroy(part.exec) };
        let graph = if part.graph.is_null() { Ok(()) } else { runtime.hipGraphDestroy(part.graph) };
        exec.and(graph)
    });
}
