//! Prompts of an exact number of tokens.

use crate::{Result, make_model::hash};
use inference::TextModel;

/// Short texts that fill up what is missing; one of them is one more token, whatever stands before.
const FILLERS: [&str; 8] = [" a", " the", "\n", ".", " 1", "x", "?", " of"];

/// A prompt, for engines that take a text and for those that take tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
}

/// Seeds that are tried before two tokenizers are taken for different ones.
const ATTEMPTS: u64 = 8;

/// A prompt of exactly `tokens` tokens, the same ones for all models; another one for each seed below `1 << 60`.
///
/// # Errors
/// The models read the same texts as different tokens: no comparison would be fair.
pub(super) fn common(models: &[&dyn TextModel], tokens: usize, seed: u64) -> Result<Prompt> {
    let (first, others) = models.split_first().ok_or("a prompt needs a model's tokenizer")?;
    for attempt in 0..ATTEMPTS {
        // Tokenizers differ most in what is no ASCII.
        let ascii = attempt >= ATTEMPTS / 2;
        let text = of_tokens(*first, tokens, seed * ATTEMPTS + attempt, ascii)?;
        let ids = first.tokenise(&text).map_err(|e| e.to_string())?;
        let same = |model: &&dyn TextModel| {
            model.tokenise(&text).map(|theirs| theirs == ids).map_err(|e| e.to_string())
        };
        if others.iter().map(same).collect::<Result<Vec<_>>>()?.into_iter().all(|same| same) {
            return Ok(Prompt { text, ids });
        }
    }
    Err(format!("the backends read {ATTEMPTS} texts of {tokens} tokens as different tokens"))
}

/// A text of random tokens that is encoded as exactly `tokens` of them; another one for each seed.
fn of_tokens(model: &dyn TextModel, tokens: usize, seed: u64, ascii: bool) -> Result<String> {
    let count = |text: &str| model.tokenise(text).map(|ids| ids.len()).map_err(|e| e.to_string());
    let vocab = model.info().vocab_size as u64;
    let piece = |n: u64| {
        let id = (hash(hash(seed).wrapping_add(n)) % vocab) as u32;
        // Special tokens have no text, padding is no token, bytes alone are no character: other ids take their place.
        let text = model.detokenise(&[id]).ok()?;
        let plain = !text.is_empty() && !text.contains(|c: char| c == '\u{fffd}' || c.is_control());
        (plain && (!ascii || text.is_ascii())).then_some(text)
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
