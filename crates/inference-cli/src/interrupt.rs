//! Ctrl-C: ends the answer that is being made, or else the program.

use crate::failure::{Failure, INTERRUPTED, Result};
use inference::CancelToken;
use std::sync::{Arc, Mutex, PoisonError};

/// What Ctrl-C ends at the moment.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    /// Installs the handler. Until [`guard`](Self::guard) is called, and at the second Ctrl-C of one answer, the program
    /// ends at once with code 130.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || match handler.current() {
            Some(token) if !token.is_cancelled() => token.cancel(),
            _ => std::process::exit(INTERRUPTED.into()),
        })
        .map_err(|e| Failure::Input(format!("Ctrl-C can't be handled: {e}")))?;
        Ok(interrupt)
    }

    /// From now on Ctrl-C cancels the returned token, until [`release`](Self::release).
    pub(crate) fn guard(&self) -> CancelToken {
        let token = CancelToken::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        token
    }

    /// From now on Ctrl-C ends the program.
    pub(crate) fn release(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn current(&self) -> Option<CancelToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
