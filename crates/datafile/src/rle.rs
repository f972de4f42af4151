//! Parquet's hybrid of run lengths and packed bits, written from runs.

/// Appends `runs` of (value, length) with `width` bits per value.
///
/// The cost is one step per run, not per value, as long as runs are long: that is what makes sorted tags
/// nearly free to write.
pub(crate) fn encode_runs(runs: impl IntoIterator<Item = (u32, u32)>, width: u32, out: &mut Vec<u8>) {
    let mut literals: Vec<u32> = Vec::new();
    for (value, mut length) in runs {
        // Packed values come in groups of eight: a group that was begun is filled up first.
        while length > 0 && !literals.len().is_multiple_of(8) {
            literals.push(value);
            length -= 1;
        }
        if length >= 8 {
            pack(&mut literals, width, out);
            varint(u64::from(length) << 1, out);
            out.extend(value.to_le_bytes().iter().take(width.div_ceil(8) as usize));
        } else {
            literals.extend(std::iter::repeat_n(value, length as usize));
        }
    }
    pack(&mut literals, width, out);
}

/// Writes the values in groups of eight, the last one filled up with zeros, and forgets them.
fn pack(literals: &mut Vec<u32>, width: u32, out: &mut Vec<u8>) {
    if literals.is_empty() {
        return;
    }
    let groups = literals.len().div_ceil(8);
    literals.resize(groups * 8, 0);
    varint((groups as u64) << 1 | 1, out);
    let (mut bits, mut filled) = (0u64, 0);
    for value in literals.drain(..) {
        bits |= u64::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
}

/// Seven bits to a byte, the lowest first, as Parquet writes all its lengths.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_format_and_a_run() {
        let mut out = Vec::new();
        encode_runs((0..8).map(|v| (v, 1)), 3, &mut out);
        assert_eq!(out, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
        out.clear();
        encode_runs([(300, 100)], 9, &mut out);
        assert_eq!(out, [0xc8, 0x01, 0x2c, 0x01]);
        out.clear();
        encode_runs([(0, 5_000)], 0, &mut out);
        assert_eq!(out, [0x90, 0x4e]);
    }

    #[test]
    fn a_group_that_was_begun_takes_from_the_next_run() {
        let mut out = Vec::new();
        encode_runs([(1, 3), (0, 20)], 1, &mut out);
        // Five zeros fill the group, fifteen are a run.
        assert_eq!(out, [0b11, 0b0000_0111, 30, 0]);
    }
}
