//! How fast Apple's chips read their memory.

/// Chips, the cores of their processor where that tells two kinds of one name apart (0: any), and bytes per second in
/// units of 10⁹, as Apple states them on the pages of technical specifications and in the announcements of these chips
/// (<https://support.apple.com/specs>, <https://www.apple.com/newsroom>).
const CHIPS: [(&str, usize, f64); 19] = [
    ("Apple M1", 0, 68.25),
    ("Apple M1 Pro", 0, 200.0),
    ("Apple M1 Max", 0, 400.0),
    ("Apple M1 Ultra", 0, 800.0),
    ("Apple M2", 0, 100.0),
    ("Apple M2 Pro", 0, 200.0),
    ("Apple M2 Max", 0, 400.0),
    ("Apple M2 Ultra", 0, 800.0),
    ("Apple M3", 0, 100.0),
    ("Apple M3 Pro", 0, 150.0),
    ("Apple M3 Max", 14, 300.0),
    ("Apple M3 Max", 16, 400.0),
    ("Apple M3 Ultra", 0, 819.0),
    ("Apple M4", 0, 120.0),
    ("Apple M4 Pro", 0, 273.0),
    ("Apple M4 Max", 14, 410.0),
    ("Apple M4 Max", 16, 546.0),
    ("Apple M5", 0, 153.0),
    // Of M5 Max there are two kinds with as many cores of the processor, so it is left out.
    ("Apple M5 Pro", 0, 307.0),
];

/// Candidates that run on the GPU of this machine's chip, whose memory is that of the processor.
const ON_GPU: [&str; 2] = ["metal", "mlx_lm"];

/// Bytes per second that a chip can read at most; `None` for one that is not known.
///
/// `cores`: of its processor.
fn bandwidth(chip: &str, cores: usize) -> Option<f64> {
    let is_it = |(name, of, _): &&(&str, usize, f64)| *name == chip && (*of == 0 || *of == cores);
    CHIPS.iter().find(is_it).map(|(_, _, rate)| rate * 1e9)
}

/// Bytes per second that a backend or a peer can read at most, if it runs on the GPU of Apple's chip and that is known.
pub(super) fn bandwidth_of(candidate: &str, chip: &str, cores: usize) -> Option<f64> {
    if ON_GPU.contains(&candidate) { bandwidth(chip, cores) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_is_known_by_its_name_and_its_cores() {
        for (chip, cores, want) in [
            ("Apple M1", 8, Some(68.25e9)),
            ("Apple M4 Max", 14, Some(410e9)),
            ("Apple M4 Max", 16, Some(546e9)),
            ("Apple M4 Max", 12, None),
            ("Apple M5 Pro", 18, Some(307e9)),
            ("Apple M5 Max", 18, None),
            ("Apple M99", 8, None),
            ("AMD EPYC", 8, None),
        ] {
            assert_eq!(bandwidth(chip, cores), want, "{chip} {cores}");
        }
        assert_eq!(bandwidth_of("cpu", "Apple M1", 8), None);
        assert_eq!(bandwidth_of("metal", "Apple M1", 8), Some(68.25e9));
    }
}
