//! From logits to a token: the chain of stages, in one place.
//!
//! The order is that of `transformers`: bias, penalties, then (unless greedy) temperature, top-k, top-p, min-p. Top-k stands
//! before the temperature, which changes no order, so that it means the same where a device gives the largest logits alone.

mod bias;
mod candidates;
mod min_p;
mod penalties;
mod temperature;
mod top_k;
mod top_p;

pub use candidates::Candidates;

use crate::{
    logits::{Ask, MOST_LARGEST},
    math::{Extent, extent, sum_of_exp},
};
use inference_core::{Error, GenerateOptions, Result, TokenLogprob};
use rand_chacha::{ChaCha8Rng, rand_core::RngCore, rand_core::SeedableRng};

/// The tokens of a sequence so far.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Prompt and output.
    pub tokens: &'a [u32],
    /// How many of them are the prompt.
    pub prompt_len: usize,
}

impl<'a> History<'a> {
    /// What was generated.
    pub fn output(&self) -> &'a [u32] {
        &self.tokens[self.prompt_len..]
    }
}

/// One stage: changes logits, or drops candidates.
pub trait Stage: Send {
    /// Works on the candidates for the token after `history`.
    fn apply(&mut self, history: History<'_>, candidates: &mut Candidates<'_>);
}

/// The stages that `options` ask for, in their order. Without the last three groups the most likely token is taken.
pub fn chain(options: &GenerateOptions) -> Vec<Box<dyn Stage>> {
    let mut stages: Vec<Box<dyn Stage>> = Vec::new();
    if !options.logit_bias.is_empty() {
        stages.push(Box::new(bias::Bias::new(&options.logit_bias)));
    }
    if let Some(penalty) = options.repeat_penalty.filter(|p| *p != 1.0) {
        stages.push(Box::new(penalties::Repeat::new(penalty)));
    }
    let (presence, frequency) = (options.presence_penalty, options.frequency_penalty);
    if presence.is_some() || frequency.is_some() {
        let (presence, frequency) = (presence.unwrap_or_default(), frequency.unwrap_or_default());
        stages.push(Box::new(penalties::Count::new(presence, frequency)));
    }
    if options.temperature == 0.0 {
        return stages;
    }
    if let Some(k) = options.top_k {
        stages.push(Box::new(top_k::TopK(k)));
    }
    stages.push(Box::new(temperature::Temperature(options.temperature)));
    if let Some(p) = options.top_p.filter(|p| *p < 1.0) {
        stages.push(Box::new(top_p::TopP(p)));
    }
    if let Some(p) = options.min_p.filter(|p| *p > 0.0) {
        stages.push(Box::new(min_p::MinP(p)));
    }
    stages
}

/// Which of the model's logits `options` need, what they report among it.
pub fn ask(options: &GenerateOptions) -> Ask {
    let reported = options.logprobs.is_some() || options.return_logits;
    let changed = !options.logit_bias.is_empty()
        || options.repeat_penalty.is_some_and(|p| p != 1.0)
        || options.presence_penalty.is_some()
        || options.frequency_penalty.is_some();
    let largest = if options.temperature == 0.0 { Some(1) } else { options.top_k };
    match largest {
        Some(k) if !reported && !changed && (1..=MOST_LARGEST).contains(&k) => Ask::Largest(k),
        _ => Ask::All,
    }
}

/// Chooses the tokens of one sequence.
pub struct Sampler {
    stages: Vec<Box<dyn Stage>>,
    /// `None`: greedy.
    random: Option<ChaCha8Rng>,
}

impl Sampler {
    /// A sampler with the stages that `options` ask for; without a seed, a random one.
    pub fn new(options: &GenerateOptions) -> Self {
        let seed = || options.seed.unwrap_or_else(random_seed);
        let random = (options.temperature > 0.0).then(|| ChaCha8Rng::seed_from_u64(seed()));
        Self { stages: chain(options), random }
    }

    /// Chooses the token after `history`. Changes `logits`, which has one entry per token that may be chosen.
    ///
    /// # Errors
    /// As [`check`]; [`Error::InvalidOption`] where the bias bans every token.
    pub fn sample(&mut self, history: History<'_>, logits: &mut [f32]) -> Result<u32> {
        check(logits)?;
        let mut candidates = Candidates::new(logits);
        for stage in &mut self.stages {
            stage.apply(history, &mut candidates);
        }
        let draw = self.random.as_mut().map(|r| (r.next_u64() >> 11) as f64 / (1u64 << 53) as f64);
        let chosen = match draw {
            None => candidates.best(),
            Some(draw) => candidates.draw(draw),
        };
        chosen.ok_or_else(|| Error::option("logit_bias", "it bans every token"))
    }
}

/// The largest of a model's logits, which must say something: each is finite or −∞, and not all are −∞.
///
/// # Errors
/// [`Error::Device`].
pub fn check(logits: &[f32]) -> Result<f32> {
    let Extent { max, finite } = extent(logits);
    if finite && max > f32::NEG_INFINITY {
        return Ok(max);
    }
    let reason =
        "the model's logits are not finite: its weights are damaged, or too large for their type";
    Err(Error::Device { reason: reason.to_owned() })
}

/// A seed that differs from call to call: the keys of the standard library's hasher are random.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// The natural logarithm of the probability of each of `ids`, and of the `n` most likely tokens (best first, then by id).
pub fn logprobs(logits: &[f32], ids: &[u32], n: usize) -> (Vec<f32>, Vec<TokenLogprob>) {
    let max = extent(logits).max;
    let norm = max + sum_of_exp(logits, max).ln() as f32;
    let of = |id: u32| logits.get(id as usize).map_or(f32::NEG_INFINITY, |l| l - norm);
    let mut best: Vec<u32> = Vec::new();
    if n > 0 {
        best = (0..logits.len() as u32).collect();
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if n < best.len() {
            best.select_nth_unstable_by(n, by_logit);
            best.truncate(n);
        }
        best.sort_unstable_by(by_logit);
    }
    let best = best.into_iter().map(|id| TokenLogprob { id, logprob: of(id) }).collect();
    (ids.iter().map(|&id| of(id)).collect(), best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: History<'static> = History { tokens: &[], prompt_len: 0 };

    fn tally(options: &GenerateOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            let id = sampler.sample(NONE, &mut logits.to_vec()).unwrap();
            counts[id as usize] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let counts = tally(&GenerateOptions::default().temperature(2.0).seed(1), &logits, 40_000);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / 2.0).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let (got, want) = (*count as f64 / 40_000.0, weight / sum);
            assert!((got - want).abs() < 0.01, "{got} != {want}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
        let logits = [8.0f32, 4.0, 2.0, 1.0, 1.0].map(f32::ln);
        let hot = || GenerateOptions::default().temperature(1.0).seed(7);
        let kept = |options: &GenerateOptions| {
            tally(options, &logits, 2_000).iter().filter(|c| **c > 0).count()
        };
        assert_eq!(kept(&hot()), 5);
        assert_eq!(kept(&hot().top_k(2)), 2);
        assert_eq!(kept(&hot().top_p(0.5)), 1);
        assert_eq!(kept(&hot().top_p(0.7)), 2);
        assert_eq!(kept(&hot().top_p(0.8)), 3);
        assert_eq!(kept(&hot().min_p(0.2)), 3);
        assert_eq!(kept(&hot().top_k(4).min_p(0.4)), 2);
        assert_eq!(kept(&hot().top_k(100).top_p(1.0).min_p(0.0)), 5);
    }

    #[test]
    fn penalties_are_those_of_the_contract() {
        let history = History { tokens: &[0, 0, 1, 2, 2], prompt_len: 2 };
        let after = |options: GenerateOptions| {
            let mut logits = [1.0f32, -1.0, 3.0, 0.5];
            Sampler::new(&options).sample(history, &mut logits).unwrap();
            logits
        };
        let options = GenerateOptions::default;
        assert_eq!(after(options().repeat_penalty(2.0)), [0.5, -2.0, 1.5, 0.5]);
        assert_eq!(after(options().repeat_penalty(1.0)), [1.0, -1.0, 3.0, 0.5]);
        assert_eq!(after(options().presence_penalty(1.0)), [1.0, -2.0, 2.0, 0.5]);
        assert_eq!(after(options().frequency_penalty(1.0)), [1.0, -2.0, 1.0, 0.5]);
        let banned = after(options().logit_bias([(2, f32::NEG_INFINITY), (3, 1.0), (900, 1.0)]));
        assert_eq!(banned, [1.0, -1.0, f32::NEG_INFINITY, 1.5]);
    }

    #[test]
    fn what_cannot_be_sampled_is_an_error() {
        let sample = |options: &GenerateOptions, logits: &[f32]| {
            Sampler::new(options).sample(NONE, &mut logits.to_vec())
        };
        for options in [GenerateOptions::default(), GenerateOptions::default().temperature(1.0)] {
            for wrong in [[1.0, f32::NAN], [1.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
                assert!(matches!(sample(&options, &wrong), Err(Error::Device { .. })));
            }
            let options = options.logit_bias([(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)]);
            assert!(matches!(sample(&options, &[1.0, 2.0]), Err(Error::InvalidOption { .. })));
        }
    }

    #[test]
    fn logprobs_are_of_the_whole_distribution() {
        let (own, best) = logprobs(&[8.0f32, 4.0, 2.0, 2.0].map(f32::ln), &[2], 3);
        assert!((own[0] - 0.125f32.ln()).abs() < 1e-6);
        assert_eq!(best.iter().map(|b| b.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert!((best[0].logprob - 0.5f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn all_logits_are_asked_for_where_they_are_changed_or_reported() {
        let options = GenerateOptions::default;
        let hot = || options().temperature(1.0);
        for (options, largest) in [
            (options(), Some(1)),
            (options().top_k(5).top_p(0.5).repeat_penalty(1.0), Some(1)),
            (hot().top_k(MOST_LARGEST).min_p(0.1), Some(MOST_LARGEST)),
            (hot().top_k(MOST_LARGEST + 1), None),
            (hot(), None),
            (options().logprobs(0), None),
            (options().return_logits(true), None),
            (options().logit_bias([(1, 1.0)]), None),
            (options().repeat_penalty(1.1), None),
            (options().presence_penalty(0.1), None),
            (hot().top_k(2).frequency_penalty(0.1), None),
        ] {
            assert_eq!(ask(&options), largest.map_or(Ask::All, Ask::Largest), "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn the_largest_alone_give_the_token_that_all_give(
            logits in proptest::collection::vec(
                prop_oneof![-3f32..3.0, -2f32..2.0, Just(1.5), Just(-0.0), Just(0.0), Just(f32::NEG_INFINITY)],
                1..200,
            ),
            t in prop_oneof![Just(0f32), 0.01f32..30.0], k in 1usize..20,
            p in 0.01f32..1.0, m in 0f32..0.5, seed: u64,
        ) {
            let options = GenerateOptions::default().temperature(t).top_k(k).top_p(p).min_p(m).seed(seed);
            let Ask::Largest(k) = ask(&options) else { panic!("{options:?}") };
            let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
            let of = |id: u32| logits[id as usize];
            ids.sort_by(|a, b| of(*b).partial_cmp(&of(*a)).expect("numbers"));
            ids.truncate(k);
            ids.sort_unstable();
            let mut few: Vec<f32> = ids.iter().map(|id| of(*id)).collect();
            let (mut whole, mut short) = (Sampler::new(&options), Sampler::new(&options));
            for _ in 0..3 {
                let want = whole.sample(NONE, &mut logits.clone());
                let got = short.sample(NONE, &mut few.clone()).map(|i| ids[i as usize]);
                prop_assert_eq!(got.ok(), want.ok());
            }
            few[0] = f32::NAN;
            let failed = matches!(short.sample(NONE, &mut few), Err(Error::Device { .. }));
            prop_assert!(failed);
        }

        #[test]
        fn temperature_zero_is_greedy_whatever_else_is_set(
            logits in proptest::collection::vec(-20f32..20.0, 1..200),
            k in 1usize..9, p in 0.01f32..1.0, m in 0f32..1.0, seed: u64,
        ) {
            let options = GenerateOptions::default().top_k(k).top_p(p).min_p(m).seed(seed);
            let got = Sampler::new(&options).sample(NONE, &mut logits.clone()).unwrap();
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let want = logits.iter().position(|l| *l == best).unwrap();
            prop_assert_eq!(got as usize, want);
        }

        #[test]
        fn the_filters_keep_the_most_likely_and_the_fewest(
            logits in proptest::collection::vec(-8f32..8.0, 1..3000),
            k in 1usize..3000, p in 0.01f32..0.999, draw in 0f64..1.0,
        ) {
            let mut sorted = logits.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.truncate(k);
            let total: f64 = sorted.iter().map(|l| f64::from(*l).exp()).sum();
            let mut sum = 0.0;
            let mut last = sorted[0];
            for l in &sorted {
                last = *l;
                sum += f64::from(*l).exp();
                if sum >= f64::from(p) * total { break; }
            }
            let mut values = logits.clone();
            let mut candidates = Candidates::new(&mut values);
            top_k::TopK(k).apply(NONE, &mut candidates);
            top_p::TopP(p).apply(NONE, &mut candidates);
            let id = candidates.draw(draw).unwrap();
            // A sum in another order may end one candidate earlier or later where it meets `p` to the last bit.
            prop_assert!(logits[id as usize] >= last - 1e-4, "{} {}", logits[id as usize], last);
        }
    }
}
