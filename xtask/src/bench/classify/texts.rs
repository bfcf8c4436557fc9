//! What is classified: made-up sentences behind the instruction of the contract.

use super::ways::WARM_UP;
use crate::{Result, bench::prompt, make_model::hash};
use inference::TextModel;
use std::ops::Range;

/// Tokens of a sentence.
const SENTENCE: Range<usize> = 12..21;

/// Tokens before a sentence.
const INSTRUCTION: usize = 60;

/// Categories that people classify by.
const CATEGORIES: [&str; 4] = ["technical", "creative", "ethical", "casual"];

/// Sentences, as prompts.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) prompts: Vec<String>,
    /// Others, for the warm-up.
    pub(super) warm_up: Vec<String>,
    /// Each one token.
    pub(super) labels: Vec<String>,
    /// Tokens that all prompts have in common at their beginning.
    pub(super) shared: usize,
    /// Of each prompt, the tokens behind those.
    pub(super) suffixes: Vec<usize>,
}

impl Texts {
    /// So many, the same tokens for all models.
    pub(super) fn new(models: &[&dyn TextModel], sentences: usize) -> Result<Self> {
        let first = *models.first().ok_or("there is no model")?;
        let count =
            |text: &str| first.tokenise(text).map(|ids| ids.len()).map_err(|e| e.to_string());
        let labels = labels(count)?;
        let instruction = instruction(&labels.join(", "), count)?;
        let mut prompts = Vec::new();
        for i in 0..(sentences + WARM_UP) as u64 {
            let tokens = SENTENCE.start as u64 + hash(i) % SENTENCE.len() as u64;
            let sentence = prompt::common(models, tokens as usize, i)?.text;
            prompts.push(format!("{instruction}{}\n\nCategory:", sentence.trim()));
        }
        let warm_up = prompts.split_off(sentences);
        let all = prompts.iter().map(|p| first.tokenise(p)).collect::<inference::Result<Vec<_>>>();
        let all = all.map_err(|e| e.to_string())?;
        let same = |ids: &Vec<u32>| ids.iter().zip(&all[0]).take_while(|(a, b)| a == b).count();
        let shared = all[1..].iter().map(same).min().unwrap_or(0);
        let suffixes = all.iter().map(|ids| ids.len() - shared).collect();
        Ok(Self { prompts, warm_up, labels, shared, suffixes })
    }
}

/// The categories, each cut until it is one token after a space; a real tokenizer has them whole.
fn labels(count: impl Fn(&str) -> Result<usize>) -> Result<Vec<String>> {
    let before = count("Category:")?;
    let mut labels: Vec<String> = Vec::new();
    for category in CATEGORIES {
        let cut = |len: usize| category[..len].to_owned();
        let one = |label: &String| count(&format!("Category: {label}")) == Ok(before + 1);
        let label = (1..=category.len()).rev().map(cut).find(one);
        labels.extend(label.filter(|label| !labels.contains(label)));
    }
    if labels.len() == CATEGORIES.len() {
        Ok(labels)
    } else {
        Err(format!("of the labels only {} are single tokens", labels.join(", ")))
    }
}

/// What stands before the text: the contract's instruction, after as many words as are missing.
fn instruction(labels: &str, count: impl Fn(&str) -> Result<usize>) -> Result<String> {
    let contract = format!("Classify this text into exactly one category: {labels}.\n\nText: ");
    let mut words = String::new();
    // The sentence's first token takes the last space.
    while count(format!("{words}{contract}").trim_end())? < INSTRUCTION {
        words.push_str("You read texts. ");
    }
    while words.pop().is_some() {
        if words.ends_with(' ') && count(format!("{words}{contract}").trim_end())? < INSTRUCTION {
            break;
        }
    }
    Ok(format!("{words}{contract}"))
}
