//! How much prompt a step may hold, so that those who read a stream hardly notice that others come.

/// Seconds of a step with prompt, over those of one without: below 2, so that there is room for what can't be foreseen.
const AIM: f64 = 1.5;

/// Fewer prompt tokens are never worth a step's overhead.
const LEAST: usize = 4;

/// A chunk is at most so many times the one before: what a token costs was measured at that size.
const GROWTH: f64 = 1.5;

/// Steps with prompt after which one without is measured anew.
const REFRESH: usize = 64;

/// How much of a new measurement counts; the rest is what was known. A token that costs more than was known counts at
/// once: what it costs may set in suddenly, where a product is not bound by reading weights any more.
const NEW: f64 = 0.5;

/// How much of it counts where a step without prompt took longer than was known: most likely something else had the
/// machine for a moment, and what is usual must not be taken for more than it is.
const SLOWER: f64 = 0.05;

/// Measures steps, and says from that how many prompt tokens the next one may have.
///
/// Where nobody decodes, it is the most that a step can hold. Else a step takes at most [`AIM`] times as long as it
/// would without prompt. What it takes without is measured in steps without, for each power of two of sequences that
/// decode; where that is not known yet or too long ago, the next step has no prompt. It has no clock of its own.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Most prompt tokens of a step.
    most: usize,
    /// Of steps without prompt, by the logarithm of the sequences that decode.
    usual: Vec<Option<Usual>>,
    /// Seconds that a prompt token adds to a step.
    per_token: Option<f64>,
    /// Prompt tokens of the last step that had any beside sequences that decode.
    last: usize,
}

/// A step without prompt.
#[derive(Debug, Clone, Copy)]
struct Usual {
    seconds: f64,
    /// Steps with prompt since.
    age: usize,
}

impl Pace {
    /// Steps have at most `most` prompt tokens.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, usual: Vec::new(), per_token: None, last: 0 }
    }

    fn usual(&mut self, decoding: usize) -> &mut Option<Usual> {
        let band = decoding.max(1).ilog2() as usize;
        if self.usual.len() <= band {
            self.usual.resize(band + 1, None);
        }
        &mut self.usual[band]
    }

    /// How many prompt tokens a step may have in which `decoding` sequences decode; 0 only if there are such.
    pub(crate) fn prompt_tokens(&mut self, decoding: usize) -> usize {
        if decoding == 0 {
            return self.most;
        }
        let Some(usual) = *self.usual(decoding) else { return 0 };
        if usual.age >= REFRESH {
            return 0;
        }
        let fits = self.per_token.map_or(0.0, |cost| usual.seconds * (AIM - 1.0) / cost);
        let grown = (self.last as f64 * GROWTH) as usize;
        (fits as usize).min(grown).max(LEAST).min(self.most)
    }

    /// Takes notice of a step that took so many seconds, at least 0.
    pub(crate) fn record(&mut self, decoding: usize, prompt_tokens: usize, seconds: f64) {
        if prompt_tokens == 0 {
            let usual = self.usual(decoding);
            let counts = |old: f64| if seconds < old { NEW } else { SLOWER };
            let seconds =
                usual.map_or(seconds, |u| u.seconds + counts(u.seconds) * (seconds - u.seconds));
            *usual = Some(Usual { seconds, age: 0 });
        } else if decoding == 0 {
            // It includes what a step costs anyway, so it is only taken where nothing better is known.
            self.per_token.get_or_insert(seconds / prompt_tokens as f64);
        } else if let Some(usual) = self.usual(decoding) {
            usual.age += 1;
            let added = (seconds - usual.seconds).max(0.0) / prompt_tokens as f64;
            let mixed = self.per_token.map_or(added, |old| old + NEW * (added - old));
            self.per_token = Some(mixed.max(added));
            self.last = prompt_tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `steps` steps beside `decoding` sequences on a machine that needs `base` seconds a step and `token(n)` for
    /// `n` prompt tokens. Gives what each step took over `base`, and its prompt tokens.
    fn run(
        pace: &mut Pace,
        decoding: usize,
        steps: usize,
        base: f64,
        token: impl Fn(usize) -> f64,
    ) -> Vec<(f64, usize)> {
        let step = |_| {
            let prompt = pace.prompt_tokens(decoding);
            let seconds = base + token(prompt);
            pace.record(decoding, prompt, seconds);
            (seconds / base, prompt)
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn where_nobody_decodes_a_step_is_full() {
        let mut pace = Pace::new(256);
        assert_eq!(pace.prompt_tokens(0), 256);
        run(&mut pace, 3, 20, 0.02, |n| n as f64 * 1e-3);
        assert_eq!(pace.prompt_tokens(0), 256);
    }

    #[test]
    fn a_step_takes_less_than_twice_its_usual_time_whatever_a_token_costs() {
        for cost in [1e-6, 1e-4, 1e-3, 2e-3] {
            let mut pace = Pace::new(256);
            pace.record(0, 256, 256.0 * cost + 0.02);
            let steps = run(&mut pace, 8, 200, 0.03, |n| n as f64 * cost);
            assert!(steps.iter().all(|(ratio, _)| *ratio < 2.0), "{cost}: {steps:?}");
            // And no less than it may: the prompt is to get on.
            let want = (0.03 * (AIM - 1.0) / cost).min(256.0);
            let (_, last) = steps[steps.len() - 2];
            assert!(last as f64 > 0.9 * want, "{cost}: {last} of {want}");
        }
    }

    /// Up to 16 tokens cost nothing, as where reading the weights takes all the time; then they cost a lot.
    #[test]
    fn a_cost_that_sets_in_suddenly_is_met_in_small_steps() {
        let mut pace = Pace::new(256);
        let steps = run(&mut pace, 1, 100, 0.02, |n| n.saturating_sub(16) as f64 * 1.5e-3);
        assert!(steps.iter().all(|(ratio, _)| *ratio < 2.0), "{steps:?}");
        assert!(steps.iter().skip(10).filter(|(_, n)| *n > 16).count() > 80, "{steps:?}");
    }

    #[test]
    fn what_a_step_takes_without_prompt_is_measured_first_and_anew() {
        let mut pace = Pace::new(256);
        let steps = run(&mut pace, 4, 3 * REFRESH, 0.02, |n| n as f64 * 1e-3);
        let without: Vec<_> = (0..steps.len()).filter(|i| steps[*i].1 == 0).collect();
        assert_eq!(without, [0, REFRESH + 1, 2 * REFRESH + 2]);
        // Another number of sequences is another measurement.
        assert_eq!(pace.prompt_tokens(16), 0);
        assert_ne!(pace.prompt_tokens(5), 0);
    }

    #[test]
    fn a_disturbed_step_hardly_changes_what_is_usual() {
        let mut pace = Pace::new(256);
        (0..20).for_each(|_| pace.record(8, 0, 0.04));
        pace.record(8, 0, 0.12);
        let steps = run(&mut pace, 8, 60, 0.04, |n| n as f64 * 1e-3);
        assert!(steps.iter().all(|(ratio, _)| *ratio < 2.0), "{steps:?}");
        // What has become slower is usual after a while all the same.
        (0..80).for_each(|_| pace.record(8, 0, 0.08));
        let steps = run(&mut pace, 8, 20, 0.08, |n| n as f64 * 1e-3);
        assert!(steps.last().is_some_and(|(ratio, _)| *ratio > AIM - 0.1), "{steps:?}");
    }

    #[test]
    fn a_prompt_gets_on_where_even_a_few_tokens_are_dear() {
        let mut pace = Pace::new(256);
        let steps = run(&mut pace, 1, 50, 0.01, |n| n as f64);
        assert!(steps.iter().skip(1).all(|(_, n)| *n == LEAST), "{steps:?}");
        // Never more than a step can hold.
        let mut small = Pace::new(3);
        assert!(run(&mut small, 1, 50, 0.01, |_| 0.0).iter().skip(1).all(|(_, n)| *n == 3));
    }
}
