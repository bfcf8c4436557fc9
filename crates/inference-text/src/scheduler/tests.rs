//! What is promised of the scheduler, whatever comes.

mod order;

use super::*;
use inference_core::Priority;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PRIORITIES: [Priority; 3] = [Priority::Normal, Priority::High, Priority::Low];

/// Runs `prompts` (length, tokens to generate) to the end, in place of a model that counts; returns what each one
/// generated, and how often one was preempted.
fn run(
    prompts: &[(usize, usize)],
    pool: BlockPool,
    slots: usize,
    step_tokens: usize,
) -> (BTreeMap<usize, Vec<u32>>, usize) {
    let mut scheduler = Scheduler::new(pool, slots);
    for (id, &(len, _)) in prompts.iter().enumerate() {
        let tokens = (0..len as u32).collect();
        let sequence = Sequence::new(tokens, Wanted::Last, (id, Vec::new()));
        scheduler.add([sequence.priority(PRIORITIES[id % 3])]);
    }
    let mut finished = BTreeMap::new();
    let mut preemptions = 0;
    for _ in 0..100_000 {
        if scheduler.is_idle() {
            assert_eq!(scheduler.blocks_used(), 0);
            return (finished, preemptions);
        }
        let step = scheduler.next_step(&mut NoReuse, step_tokens);
        assert!(!step.is_empty(), "a step that does nothing never ends");
        assert!(step.spans.len() <= slots);
        assert!(step.tokens.len() <= scheduler.decoding() + step_tokens);
        scheduler.finish_step(&step, |seq, advance| {
            if !advance.complete {
                assert!(advance.rows.is_empty());
                return Flow::Continue;
            }
            assert_eq!(advance.rows.len(), 1);
            let token = seq.tokens.len() as u32;
            seq.tokens.push(token);
            let (id, out) = &mut seq.task;
            out.push(token);
            if out.len() == prompts[*id].1 {
                finished.insert(*id, std::mem::take(out));
                preemptions += seq.preemptions;
                return Flow::Done;
            }
            Flow::Continue
        });
    }
    panic!("it does not end");
}

proptest! {
    #[test]
    fn everyone_ends_with_the_same_tokens_whatever_the_pool(
        prompts in proptest::collection::vec((1usize..30, 1usize..12), 1..8),
        block_len in 1usize..9,
        spare in 0usize..10,
        slots in 1usize..5,
        step_tokens in 1usize..40,
    ) {
        let longest = prompts.iter().map(|(p, g)| p + g).max().unwrap_or(1);
        let pool = BlockPool::new(longest.div_ceil(block_len) + spare, block_len);
        let (finished, _) = run(&prompts, pool, slots, step_tokens);
        for (id, (len, generate)) in prompts.iter().enumerate() {
            let want: Vec<u32> = (*len as u32..(len + generate) as u32).collect();
            prop_assert_eq!(&finished[&id], &want);
        }
    }
}

#[test]
fn a_small_pool_preempts() {
    let (_, preemptions) = run(&[(4, 8), (4, 8)], BlockPool::new(4, 4), 2, 64);
    assert!(preemptions > 0);
}

#[test]
fn a_sequence_that_crosses_the_length_starts_over_once() {
    let pool = BlockPool::new(8, 4);
    let mut scheduler =
        Scheduler::new(pool, 1).lengths(Lengths { restart_above: Some(6), each_above: None });
    scheduler.add([Sequence::new((0..5).collect(), Wanted::Last, ())]);
    let mut rows = Vec::new();
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, 64);
        rows.push((step.tokens.len(), step.lengths[0]));
        scheduler.finish_step(&step, |seq, _| {
            seq.tokens.push(0);
            if seq.tokens.len() > 9 { Flow::Done } else { Flow::Continue }
        });
    }
    assert_eq!(rows, [(5, 5), (1, 6), (7, 7), (1, 8), (1, 9)]);
}

#[test]
fn wanted_rows_are_found_across_chunks() {
    let mut scheduler = Scheduler::new(BlockPool::new(8, 4), 1);
    scheduler.add([Sequence::new((0..8).collect(), Wanted::From(4), ())]);
    let mut seen = Vec::new();
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, 3);
        scheduler.finish_step(&step, |_, advance| {
            seen.extend(advance.rows.map(|row| (advance.wanted_before, row)));
            if advance.complete { Flow::Done } else { Flow::Continue }
        });
    }
    assert_eq!(seen, [(0, 0), (0, 1), (2, 0), (2, 1)]);
}

/// What a cache would hold: in each place of a block, a number that stands for a token, all tokens before it, and how
/// they were turned.
struct Cells {
    blocks: Vec<Vec<u64>>,
    lengths: Lengths,
}

impl Cells {
    /// The number of a token that comes after the one with `before`.
    fn number(&self, before: u64, token: u32, length: u32) -> u64 {
        let turn = self.lengths.turn(length as usize) as u64;
        let mixed = before.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(token) << 32 | turn);
        mixed.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29) | 1
    }

    /// Runs a step, after checking that each sequence finds before it what its tokens say; gives each one's last number.
    fn run(&mut self, step: &Step, tokens_of: &[Vec<u32>], rope_lens: &[usize]) -> Vec<u64> {
        for copy in &step.copies {
            let from = self.blocks[copy.from as usize][..copy.tokens].to_vec();
            let to = &mut self.blocks[copy.to as usize];
            to.fill(0);
            to[..copy.tokens].copy_from_slice(&from);
        }
        let block_len = self.blocks[0].len();
        let mut last = Vec::new();
        for (i, span) in step.spans.iter().enumerate() {
            let first = span.context - span.rows.len();
            let mut number = 0;
            for (position, &token) in tokens_of[i][..span.context].iter().enumerate() {
                let cell = (span.blocks[position / block_len] as usize, position % block_len);
                let length = rope_lens[i].max(position + 1) as u32;
                number = self.number(number, token, length);
                if position < first {
                    assert_eq!(self.blocks[cell.0][cell.1], number, "position {position}");
                } else {
                    self.blocks[cell.0][cell.1] = number;
                }
            }
            last.push(number);
        }
        last
    }
}

/// A sequence of the test below.
#[derive(Debug, Clone)]
struct Wish {
    /// Which beginning its prompt has, and how much of it; then tokens of its own.
    shared: (usize, usize),
    own: Vec<u32>,
    /// Tokens to generate; or it is scored, from this token of its own on.
    generate: Result<usize, usize>,
    /// The step after which it comes.
    comes: usize,
    /// The step after which it is cancelled, if it lives so long.
    leaves: Option<usize>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let own = proptest::collection::vec(0u32..3, 1..12);
    let shared = (0usize..2, prop_oneof![Just(40usize), 0usize..40]);
    let leaves = proptest::option::weighted(0.2, 0usize..40);
    let generate = prop_oneof![(1usize..10).prop_map(Ok), (0usize..12).prop_map(Err)];
    (shared, own, generate, 0usize..30, leaves).prop_map(
        |(shared, own, generate, comes, leaves)| Wish { shared, own, generate, comes, leaves },
    )
}

proptest! {
    /// Sequences come, wait, share, are preempted, cancelled and fail, in a cache that is too small: each finds in its
    /// blocks what its own tokens gave, and gets all rows that it wants in order; at the end no block is lost.
    #[test]
    fn whatever_is_shared_each_finds_its_own_tokens(
        wishes in proptest::collection::vec(wish(), 1..12),
        (block_len, spare, kept) in (1usize..9, 0usize..12, 0usize..30),
        (slots, step_tokens) in (1usize..5, 1usize..40),
        restart_above in proptest::option::of(1usize..60),
        each_above in proptest::option::weighted(0.3, 1usize..60),
        fails in proptest::collection::vec(0usize..60, 0..3),
    ) {
        let lengths = Lengths { restart_above, each_above };
        let prompt = |w: &Wish| {
            let beginning = (0..w.shared.1).map(|i| (i * (w.shared.0 + 1)) as u32 % 5);
            beginning.chain(w.own.iter().copied()).collect::<Vec<_>>()
        };
        let wanted = |w: &Wish| match w.generate {
            Ok(_) => Wanted::Last,
            Err(from) => Wanted::From(w.shared.1 + from.min(w.own.len() - 1)),
        };
        let longest = wishes.iter().map(|w| prompt(w).len() + w.generate.unwrap_or(0)).max();
        let blocks = longest.unwrap_or(1).div_ceil(block_len) + spare;
        let pool = BlockPool::new(blocks, block_len).sharing(kept);
        let mut cells = Cells { blocks: vec![vec![0; block_len]; blocks], lengths };
        let mut scheduler = Scheduler::new(pool, slots).lengths(lengths);
        let mut done = vec![false; wishes.len()];
        let mut rows = vec![0; wishes.len()];
        for now in 0..10_000 {
            for (id, wish) in wishes.iter().enumerate().filter(|(_, w)| w.comes == now) {
                let sequence = Sequence::new(prompt(wish), wanted(wish), id);
                scheduler.add([sequence.priority(PRIORITIES[id % 3])]);
            }
            scheduler.sweep(|id| match wishes[*id].leaves {
                Some(step) if step <= now => { done[*id] = true; Flow::Done }
                _ => Flow::Continue,
            });
            if scheduler.is_idle() && now > 30 {
                break;
            }
            let step = scheduler.next_step(&mut NoReuse, step_tokens);
            if step.is_empty() {
                prop_assert!(scheduler.is_idle(), "a step that does nothing never ends");
                continue;
            }
            if fails.contains(&now) {
                scheduler.fail_step(|seq| done[seq.task] = true);
                continue;
            }
            let scheduled: Vec<_> = scheduler.scheduled.iter().map(|i| &scheduler.running[*i]).collect();
            let tokens: Vec<_> = scheduled.iter().map(|s| s.tokens.clone()).collect();
            let rope_lens: Vec<_> = scheduled.iter().map(|s| s.rope_len).collect();
            let last = cells.run(&step, &tokens, &rope_lens);
            let mut last = last.into_iter();
            scheduler.finish_step(&step, |seq, advance| {
                let number = last.next().expect("one for each span");
                let wish = &wishes[seq.task];
                let rows = &mut rows[seq.task];
                // Those that had to start over have their first rows again.
                assert!(advance.wanted_before <= *rows);
                if !advance.rows.is_empty() {
                    *rows = advance.wanted_before + advance.rows.len();
                }
                if !advance.complete {
                    return Flow::Continue;
                }
                let ended = match seq.wanted {
                    Wanted::Last => {
                        seq.tokens.push((number % 5) as u32);
                        Ok(seq.tokens.len() - prompt(wish).len()) == wish.generate
                    }
                    Wanted::From(from) => {
                        assert_eq!(*rows, seq.tokens.len() - from);
                        true
                    }
                };
                done[seq.task] |= ended;
                if ended { Flow::Done } else { Flow::Continue }
            });
            prop_assert!(scheduler.pool.kept() <= kept);
        }
        prop_assert!(scheduler.is_idle() && done.iter().all(|d| *d), "{done:?}");
        prop_assert_eq!(scheduler.blocks_used(), 0);
    }
}
