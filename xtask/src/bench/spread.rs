//! Medians, and how far the values lie apart.

use serde::Serialize;

/// Several values of the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (first, last) = (*all.first()?, *all.last()?);
        let n = all.len();
        let median = f64::midpoint(all[(n - 1) / 2], all[n / 2]);
        Some(Self { median, min: first, max: last })
    }

    /// The ratio of the medians, and the least and the greatest ratio of two values that were measured side by side.
    ///
    /// `None` where there are no pairs, or nothing to divide by.
    pub(super) fn ratio(values: &[f64], to: &[f64]) -> Option<Self> {
        let pairs: Vec<f64> =
            values.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(a, b)| a / b).collect();
        let (spread, a, b) =
            (Self::of(pairs)?, Self::of(values.iter().copied())?, Self::of(to.iter().copied())?);
        (b.median > 0.0).then(|| Self { median: a.median / b.median, ..spread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([3.0, 1.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_spread_of_pairs() {
        // The machine slows down by half: the pairs hardly notice.
        let ratio = Spread::ratio(&[20.0, 18.0, 10.0], &[10.0, 10.0, 5.0]);
        assert_eq!(ratio, Some(Spread { median: 1.8, min: 1.8, max: 2.0 }));
        assert_eq!(Spread::ratio(&[], &[1.0]), None);
        assert_eq!(Spread::ratio(&[1.0], &[0.0]), None);
    }
}
