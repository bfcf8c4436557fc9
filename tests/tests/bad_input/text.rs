//! Tokenizers and chat templates.

use crate::support::{
    Breakage, Checkpoint, Expected, PROMPT, answer, check, check_alive, check_loading,
    within_limits,
};
use inference::{ClassifyOptions, Error, GenerateOptions, Message};
use serde_json::{Value, json};

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The error about a file.
const fn invalid<'a>(says: &'a [&'a str]) -> Expected<'a> {
    ("InvalidFile", says)
}

/// Sets a part of `tokenizer.json`.
fn part(checkpoint: &Checkpoint, name: &str, value: Value) {
    checkpoint.edit(FILE, |tokenizer| tokenizer[name] = value);
}

#[test]
fn a_damaged_tokenizer_is_an_error() {
    let cases: &[Breakage<'_>] = &[
        ("missing", |c| c.remove(FILE), ("NotAModel", &["there is no tokenizer.json"])),
        (
            "only tokenizer.model",
            |c| {
                c.remove(FILE);
                c.write("tokenizer.model", "x");
            },
            ("NotAModel", &["tokenizer.model", "no tokenizer.json", "transformers"]),
        ),
        ("empty", |c| c.write(FILE, ""), invalid(&[FILE])),
        ("not JSON", |c| c.write(FILE, "tokenizer"), invalid(&[FILE, "line 1"])),
        ("not text", |c| c.write(FILE, [0xff; 99]), invalid(&[FILE])),
        ("a list", |c| c.write(FILE, "[]"), invalid(&[FILE])),
        (
            "no model",
            |c| {
                c.edit(FILE, |t| {
                    t.as_object_mut().expect("is").shift_remove("model");
                })
            },
            invalid(&[FILE, "Model missing"]),
        ),
        ("unknown model", |c| part(c, "model", json!({"type": "Oracle"})), invalid(&[FILE])),
        ("nested endlessly", |c| c.write(FILE, "{\"model\":".repeat(100_000)), invalid(&[FILE])),
        (
            "empty vocabulary",
            |c| {
                part(c, "model", json!({"type": "BPE", "vocab": {}, "merges": []}));
                part(c, "added_tokens", json!([]));
                part(c, "post_processor", Value::Null);
            },
            invalid(&[FILE, "vocabulary is empty"]),
        ),
        (
            "negative id",
            |c| c.edit(FILE, |t| t["model"]["vocab"]["a"] = json!(-1)),
            invalid(&[FILE]),
        ),
        (
            "merges of no token",
            |c| c.edit(FILE, |t| t["model"]["merges"] = json!([["€", "€"]])),
            invalid(&[FILE, "€"]),
        ),
        (
            "merge that gives no token",
            |c| c.edit(FILE, |t| t["model"]["merges"] = json!([["!", "#"]])),
            invalid(&[FILE, "!#"]),
        ),
        (
            "merge of one half",
            |c| c.edit(FILE, |t| t["model"]["merges"] = json!(["!"])),
            invalid(&[FILE]),
        ),
        (
            "broken pattern",
            |c| {
                part(
                    c,
                    "pre_tokenizer",
                    json!({"type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated", "invert": false}),
                )
            },
            invalid(&[FILE]),
        ),
        (
            "post-processor asks for a token that is not there",
            |c| {
                part(
                    c,
                    "post_processor",
                    json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}),
                )
            },
            invalid(&[FILE]),
        ),
        (
            "post-processor asks for a second text",
            |c| {
                part(
                    c,
                    "post_processor",
                    json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}}),
                )
            },
            invalid(&[FILE, "inconsistent"]),
        ),
        (
            "unigram whose unknown token is beyond the end",
            |c| part(c, "model", json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]]})),
            invalid(&[FILE]),
        ),
        (
            "doubles a text forty times",
            |c| {
                part(
                    c,
                    "normalizer",
                    json!({"type": "Sequence", "normalizers": vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}); 40]}),
                )
            },
            invalid(&[FILE, "normalizer", "64 times"]),
        ),
        (
            "doubles its output forty times",
            |c| {
                part(
                    c,
                    "decoder",
                    json!({"type": "Sequence", "decoders": vec![json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}); 40]}),
                )
            },
            invalid(&[FILE, "decoder", "64 times"]),
        ),
        (
            "character map is garbage",
            |c| {
                part(
                    c,
                    "normalizer",
                    json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
                )
            },
            invalid(&[FILE]),
        ),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn a_damaged_tokenizer_config_is_an_error() {
    let cases: &[Breakage<'_>] = &[
        ("a list", |c| c.write(CONFIG, "[]"), invalid(&[CONFIG, "not a JSON object"])),
        ("empty", |c| c.write(CONFIG, ""), invalid(&[CONFIG, "not JSON"])),
        ("not JSON", |c| c.write(CONFIG, "{bos_token: 1}"), invalid(&[CONFIG, "not JSON"])),
        (
            "template is a number",
            |c| {
                c.remove(TEMPLATE);
                c.edit(CONFIG, |t| t["chat_template"] = json!(5));
            },
            invalid(&[CONFIG, "`chat_template`"]),
        ),
        (
            "template in a list has no name",
            |c| {
                c.remove(TEMPLATE);
                c.edit(CONFIG, |t| t["chat_template"] = json!([{"template": "x"}]));
            },
            invalid(&[CONFIG, "`chat_template`", "`name`"]),
        ),
        (
            "template is not text",
            |c| c.write(TEMPLATE, [0xff; 99]),
            invalid(&[TEMPLATE, "not UTF-8"]),
        ),
        (
            "template too large",
            |c| c.write(TEMPLATE, vec![b' '; (1 << 20) + 1]),
            invalid(&[TEMPLATE, "larger than"]),
        ),
        (
            "special_tokens_map is a text",
            |c| c.write("special_tokens_map.json", "\"<s>\""),
            invalid(&["special_tokens_map.json", "not a JSON object"]),
        ),
    ];
    check_loading("qwen3", cases);
}

/// What only shows when a text passes through.
#[test]
fn a_tokenizer_that_fails_at_work_is_an_error_of_the_call() {
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "<unk>"});
    let strip = json!({"type": "Strip", "content": "!", "start": 0, "stop": 9});
    let beyond = json!({"type": "WordLevel", "vocab": {"far": 600}, "unk_token": "far"});
    let cases: [(&str, Value, &str, Expected<'_>); 3] = [
        ("model", words, "c", ("InvalidPrompt", &["can't be encoded"])),
        ("model", beyond, "far", ("InvalidPrompt", &["token 600", "ends at 520"])),
        (
            "decoder",
            strip,
            "a!",
            ("InvalidPrompt", &["can't be decoded", "the tokenizer is inconsistent"]),
        ),
    ];
    for (name, value, prompt, expected) in cases {
        let prompt = prompt.to_owned();
        let results = within_limits(name, move || {
            let checkpoint = Checkpoint::of("qwen3");
            part(&checkpoint, name, value);
            let model = checkpoint.load();
            // Whatever the prompt, the answer is `!`.
            let options = GenerateOptions::default().max_tokens(3).logit_bias([(0, 1e9)]);
            // Twice: the first must not have been the end of the engine.
            [(); 2].map(|()| model.generate(&prompt, &options).and_then(|stream| stream.text()))
        });
        results.into_iter().for_each(|result| check(name, result, expected));
    }
}

#[test]
fn a_chat_that_can_not_be_rendered_is_an_error() {
    within_limits("chat", || {
        let model = Checkpoint::of("qwen3").load();
        let before = answer(&*model);
        let mut options = GenerateOptions::default().max_tokens(4);
        let empty: Expected<'_> = ("InvalidPrompt", &["at least one message"]);
        check("no message", model.chat(&[], &options), empty);
        check_alive("no message", &*model, &before);
        let long = "word ".repeat(20_000);
        let too_long: Expected<'_> = ("ContextExceeded", &["context of 4096"]);
        check("long message", model.chat(&[Message::user(long)], &options), too_long);
        check_alive("long message", &*model, &before);
        options.render.template = Some("oracle".to_owned());
        let unknown: Expected<'_> = ("ChatTemplate", &["oracle", "default"]);
        check("unknown template", model.chat(&[Message::user("Hello")], &options), unknown);
        check_alive("unknown template", &*model, &before);
    });
}

/// What a chat with `template` ends with: the checkpoint may be refused, or the call. Where only the call is, the model
/// still answers other calls.
fn chat(name: &str, template: &str) -> Result<String, Error> {
    let checkpoint = Checkpoint::of("qwen3");
    checkpoint.write(TEMPLATE, template);
    within_limits(name, move || {
        let model = inference::load_model(checkpoint.path(), &Default::default())?;
        let before = answer(&*model);
        let options = GenerateOptions::default().max_tokens(4);
        let result = model.chat(&[Message::user("Hello")], &options).and_then(|s| s.text());
        check_alive("chat", &*model, &before);
        result
    })
}

#[test]
fn a_bad_template_is_an_error() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("unclosed tag", "{% if messages %}", &[]),
        ("unknown tag", "{% frobnicate %}", &["frobnicate"]),
        ("unknown filter", "{{ messages | frobnicate }}", &["frobnicate"]),
        ("garbage", "{{ (((", &[]),
        (
            "refusal",
            "{{ raise_exception('only poems are answered') }}",
            &["only poems are answered"],
        ),
        ("division by zero", "{{ 1 // 0 }}", &[]),
        ("attribute of nothing", "{{ nothing.at.all }}", &[]),
        ("no function", "{{ frobnicate(1) }}", &["frobnicate"]),
        ("includes a file", "{% include '/etc/passwd' %}", &[]),
        (
            "endless",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}{% endfor %}",
            &[],
        ),
        ("long range", "{{ range(99999999999) | list | length }}", &[]),
        ("endless recursion", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", &[]),
        (
            "doubles a text",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        (
            "doubles with plus",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        (
            "doubles a list",
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        ("multiplies a text", "{{ 'a' * 9999999999 }}", &[]),
        (
            "replaces and grows",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x | replace('a', 'aaaaaaaa') %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        (
            "method replaces and grows",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x.replace('a', 'aaaaaaaa') %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        (
            "joins and grows",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x, ns.x] | join(ns.x) %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        (
            "captures and grows",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}{{ ns.x }}",
            &[],
        ),
        ("indents without end", "{{ 'a\\nb' | indent(99999999999) }}", &[]),
        ("centres without end", "{{ 'a'.center(99999999999) }}", &[]),
        ("formats without end", "{{ '%99999999999d' | format(1) }}", &[]),
        (
            "writes more than fits",
            "{% for i in range(50000) %}a long line of text that goes on and on {% endfor %}",
            &[],
        ),
    ];
    for (name, template, says) in cases {
        match chat(name, template) {
            // A long text is the caller's to shorten.
            Err(Error::ContextExceeded { .. }) if *name == "writes more than fits" => {}
            Err(error @ Error::InvalidFile { .. }) => {
                check::<()>(name, Err(error), ("InvalidFile", &[TEMPLATE]));
            }
            result => {
                check(name, result.map(drop), ("ChatTemplate", says));
            }
        }
    }
}

#[test]
fn without_a_template_only_chat_fails() {
    let checkpoint = Checkpoint::of("qwen3");
    checkpoint.remove(TEMPLATE);
    within_limits("no template", move || {
        let model = checkpoint.load();
        let before = answer(&*model);
        let options = GenerateOptions::default();
        let folder = checkpoint.path().display().to_string();
        let expected: Expected<'_> = ("NoChatTemplate", &[&folder, "generate", TEMPLATE]);
        check("chat", model.chat(&[Message::user("Hello")], &options), expected);
        check("render", model.render(&[Message::user("Hello")], &options.render), expected);
        check_alive("no template", &*model, &before);
        assert!(model.classify(&[PROMPT], &ClassifyOptions::default())[0].is_ok());
    });
}
