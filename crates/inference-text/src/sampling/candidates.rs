//! The candidates for the next token.

use crate::math::{exp, extent, position, sum_of_exp};

/// All tokens at first; filters narrow them to a list.
#[derive(Debug)]
pub struct Candidates<'a> {
    /// One per token; −∞ is banned.
    logits: &'a mut [f32],
    /// `None`: all tokens.
    kept: Option<Vec<u32>>,
}

impl<'a> Candidates<'a> {
    /// All tokens, by their logits.
    pub fn new(logits: &'a mut [f32]) -> Self {
        Self { logits, kept: None }
    }

    /// Changes the logit of token `id`, if there is one.
    pub fn adjust(&mut self, id: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logits.get_mut(id as usize) {
            *logit = change(*logit);
        }
    }

    /// Changes the logits of all candidates.
    pub fn adjust_all(&mut self, change: impl Fn(f32) -> f32) {
        match &self.kept {
            None => self.logits.iter_mut().for_each(|l| *l = change(*l)),
            Some(ids) => ids.iter().for_each(|&id| {
                let logit = &mut self.logits[id as usize];
                *logit = change(*logit);
            }),
        }
    }

    /// The highest logit among the candidates.
    pub fn max(&self) -> f32 {
        match &self.kept {
            None => extent(self.logits).max,
            Some(ids) => {
                ids.iter().map(|&i| self.logits[i as usize]).fold(f32::NEG_INFINITY, f32::max)
            }
        }
    }

    /// The logit of a candidate.
    pub fn logit(&self, id: u32) -> f32 {
        self.logits[id as usize]
    }

    /// The candidates as a list that a filter may reorder and cut.
    pub fn list(&mut self) -> (&mut Vec<u32>, &[f32]) {
        let len = self.logits.len() as u32;
        (self.kept.get_or_insert_with(|| (0..len).collect()), self.logits)
    }

    /// The most likely one; the lowest id among equals. `None`: all are banned.
    pub fn best(&self) -> Option<u32> {
        let max = self.max();
        if max == f32::NEG_INFINITY {
            return None;
        }
        match &self.kept {
            None => position(self.logits, max).map(|i| i as u32),
            Some(ids) => ids.iter().copied().filter(|&i| self.logit(i) == max).min(),
        }
    }

    /// What all candidates weigh: the sum of `e^(logit − max)`.
    pub fn weight(&self, max: f32) -> f64 {
        match &self.kept {
            None => sum_of_exp(self.logits, max),
            Some(ids) => ids.iter().map(|&id| f64::from(exp(self.logits[id as usize] - max))).sum(),
        }
    }

    /// The one at `draw`, in [0, 1), of the cumulative distribution, in the order of the ids. `None`: all are banned.
    pub fn draw(&mut self, draw: f64) -> Option<u32> {
        let max = self.max();
        if max == f32::NEG_INFINITY {
            return None;
        }
        match &mut self.kept {
            None => among(self.logits, max, draw).map(|i| i as u32),
            Some(ids) => {
                ids.sort_unstable();
                let logits: Vec<f32> = ids.iter().map(|&id| self.logits[id as usize]).collect();
                among(&logits, max, draw).map(|i| ids[i])
            }
        }
    }
}

/// How many candidates are passed over at a time.
const PASSED: usize = 1024;

/// The first of `logits` with which the weights `e^(logit − max)` sum to more than the share `draw` of all; where they do
/// not, the last that weighs anything.
fn among(logits: &[f32], max: f32, draw: f64) -> Option<usize> {
    let mut left = draw * sum_of_exp(logits, max);
    let mut part = None;
    for (i, logits) in logits.chunks(PASSED).enumerate() {
        let weight = sum_of_exp(logits, max);
        if weight > 0.0 {
            part = Some((i * PASSED, left));
        }
        if left < weight {
            break;
        }
        left -= weight;
    }
    let (start, mut left) = part?;
    let mut last = None;
    for (i, logit) in logits[start..].iter().enumerate().take(PASSED) {
        let weight = f64::from(exp(logit - max));
        if weight > 0.0 {
            last = Some(start + i);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_that_of_the_sums_one_by_one_in_a_large_vocabulary_too() {
        let mut logits: Vec<f32> = (0..5000).map(|i| ((i * 7919 % 997) as f32) / 100.0).collect();
        logits[2048..3072].fill(f32::NEG_INFINITY);
        logits[4999] = f32::NEG_INFINITY;
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
        let all: f64 = weights.iter().sum();
        let mut of_all = Candidates::new(&mut logits);
        for i in 0..1000 {
            let draw = f64::from(i) / 1000.0;
            let drawn = of_all.draw(draw).unwrap() as usize;
            // Rounding may move a border, not by more than this.
            let below: f64 = weights[..drawn].iter().sum::<f64>() / all;
            let up_to: f64 = weights[..=drawn].iter().sum::<f64>() / all;
            assert!(below - 1e-6 <= draw && draw <= up_to + 1e-6, "{draw}: {drawn}");
            assert!(weights[drawn] > 0.0);
        }
        // As much as there is, and no more.
        assert_eq!(of_all.draw(1.0), Some(4998));
        let drawn: Vec<_> = (0..10).map(|i| of_all.draw(f64::from(i) / 10.0)).collect();
        of_all.list().0.reverse();
        let of_list: Vec<_> = (0..10).map(|i| of_all.draw(f64::from(i) / 10.0)).collect();
        assert_eq!(of_list, drawn);
        assert_eq!(Candidates::new(&mut [f32::NEG_INFINITY; 3]).draw(0.5), None);
    }
}
