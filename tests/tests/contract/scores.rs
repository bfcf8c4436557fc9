//! Scores of continuations, on every backend.

use super::{STORY, everywhere};
use inference::{ClassifyOptions, Error, GenerateOptions, ScoreOptions};

/// How far log-probabilities may be apart: llama.cpp sums in another order in another batch.
const TOLERANCE: f64 = 2e-2;

#[test]
fn each_token_of_a_continuation_has_the_logprob_that_it_has_after_all_before_it() {
    everywhere(|model| {
        let continuation = " there was a little fox";
        let score = model.score(STORY, continuation, &ScoreOptions::default()).expect("ends well");
        let text: String = score.tokens.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(text, continuation);
        let prompt = model.tokenise(STORY).expect("encodes");
        let whole = model.tokenise(&format!("{STORY}{continuation}")).expect("encodes");
        let ids: Vec<u32> = score.tokens.iter().map(|t| t.id).collect();
        assert_eq!([prompt, ids].concat(), whole);
        let mut so_far = STORY.to_owned();
        for token in &score.tokens {
            let options = ClassifyOptions::default().return_logits(true);
            let c = model.classify(&[&so_far], &options).remove(0).expect("ends well");
            let logits = c.token.logits.expect("was asked for");
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let want = f64::from(logits[token.id as usize]) - sum.ln();
            let own = f64::from(token.logprob.expect("is there"));
            assert!((own - want).abs() < TOLERANCE, "{token:?}: {own} {want}");
            so_far += &token.text;
        }
        let sum: f64 = score.tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
        assert!((f64::from(score.logprob()) - sum).abs() < 1e-4);
        assert!(!score.is_greedy);
    });
}

#[test]
fn pairs_are_scored_in_order_and_a_bad_one_is_its_own() {
    everywhere(|model| {
        // Its tokens are far from the second best.
        let greedy = model.generate(STORY, &GenerateOptions::default().max_tokens(2));
        let greedy = greedy.expect("starts").text().expect("ends well");
        let long = "word ".repeat(2000);
        let pairs =
            [(STORY, " the sky"), ("", "word"), (STORY, &greedy), (STORY, ""), (&long, " word")];
        let rows = model.batch_score(&pairs, &ScoreOptions::default());
        assert!(matches!(rows[1], Err(Error::InvalidPrompt { .. })), "{rows:?}");
        assert!(matches!(rows[3], Err(Error::InvalidPrompt { .. })), "{rows:?}");
        assert!(matches!(rows[4], Err(Error::ContextExceeded { .. })), "{rows:?}");
        for i in [0, 2] {
            let row = rows[i].as_ref().expect("ends well");
            let (prompt, continuation) = pairs[i];
            let alone = model.score(prompt, continuation, &ScoreOptions::default());
            let alone = alone.expect("ends well").logprob();
            assert!(f64::from(row.logprob() - alone).abs() < TOLERANCE, "{row:?} {alone}");
            assert_eq!(row.is_greedy, i == 2);
        }
        let total: usize = rows.iter().flatten().map(|row| row.prompt_tokens).sum();
        model.batch_score(&pairs, &ScoreOptions::default());
        assert_eq!(model.metrics().prompt_tokens, total);
    });
}
