//! Why the backend can't run on a machine, in one sentence that says what to do.

#[cfg(target_os = "linux")]
mod machine;
mod problem;

#[cfg(target_os = "linux")]
pub(crate) use machine::Machine;
pub(crate) use problem::{HIDING, LEAST, Problem};
