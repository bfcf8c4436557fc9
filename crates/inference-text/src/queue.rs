//! How many calls run and wait: a queue of bounded length in front of the engine's thread.

use inference_core::{Error, Priority, Result};
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often a call that waits looks whether it is still to.
const LOOK: Duration = Duration::from_millis(10);

/// The calls that are in, and those that wait before the door.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    left: Condvar,
    /// Most calls inside.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// The first goes in next: the highest priority, then who came first.
    outside: BTreeSet<(Reverse<Priority>, u64)>,
    /// Calls that ever came.
    came: u64,
}

/// A call's place inside, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Queue>);

impl Queue {
    /// A queue for at most so many calls, at least one.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), left: Condvar::new(), most: most.max(1) })
    }

    /// A panic between two assignments leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; if there is none, waits for one, for as long as `goes_on` gives no error.
    ///
    /// # Errors
    /// [`Error::Busy`] if there was none in all that time; that of `goes_on`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        priority: Priority,
        wait: Option<Duration>,
        goes_on: impl Fn() -> Result<()>,
    ) -> Result<Place> {
        let came = Instant::now();
        let mut state = self.lock();
        let me = (Reverse(priority), state.came);
        state.came += 1;
        state.outside.insert(me);
        let entered = loop {
            // Those before may have a place each, although they are not awake yet.
            if state.outside.range(..me).count() < self.most - state.inside {
                state.inside += 1;
                break Ok(Place(self.clone()));
            }
            let left = wait.unwrap_or_default().saturating_sub(came.elapsed());
            if left.is_zero() {
                break Err(Error::Busy { calls: state.inside });
            }
            let woken = self.left.wait_timeout(state, left.min(LOOK));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            if let Err(error) = goes_on() {
                break Err(error);
            }
        };
        state.outside.remove(&me);
        drop(state);
        // Whoever is first now may have been kept out by this one alone.
        self.left.notify_all();
        entered
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    /// Longer than any of these tests takes.
    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    fn enter(queue: &Arc<Queue>, wait: Option<Duration>) -> Result<Place> {
        queue.enter(Priority::Normal, wait, || Ok(()))
    }

    #[test]
    fn one_too_many_is_busy_until_one_leaves() {
        let queue = Queue::new(2);
        let places = [enter(&queue, None), enter(&queue, None)];
        assert!(matches!(enter(&queue, None), Err(Error::Busy { calls: 2 })));
        let started = Instant::now();
        let wait = Duration::from_millis(30);
        assert!(matches!(enter(&queue, Some(wait)), Err(Error::Busy { calls: 2 })));
        assert!(started.elapsed() >= wait);
        drop(places);
        assert!(enter(&queue, None).is_ok());
    }

    #[test]
    fn those_who_wait_go_in_by_priority_and_then_in_their_order() {
        let queue = Queue::new(1);
        let first = enter(&queue, None).unwrap();
        let (went_in, order) = mpsc::channel();
        thread::scope(|scope| {
            for (name, priority) in [
                ("low", Priority::Low),
                ("one", Priority::Normal),
                ("two", Priority::Normal),
                ("high", Priority::High),
            ] {
                let (queue, went_in) = (&queue, went_in.clone());
                let waiting = queue.lock().outside.len();
                scope.spawn(move || {
                    let place = queue.enter(priority, LONG, || Ok(()));
                    went_in.send(name).unwrap();
                    drop(place);
                });
                while queue.lock().outside.len() == waiting {
                    thread::yield_now();
                }
            }
            assert!(matches!(enter(&queue, None), Err(Error::Busy { .. })));
            drop(first);
            let order: Vec<_> = (0..4).map(|_| order.recv().unwrap()).collect();
            assert_eq!(order, ["high", "one", "two", "low"]);
        });
    }

    #[test]
    fn one_who_is_not_awake_yet_keeps_nobody_from_a_place_that_is_left() {
        let queue = Queue::new(3);
        let _inside = enter(&queue, None).unwrap();
        // Somebody who has been woken and did not run since.
        queue.lock().outside.insert((Reverse(Priority::High), u64::MAX));
        let _second = enter(&queue, None).unwrap();
        assert!(matches!(enter(&queue, None), Err(Error::Busy { calls: 2 })), "it is the other's");
    }

    #[test]
    fn who_is_not_to_wait_any_more_does_not() {
        let queue = Queue::new(1);
        let place = enter(&queue, None);
        let gone = queue.enter(Priority::High, LONG, || Err(Error::Cancelled));
        assert!(matches!(gone, Err(Error::Cancelled)));
        drop(place);
        assert!(enter(&queue, None).is_ok(), "one who is gone is in nobody's way");
    }
}
