//! Stop texts: found across token borders, with the text before them delivered.

/// Looks for stop texts in a text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct StopTexts {
    stops: Vec<String>,
    /// What may become a stop text: the longest end of the text so far that one begins with.
    held: String,
}

/// What a piece of text brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Text that is settled.
    pub text: String,
    /// A stop text was found; the text ends here.
    pub stopped: bool,
}

impl StopTexts {
    /// Looks for any of `stops`, none of which is empty.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Whether some text is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Adds a piece of text; gives what can no longer become part of a stop text.
    pub fn push(&mut self, piece: &str) -> Scanned {
        if self.stops.is_empty() {
            return Scanned { text: piece.to_owned(), stopped: false };
        }
        self.held.push_str(piece);
        // The one that ends first, so that the borders of the pieces do not matter; of these the longest.
        let found = |s: &String| self.held.find(s.as_str()).map(|at| (at + s.len(), at));
        if let Some((_, at)) = self.stops.iter().filter_map(found).min() {
            self.held.truncate(at);
            return Scanned { text: std::mem::take(&mut self.held), stopped: true };
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let begins = |at: &usize| self.stops.iter().any(|s| s.starts_with(&self.held[*at..]));
        let keep = (from..self.held.len())
            .filter(|at| self.held.is_char_boundary(*at))
            .find(begins)
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        Scanned { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What is held back, at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(pieces: &[&str], stops: &[&str]) -> (String, bool) {
        let stops: Vec<_> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut scanner = StopTexts::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let scanned = scanner.push(piece);
            text += &scanned.text;
            if scanned.stopped {
                return (text, true);
            }
        }
        (text + &scanner.finish(), false)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces() {
        assert_eq!(scan(&["one\n", "\nUs", "er: two"], &["\n\nUser:"]), ("one".into(), true));
        assert_eq!(scan(&["aab"], &["ab"]), ("a".into(), true));
        assert_eq!(scan(&["a", "a", "b"], &["ab"]), ("a".into(), true));
        assert_eq!(scan(&["abc"], &["c", "b"]), ("a".into(), true));
        assert_eq!(scan(&["ab", "x"], &["abc"]), ("abx".into(), false));
        assert_eq!(scan(&["aé", "é€"], &["é€"]), ("aé".into(), true));
        assert_eq!(scan(&["abc"], &[]), ("abc".into(), false));
    }

    proptest! {
        #[test]
        fn borders_change_nothing(
            text in "[abé]{0,30}",
            stops in proptest::collection::vec("[abé]{1,4}", 0..3),
            borders in proptest::collection::vec(0usize..30, 0..10),
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for border in borders {
                let at = rest.char_indices().map(|(i, _)| i).nth(border % 4).unwrap_or(rest.len());
                pieces.push(&rest[..at]);
                rest = &rest[at..];
            }
            pieces.push(rest);
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            prop_assert_eq!(scan(&pieces, &stops), scan(&[&text], &stops));
            let (got, stopped) = scan(&pieces, &stops);
            prop_assert_eq!(stopped, stops.iter().any(|s| text.contains(s)));
            prop_assert!(text.starts_with(&got) && stops.iter().all(|s| !got.contains(s)));
            prop_assert!(!stopped || stops.iter().any(|s| text[got.len()..].starts_with(s)));
        }
    }
}
