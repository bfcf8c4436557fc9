//! Top-p: the fewest most likely tokens whose probabilities sum to at least `p` (<https://arxiv.org/abs/1904.09751>).

use super::{Candidates, History, Stage};
use crate::math::exp;

pub(super) struct TopP(pub(super) f32);

/// How many candidates are sorted at first: nearly always enough, and much cheaper than sorting a vocabulary.
const FIRST: usize = 256;

impl Stage for TopP {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        let max = candidates.max();
        let wanted = f64::from(self.0) * candidates.weight(max);
        let (ids, logits) = candidates.list();
        let weight = |id: u32| f64::from(exp(logits[id as usize] - max));
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));

        let mut sum = 0.0;
        let mut sorted = 0;
        let mut chunk = FIRST;
        while sorted < ids.len() {
            let rest = &mut ids[sorted..];
            let len = chunk.min(rest.len());
            if len < rest.len() {
                rest.select_nth_unstable_by(len, by_logit);
            }
            rest[..len].sort_unstable_by(by_logit);
            for (i, &id) in rest[..len].iter().enumerate() {
                sum += weight(id);
                if sum >= wanted {
                    ids.truncate(sorted + i + 1);
                    return;
                }
            }
            sorted += len;
            chunk *= 8;
        }
    }
}
