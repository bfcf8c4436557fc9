//! What a step gives of its wanted rows: all logits, or only those that can be chosen.

use std::ops::Range;

/// The most of [`Ask::Largest`].
pub const MOST_LARGEST: usize = 64;

/// Which logits of a wanted row can make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// All of them.
    All,
    /// So many of the largest, from 1 to [`MOST_LARGEST`]; of equal ones those with the lower ids, and −0 equals 0.
    Largest(usize),
}

/// What is asked of a step.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Ids from here on are padding, and never among the largest.
    pub columns: usize,
    /// Of each wanted row, in order.
    pub rows: Vec<Ask>,
}

/// The logits of a step's wanted rows. Whoever is asked for the largest of a row may give all.
#[derive(Debug, Default)]
pub struct Logits {
    numbers: Vec<f32>,
    ids: Vec<u32>,
    rows: Vec<Found>,
}

/// Where a row is.
#[derive(Debug, Clone)]
enum Found {
    /// In `numbers`.
    All(Range<usize>),
    /// In `numbers` and in `ids`.
    Largest(Range<usize>, Range<usize>),
}

/// A row's logits, which may be changed.
#[derive(Debug, PartialEq)]
pub enum Row<'a> {
    /// One per vocabulary entry.
    All(&'a mut [f32]),
    /// Those of these ids, which ascend. Where any logit of the row was NaN or +∞, all of these are NaN.
    Largest(&'a [u32], &'a mut [f32]),
}

impl Logits {
    /// `rows` rows of equal length, one after the other.
    pub fn all(numbers: Vec<f32>, rows: usize) -> Self {
        let vocab = numbers.len() / rows.max(1);
        let rows = (0..rows).map(|i| Found::All(i * vocab..(i + 1) * vocab)).collect();
        Self { numbers, ids: Vec::new(), rows }
    }

    /// The memory of its rows, for others.
    pub fn into_numbers(self) -> Vec<f32> {
        self.numbers
    }

    /// Adds a row of `vocab` logits; they are to be written to what this gives.
    pub fn push_all(&mut self, vocab: usize) -> &mut [f32] {
        let begin = self.numbers.len();
        self.numbers.resize(begin + vocab, 0.0);
        self.rows.push(Found::All(begin..self.numbers.len()));
        &mut self.numbers[begin..]
    }

    /// Adds a row of which these `(id, logit)` are the largest, in any order.
    pub fn push_largest(&mut self, mut largest: Vec<(u32, f32)>) {
        largest.sort_unstable_by_key(|(id, _)| *id);
        let (ids, numbers) = (self.ids.len(), self.numbers.len());
        self.ids.extend(largest.iter().map(|(id, _)| id));
        self.numbers.extend(largest.iter().map(|(_, logit)| logit));
        self.rows.push(Found::Largest(numbers..self.numbers.len(), ids..self.ids.len()));
    }

    /// Row `i`, if there is one.
    pub fn row(&mut self, i: usize) -> Option<Row<'_>> {
        Some(match self.rows.get(i)?.clone() {
            Found::All(numbers) => Row::All(&mut self.numbers[numbers]),
            Found::Largest(numbers, ids) => {
                Row::Largest(&self.ids[ids], &mut self.numbers[numbers])
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_kinds_are_found_where_they_are() {
        let mut logits = Logits::all(vec![1.0, 2.0, 3.0, 4.0], 2);
        logits.push_largest(vec![(7, 0.5), (3, 0.25)]);
        logits.push_all(2).copy_from_slice(&[5.0, 6.0]);
        assert_eq!(logits.row(1), Some(Row::All(&mut [3.0, 4.0])));
        assert_eq!(logits.row(2), Some(Row::Largest(&[3, 7], &mut [0.25, 0.5])));
        assert_eq!(logits.row(3), Some(Row::All(&mut [5.0, 6.0])));
        assert_eq!(logits.row(4), None);
        assert_eq!(Logits::all(Vec::new(), 0).row(0), None);
    }
}
