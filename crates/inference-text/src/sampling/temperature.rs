//! Temperature: flattens or sharpens the distribution.

use super::{Candidates, History, Stage};

pub(super) struct Temperature(pub(super) f32);

impl Stage for Temperature {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        // Relative to the highest, so that a tiny temperature gives −∞ and not ∞ − ∞.
        let max = candidates.max();
        if max > f32::NEG_INFINITY {
            candidates.adjust_all(|l| if l == max { 0.0 } else { (l - max) / self.0 });
        }
    }
}
