//! Each backend that runs on this machine meets the golden values by way of the registry, as programs reach it: on a Mac
//! `metal` on Apple's GPU, beside such a card `rocm` or `cuda`.

use inference::{Availability, GenerateOptions, LoadOptions, TextModel, registry};
use inference_tests::{
    fixtures::{self, Prompt},
    golden::SHORT,
    greedy,
};

/// Of logits, where activations or the cache are rounded to 16 bits; as in `tests/src/golden.rs`.
const CLOSE: f64 = 2e-2;

/// Of logits of models with quantised weights on the CPU, which rounds activations to 8 bits; as in `quantised.rs`.
const ROUNDED: f64 = 1e-1;

/// Checkpoints whose weights are quantised, beside all families.
const CHECKPOINTS: [&str; 6] = ["mlx", "mlx-nested", "gptq", "gptq-act-order", "awq", "fp8"];

/// What the model says of the prompts: their logits one by one, and their tokens together, for which a device brings the
/// largest logits alone.
fn check(model: &dyn TextModel, at: &str, prompts: &[Prompt], tolerance: f64) {
    let texts: Vec<&str> = prompts.iter().filter_map(|p| p.text.as_deref()).collect();
    let together = model
        .batch_generate(&texts, &GenerateOptions::default().max_tokens(prompts[0].greedy.len()));
    for ((text, prompt), done) in texts.iter().zip(prompts).zip(together) {
        let at = format!("{at}, prompt {:?}", prompt.name);
        assert_eq!(model.tokenise(text).expect("encodes"), prompt.tokens, "{at}");
        let one = GenerateOptions::default().max_tokens(1).return_logits(true);
        let first = model.generate(text, &one).expect("starts").finish().expect("ends well");
        let logits = first.tokens[0].logits.as_deref().expect("were asked for");
        let tokens: Vec<u32> = done.expect("ends well").tokens.iter().map(|t| t.id).collect();
        // The golden tokens go on where the model ends.
        let mut prompt = prompt.clone();
        prompt.margins.truncate(tokens.len());
        greedy::compare(&at, &prompt, logits, &tokens, tolerance);
    }
}

/// All fixtures on the backend `name`, if it runs here.
fn meets_the_golden_values(name: &str) {
    let backend = registry().get(name).expect("the feature is on");
    if let Availability::Unavailable(reason) = backend.availability() {
        println!("skipped: {reason}");
        return;
    }
    let families = fixtures::families().into_iter().map(|family| (family, CLOSE));
    let tolerance = if name == "cpu" { ROUNDED } else { CLOSE };
    let quantised = CHECKPOINTS.map(|name| (format!("quantised/{name}"), tolerance));
    for (fixture, tolerance) in families.chain(quantised) {
        let options = LoadOptions::default().backend(name).memory_limit(64 << 20);
        let model = registry().load_model(fixtures::path(&fixture), &options).expect("loads");
        let is_short = |p: &Prompt| p.text.is_some() && SHORT.contains(&p.tokens.len());
        let prompts: Vec<_> =
            fixtures::golden(&fixture).prompts.into_iter().filter(is_short).collect();
        check(model.as_ref(), &format!("{fixture} on {name}"), &prompts, tolerance);
        println!("{fixture}: {} prompts on {}", prompts.len(), model.info().device);
    }
}

#[test]
fn cpu_meets_the_golden_values() {
    meets_the_golden_values("cpu");
}

#[test]
fn metal_meets_the_golden_values() {
    meets_the_golden_values("metal");
}

#[test]
fn rocm_meets_the_golden_values() {
    meets_the_golden_values("rocm");
}

#[test]
fn cuda_meets_the_golden_values() {
    meets_the_golden_values("cuda");
}
