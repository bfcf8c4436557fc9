//! Top-k: only the `k` most likely tokens.

use super::{Candidates, History, Stage};

pub(super) struct TopK(pub(super) usize);

impl Stage for TopK {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        let (ids, logits) = candidates.list();
        if self.0 < ids.len() {
            ids.select_nth_unstable_by(self.0, |a, b| {
                // What is added makes a zero of −0.
                let of = |id: &u32| logits[*id as usize] + 0.0;
                of(b).total_cmp(&of(a)).then(a.cmp(b))
            });
            ids.truncate(self.0);
        }
    }
}
