//! A device: which one, and whether it still works.

use super::DeviceInfo;
use crate::hip::{HipError, Kind, load::Hip, sys::Runtime};
use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A device. HIP's current device is a thread's own, so each call here makes this one current first.
pub struct HipDevice {
    hip: &'static Hip,
    info: DeviceInfo,
    /// What lost the device, once something has.
    lost: OnceLock<String>,
    /// The release that failed since the last call.
    unreported: Mutex<Option<HipError>>,
}

impl fmt::Debug for HipDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HipDevice").field(&self.info).finish()
    }
}

impl HipDevice {
    /// The device `ordinal` of `hip`.
    ///
    /// # Errors
    /// What HIP says.
    pub fn open(hip: &'static Hip, ordinal: i32) -> Result<Arc<Self>, HipError> {
        // SAFETY: takes no pointer.
        unsafe { hip.runtime.hipInit(0) }?;
        let info = DeviceInfo::read(hip, ordinal)?;
        let (lost, unreported) = (OnceLock::new(), Mutex::new(None));
        let device = Self { hip, info, lost, unreported };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The HIP that it is a device of.
    pub fn hip(&self) -> &'static Hip {
        self.hip
    }

    /// Free bytes of memory, and all. A release that failed is left for the next call that does something.
    ///
    /// # Errors
    /// What HIP says.
    pub fn memory(&self) -> Result<(u64, u64), HipError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to live integers.
        self.ask(|runtime| unsafe { runtime.hipMemGetInfo(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }

    /// Waits for all streams.
    ///
    /// # Errors
    /// What any of the work failed with.
    pub fn synchronize(&self) -> Result<(), HipError> {
        // SAFETY: takes no pointer.
        self.call(|runtime| unsafe { runtime.hipDeviceSynchronize() })
    }

    /// Calls `f` with this device current, unless an earlier error stands.
    pub(super) fn call<T>(
        &self,
        f: impl FnOnce(&Runtime) -> Result<T, HipError>,
    ) -> Result<T, HipError> {
        self.alive()?;
        let error = self.unreported.lock().unwrap_or_else(PoisonError::into_inner).take();
        match error {
            Some(error) => Err(HipError::Release(Arc::new(error))),
            None => self.ask(f),
        }
    }

    /// Calls `f` with this device current, unless it is lost.
    fn ask<T>(&self, f: impl FnOnce(&Runtime) -> Result<T, HipError>) -> Result<T, HipError> {
        self.alive()?;
        self.bind()?;
        f(&self.hip.runtime).map_err(|error| self.noticed(error))
    }

    /// Calls `f` with this device current, whatever came before; an error is logged and kept for the next call.
    pub(super) fn release(&self, f: impl FnOnce(&Runtime) -> Result<(), HipError>) {
        let bound = self.bind();
        let Err(error) = f(&self.hip.runtime).and(bound) else { return };
        let error = self.noticed(error);
        if self.lost.get().is_some() {
            return;
        }
        tracing::warn!("{}: {error}", self.info.name);
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.get_or_insert(error);
    }

    fn alive(&self) -> Result<(), HipError> {
        match self.lost.get() {
            Some(cause) => Err(HipError::Lost { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Remembers an error after which the device is lost.
    fn noticed(&self, error: HipError) -> HipError {
        if error.kind() != Kind::Lost {
            return error;
        }
        let cause = self.lost.get_or_init(|| error.to_string());
        HipError::Lost { cause: cause.clone() }
    }

    /// Makes this device the thread's current one. Asking which is current is cheaper than setting it.
    fn bind(&self) -> Result<(), HipError> {
        let (runtime, mut current) = (&self.hip.runtime, -1);
        // SAFETY: the pointer is to a live integer.
        unsafe { runtime.hipGetDevice(&mut current) }?;
        if current == self.info.ordinal {
            return Ok(());
        }
        // SAFETY: takes no pointer.
        unsafe { runtime.hipSetDevice(self.info.ordinal) }
    }
}
