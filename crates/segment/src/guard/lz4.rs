//! How much an LZ4 frame can become, read from its block headers alone.

use tandem_types::{Error, Result};

const MAGIC: u32 = 0x184D_2204;
/// A byte of LZ4 stands for at most this many: a run's length grows by 255 per byte.
const MOST_PER_BYTE: u64 = 255;

const FLAG_BLOCK_CHECKSUM: u8 = 0x10;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_DICTIONARY: u8 = 0x01;
const STORED: u32 = 1 << 31;

/// An upper bound on what decoding the first frame in `data` yields; the decoder reads no further one. A frame that breaks off
/// is bounded by the blocks that are there.
pub(super) fn most_bytes(data: &[u8]) -> Result<u64> {
    let mut rest = data;
    let magic = take_u32(&mut rest).ok_or_else(|| Error::invalid("an LZ4 frame breaks off"))?;
    if magic != MAGIC {
        return Err(Error::invalid(format!("an LZ4 frame begins with {magic:#010x}")));
    }
    let header = take(&mut rest, 2).ok_or_else(|| Error::invalid("an LZ4 frame breaks off"))?;
    let &[flags, sizes] = header else {
        return Err(Error::invalid("an LZ4 frame breaks off"));
    };
    let max_block = match (sizes >> 4) & 7 {
        n @ 4..=7 => 1u64 << (8 + 2 * n),
        n => return Err(Error::invalid(format!("an LZ4 frame has blocks of unknown size class {n}"))),
    };
    let optional =
        if flags & FLAG_CONTENT_SIZE != 0 { 8 } else { 0 } + if flags & FLAG_DICTIONARY != 0 { 4 } else { 0 };
    take(&mut rest, optional + 1).ok_or_else(|| Error::invalid("an LZ4 frame breaks off"))?;

    let mut most = 0u64;
    while let Some(word) = take_u32(&mut rest) {
        if word == 0 {
            break;
        }
        let len = u64::from(word & !STORED);
        // a block that is cut short is refused by the decoder, but it may have put out part of it
        let bound = if word & STORED != 0 { len } else { len.saturating_mul(MOST_PER_BYTE).min(max_block) };
        most = most.saturating_add(bound.min(max_block));
        let checksum = if flags & FLAG_BLOCK_CHECKSUM != 0 { 4 } else { 0 };
        let Some(skip) = usize::try_from(len).ok().and_then(|l| l.checked_add(checksum)) else { break };
        if take(&mut rest, skip).is_none() {
            break;
        }
    }
    Ok(most)
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(blocks: &[u32]) -> Vec<u8> {
        let mut out = MAGIC.to_le_bytes().to_vec();
        out.extend([0x60, 0x40, 0]); // independent blocks of at most 64 KiB; the header's checksum is not looked at
        for &word in blocks {
            out.extend(word.to_le_bytes());
            out.extend(vec![0; (word & !STORED) as usize]);
        }
        out.extend(0u32.to_le_bytes());
        out
    }

    #[test]
    fn bounds_blocks() {
        assert_eq!(most_bytes(&frame(&[])).unwrap(), 0);
        assert_eq!(most_bytes(&frame(&[10])).unwrap(), 2550);
        assert_eq!(most_bytes(&frame(&[1000, 1000])).unwrap(), 2 * 65536);
        assert_eq!(most_bytes(&frame(&[STORED | 1000])).unwrap(), 1000);
    }

    #[test]
    fn refuses_what_is_no_frame() {
        assert!(most_bytes(&[]).is_err());
        assert!(most_bytes(&[0; 20]).is_err());
        assert!(most_bytes(&frame(&[])[..6]).is_err());
    }

    #[test]
    fn a_frame_that_breaks_off_counts_what_is_there() {
        let whole = frame(&[1000, 1000]);
        assert_eq!(most_bytes(&whole[..1500]).unwrap(), 2 * 65536);
    }
}
