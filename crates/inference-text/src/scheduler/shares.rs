//! Who gets how much of a step.

use inference_core::Priority;

/// Shares out `room` tokens among prompts of these priorities, which do not rise, and lengths: what each gets.
///
/// A higher priority takes what it needs. Among equals the first, which is the oldest, gets half at least, so that it
/// gets on whoever else comes; the rest goes to the shortest first, which are soon done, so that they need not wait for
/// a long one that came before.
pub(super) fn shares(prompts: &[(Priority, usize)], mut room: usize) -> Vec<usize> {
    let mut all = vec![0; prompts.len()];
    let mut give = |to: usize, most: usize, room: &mut usize| {
        let more = (prompts[to].1 - all[to]).min(most).min(*room);
        all[to] += more;
        *room -= more;
    };
    let mut from = 0;
    for equals in prompts.chunk_by(|a, b| a.0 == b.0) {
        give(from, room.div_ceil(2), &mut room);
        let mut order: Vec<_> = (from..from + equals.len()).collect();
        order.sort_by_key(|&i| prompts[i].1);
        order.into_iter().for_each(|i| give(i, usize::MAX, &mut room));
        from += equals.len();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    proptest! {
        #[test]
        fn room_is_given_away_as_far_as_it_is_needed_and_the_first_gets_half(
            mut prompts in proptest::collection::vec((0usize..3, 1usize..50), 1..9),
            room in 0usize..100,
        ) {
            prompts.sort_by_key(|(priority, _)| Reverse(*priority));
            let priorities = [Priority::Low, Priority::Normal, Priority::High];
            let prompts: Vec<_> = prompts.into_iter().map(|(p, len)| (priorities[p], len)).collect();
            let all = shares(&prompts, room);
            let needed: usize = prompts.iter().map(|(_, len)| len).sum();
            prop_assert_eq!(all.iter().sum::<usize>(), needed.min(room));
            prop_assert!(all.iter().zip(&prompts).all(|(share, (_, len))| share <= len));
            prop_assert!(all[0] >= prompts[0].1.min(room.div_ceil(2)));
            for (i, (priority, len)) in prompts.iter().enumerate() {
                let lower = prompts.iter().zip(&all).filter(|((p, _), _)| p < priority);
                prop_assert!(all[i] == *len || lower.map(|(_, share)| share).sum::<usize>() == 0);
            }
        }
    }

    #[test]
    fn short_prompts_do_not_wait_for_all_of_a_long_one() {
        let normal = |len| (Priority::Normal, len);
        assert_eq!(
            shares(&[normal(8000), normal(20), normal(4000), normal(30)], 256),
            [128, 20, 78, 30]
        );
        assert_eq!(shares(&[normal(8000), normal(900)], 256), [128, 128]);
        assert_eq!(shares(&[normal(300), normal(300)], 256), [256, 0]);
        let (high, low) = ((Priority::High, 200), (Priority::Low, 8000));
        assert_eq!(shares(&[high, normal(40), low], 256), [200, 40, 16]);
    }
}
