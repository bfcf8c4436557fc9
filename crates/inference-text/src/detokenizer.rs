//! Tokens to text, one at a time: characters come whole, spaces where they belong.

use crate::Tokenizer;
use inference_core::Result;
use std::sync::Arc;

/// Tokens that are decoded again with each new one, before most of them are dropped.
const WINDOW: usize = 16;

/// Tokens that stay: enough to hold all bytes of an incomplete character.
const KEPT: usize = 4;

/// What stands for bytes that are no character, or not one yet.
const REPLACEMENT: char = '\u{fffd}';

/// Decodes a sequence that grows. The joined texts equal the decoding of all tokens.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The newest tokens that give text. The first ones are there for what they do to the text of those behind them:
    /// a tokenizer may drop the space before the first token of a text.
    window: Vec<u32>,
    /// Bytes of the window's text that have been given out.
    given: usize,
    /// Some of the window's text has not been given out, for a later token may change it.
    held: bool,
}

impl Detokenizer {
    /// At the beginning of a text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, window: Vec::new(), given: 0, held: false }
    }

    /// Whether some text is held back.
    pub fn holds(&self) -> bool {
        self.held
    }

    /// Adds a token. Gives the text that is settled by it: no later token changes it.
    ///
    /// # Errors
    /// What the decoder says; it has no errors for tokens that exist.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.tokenizer.is_silent(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        if self.tokenizer.is_byte(id) {
            // One invalid byte makes its whole run invalid, so nothing is settled before the run has ended.
            self.held = true;
            return Ok(String::new());
        }
        let text = self.tokenizer.decode_known(&self.window)?;
        // Bytes that begin a character are decoded as one replacement until the rest comes.
        let settled = text.strip_suffix(REPLACEMENT).unwrap_or(&text).len();
        self.held = settled < text.len();
        let new = text.get(self.given..settled).unwrap_or_default().to_owned();
        self.given = settled.max(self.given);
        self.shorten()?;
        Ok(new)
    }

    /// Drops the oldest tokens of a window that has become long.
    fn shorten(&mut self) -> Result<()> {
        if self.window.len() < WINDOW {
            return Ok(());
        }
        self.window.drain(..self.window.len() - KEPT);
        let text = self.tokenizer.decode_known(&self.window)?;
        let held = if self.held { text.strip_suffix(REPLACEMENT) } else { None };
        self.given = held.unwrap_or(&text).len();
        Ok(())
    }

    /// The text that was held back, at the end.
    pub fn finish(&mut self) -> String {
        // What fails now has failed at a token before.
        let text = self.tokenizer.decode_known(&self.window).unwrap_or_default();
        self.window.clear();
        self.held = false;
        text.get(std::mem::take(&mut self.given)..).unwrap_or_default().to_owned()
    }
}
