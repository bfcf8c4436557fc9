//! The backend `llama_cpp` beside our own engine, on the same weights.
#![cfg(feature = "llama-cpp")]

use inference::{
    ClassifyOptions, Error, Format, GenerateOptions, LoadOptions, TextModel, load_model,
};
use inference_engine::check::distance;
use inference_tests::{fixtures, gguf};

/// Of logits: bf16 weights, activations rounded elsewhere than in ours.
const TOLERANCE: f64 = 2e-2;

fn load(name: &str) -> Option<Box<dyn TextModel>> {
    let path = fixtures::model(name, Format::Gguf)?;
    Some(load_model(path, &LoadOptions::default().backend("llama_cpp")).expect("loads"))
}

/// Families, all in bf16: logits of every prompt with a text, and greedy tokens where the margin allows.
#[test]
fn logits_are_those_of_the_reference_on_the_same_weights() {
    let mut compared = 0;
    for name in fixtures::families() {
        let Some(model) = load(&name) else { continue };
        let ours = load_model(fixtures::path(&name), &LoadOptions::default().backend("cpu"));
        let ours = ours.expect("loads");
        for prompt in fixtures::golden(&name).prompts {
            let Some(text) = &prompt.text else { continue };
            let at = format!("{name}, prompt {:?}", prompt.name);
            if name == "phi3" && prompt.tokens.len() <= 64 {
                // llama.cpp takes the long factors of LongRoPE wherever the cache is longer than the original context,
                // however short the sequence is; and no cache is as short as this fixture's 64.
                continue;
            }
            assert_eq!(model.tokenise(text).expect("encodes"), prompt.tokens, "{at}");
            let options = ClassifyOptions::default().return_logits(true);
            let logits = |model: &dyn TextModel| {
                let done = model.classify(&[text], &options).remove(0).expect("ends well");
                done.token.logits.expect("was asked for")
            };
            let (theirs, ours) = (logits(model.as_ref()), logits(ours.as_ref()));
            let far = distance(&theirs, &prompt.logits);
            assert!(far <= TOLERANCE, "{at}: {far:.1e} from the reference");
            let far = distance(&theirs, &ours);
            assert!(far <= TOLERANCE, "{at}: {far:.1e} from our own engine");
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} prompts");
}

/// Of logits, where llama.cpp rounds the activations to 8 bits and we don't.
const ROUNDED: f64 = 5e-2;

/// Every type of weights, in random blocks: what llama.cpp's own kernels read in them.
#[test]
fn logits_of_every_type_are_those_of_our_own_engine() {
    let dir = tempfile::tempdir().expect("a folder");
    for ty in gguf::TYPES {
        let path = dir.path().join(format!("{ty}.gguf"));
        gguf::write("llama", ty, 2, &path);
        let logits = |backend: &str, exact: bool| {
            let options = LoadOptions::default().backend(backend).exact_activations(exact);
            let model = load_model(&path, &options).expect("loads");
            let options = ClassifyOptions::default().return_logits(true);
            let done =
                model.classify(&["The cat sat on the mat"], &options).remove(0).expect("ends well");
            done.token.logits.expect("was asked for")
        };
        let far = distance(&logits("llama_cpp", false), &logits("cpu", true));
        println!("{ty}: {far:.1e} apart");
        assert!(far <= ROUNDED, "{ty}: {far:.1e}");
    }
}

#[test]
fn the_storyteller_tells_the_same_story_on_both() {
    let theirs = load("storyteller").expect("converts");
    let ours = load_model(fixtures::path("storyteller"), &LoadOptions::default()).expect("loads");
    let options = GenerateOptions::default().max_tokens(200);
    let text = |model: &dyn TextModel| {
        model.generate("Once upon a time", &options).expect("starts").text().expect("ends well")
    };
    assert_eq!(text(theirs.as_ref()), text(ours.as_ref()));
}

#[test]
fn a_shared_prefix_is_copied_and_not_computed_again() {
    let model = load("storyteller").expect("converts");
    let instruction = "Once upon a time, there was a brave dog named Rosa. ".repeat(4);
    let prompts: Vec<_> = (0..6).map(|i| format!("{instruction}It was day {i}")).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let shared = model.tokenise(&instruction).expect("encodes").len();
    let options = GenerateOptions::default().max_tokens(8);
    let results = model.batch_generate(&prompts, &options);
    let done: Vec<_> = results.into_iter().map(|r| r.expect("ends well")).collect();
    assert_eq!(done[0].metrics.cached_tokens, 0);
    for c in &done[1..] {
        assert!(c.metrics.cached_tokens + 2 >= shared, "{} of {shared}", c.metrics.cached_tokens);
    }
    // A later call finds what an earlier one has left, and gives the same.
    let again = model.generate(prompts[3], &options).expect("starts").finish().expect("ends well");
    assert_eq!(again.text(), done[3].text());
    assert_eq!(again.metrics.cached_tokens + 1, again.metrics.prompt_tokens);
}

/// Each goes on where it was: there are places enough for both.
#[test]
fn conversations_in_turns_do_not_forget_each_other() {
    let model = load("storyteller").expect("converts");
    let mut texts =
        ["Once upon a time, there was a brave dog named Rosa.", "The moon sang to a fox."]
            .map(str::to_owned);
    let mut held = [0; 2];
    for turn in 0..3 {
        for (text, held) in texts.iter_mut().zip(&mut held) {
            let options = GenerateOptions::default().max_tokens(4);
            let done = model.generate(text, &options).expect("starts").finish().expect("ends well");
            let metrics = done.metrics;
            assert!(metrics.cached_tokens >= *held, "turn {turn}: {metrics:?}, not {held}");
            *held = metrics.prompt_tokens - 1;
            *text += " And then they all went home to the garden.";
        }
    }
}

#[test]
fn a_file_that_llama_cpp_would_die_of_is_refused_before_it_sees_it() {
    let path = fixtures::model("storyteller", Format::Gguf).expect("converts");
    let whole = std::fs::read(path).expect("is readable");
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |name: &str, bytes: &[u8], part: &str| {
        let file = dir.path().join(format!("{name}.gguf"));
        std::fs::write(&file, bytes).expect("is written");
        let options = LoadOptions::default().backend("llama_cpp");
        let error = load_model(&file, &options).err().expect(name);
        let text = error.to_string();
        assert!(matches!(error, Error::InvalidFile { .. }), "{name}: {error:?}");
        assert!(text.contains(&format!("{name}.gguf")) && text.contains(part), "{name}: {text}");
    };
    refused("empty", b"", "");
    refused("magic", &[b"GGML", &whole[4..]].concat(), "");
    refused("cut", &whole[..whole.len() - 4096], "");
    refused("head", &whole[..1000], "");
    let mut counts = whole.clone();
    counts[8..16].fill(0xff);
    refused("counts", &counts, "");
    let missing = load_model(dir.path().join("nowhere.gguf"), &LoadOptions::default());
    assert!(missing.err().expect("is missing").to_string().contains("nowhere.gguf"));
}
