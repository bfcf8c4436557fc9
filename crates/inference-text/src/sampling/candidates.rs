//! The candidates for the next token.

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
        let max = |a: f32, b: f32| a.max(b);
        match &self.kept {
            None => self.logits.iter().copied().fold(f32::NEG_INFINITY, max),
            Some(ids) => ids.iter().map(|&i| self.logits[i as usize]).fold(f32::NEG_INFINITY, max),
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
            None => self.logits.iter().position(|l| *l == max).map(|i| i as u32),
            Some(ids) => ids.iter().copied().filter(|&i| self.logit(i) == max).min(),
        }
    }

    /// The one at `draw`, in [0, 1), of the cumulative distribution, in the order of the ids. `None`: all are banned.
    pub fn draw(&mut self, draw: f64) -> Option<u32> {
        let max = self.max();
        if max == f32::NEG_INFINITY {
            return None;
        }
        let (ids, logits) = self.list();
        ids.sort_unstable();
        let weight = |id: u32| f64::from((logits[id as usize] - max).exp());
        let mut left = draw * ids.iter().map(|&id| weight(id)).sum::<f64>();
        let mut last = None;
        for &id in ids.iter() {
            let w = weight(id);
            if w > 0.0 {
                last = Some(id);
                left -= w;
                if left < 0.0 {
                    break;
                }
            }
        }
        last
    }
}
