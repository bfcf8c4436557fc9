//! Who goes first, who waits for whom, and what is computed.

use super::*;
use crate::pace::Pace;

/// Runs one prompt alone; gives the tokens that were computed.
fn alone(scheduler: &mut Scheduler<()>, tokens: Vec<u32>, generate: usize) -> (usize, Vec<u32>) {
    let (mut computed, mut all) = (0, tokens.clone());
    scheduler.add([Sequence::new(tokens, Wanted::Last, ())]);
    let mut left = generate;
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, 200);
        computed += step.tokens.len();
        scheduler.finish_step(&step, |seq, advance| {
            if advance.complete {
                seq.tokens.push(100 + left as u32);
                all = seq.tokens.clone();
                left -= 1;
            }
            if left == 0 { Flow::Done } else { Flow::Continue }
        });
    }
    (computed, all)
}

#[test]
fn a_conversation_computes_every_token_once() {
    let mut scheduler = Scheduler::new(BlockPool::new(100, 8).sharing(100), 2);
    let (mut tokens, mut computed) = ((0..13).collect::<Vec<u32>>(), 0);
    for turn in 0..10 {
        let (new, all) = alone(&mut scheduler, tokens, 7);
        computed += new;
        // The last token that was generated is in nobody's cache yet.
        assert_eq!(computed, all.len() - 1, "turn {turn}");
        tokens = all;
        tokens.extend([turn; 5]);
    }
    assert_eq!(scheduler.blocks_used(), 0);
}

#[test]
fn those_who_begin_alike_wait_for_the_first_and_others_pass_them() {
    let mut scheduler = Scheduler::new(BlockPool::new(100, 8).sharing(100), 8);
    let long: Vec<u32> = (0..60).collect();
    for own in 0..4 {
        let tokens = [&long[..], &[own + 100, 7, 7]].concat();
        scheduler.add([Sequence::new(tokens, Wanted::Last, ())]);
    }
    scheduler.add([Sequence::new(vec![9; 10], Wanted::Last, ())]);
    let step = scheduler.next_step(&mut NoReuse, 200);
    let rows = |step: &Step| step.spans.iter().map(|s| s.rows.len()).collect::<Vec<_>>();
    assert_eq!(rows(&step), [63, 10]);
    scheduler.finish_step(&step, |_, _| Flow::Done);
    let step = scheduler.next_step(&mut NoReuse, 200);
    assert_eq!((rows(&step), step.copies.len()), (vec![3; 3], 3));
}

#[test]
fn what_was_not_used_for_the_longest_time_leaves_first() {
    let mut scheduler = Scheduler::new(BlockPool::new(12, 4).sharing(8), 1);
    let prompt = |of: u32| (0..16).map(|i| of * 20 + i).collect::<Vec<u32>>();
    for of in [1, 2, 1, 3] {
        alone(&mut scheduler, prompt(of), 1);
    }
    // Two of three are kept; the last token is computed in any case.
    let again = [1, 3, 2].map(|of| alone(&mut scheduler, prompt(of), 1).0);
    assert_eq!(again, [1, 1, 16]);
}

/// What runs, in the order of their ends: prompts of `len` tokens that each generate one.
fn ends(scheduler: &mut Scheduler<usize>, room: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, room);
        scheduler.finish_step(&step, |seq, advance| {
            if !advance.complete {
                return Flow::Continue;
            }
            ends.push(seq.task);
            Flow::Done
        });
    }
    ends
}

#[test]
fn a_higher_priority_starts_first_and_equals_in_their_order() {
    let mut scheduler = Scheduler::new(BlockPool::new(100, 4), 1);
    for (id, priority) in
        [Priority::Low, Priority::Normal, Priority::High, Priority::Normal].into_iter().enumerate()
    {
        let sequence = Sequence::new(vec![0; 8], Wanted::Last, id);
        scheduler.add([sequence.priority(priority)]);
    }
    assert_eq!(ends(&mut scheduler, 64), [2, 1, 3, 0]);
}

#[test]
fn short_prompts_end_before_a_long_one_that_came_first() {
    let mut scheduler = Scheduler::new(BlockPool::new(100, 16), 8);
    for (id, len) in [800, 10, 20, 400].into_iter().enumerate() {
        scheduler.add([Sequence::new(vec![0; len], Wanted::Last, id)]);
    }
    assert_eq!(ends(&mut scheduler, 64), [1, 2, 3, 0]);
}

#[test]
fn a_prompt_that_is_in_the_cache_does_not_decode_but_its_continuation_does() {
    let mut scheduler = Scheduler::new(BlockPool::new(100, 4).sharing(100), 2);
    alone(&mut scheduler, (0..16).collect(), 2);
    scheduler.add([Sequence::new((0..16).collect(), Wanted::Last, ())]);
    for decoding in [0, 1, 1] {
        let step = scheduler.next_step(&mut NoReuse, 64);
        assert_eq!((step.tokens.len(), scheduler.decoding()), (1, decoding));
        scheduler.finish_step(&step, |seq, _| {
            seq.tokens.push(7);
            Flow::Continue
        });
    }
}

/// A call of 2,000 rows is there when a sequence comes that generates 5 tokens: it has its turn after one row at most.
#[test]
fn nobody_waits_for_all_rows_of_another_call() {
    let mut scheduler = Scheduler::new(BlockPool::new(400, 4).sharing(400), 8);
    let row = |id| Sequence::new([vec![7; 30], vec![id as u32; 4]].concat(), Wanted::From(33), id);
    scheduler.add((0..2000).map(row));
    let (mut started, mut ended) = (None, Vec::new());
    for now in 0.. {
        if now == 3 {
            scheduler.add([Sequence::new(vec![9; 10], Wanted::Last, 2000)]);
        }
        let step = scheduler.next_step(&mut NoReuse, 64);
        if step.is_empty() {
            break;
        }
        scheduler.finish_step(&step, |seq, advance| {
            if seq.task == 2000 {
                started.get_or_insert(now);
                seq.tokens.push(1);
            }
            if advance.complete && seq.tokens.len() != 14 {
                ended.push(seq.task);
                return Flow::Done;
            }
            Flow::Continue
        });
    }
    assert_eq!(started, Some(3));
    let late = ended.iter().position(|id| *id == 2000).expect("it ended");
    assert!(late < 100, "{late} rows came before");
    ended.remove(late);
    assert!(ended.iter().copied().eq(0..2000), "rows keep their order");
}

/// Beside a stream and a long prompt, prompts come all the time of which one token alone is left to compute: they share
/// what a step may have of prompts, so that a step without is measured now and then, and the long one gets on.
#[test]
fn prompts_that_are_in_the_cache_starve_no_other() {
    let (stream, long, cached) = (0, 1, 2);
    let mut scheduler = Scheduler::new(BlockPool::new(400, 4).sharing(400), 6);
    let mut pace = Pace::new(64);
    scheduler.add([Sequence::new(vec![8; 10], Wanted::Last, stream)]);
    scheduler.add([Sequence::new((100..400).collect(), Wanted::Last, long)]);
    let mut without_prompt = 0;
    for _ in 0..200 {
        scheduler.add((0..4).map(|_| Sequence::new((0..16).collect(), Wanted::Last, cached)));
        let decoding = scheduler.decoding();
        let room = pace.prompt_tokens(decoding);
        let step = scheduler.next_step(&mut NoReuse, room);
        let prompt = step.tokens.len() - decoding;
        assert!(prompt <= room, "{prompt} of {room}");
        pace.record(decoding, prompt, 0.02 + 1e-3 * prompt as f64);
        without_prompt += usize::from(prompt == 0);
        let mut is_over = false;
        scheduler.finish_step(&step, |seq, advance| {
            if advance.complete {
                seq.tokens.push(7);
                is_over |= seq.task == long;
            }
            if advance.complete && seq.task != stream { Flow::Done } else { Flow::Continue }
        });
        if is_over {
            return assert!(without_prompt > 0);
        }
    }
    panic!("the long prompt does not get on");
}
