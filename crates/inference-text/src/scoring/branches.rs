//! The sequences that give the probabilities of several continuations of one beginning, with no token computed twice
//! that they have in common.

/// A sequence of tokens, and what its wanted rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch {
    /// The beginning, and all of a continuation but its last token.
    pub(super) tokens: Vec<u32>,
    /// The rows from this position on are wanted.
    pub(super) from: usize,
    /// For each wanted row, the tokens that are asked for next.
    pub(super) targets: Vec<Vec<u32>>,
}

/// Where a token's log-probability is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) branch: usize,
    /// Of the branch's wanted rows.
    pub(super) row: usize,
    /// Of the row's targets.
    pub(super) target: usize,
    /// The token itself.
    pub(super) token: u32,
}

/// What several continuations need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Branches {
    pub(super) all: Vec<Branch>,
    /// For each continuation, where each of its tokens' log-probability is found.
    pub(super) places: Vec<Vec<Place>>,
    /// The branch and the wanted row after the text that is watched.
    pub(super) watched: Option<(usize, usize)>,
}

impl Branches {
    /// The branches of `continuations`, each of at least one token, after `stem`, which has at least one as well. The row
    /// after `stem` and `watch` is wanted, too.
    pub(super) fn new(stem: &[u32], continuations: &[&[u32]], watch: Option<&[u32]>) -> Self {
        // A continuation's last token is only predicted. Sorted, a text stands right before those that begin with it,
        // and what it has in common with any text before is in the one right before.
        let mut inputs: Vec<_> = continuations.iter().map(|c| &c[..c.len() - 1]).collect();
        inputs.extend(watch);
        inputs.sort_unstable();
        inputs.dedup();
        let covered = |i: usize| inputs.get(i + 1).is_some_and(|next| next.starts_with(inputs[i]));
        let inputs: Vec<_> =
            (0..inputs.len()).filter(|i| !covered(*i)).map(|i| inputs[i]).collect();
        // The row after `shared` tokens of an input is the first that no branch before has.
        let first_row = |i: usize| match i.checked_sub(1) {
            None => 0,
            Some(before) => same(inputs[before], inputs[i]) + 1,
        };
        let mut all: Vec<Branch> = inputs
            .iter()
            .enumerate()
            .map(|(i, input)| Branch {
                tokens: [stem, input].concat(),
                from: stem.len() - 1 + first_row(i),
                targets: vec![Vec::new(); input.len() + 1 - first_row(i)],
            })
            .collect();
        // The first input that begins with some tokens is the one whose branch has the row after them.
        let branch_of = |tokens: &[u32]| {
            inputs.iter().position(|input| input.starts_with(tokens)).unwrap_or_default()
        };
        let row_after = |tokens: &[u32]| {
            let branch = branch_of(tokens);
            (branch, tokens.len() - first_row(branch))
        };
        let places = continuations.iter().map(|continuation| {
            let place = |(len, &token): (usize, &u32)| {
                let (branch, row) = row_after(&continuation[..len]);
                let targets = &mut all[branch].targets[row];
                let target = targets.iter().position(|t| *t == token).unwrap_or(targets.len());
                if target == targets.len() {
                    targets.push(token);
                }
                Place { branch, row, target, token }
            };
            continuation.iter().enumerate().map(place).collect()
        });
        let places = places.collect();
        Self { all, places, watched: watch.map(row_after) }
    }
}

/// How many tokens two texts have in common at their beginning.
pub(super) fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn continuations_of_one_token_need_one_row() {
        let branches = Branches::new(&[1, 2], &[&[7], &[8], &[9]], None);
        let branch = Branch { tokens: vec![1, 2], from: 1, targets: vec![vec![7, 8, 9]] };
        assert_eq!(branches.all, [branch]);
    }

    #[test]
    fn what_continuations_have_in_common_is_in_one_branch() {
        let branches = Branches::new(&[1], &[&[5, 6, 7], &[5, 6, 8], &[5, 9], &[4]], None);
        let branch = Branch {
            tokens: vec![1, 5, 6],
            from: 0,
            targets: vec![vec![5, 4], vec![6, 9], vec![7, 8]],
        };
        assert_eq!(branches.all, [branch]);
        let branches = Branches::new(&[1], &[&[5, 6, 7], &[5, 8, 8]], None);
        let from: Vec<_> = branches.all.iter().map(|b| (b.tokens.clone(), b.from)).collect();
        assert_eq!(from, [(vec![1, 5, 6], 0), (vec![1, 5, 8], 2)]);
    }

    proptest! {
        /// Every token is found after the tokens before it, in a row that no other branch has.
        #[test]
        fn every_token_is_found_once(
            stem in proptest::collection::vec(0u32..3, 1..4),
            continuations in proptest::collection::vec(proptest::collection::vec(0u32..3, 1..5), 0..8),
            watch in proptest::collection::vec(0u32..3, 0..4),
        ) {
            let all: Vec<&[u32]> = continuations.iter().map(Vec::as_slice).collect();
            let branches = Branches::new(&stem, &all, Some(&watch));
            for (continuation, places) in all.iter().zip(&branches.places) {
                prop_assert_eq!(continuation.len(), places.len());
                for (i, place) in places.iter().enumerate() {
                    let branch = &branches.all[place.branch];
                    prop_assert_eq!(branch.targets[place.row][place.target], continuation[i]);
                    prop_assert_eq!(place.token, continuation[i]);
                    let before = [&stem, &continuation[..i]].concat();
                    prop_assert_eq!(&branch.tokens[..branch.from + place.row + 1], &before[..]);
                }
            }
            let (branch, row) = branches.watched.expect("something is");
            let branch = &branches.all[branch];
            prop_assert_eq!(&branch.tokens[..branch.from + row + 1], &[&stem[..], &watch].concat()[..]);
            let mut rows = HashSet::new();
            for branch in &branches.all {
                prop_assert_eq!(branch.from + branch.targets.len(), branch.tokens.len());
                prop_assert!(!branch.targets.is_empty());
                for i in 0..branch.targets.len() {
                    prop_assert!(rows.insert(branch.tokens[..branch.from + i + 1].to_vec()));
                }
            }
        }
    }
}
