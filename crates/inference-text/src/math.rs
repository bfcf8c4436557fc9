//! What is computed over a whole vocabulary: the exponential function, and the largest number, quickly.

/// `eˣ`, within 2 units in the last place; 0 below −87.3, where it leaves the normal numbers.
///
/// Loops over it are vectorised, which those over [`f32::exp`] are not. Range reduction by ln 2 in two parts and a polynomial of degree 6, as in Cephes' `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.7);
    // Adding 1.5·2²³ rounds to an integer.
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(((shifted.to_bits() as i32) << 23).wrapping_add(127 << 23) as u32);
    if x < -87.3 { 0.0 } else { p * power }
}

/// How many numbers are looked at beside each other, for that is vectorised, and one after the other is not.
const BESIDE: usize = 16;

/// What numbers are at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    /// The largest, NaNs aside; −∞ where there is none.
    pub(crate) max: f32,
    /// Whether none is NaN or +∞.
    pub(crate) finite: bool,
}

/// What `numbers` are at most.
pub(crate) fn extent(numbers: &[f32]) -> Extent {
    let (parts, rest) = numbers.as_chunks::<BESIDE>();
    let mut max = [f32::NEG_INFINITY; BESIDE];
    let mut below = [true; BESIDE];
    let mut take = |i: usize, number: f32| {
        max[i] = if number > max[i] { number } else { max[i] };
        below[i] &= number < f32::INFINITY;
    };
    for part in parts {
        (0..BESIDE).for_each(|i| take(i, part[i]));
    }
    rest.iter().enumerate().for_each(|(i, number)| take(i, *number));
    Extent {
        max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
        finite: below.into_iter().all(|b| b),
    }
}

/// Where `number` is first.
pub(crate) fn position(numbers: &[f32], number: f32) -> Option<usize> {
    let is_in = |part: &[f32; BESIDE]| part.iter().fold(false, |is, n| is | (*n == number));
    let (parts, _) = numbers.as_chunks::<BESIDE>();
    let before = parts.iter().position(is_in).unwrap_or(parts.len()) * BESIDE;
    let within = numbers[before..].iter().position(|n| *n == number)?;
    Some(before + within)
}

/// The sum of `e^(l − max)` over `logits`, none of which is above `max`.
pub(crate) fn sum_of_exp(logits: &[f32], max: f32) -> f64 {
    let (parts, rest) = logits.as_chunks::<BESIDE>();
    let mut sums = [0.0; BESIDE];
    for part in parts {
        let mut of_part = [0.0; BESIDE];
        (0..BESIDE).for_each(|i| of_part[i] = exp(part[i] - max));
        (0..BESIDE).for_each(|i| sums[i] += f64::from(of_part[i]));
    }
    sums.into_iter().chain(rest.iter().map(|l| f64::from(exp(l - max)))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_near_the_true_one_in_all_of_its_range() {
        for i in -90_000..88_000 {
            let x = i as f32 * 1e-3;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 2.5e-7 * want + 1.3e-38, "exp {x}: {got} {want}");
        }
        assert_eq!([exp(-88.0), exp(f32::NEG_INFINITY), exp(0.0)], [0.0, 0.0, 1.0]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_extent_is_that_of_all_and_the_largest_is_found_where_it_is_first() {
        for len in [1usize, 15, 16, 17, 100] {
            let numbers: Vec<f32> = (0..len).map(|i| -((i * 37 % 31) as f32)).collect();
            let max = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(extent(&numbers), Extent { max, finite: true });
            for n in [max, numbers[len - 1], -99.0] {
                assert_eq!(position(&numbers, n), numbers.iter().position(|l| *l == n));
            }
            for (wrong, finite) in
                [(f32::NAN, false), (f32::INFINITY, false), (f32::NEG_INFINITY, true)]
            {
                for i in 0..len {
                    let mut numbers = numbers.clone();
                    numbers[i] = wrong;
                    assert_eq!(extent(&numbers).finite, finite, "{wrong} at {i} of {len}");
                }
            }
        }
        assert_eq!(extent(&[]), Extent { max: f32::NEG_INFINITY, finite: true });
    }

    #[test]
    fn a_sum_is_that_of_all_of_any_length() {
        for len in [1, 7, 8, 9, 1000] {
            let logits: Vec<f32> = (0..len).map(|i| -((i * 37 % 101) as f32) / 7.0).collect();
            let want: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let sum = sum_of_exp(&logits, 0.0);
            assert!((sum - want).abs() <= 2e-7 * want, "{len}: {sum} for {want}");
        }
        assert_eq!(sum_of_exp(&[f32::NEG_INFINITY, 2.0], 2.0), 1.0);
    }
}
