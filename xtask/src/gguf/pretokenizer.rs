//! Which of llama.cpp's pre-tokenizers splits a text as that of a byte-level tokenizer does.
//!
//! Their regular expressions: `llm_tokenizer_bpe` of llama.cpp's `src/llama-vocab.cpp`, which also cites the originals.

use crate::Result;
use serde_json::Value;

/// llama.cpp's name, and the regular expressions of the tokenizers that it is for, one after another.
const KNOWN: [(&str, &[&str]); 7] = [
    (
        "llama-bpe",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "qwen2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "qwen35",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "tekken",
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "gpt-4o",
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    ("gpt-2", &[GPT_2]),
    ("smollm", &[DIGIT, GPT_2]),
];

/// What `ByteLevel` splits by when it is to split.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What `Digits` splits by when it takes them one by one.
const DIGIT: &str = r"\p{N}";

/// The name for a byte-level `pre_tokenizer`; `None` for one that is not byte-level.
pub(super) fn of(pre_tokenizer: &Value) -> Result<Option<&'static str>> {
    let parts = match pre_tokenizer["pretokenizers"].as_array() {
        Some(all) => all.iter().collect(),
        None => vec![pre_tokenizer],
    };
    if !parts.iter().any(|part| part["type"] == "ByteLevel") {
        return Ok(None);
    }
    let mut expressions = Vec::new();
    for part in parts {
        match part["type"].as_str() {
            Some("Split") if part["pattern"]["Regex"].is_string() && part["invert"] != true => {
                expressions.extend(part["pattern"]["Regex"].as_str());
            }
            Some("ByteLevel") if part["add_prefix_space"] == true => {
                return Err(
                    "the tokenizer puts a space before each text, which llama.cpp does not"
                        .to_owned(),
                );
            }
            Some("ByteLevel") if part["use_regex"] == false => {}
            Some("ByteLevel") => expressions.push(GPT_2),
            Some("Digits") if part["individual_digits"] == true => expressions.push(DIGIT),
            _ => return Err(format!("the pre-tokenizer {part} is not known")),
        }
    }
    match KNOWN.iter().find(|(_, known)| *known == expressions) {
        Some((name, _)) => Ok(Some(name)),
        None => Err(format!("no pre-tokenizer of llama.cpp is known to split by {expressions:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pre_tokenizer_is_known_by_what_it_splits_by() {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
        let split =
            |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "invert": false});
        let sequence = |parts: &[Value]| json!({"type": "Sequence", "pretokenizers": parts});
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(of(&bytes(true)), Ok(Some("gpt-2")));
        assert_eq!(of(&sequence(&[digits, bytes(true)])), Ok(Some("smollm")));
        for (name, expressions) in &KNOWN[..5] {
            assert_eq!(of(&sequence(&[split(expressions[0]), bytes(false)])), Ok(Some(*name)));
        }
        assert_eq!(of(&Value::Null), Ok(None));
        assert!(of(&sequence(&[split("x+"), bytes(false)])).unwrap_err().contains("x+"));
        assert!(of(&sequence(&[split(" ")])).unwrap().is_none());
    }
}
