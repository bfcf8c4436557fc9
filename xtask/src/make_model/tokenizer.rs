//! A made-up byte-level BPE tokenizer with the vocabulary size of the real one.
//!
//! Its tokens are the 256 bytes, then letters after a space, then runs of two, three and four letters, each also after
//! a space, each with the merge that makes it. Any text can be encoded; any ids decode to text.

use super::shapes::Special;
use serde_json::{Map, Value, json};

/// Splits text before merging, as Qwen 2 and 3 do.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a byte-level vocabulary writes a space.
const SPACE: char = 'Ġ';

/// ChatML, with the BOS where there is one.
pub(super) const CHAT_TEMPLATE: &str = "{{- bos_token if bos_token }}\
{%- for message in messages %}\
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{%- endfor %}\
{%- if add_generation_prompt %}\
{{- '<|im_start|>assistant\\n' }}\
{%- endif %}";

/// `tokenizer.json` with exactly `vocab` tokens.
pub(super) fn tokenizer(vocab: usize, special: &Special) -> Value {
    let specials = specials(special);
    let mut tokens = Map::new();
    let mut merges = Vec::new();
    let mut texts = made_up();
    for id in 0..vocab as u32 {
        let text = match specials.iter().find(|(special, _)| *special == id) {
            Some((_, text)) => (*text).to_owned(),
            None => {
                let (text, merge) = texts.next().expect("there are more made-up tokens than ids");
                merges.extend(merge.map(|(left, right)| json!([left, right])));
                text
            }
        };
        tokens.insert(text, id.into());
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": specials.iter().map(|(id, text)| added(Some(*id), text)).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": PATTERN }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        ]},
        "post_processor": special.bos.map(|(id, text)| json!({
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": text, "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "SpecialToken": { "id": text, "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { text: { "id": text, "ids": [id], "tokens": [text] } },
        })),
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": tokens,
            "merges": merges,
        },
    })
}

/// `tokenizer_config.json`.
pub(super) fn tokenizer_config(special: &Special, context: u64) -> Value {
    let mut decoder = Map::new();
    for (id, text) in specials(special) {
        decoder.insert(id.to_string(), added(None, text));
    }
    json!({
        "add_bos_token": special.bos.is_some(),
        "added_tokens_decoder": decoder,
        "bos_token": special.bos.map(|(_, text)| text),
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": special.stop.1,
        "model_max_length": context,
        "pad_token": special.end.1,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    })
}

fn specials(special: &Special) -> Vec<(u32, &'static str)> {
    let mut all: Vec<_> =
        special.bos.into_iter().chain([special.end, special.start, special.stop]).collect();
    all.sort_unstable();
    all
}

fn added(id: Option<u32>, text: &str) -> Value {
    let mut token = json!({
        "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
    });
    if let Some(id) = id {
        token["id"] = id.into();
    }
    token
}

/// A token, and the two that it is merged from.
type MadeUp = (String, Option<(String, String)>);

/// Bytes first, then what is merged from tokens before.
fn made_up() -> impl Iterator<Item = MadeUp> {
    let bytes = (0..=255).map(|b| (byte(b).to_string(), None));
    let letters =
        letters().map(|l| (format!("{SPACE}{l}"), Some((SPACE.to_string(), l.to_string()))));
    let both = |left: String, right: String| {
        let run = format!("{left}{right}");
        let after_space =
            (format!("{SPACE}{run}"), Some((format!("{SPACE}{left}"), right.clone())));
        [(run, Some((left, right))), after_space]
    };
    bytes
        .chain(letters)
        .chain(
            runs(1)
                .flat_map(move |l| self::letters().map(move |r| (l.clone(), r.to_string())))
                .flat_map(move |(l, r)| both(l, r)),
        )
        .chain(
            runs(2)
                .flat_map(move |l| self::letters().map(move |r| (l.clone(), r.to_string())))
                .flat_map(move |(l, r)| both(l, r)),
        )
        .chain(
            runs(2)
                .flat_map(move |l| runs(2).map(move |r| (l.clone(), r)))
                .flat_map(move |(l, r)| both(l, r)),
        )
}

fn letters() -> impl Iterator<Item = char> {
    'a'..='z'
}

/// All runs of so many letters.
fn runs(len: u32) -> impl Iterator<Item = String> {
    let all = 26_u32.pow(len);
    (0..all).map(move |n| {
        (0..len).rev().map(|at| char::from(b'a' + (n / 26_u32.pow(at) % 26) as u8)).collect()
    })
}

/// How a byte-level vocabulary writes a byte, as GPT-2 does: itself if it is printable, else a character from 256 up.
fn byte(b: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(b) {
        return char::from(b);
    }
    let before = (0..b).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(256 + before).expect("there are 68 of them, all letters from U+0100")
}

#[cfg(test)]
mod tests {
    use super::super::shapes::Shape;
    use super::*;
    use tokenizers::Tokenizer;

    fn load(shape: Shape) -> Tokenizer {
        let json = tokenizer(shape.vocab(), &shape.special()).to_string();
        json.parse().expect("it is a tokenizer")
    }

    #[test]
    fn text_makes_the_round_trip() {
        let tokenizer = load(Shape::Tiny);
        assert_eq!(tokenizer.get_vocab_size(true), 1024);
        for text in
            ["Hello, world!", " the quick brown fox\n\n", "naïve 日本語 🦀", "a  b\tc 12345", ""]
        {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), text);
        }
        let ids = tokenizer.encode("<|im_start|>user\nhi<|im_end|>", true).unwrap();
        assert_eq!((ids.get_ids()[0], ids.get_ids().last()), (1022, Some(&1023)));
    }

    #[test]
    fn every_id_has_a_text() {
        let tokenizer = load(Shape::Tiny);
        assert!((0..1024).all(|id| tokenizer.id_to_token(id).is_some()));
        let merged = tokenizer.encode(" ab", true).unwrap();
        assert_eq!(merged.get_ids().len(), 1, "{:?}", merged.get_tokens());
    }

    #[test]
    fn a_large_vocabulary_with_special_tokens_amid_it_loads() {
        let tokenizer = load(Shape::Gemma3);
        assert_eq!(tokenizer.get_vocab_size(true), 262_144);
        let ids = tokenizer.encode("four score<|im_end|>", true).unwrap();
        assert_eq!((ids.get_ids()[0], ids.get_ids().last()), (2, Some(&106)));
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), "four score");
    }
}
