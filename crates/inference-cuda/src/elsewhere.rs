//! What the backend says where it can't run.

use crate::NAME;
use inference_core::{
    Availability, Check, DeviceChoice, DeviceInfo, Error, LoadOptions, Result, TextModel,
};
use std::path::Path;

const REASON: &str = "the cuda backend runs on Linux and Windows alone, where NVIDIA has drivers; elsewhere use cpu, or \
                      on a Mac metal";

pub(crate) fn availability() -> Availability {
    Availability::Unavailable(REASON.to_owned())
}

pub(crate) fn list() -> Vec<DeviceInfo> {
    Vec::new()
}

pub(crate) fn load(_: &Path, _: &LoadOptions) -> Result<Box<dyn TextModel>> {
    Err(not_available())
}

pub(crate) fn self_test(_: Option<&DeviceChoice>, _: &mut dyn FnMut(Check)) -> Result<()> {
    Err(not_available())
}

fn not_available() -> Error {
    Error::BackendNotAvailable { name: NAME.to_owned(), reason: REASON.to_owned() }
}

pub(crate) fn report() -> String {
    format!("{REASON}\n")
}
