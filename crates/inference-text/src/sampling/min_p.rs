//! Min-p: drops tokens much less likely than the most likely one (<https://arxiv.org/abs/2407.01082>).

use super::{Candidates, History, Stage};

pub(super) struct MinP(pub(super) f32);

impl Stage for MinP {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        let least = candidates.max() + self.0.ln();
        let (ids, logits) = candidates.list();
        ids.retain(|&id| logits[id as usize] >= least);
    }
}
