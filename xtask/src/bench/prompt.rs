//! Prompts of an exact number of tokens.

use crate::{Result, make_model::hash};
use inference::TextModel;

/// Short texts that fill up what is missing; one of them is one more token, whatever stands before.
const FILLERS: [&str; 8] = [" a", " the", "\n", ".", " 1", "x", "?", " of"];

/// A text of random tokens that is encoded as exactly `tokens` of them; another one for each seed.
pub(super) fn of_tokens(model: &dyn TextModel, tokens: usize, seed: u64) -> Result<String> {
    let count = |text: &str| model.tokenise(text).map(|ids| ids.len()).map_err(|e| e.to_string());
    let vocab = model.info().vocab_size as u64;
    let piece = |n: u64| {
        let id = (hash(hash(seed).wrapping_add(n)) % vocab) as u32;
        // Special tokens have no text, padding is no token, bytes alone are no character: other ids take their place.
        let text = model.detokenise(&[id]).ok()?;
        let plain = !text.is_empty() && !text.contains(|c: char| c == '\u{fffd}' || c.is_control());
        plain.then_some(text)
    };
    exactly(tokens, piece, count)
}

/// Joins pieces until there are enough tokens, cuts, and fills up.
fn exactly(
    tokens: usize,
    piece: impl Fn(u64) -> Option<String>,
    count: impl Fn(&str) -> Result<usize>,
) -> Result<String> {
    let mut text = String::new();
    let mut pieces = 0;
    while count(&text)? < tokens {
        // At most so many pieces are asked for before a vocabulary is given up that has no texts.
        for _ in 0..tokens.max(64) {
            text.extend(piece(pieces));
            pieces += 1;
        }
        if pieces > 1000 * tokens.max(64) as u64 {
            return Err("the vocabulary has too few tokens with a text".to_owned());
        }
    }
    text.truncate(longest(&text, tokens, &count)?);
    while count(&text)? < tokens {
        let longer = FILLERS.iter().map(|f| format!("{text}{f}"));
        let now = count(&text)?;
        let mut better = None;
        for candidate in longer {
            let then = count(&candidate)?;
            if then > now && then <= tokens {
                better = Some(candidate);
                break;
            }
        }
        text = better.ok_or("no text of exactly so many tokens was found")?;
    }
    Ok(text)
}

/// Bytes of about the longest beginning of at most `tokens` tokens. Longer beginnings have more tokens, nearly always.
fn longest(text: &str, tokens: usize, count: impl Fn(&str) -> Result<usize>) -> Result<usize> {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let (mut low, mut high) = (0, ends.len());
    while high - low > 1 {
        let middle = low.midpoint(high);
        if count(&text[..ends[middle]])? <= tokens { low = middle } else { high = middle }
    }
    Ok(ends[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tokens_is_exact() {
        // One token for BOS, one for each word: pieces of three words overshoot.
        let count = |text: &str| Ok(1 + text.split_whitespace().count());
        let piece = |n: u64| (!n.is_multiple_of(3)).then(|| format!(" one{n} two three"));
        for tokens in [1, 2, 3, 100, 513] {
            assert_eq!(exactly(tokens, piece, count).and_then(|t| count(&t)), Ok(tokens));
        }
    }

    #[test]
    fn a_vocabulary_without_texts_is_an_error() {
        assert!(exactly(5, |_| None, |_| Ok(0)).is_err());
    }
}
