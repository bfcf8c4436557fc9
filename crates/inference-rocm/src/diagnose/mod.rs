//! Why the backend can't run on a machine, in one sentence that says what to do.

mod machine;
mod problem;

pub(crate) use machine::Machine;
pub(crate) use problem::{HIDING, Problem};
