//! Logit bias: an amount added to single tokens.

use super::{Candidates, History, Stage};
use std::collections::BTreeMap;

pub(super) struct Bias(Vec<(u32, f32)>);

impl Bias {
    pub(super) fn new(bias: &BTreeMap<u32, f32>) -> Self {
        Self(bias.iter().map(|(id, b)| (*id, *b)).collect())
    }
}

impl Stage for Bias {
    fn apply(&mut self, _: History<'_>, candidates: &mut Candidates<'_>) {
        for &(id, bias) in &self.0 {
            candidates.adjust(id, |logit| logit + bias);
        }
    }
}
