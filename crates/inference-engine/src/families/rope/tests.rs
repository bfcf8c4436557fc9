//! The expected numbers are those of `transformers` 5.23 (`ROPE_INIT_FUNCTIONS`, `compute_default_rope_parameters`), run
//! with every `torch.float` replaced by `torch.float64`.

use crate::arch::{Architecture, Rope};
use crate::families::tests::{describe, error, llama, merged};
use serde_json::{Value, json};

/// Both sides compute in f64; the operations come in another order.
const TOLERANCE: f64 = 1e-12;

const DEFAULT: &str = "1.0 0.31622776601683794 0.1 0.03162277660168379 \
     0.01 0.003162277660168379 0.001 0.00031622776601683794";

fn check(rope: &Rope, length: usize, expected: &str, scale: f64, what: &str) {
    let expected: Vec<f64> = expected.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let found = rope.frequencies.at(length);
    assert_eq!(found.len(), expected.len(), "{what}");
    assert_eq!(rope.frequencies.pairs(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert!((f - e).abs() <= TOLERANCE * e, "{what}, pair {i}: {f} is not {e}");
    }
    assert_eq!(rope.scale, scale as f32, "{what}");
}

fn rope_of(config: Value) -> Rope {
    let Architecture { mut ropes, .. } = describe(&config).unwrap();
    assert_eq!(ropes.len(), 1);
    ropes.remove(0)
}

/// Both dialects of a Llama with 16 columns a head.
fn dialects(context: usize, theta: f64, scaling: Value) -> [Rope; 3] {
    let base = merged(llama(), json!({"head_dim": 16, "max_position_embeddings": context}));
    let classic = merged(base.clone(), json!({"rope_theta": theta, "rope_scaling": scaling}));
    let mut old = classic.clone();
    let fields = old["rope_scaling"].as_object_mut().unwrap();
    if let Some(kind) = fields.remove("rope_type") {
        fields.insert("type".to_owned(), kind);
    }
    let parameters = merged(scaling, json!({"rope_theta": theta}));
    let new = merged(base, json!({"rope_parameters": parameters}));
    [classic, old, new].map(rope_of)
}

#[test]
fn frequencies_are_those_of_transformers() {
    let yarn = |more: Value| {
        let common =
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048});
        merged(common, more)
    };
    let llama3 = |factor: f64, original: usize| {
        json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": original})
    };
    let yarned = "1.0 0.31622776601683794 0.1 0.02569350598886808 \
     0.00625 0.0013834964763236657 0.00025 7.905694150420948e-05";
    let linear = "0.25 0.07905694150420949 0.025 0.007905694150420948 \
     0.0025 0.0007905694150420947 0.00025 7.905694150420948e-05";
    let cases = [
        (
            "default",
            8192,
            500_000.0,
            json!({"rope_type": "default"}),
            "1.0 0.19392274474868576 0.03760603093086393 0.0072926647372171085 \
     0.001414213562373095 0.0002742481756762073 5.318295896944989e-05 1.031338537721246e-05",
            1.0,
        ),
        ("linear", 8192, 1e4, json!({"rope_type": "linear", "factor": 4}), linear, 1.0),
        (
            "llama3, of Llama 3.1",
            131_072,
            500_000.0,
            llama3(8.0, 8192),
            "1.0 0.19392274474868576 0.03760603093086393 0.0072926647372171085 \
     0.0005248461609929547 3.428102195952591e-05 6.647869871181236e-06 1.2891731721515574e-06",
            1.0,
        ),
        (
            "llama3, short",
            1024,
            1e4,
            llama3(32.0, 256),
            "1.0 0.31622776601683794 0.1 0.003933498786772242 \
     0.0003125 9.882117688026184e-05 3.125e-05 9.882117688026186e-06",
            1.0,
        ),
        ("yarn", 8192, 1e4, yarn(json!({})), yarned, 1.138629436111989),
        (
            "yarn, not truncated",
            8192,
            1e4,
            yarn(json!({"truncate": false})),
            "1.0 0.31622776601683794 0.1 0.023870192321736323 \
     0.005056971521129435 0.0008112903817014309 0.00025 7.905694150420948e-05",
            1.138629436111989,
        ),
        (
            "yarn, betas",
            8192,
            1e4,
            yarn(json!({"beta_fast": 16.0, "beta_slow": 2})),
            "1.0 0.31622776601683794 0.1 0.023717082451262847 \
     0.005 0.0007905694150420947 0.00025 7.905694150420948e-05",
            1.138629436111989,
        ),
        (
            "yarn, mscale",
            8192,
            1e4,
            yarn(json!({"mscale": 1.0, "mscale_all_dim": 0.5})),
            yarned,
            1.0648216253695715,
        ),
        // One of the two alone, or a 0, does nothing.
        (
            "yarn, mscale alone",
            8192,
            1e4,
            yarn(json!({"mscale": 0.7, "mscale_all_dim": 0})),
            yarned,
            1.138629436111989,
        ),
        ("yarn, given", 8192, 1e4, yarn(json!({"attention_factor": 1.25})), yarned, 1.25),
        ("yarn, by ratio", 8192, 1e4, yarn(json!({"factor": null})), yarned, 1.138629436111989),
    ];
    for (what, context, theta, scaling, expected, scale) in cases {
        for rope in dialects(context, theta, scaling) {
            check(&rope, 1, expected, scale, what);
            check(&rope, context + 1, expected, scale, what);
        }
    }
}

#[test]
fn dynamic_frequencies_fall_beyond_the_models_own_length() {
    // Llama reads no other length than its context.
    let scaling =
        json!({"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16});
    for rope in dialects(64, 1e4, scaling) {
        check(&rope, 1, DEFAULT, 1.0, "1 token");
        check(&rope, 64, DEFAULT, 1.0, "64 tokens");
        let expected = "1.0 0.3148406951589103 0.09912466332814589 0.031208477909626393 \
     0.00982569887991827 0.003093529865775594 0.0009739690934356386 0.0003066451064405701";
        check(&rope, 65, expected, 1.0, "65 tokens");
        let expected = "1.0 0.2495284675940164 0.062264456139818077 0.01553675432614365 \
     0.0038768624983873293 0.0009673875582953002 0.00024139073499094342 6.0233860193683424e-05";
        check(&rope, 200, expected, 1.0, "200 tokens");
    }
}

fn phi3(more: Value) -> Value {
    let config = json!({
        "model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
        "intermediate_size": 32, "vocab_size": 8, "max_position_embeddings": 8192, "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.35],
            "long_factor": [1.1, 1.5, 3.0, 8.0, 20.0, 40.0],
        },
    });
    merged(config, more)
}

#[test]
fn longrope_switches_beyond_the_original_length() {
    let short = "1.0 0.21121908725802782 0.044205607939169334 \
     0.00909090909090909 0.0017953622416932373 0.0003438213950824279";
    let long = "0.9090909090909091 0.14362897933545893 0.015471962778709266 \
     0.00125 0.00010772173450159422 1.1603972084031941e-05";
    let cases = [
        (json!({"original_max_position_embeddings": 64}), 64, 1.4719601443879746),
        // Without one the class's own counts, even against one in `rope_scaling`.
        (
            json!({"rope_scaling": {"original_max_position_embeddings": 64}}),
            4096,
            1.0408329997330663,
        ),
        (
            json!({"original_max_position_embeddings": 64, "rope_scaling": {"factor": 16.0}}),
            64,
            1.2909944487358056,
        ),
        (
            json!({"original_max_position_embeddings": 64, "rope_scaling": {"attention_factor": 1.5}}),
            64,
            1.5,
        ),
        (json!({"rope_scaling": {"type": "su"}}), 4096, 1.0408329997330663),
        (json!({"rope_scaling": {"type": "yarn"}}), 4096, 1.0408329997330663),
        (json!({"max_position_embeddings": 2048}), 4096, 1.0),
    ];
    for (more, original, scale) in cases {
        let rope = rope_of(phi3(more.clone()));
        check(&rope, original, short, scale, &more.to_string());
        check(&rope, original + 1, long, scale, &more.to_string());
    }
}

#[test]
fn gemma3_rotates_by_two_bases() {
    let config = |more| {
        let base = json!({
            "model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 6, "intermediate_size": 32,
            "head_dim": 16,
        });
        describe(&merged(base, more)).unwrap().ropes
    };
    let global = "1.0 0.1778279410038923 0.03162277660168379 0.005623413251903491 \
     0.001 0.0001778279410038923 3.162277660168379e-05 5.623413251903491e-06";
    let stretched = "0.125 0.022228492625486538 0.003952847075210474 0.0007029266564879363 \
     0.000125 2.2228492625486538e-05 3.952847075210474e-06 7.029266564879363e-07";
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    let cases = [
        (json!({}), global),
        (json!({"rope_scaling": null}), global),
        (json!({"rope_scaling": linear}), stretched),
        (
            json!({"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": linear}),
            stretched,
        ),
        (
            json!({"rope_parameters": {"full_attention": linear, "sliding_attention": null}}),
            stretched,
        ),
        (
            json!({"rope_parameters": {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}}}),
            global,
        ),
    ];
    for (more, expected) in cases {
        let ropes = config(more.clone());
        check(&ropes[0], 1, expected, 1.0, &more.to_string());
        check(&ropes[1], 1, DEFAULT, 1.0, &more.to_string());
    }
}

#[test]
fn impossible_parameters_are_errors() {
    let scaled = |scaling: Value| merged(llama(), json!({"rope_scaling": scaling}));
    let cases = [
        (
            scaled(json!({"type": "mrope"})),
            "`rope_scaling.rope_type` \"mrope\" is not supported; default, linear",
        ),
        (scaled(json!({"type": 3})), "`rope_scaling.type` must be a string"),
        (scaled(json!([])), "`rope_scaling` must be an object"),
        (scaled(json!({"type": "linear"})), "`rope_scaling.factor` is missing"),
        (
            scaled(json!({"type": "linear", "factor": 0})),
            "`rope_scaling.factor` must be a number above 0, is 0",
        ),
        (
            scaled(json!({"type": "dynamic", "factor": -2.0})),
            "`rope_scaling.factor` must be a number above 0",
        ),
        (
            scaled(json!({"type": "linear", "factor": "2"})),
            "`rope_scaling.factor` must be a number above 0",
        ),
        (
            scaled(json!({"type": "linear", "factor": 1e300})),
            "`rope_scaling.factor` must be a number above 0",
        ),
        (
            scaled(
                json!({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            ),
            "`rope_scaling.high_freq_factor` must be above low_freq_factor (4), is 4",
        ),
        (
            scaled(json!({"type": "llama3", "factor": 8})),
            "`rope_scaling.low_freq_factor` is missing",
        ),
        (
            scaled(json!({"type": "yarn", "original_max_position_embeddings": 0})),
            "`rope_scaling.original_max_position_embeddings` must be a whole number from 1",
        ),
        (
            scaled(json!({"type": "yarn", "truncate": 1})),
            "`rope_scaling.truncate` must be true or false",
        ),
        (
            scaled(json!({"type": "longrope", "short_factor": [1.0]})),
            "`rope_scaling.short_factor` must have 8 entries, has 1",
        ),
        (scaled(json!({"type": "longrope"})), "`rope_scaling.short_factor` is missing"),
        (merged(llama(), json!({"rope_theta": 1.0})), "`rope_theta` must be above 1, is 1"),
        (merged(llama(), json!({"rope_theta": -1})), "`rope_theta` must be a number above 0"),
        (
            merged(llama(), json!({"partial_rotary_factor": 0.5})),
            "`partial_rotary_factor` must be 1 in this family",
        ),
        (
            merged(llama(), json!({"head_dim": 15})),
            "`head_dim` leaves 15 columns of a head to rotate",
        ),
        (
            merged(
                llama(),
                json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            ),
            "`rope_parameters` differs by layer",
        ),
        (
            phi3(json!({"partial_rotary_factor": 0.7})),
            "`rope_scaling.partial_rotary_factor` leaves 11 columns",
        ),
        (
            phi3(json!({"partial_rotary_factor": 1.5})),
            "`rope_scaling.partial_rotary_factor` must be at most 1",
        ),
        (phi3(json!({"rope_scaling": {"type": "linear"}})), "\"linear\" is not supported"),
        (
            phi3(json!({"rope_scaling": {"long_factor": [1, 2, 3, 4, 5, 0]}})),
            "`rope_scaling.long_factor` must be a list of numbers above 0",
        ),
        (phi3(json!({"original_max_position_embeddings": 1})), "give no finite frequencies"),
        (
            json!({
                "model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 6, "intermediate_size": 32,
                "rope_parameters": {"rope_type": "default"},
            }),
            "`rope_parameters` must have full_attention and sliding_attention",
        ),
    ];
    for (config, expected) in cases {
        let found = error(&config);
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}
