//! Numbers of a few bits as one stream of bits.

/// Packs eight numbers of `bits` bits into as many bytes as a number has bits, and so on: number `c` gets the bits
/// `c·bits..(c+1)·bits` of `out`, counted from the lowest of the first byte.
pub(super) fn pack(bits: u32, q: &[u8], out: &mut [u8]) {
    match bits {
        2 => words::<2>(q, out),
        3 => words::<3>(q, out),
        4 => words::<4>(q, out),
        5 => words::<5>(q, out),
        6 => words::<6>(q, out),
        _ => out.copy_from_slice(q),
    }
}

fn words<const BITS: usize>(q: &[u8], out: &mut [u8]) {
    for (eight, out) in q.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<BITS>().0) {
        let x = u64::from_le_bytes(*eight);
        // Two numbers in 16 bits, four in 32, eight in 64.
        let two = x & 0x00ff_00ff_00ff_00ff | (x >> 8 & 0x00ff_00ff_00ff_00ff) << BITS;
        let four = two & 0x0000_ffff_0000_ffff | (two >> 16 & 0x0000_ffff_0000_ffff) << (2 * BITS);
        let all = four & 0xffff_ffff | four >> 32 << (4 * BITS);
        out.copy_from_slice(&all.to_le_bytes()[..BITS]);
    }
}
