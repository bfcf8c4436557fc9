//! Top-k: only the `k` most likely tokens.

use super::{Candidates, History, Stage};

pub(super) struct TopK(pub(super) usize);

impl Stage for TopK {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        let (ids, logits) = candidates.list();
        if self.0 < ids.len() {
            ids.select_nth_unstable_by(self.0, |a, b| {
                logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
            });
            ids.truncate(self.0);
        }
    }
}
