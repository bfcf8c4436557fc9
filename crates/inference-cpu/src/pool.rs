//! The threads: they stay, spin for a moment between jobs, and sleep when there is nothing for longer.

use std::{
    any::Any,
    cell::Cell,
    hint::spin_loop,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle, Thread},
};

/// Looks before a waiting thread gives up its core; some tens of microseconds.
const SPINS: usize = 20_000;

/// Alone on its cache line, so that threads that write neighbours do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// A job: called once on every thread with the thread's index.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

#[derive(Default)]
struct Shared {
    /// Counts jobs; workers wait for it to change.
    epoch: Padded<AtomicUsize>,
    /// Workers that have not finished the current job.
    busy: Padded<AtomicUsize>,
    /// The current job: a pointer to a `Job` on the stack of [`Pool::run`], valid while `busy` is not 0.
    job: Padded<AtomicPtr<()>>,
    /// Which workers sleep.
    asleep: Vec<AtomicBool>,
    /// For each thread, the first of its parts that nobody has taken.
    next: Vec<Padded<AtomicUsize>>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Some threads that run the same job together, the caller among them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// Guards against a job that starts a job; also keeps the pool on one thread.
    running: Cell<bool>,
}

impl Pool {
    /// A pool of `threads` threads, at least 1: the caller, and workers.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let workers = threads.max(1) - 1;
        let asleep = (0..workers).map(|_| AtomicBool::default()).collect();
        let next = (0..=workers).map(|_| Padded::default()).collect();
        let shared = Arc::new(Shared { asleep, next, ..Shared::default() });
        let mut pool = Self { shared, workers: Vec::new(), running: Cell::new(false) };
        for i in 0..workers {
            let shared = pool.shared.clone();
            let name = format!("inference-cpu-{}", i + 1);
            let worker = thread::Builder::new().name(name).spawn(move || work(&shared, i))?;
            let thread = worker.thread().clone();
            pool.workers.push((worker, thread));
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` once on every thread, with the thread's index, and waits for all.
    fn run(&self, job: Job<'_>) {
        if self.workers.is_empty() {
            return job(0);
        }
        assert!(!self.running.replace(true), "a job can't start a job");
        self.shared.job.0.store(ptr::from_ref(&job).cast_mut().cast(), Relaxed);
        self.shared.busy.0.store(self.workers.len(), Relaxed);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        for (asleep, (_, thread)) in self.shared.asleep.iter().zip(&self.workers) {
            if asleep.swap(false, SeqCst) {
                thread.unpark();
            }
        }
        // However this thread's share ends, the workers must be done with `job` before it goes.
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while self.shared.busy.0.load(Acquire) != 0 {
            wait(&mut spins);
        }
        self.running.set(false);
        let theirs = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Calls `part` for every index below `parts`. Each thread has neighbours of its own, in order, and in every call
    /// the same; who is done with them helps the others.
    pub(crate) fn each(&self, parts: usize, part: impl Fn(usize) + Sync) {
        if parts <= 1 || self.workers.is_empty() {
            return (0..parts).for_each(part);
        }
        let (next, threads) = (&self.shared.next, self.threads());
        let begin = |thread: usize| parts / threads * thread + (parts % threads).min(thread);
        for (thread, next) in next.iter().enumerate() {
            next.0.store(begin(thread), Relaxed);
        }
        self.run(&|own| {
            for thread in (own..threads).chain(0..own) {
                loop {
                    let i = next[thread].0.fetch_add(1, Relaxed);
                    if i >= begin(thread + 1) {
                        break;
                    }
                    part(i);
                }
            }
        });
    }

    /// Calls `part` for ranges of about `grain` indices that together are `0..len`.
    pub(crate) fn ranges(&self, len: usize, grain: usize, part: impl Fn(Range<usize>) + Sync) {
        let grain = grain.max(1);
        self.each(len.div_ceil(grain), |i| part(i * grain..((i + 1) * grain).min(len)));
    }

    /// As [`ranges`](Self::ranges) over the rows of `data`, each `cols` long.
    pub(crate) fn rows<T: Send>(
        &self,
        data: &mut [T],
        cols: usize,
        grain: usize,
        part: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) {
        let rows = data.len() / cols.max(1);
        let data = Disjoint::new(data);
        self.ranges(rows, grain, |range| {
            // SAFETY: `ranges` hands out every row once.
            let rows = unsafe { data.slice(range.start * cols..range.end * cols) };
            part(range, rows);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        for (worker, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches the panics of its jobs; it has no other.
            let _ = worker.join();
        }
    }
}

fn wait(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS { spin_loop() } else { thread::yield_now() }
}

fn work(shared: &Shared, i: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.0.load(Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                spin_loop();
                continue;
            }
            shared.asleep[i].store(true, SeqCst);
            if shared.epoch.0.load(SeqCst) == seen {
                thread::park();
            }
            shared.asleep[i].store(false, SeqCst);
        }
        seen += 1;
        if shared.stop.load(SeqCst) {
            return;
        }
        // SAFETY: `run` stored a pointer to a `Job` before it changed `epoch`, and keeps the job alive until this
        // worker has counted `busy` down below.
        let job = unsafe { *shared.job.0.load(Relaxed).cast::<Job<'_>>() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(i + 1))) {
            *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        shared.busy.0.fetch_sub(1, Release);
    }
}

/// A slice whose parts are written by different threads.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    _data: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out `&mut` parts, which `slice` makes its callers keep apart; so it is as `Send` and `Sync` as they.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        let len = data.len();
        Self { start: data.as_mut_ptr(), len, _data: std::marker::PhantomData }
    }

    /// Where an element is.
    pub(crate) fn at(&self, index: usize) -> *const T {
        self.start.wrapping_add(index)
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, whose borrow `self` holds; the caller keeps the parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// A part of the slice, to be read.
    ///
    /// # Safety
    /// Nobody writes to it, or has it from [`slice`](Self::slice), while it is in use.
    pub(crate) unsafe fn shared(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, whose borrow `self` holds; the caller sees to it that it does not change.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_also_after_a_sleep() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for round in 0..200 {
                if round % 50 == 49 {
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                let mut data = vec![0; 37 * 3];
                pool.rows(&mut data, 3, 4, |range, rows| {
                    assert_eq!(rows.len(), range.len() * 3);
                    rows.iter_mut().for_each(|v| *v += 1 + range.start);
                });
                for (i, v) in data.iter().enumerate() {
                    assert_eq!(*v, 1 + i / 3 / 4 * 4);
                }
            }
        }
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_caller_and_the_pool_lives() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..10 {
            let job = || pool.each(8, |i| assert!(i != 5, "five"));
            assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
            let count = AtomicUsize::new(0);
            pool.each(100, |_| assert!(count.fetch_add(1, Relaxed) < 100));
            assert_eq!(count.load(Relaxed), 100);
        }
    }
}
