//! Those that wait, and whose turn is next.

use super::{Flow, Sequence};
use inference_core::Priority;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// When a sequence's turn comes; the least is next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<Priority>,
    /// In each round every call that waits starts one sequence.
    round: u64,
    /// No two have the same; who came first has the least.
    number: u64,
}

/// The sequences that wait: by priority, then by turns between calls, so that nobody waits for all of a long call.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    sequences: BTreeMap<Turn, Sequence<T>>,
    /// For each priority, the round of the last that was taken.
    rounds: [u64; 3],
    /// Sequences that ever came.
    came: u64,
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        Self { sequences: BTreeMap::new(), rounds: [0; 3], came: 0 }
    }

    /// Adds the sequences of a call, the first of them for the next round.
    pub(super) fn add(&mut self, call: impl IntoIterator<Item = Sequence<T>>) {
        for (mut sequence, after) in call.into_iter().zip(1..) {
            let round = self.rounds[sequence.priority as usize] + after;
            sequence.turn = Turn { priority: Reverse(sequence.priority), round, number: self.came };
            self.came += 1;
            self.put_back(sequence);
        }
    }

    /// Adds one that was taken: its turn stays, and so comes before those of all that have not had theirs.
    pub(super) fn put_back(&mut self, sequence: Sequence<T>) {
        self.sequences.insert(sequence.turn, sequence);
    }

    /// The first, or the first whose turn is after another one's.
    pub(super) fn first(&self, after: Option<Turn>) -> Option<&Sequence<T>> {
        let after = after.map_or(Unbounded, Excluded);
        self.sequences.range((after, Unbounded)).next().map(|(_, sequence)| sequence)
    }

    /// Takes the one whose turn this is.
    pub(super) fn take(&mut self, turn: Turn) -> Option<Sequence<T>> {
        let sequence = self.sequences.remove(&turn)?;
        let round = &mut self.rounds[sequence.priority as usize];
        *round = turn.round.max(*round);
        Some(sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Drops those that do not go on.
    pub(super) fn sweep(&mut self, goes_on: &mut impl FnMut(&mut T) -> Flow) {
        self.sequences.retain(|_, s| goes_on(&mut s.task) == Flow::Continue);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Wanted, *};

    fn call(of: char, rows: usize) -> impl Iterator<Item = Sequence<(char, usize)>> {
        (0..rows).map(move |row| Sequence::new(vec![0], Wanted::Last, (of, row)))
    }

    fn take(waiting: &mut Waiting<(char, usize)>) -> Option<Sequence<(char, usize)>> {
        let turn = waiting.first(None)?.turn;
        waiting.take(turn)
    }

    #[test]
    fn calls_take_turns_and_each_keeps_its_order() {
        let mut waiting = Waiting::new();
        waiting.add(call('a', 5));
        let first: Vec<_> = (0..2).filter_map(|_| take(&mut waiting)).collect();
        waiting.add(call('b', 2));
        waiting.add(call('c', 1));
        let mut order: Vec<_> = (0..4).filter_map(|_| take(&mut waiting)).map(|s| s.task).collect();
        // Whoever comes in the middle of a round has the next one, so that nobody is passed for ever.
        waiting.add(call('d', 1));
        first.into_iter().for_each(|sequence| waiting.put_back(sequence));
        order.extend(std::iter::from_fn(|| take(&mut waiting)).map(|s| s.task));
        let rows = [('a', 2), ('b', 0), ('c', 0), ('a', 3)];
        let then = [('a', 0), ('a', 1), ('b', 1), ('a', 4), ('d', 0)];
        assert_eq!(order, [&rows[..], &then].concat());
    }
}
