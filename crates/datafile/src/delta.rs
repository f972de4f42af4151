//! Parquet's DELTA_BINARY_PACKED, written.
//!
//! ```text
//!  page  = values per block, miniblocks per block, values, first value · block*
//!  block = least delta · one width per miniblock · miniblock*
//! ```
//!
//! A miniblock holds `delta - least` in as many bits as its width says. The format leaves free how many
//! values make a block, which lower bound stands for the least delta, and how much wider than necessary a
//! miniblock is: [`Layout`] says how the freedom is used.

use parquet::basic::Type;

use crate::rle::varint;

/// How a page is cut into blocks and how wide its deltas are.
///
/// Bits packed tightly are few and look like noise to a compressor. A delta that always is the same byte,
/// for the whole page, takes more bytes at first, and then an entropy coder gets it near its entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As few bits as possible: for wide noise, and without compression.
    Tight,
    /// Widths that let symbols meet the bounds of bytes; deltas count from the page's least where that
    /// costs no bits. A delta out of the ordinary widens its surroundings only.
    Even,
    /// One block, so that equal deltas are equal bits throughout.
    Uniform,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::Tight, Self::Even, Self::Uniform];

    /// Values of a miniblock. Readers unpack 64 wide integers at a time.
    const fn miniblock(self) -> usize {
        match self {
            Self::Tight | Self::Even => 64,
            Self::Uniform => 256,
        }
    }

    /// Miniblocks of a block of a page with so many deltas.
    fn miniblocks(self, deltas: usize) -> usize {
        match self {
            Self::Tight | Self::Even => 2,
            Self::Uniform => deltas.div_ceil(self.miniblock()).max(1),
        }
    }

    /// The width that values of `bits` bits get.
    fn width(self, bits: u32) -> u32 {
        match (self, bits) {
            (Self::Tight, _) | (_, 0..=2) => bits,
            (_, 3..=4) => 4,
            _ => bits.next_multiple_of(8),
        }
    }
}

/// An integer as Parquet stores it.
pub(crate) trait Integer: Copy + Ord + Default + Send + Sync + 'static {
    const TYPE: Type;
    /// The bits of the value, without those of a wider sign.
    fn bits(self) -> u64;
    fn widened(self) -> i64;
    fn minus(self, other: Self) -> Self;
    /// With the order of unsigned numbers made that of signed ones, and back.
    fn flipped(self) -> Self;
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! integer {
    ($signed:ty, $unsigned:ty, $physical:ident) => {
        impl Integer for $signed {
            const TYPE: Type = Type::$physical;
            const LEAST: Self = <$signed>::MIN;
            const GREATEST: Self = <$signed>::MAX;
            fn bits(self) -> u64 {
                self as $unsigned as u64
            }
            fn widened(self) -> i64 {
                self as i64
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn flipped(self) -> Self {
                self ^ <$signed>::MIN
            }
        }
    };
}

integer!(i32, u32, INT32);
integer!(i64, u64, INT64);

/// The least and the greatest of `values`, which are some.
pub(crate) fn range<T: Integer>(values: impl Iterator<Item = T>) -> (T, T) {
    values.fold((T::GREATEST, T::LEAST), |(low, high), v| (low.min(v), high.max(v)))
}

/// Appends `values`; `deltas` is room to work in.
pub(crate) fn encode<T: Integer>(values: &[T], layout: Layout, deltas: &mut Vec<T>, out: &mut Vec<u8>) {
    let (first, rest) = match values {
        [] => (T::default(), values),
        [first, rest @ ..] => (*first, rest),
    };
    deltas.clear();
    deltas.extend(values.iter().zip(rest).map(|(before, value)| value.minus(*before)));
    let (miniblock, miniblocks) = (layout.miniblock(), layout.miniblocks(deltas.len()));
    varint((miniblock * miniblocks) as u64, out);
    varint(miniblocks as u64, out);
    varint(values.len() as u64, out);
    zigzag(first.widened(), out);
    let page_least = match layout {
        Layout::Even => Some(range(deltas.iter().copied()).0),
        Layout::Tight | Layout::Uniform => None,
    };
    let mut ranges = Vec::with_capacity(miniblocks);
    for block in deltas.chunks(miniblock * miniblocks) {
        ranges.clear();
        ranges.extend(block.chunks(miniblock).map(|part| range(part.iter().copied())));
        let own_least = ranges.iter().map(|(low, _)| *low).min().unwrap_or_default();
        let width = |least: T, (_, greatest): &(T, T)| width_of(layout, miniblock, least, *greatest);
        let total = |least: T| ranges.iter().map(|r| width(least, r)).sum::<u32>();
        let least = match page_least {
            Some(shared) if total(shared) <= total(own_least) => shared,
            _ => own_least,
        };
        zigzag(least.widened(), out);
        out.extend(ranges.iter().map(|r| width(least, r) as u8));
        out.extend(std::iter::repeat_n(0, miniblocks - ranges.len()));
        for (values, range) in block.chunks(miniblock).zip(&ranges) {
            let start = out.len();
            let width = width(least, range);
            pack(values, least, width, out);
            // The last miniblock is as long as the others.
            out.resize(start + miniblock / 8 * width as usize, 0);
        }
    }
}

fn width_of<T: Integer>(layout: Layout, miniblock: usize, least: T, greatest: T) -> u32 {
    let bits = u64::BITS - greatest.minus(least).bits().leading_zeros();
    // The parquet crate (59) skips a miniblock without bits by a multiplication, and fails if the product
    // leaves the 32 bits of the column's type, where adding up would wrap around.
    let product = i128::from(least.widened()) * miniblock as i128;
    let wraps = T::TYPE == Type::INT32 && i32::try_from(product).is_err();
    layout.width(if bits == 0 && wraps { 1 } else { bits })
}

/// Appends `values - least`, `width` bits each, the lowest first.
fn pack<T: Integer>(values: &[T], least: T, width: u32, out: &mut Vec<u8>) {
    let codes = values.iter().map(|v| v.minus(least).bits());
    match width {
        0 => {}
        1 => pack_parts::<T, 8>(values, least, out),
        2 => pack_parts::<T, 4>(values, least, out),
        4 => pack_parts::<T, 2>(values, least, out),
        8 => out.extend(codes.map(|code| code as u8)),
        16 => pack_bytes::<2>(codes, out),
        24 => pack_bytes::<3>(codes, out),
        32 => pack_bytes::<4>(codes, out),
        40 => pack_bytes::<5>(codes, out),
        48 => pack_bytes::<6>(codes, out),
        56 => pack_bytes::<7>(codes, out),
        64 => pack_bytes::<8>(codes, out),
        _ => pack_bits(codes, width, out),
    }
}

/// `N` values to a byte.
fn pack_parts<T: Integer, const N: usize>(values: &[T], least: T, out: &mut Vec<u8>) {
    let byte = |part: &[T]| {
        let shifted = part.iter().enumerate().map(|(i, v)| (v.minus(least).bits() as u8) << (8 / N * i));
        shifted.fold(0, |byte, bits| byte | bits)
    };
    let (whole, rest) = values.as_chunks::<N>();
    out.extend(whole.iter().map(|part| byte(part)));
    if !rest.is_empty() {
        out.push(byte(rest));
    }
}

/// `N` bytes to a value.
fn pack_bytes<const N: usize>(codes: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + codes.len() * N, 0);
    let to = out.get_mut(start..).unwrap_or_default();
    for (to, code) in to.as_chunks_mut::<N>().0.iter_mut().zip(codes) {
        if let Some(low) = code.to_le_bytes().first_chunk::<N>() {
            *to = *low;
        }
    }
}

/// Any width from 1 to 64.
fn pack_bits(codes: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut bits, mut filled) = (0u128, 0);
    for code in codes {
        bits |= u128::from(code) << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= u64::BITS;
            filled -= u64::BITS;
        }
    }
    let rest = (bits as u64).to_le_bytes();
    out.extend_from_slice(rest.get(..filled.div_ceil(8) as usize).unwrap_or_default());
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)) as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<T: Integer>(values: &[T], layout: Layout) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, layout, &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_format() {
        // 1, 2, 3, 4, 5: the header, a least delta of 1, and no bits for what is left of the deltas.
        let header = [128, 1, 2, 5, 2];
        assert_eq!(encoded(&[1i32, 2, 3, 4, 5], Layout::Tight), [&header[..], &[2, 0, 0]].concat());
        // 7, 5, 3, 1, 2, 3, 4, 5: deltas -2 -2 -2 1 1 1 1 count from -2 as 0 0 0 3 3 3 3, in two bits.
        let expected = [&[128, 1, 2, 8, 14, 3, 2, 0, 0b1100_0000, 0b0011_1111][..], &[0; 14]].concat();
        assert_eq!(encoded(&[7i64, 5, 3, 1, 2, 3, 4, 5], Layout::Tight), expected);
        assert_eq!(encoded(&[7i64, 5, 3, 1, 2, 3, 4, 5], Layout::Even), expected);
    }

    #[test]
    fn pages_of_nothing_and_of_one_value() {
        assert_eq!(encoded::<i64>(&[], Layout::Tight), [128, 1, 2, 0, 0]);
        assert_eq!(encoded::<i32>(&[-1], Layout::Uniform), [128, 2, 1, 1, 1]);
    }

    #[test]
    fn every_width_holds_its_bits() {
        for width in 1..=64u32 {
            let greatest = u64::MAX >> (64 - width);
            let codes: Vec<u64> =
                (0..64).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & greatest).collect();
            let values: Vec<i64> = codes.iter().map(|c| c.wrapping_add(5) as i64).collect();
            let mut out = Vec::new();
            pack(&values, 5, width, &mut out);
            assert_eq!(out.len(), width as usize * 8);
            for (i, code) in codes.iter().enumerate() {
                let bit = |b: usize| u64::from(out[b / 8] >> (b % 8) & 1);
                let found = (0..width as usize).map(|b| bit(i * width as usize + b) << b).sum::<u64>();
                assert_eq!(found, *code, "{width} bits, value {i}");
            }
        }
    }

    #[test]
    fn constant_steps_that_wrap_around_keep_a_bit() {
        let step = 1 << 28;
        let values: Vec<i32> = (0..65i32).map(|i| i.wrapping_mul(step)).collect();
        let out = encoded(&values, Layout::Tight);
        let widths = out.len() - 8 - 2;
        assert_eq!(out[widths..widths + 2], [1, 0]);
    }
}
