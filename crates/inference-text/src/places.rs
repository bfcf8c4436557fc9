//! What a cache holds that has a place for each sequence, and which place the next one is best put in. Pure bookkeeping,
//! for engines whose cache is not made of the blocks of [`BlockPool`](crate::blocks::BlockPool).

use std::collections::BTreeSet;

/// The places of a cache. What a sequence has left in its place stays there until somebody else needs the place or the
/// room.
#[derive(Debug)]
pub struct Places {
    places: Vec<Place>,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Place {
    /// Those whose keys and values are there, in order.
    tokens: Vec<u32>,
    /// Somebody runs there.
    live: bool,
    /// When somebody came or went last.
    used: u64,
}

/// Where a sequence is best put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The place, one of those that are free.
    pub place: usize,
    /// The place that holds the longest beginning of the sequence, which may be the same.
    pub from: usize,
    /// How many tokens that are; 0: none that is worth it.
    pub tokens: usize,
}

/// Tokens of a common beginning that are worth taking over: fewer are met by chance.
const LEAST_SHARED: usize = 8;

impl Places {
    /// `count` empty places.
    pub fn new(count: usize) -> Self {
        Self { places: vec![Place::default(); count], clock: 0 }
    }

    /// Tokens that `place` holds.
    pub fn len(&self, place: usize) -> usize {
        self.places[place].tokens.len()
    }

    /// Tokens that all places hold; those that several share count for each.
    pub fn total(&self) -> usize {
        self.places.iter().map(|p| p.tokens.len()).sum()
    }

    /// Chooses one of the places `free`, which are at least one, for a sequence of `tokens`, of which at most `most` may be
    /// taken over.
    ///
    /// A place goes on that holds little else than a beginning of the sequence, such as the conversation so far. Else it is
    /// an empty one, or the one that nobody has used for the longest time: so what others may come back to stays.
    pub fn choose(&self, free: &BTreeSet<usize>, tokens: &[u32], most: usize) -> Choice {
        let common = |place: usize| {
            let held = &self.places[place].tokens;
            let same = held.iter().zip(tokens).take_while(|(a, b)| a == b).count().min(most);
            if same < LEAST_SHARED { 0 } else { same }
        };
        let goes_on = |place: &usize| common(*place) > 0 && 2 * common(*place) >= self.len(*place);
        let continued = free.iter().copied().filter(goes_on).max_by_key(|place| common(*place));
        let age = |place: &usize| (self.len(*place) > 0, self.places[*place].used);
        let oldest = || free.iter().copied().min_by_key(age).unwrap_or_default();
        let place = continued.unwrap_or_else(oldest);
        // Of equals the place itself, where nothing need be copied.
        let from = (0..self.places.len()).max_by_key(|&i| (common(i), i == place));
        let from = from.unwrap_or(place);
        Choice { place, from, tokens: common(from) }
    }

    /// Somebody runs in `place`.
    pub fn enter(&mut self, place: usize) {
        self.set_live(place, true);
    }

    /// Nobody runs in `place` any more.
    pub fn leave(&mut self, place: usize) {
        self.set_live(place, false);
    }

    fn set_live(&mut self, place: usize, live: bool) {
        self.clock += 1;
        let place = &mut self.places[place];
        (place.live, place.used) = (live, self.clock);
    }

    /// The place that holds something and that nobody has used for the longest time, nor uses.
    pub fn oldest(&self) -> Option<usize> {
        let left = |place: &usize| !self.places[*place].live && self.len(*place) > 0;
        (0..self.places.len()).filter(left).min_by_key(|place| self.places[*place].used)
    }

    /// `place` holds its first `len` tokens only.
    pub fn truncate(&mut self, place: usize, len: usize) {
        self.places[place].tokens.truncate(len);
    }

    /// `place` holds these tokens after what it held.
    pub fn extend(&mut self, place: usize, tokens: &[u32]) {
        self.places[place].tokens.extend(tokens);
    }

    /// `to` holds the first `len` tokens of `from`, and nothing else.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        self.places[to].tokens = self.places[from].tokens[..len].to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a sequence alone; gives where, and how many tokens were there.
    fn run(places: &mut Places, tokens: &[u32]) -> (usize, usize) {
        let free = (0..places.places.len()).collect();
        let Choice { place, from, tokens: same } = places.choose(&free, tokens, tokens.len() - 1);
        places.copy(from, place, same);
        places.enter(place);
        places.extend(place, &tokens[same..]);
        places.leave(place);
        (place, same)
    }

    fn turn(conversation: u32, len: u32) -> Vec<u32> {
        (0..len).map(|i| conversation * 1000 + i).collect()
    }

    #[test]
    fn conversations_in_turns_go_on_where_they_were() {
        let mut places = Places::new(3);
        for (conversation, len, want) in [
            (1, 50, (0, 0)),
            (2, 40, (1, 0)),
            (1, 80, (0, 50)),
            (2, 60, (1, 40)),
            (3, 30, (2, 0)),
            (1, 90, (0, 80)),
            // The second has not been used for the longest time.
            (4, 20, (1, 0)),
            (1, 99, (0, 90)),
        ] {
            assert_eq!(run(&mut places, &turn(conversation, len)), want, "{conversation}");
        }
        assert_eq!(places.oldest(), Some(2));
        places.enter(2);
        assert_eq!(places.oldest(), Some(1));
    }

    #[test]
    fn a_long_text_stays_whole_when_another_begins_like_it() {
        let mut places = Places::new(3);
        run(&mut places, &turn(1, 90));
        let other = [&turn(1, 20)[..], &turn(2, 30)].concat();
        assert_eq!(run(&mut places, &other), (1, 20));
        assert_eq!(run(&mut places, &turn(1, 95)), (0, 90));
        // Few tokens in common are chance; and nothing is taken over that must be computed.
        assert_eq!(run(&mut places, &[&turn(1, 5)[..], &turn(3, 9)].concat()), (2, 0));
        let free = BTreeSet::from([1, 2]);
        let choice = places.choose(&free, &turn(1, 95), 40);
        assert_eq!((choice.from, choice.tokens), (0, 40));
        assert_eq!(places.choose(&free, &turn(1, 95), 0).tokens, 0);
    }

    #[test]
    fn what_is_empty_is_taken_first() {
        let mut places = Places::new(2);
        run(&mut places, &turn(1, 20));
        run(&mut places, &turn(2, 20));
        places.truncate(1, 0);
        assert_eq!((run(&mut places, &turn(3, 20)), places.total()), ((1, 0), 40));
    }
}
