//! The way of tokens from an engine's thread to the caller's stream.

use inference_core::{Error, FinishReason, Metrics, Result, Token, TokenSource};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// What both ends share.
#[derive(Default)]
struct State {
    queue: VecDeque<Result<Token>>,
    metrics: Metrics,
    finish_reason: Option<FinishReason>,
    /// Nothing more will come.
    ended: bool,
    /// The reader is gone.
    dropped: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// A poisoned lock means that a thread panicked between two assignments; the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.waker.take()
        };
        self.changed.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The engine's end. Dropped without an end, it ends the stream with [`Error::Closed`].
pub(crate) struct Sender(Arc<Shared>);

/// The caller's end.
pub(crate) struct Receiver(Arc<Shared>);

/// A pair of ends. The queue is bounded by what its sequence may generate.
pub(crate) fn channel() -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    (Sender(shared.clone()), Receiver(shared))
}

impl Sender {
    pub(crate) fn send(&self, token: Token, metrics: Metrics) {
        self.0.change(|s| {
            s.queue.push_back(Ok(token));
            s.metrics = metrics;
        });
    }

    /// Ends the stream; what comes after the first end is ignored.
    pub(crate) fn end(&self, end: Result<FinishReason>, metrics: Metrics) {
        self.0.change(|s| {
            if !s.ended {
                s.ended = true;
                s.metrics = metrics;
                match end {
                    Ok(reason) => s.finish_reason = Some(reason),
                    Err(error) => s.queue.push_back(Err(error)),
                }
            }
        });
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.lock().dropped
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let metrics = self.0.lock().metrics;
        self.end(Err(Error::Closed), metrics);
    }
}

impl TokenSource for Receiver {
    fn next(&mut self) -> Option<Result<Token>> {
        let mut state = self.0.lock();
        loop {
            if let Some(token) = state.queue.pop_front() {
                return Some(token);
            }
            if state.ended {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Token>>> {
        let mut state = self.0.lock();
        match state.queue.pop_front() {
            Some(token) => Poll::Ready(Some(token)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        let state = self.0.lock();
        state.finish_reason.filter(|_| state.queue.is_empty())
    }

    fn metrics(&self) -> Metrics {
        self.0.lock().metrics
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.lock().dropped = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, sync::atomic::Ordering, task::Wake};

    #[test]
    fn tokens_come_in_order_and_then_the_end() {
        let (sender, mut receiver) = channel();
        sender.send(Token::new(1, "a"), Metrics::default());
        sender.end(Ok(FinishReason::Stop), Metrics::default());
        assert_eq!(receiver.finish_reason(), None);
        assert_eq!(receiver.next().and_then(Result::ok).map(|t| t.id), Some(1));
        assert!(receiver.next().is_none() && receiver.next().is_none());
        assert_eq!(receiver.finish_reason(), Some(FinishReason::Stop));
        drop(receiver);
        assert!(sender.is_dropped());
    }

    #[test]
    fn a_lost_sender_is_an_error_and_not_a_hang() {
        let (sender, mut receiver) = channel();
        drop(sender);
        assert!(matches!(receiver.next(), Some(Err(Error::Closed))));
        assert!(receiver.next().is_none());
    }

    #[test]
    fn a_waiting_task_is_woken() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (sender, mut receiver) = channel();
        assert!(receiver.poll_next(&mut cx).is_pending());
        sender.send(Token::new(1, "a"), Metrics::default());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(receiver.poll_next(&mut cx).is_ready());
        assert!(receiver.poll_next(&mut cx).is_pending());
        drop(sender);
        assert!(matches!(receiver.poll_next(&mut cx), Poll::Ready(Some(Err(Error::Closed)))));
        assert!(matches!(receiver.poll_next(&mut cx), Poll::Ready(None)));
    }
}
