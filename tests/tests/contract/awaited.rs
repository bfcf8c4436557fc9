//! `TokenStream` as a `futures_core::Stream`, on an executor of thirty lines: no runtime is needed.

use super::{STORY, everywhere, long, short};
use futures_core::Stream;
use inference::{CancelToken, Error, FinishReason, Result, Token, TokenStream};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

/// Longer than any of these streams is silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wakes a parked thread, and counts.
struct Unpark {
    thread: thread::Thread,
    wakes: AtomicUsize,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future on this thread, which sleeps until it is woken; gives its output and how often it was.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    let unpark = Arc::new(Unpark { thread: thread::current(), wakes: AtomicUsize::new(0) });
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (output, unpark.wakes.load(SeqCst));
        }
        let asleep = Instant::now();
        while unpark.wakes.load(SeqCst) == seen {
            thread::park_timeout(PATIENCE);
            assert!(asleep.elapsed() < PATIENCE, "nobody wakes the task");
        }
        seen = unpark.wakes.load(SeqCst);
    }
}

/// The next token of a stream.
async fn next(stream: &mut TokenStream) -> Option<Result<Token>> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

async fn text(stream: &mut TokenStream) -> String {
    let mut text = String::new();
    while let Some(token) = next(stream).await {
        text += &token.expect("is a token").text;
    }
    text
}

#[test]
fn a_stream_can_be_awaited_and_tells_its_end() {
    everywhere(|model| {
        let plain = model.generate(STORY, &short()).expect("starts").text().expect("ends well");
        let mut stream = model.generate(STORY, &short()).expect("starts");
        let (awaited, wakes) = block_on(text(&mut stream));
        assert_eq!(awaited, plain);
        assert!(wakes > 0, "it was polled only when there was something");
        assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
        assert_eq!(stream.metrics().generated_tokens, 12);
        // After the end it stays at its end, awaited or not.
        assert!(block_on(next(&mut stream)).0.is_none() && stream.next().is_none());
    });
}

#[test]
fn awaiting_and_waiting_may_take_turns() {
    everywhere(|model| {
        let plain = model.generate(STORY, &short()).expect("starts").text().expect("ends well");
        let mut stream = model.generate(STORY, &short()).expect("starts");
        let mut mixed = String::new();
        for i in 0.. {
            let token = if i % 2 == 0 { block_on(next(&mut stream)).0 } else { stream.next() };
            let Some(token) = token else { break };
            mixed += &token.expect("is a token").text;
        }
        assert_eq!(mixed, plain);
    });
}

#[test]
fn two_streams_of_one_task_run_at_once() {
    everywhere(|model| {
        let prompts = [STORY, "The little fox"];
        let alone = prompts
            .map(|p| model.generate(p, &short()).expect("starts").text().expect("ends well"));
        let mut streams = prompts.map(|p| model.generate(p, &short()).expect("starts"));
        let mut texts = [String::new(), String::new()];
        let mut ended = [false; 2];
        // Whichever has a token: both wake the same task.
        let both = poll_fn(|cx| {
            for i in 0..2 {
                while !ended[i] {
                    match Pin::new(&mut streams[i]).poll_next(cx) {
                        Poll::Ready(Some(token)) => texts[i] += &token.expect("is a token").text,
                        Poll::Ready(None) => ended[i] = true,
                        Poll::Pending => break,
                    }
                }
            }
            if ended == [true; 2] { Poll::Ready(()) } else { Poll::Pending }
        });
        block_on(both);
        assert_eq!(texts, alone);
    });
}

/// A future that is dropped takes its stream along, which cancels the call.
#[test]
fn a_stream_that_is_dropped_half_way_is_cancelled() {
    everywhere(|model| {
        let long = long(model);
        block_on(async {
            let mut stream = model.generate(STORY, &long).expect("starts");
            for _ in 0..3 {
                next(&mut stream).await.expect("is there").expect("is a token");
            }
        });
        let dropped = Instant::now();
        while model.metrics().generated_tokens == 0 {
            assert!(dropped.elapsed() < PATIENCE, "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
        assert!((3..900).contains(&model.metrics().generated_tokens), "{:?}", model.metrics());
        // One that waits for its first token leaves its waker in the engine's hands.
        let mut stream = model.generate(STORY, &long).expect("starts");
        block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_next(cx).is_pending())));
        drop(stream);
        let plain = model.generate(STORY, &short()).expect("starts").text().expect("ends well");
        let mut stream = model.generate(STORY, &short()).expect("starts");
        assert_eq!(block_on(text(&mut stream)).0, plain);
    });
}

#[test]
fn cancelling_ends_an_awaited_stream_and_wakes_it() {
    everywhere(|model| {
        let cancel = CancelToken::new();
        let options = long(model).cancel(cancel.clone());
        let mut stream = model.generate(STORY, &options).expect("starts");
        let (count, _) = block_on(async {
            let mut count = 0;
            while let Some(token) = next(&mut stream).await {
                token.expect("is a token");
                count += 1;
                cancel.cancel();
            }
            count
        });
        assert!((1..900).contains(&count), "{count}");
        assert_eq!(stream.finish_reason(), Some(FinishReason::Cancelled));
    });
}

#[test]
fn an_awaited_stream_of_a_closed_model_ends_with_its_error() {
    everywhere(|model| {
        let mut stream = model.generate(STORY, &long(model)).expect("starts");
        thread::scope(|scope| {
            let awaited = scope.spawn(|| {
                block_on(async {
                    let mut last = None;
                    while let Some(token) = next(&mut stream).await {
                        last = Some(token);
                    }
                    (last, next(&mut stream).await)
                })
            });
            model.close();
            let ((last, after), _) = awaited.join().expect("it ends");
            assert!(matches!(last, Some(Ok(_) | Err(Error::Closed))), "{last:?}");
            assert!(after.is_none(), "an error is the end");
        });
    });
}
