//! CRC32C of every block of a file's body, and how they stand in the footer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tandem_types::{Error, Result};

/// Bytes that one checksum covers; the last block of a body may be shorter.
pub(crate) const BLOCK_BYTES: u64 = 64 * 1024;

/// A block is cached as one piece.
const _: () = assert!(BLOCK_BYTES == tandem_env::PIECE_BYTES);

/// The key of the footer's metadata that holds [`BlockSums`].
pub(crate) const BLOCKS_KEY: &str = "tandem:blocks";

/// The checksums of a body, block by block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockSums {
    pub(crate) body_end: u64,
    sums: Vec<u32>,
}

impl BlockSums {
    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    /// `<body end>:<CRCs, little endian, base64>`, for the footer.
    pub(crate) fn encode(&self) -> String {
        let bytes: Vec<u8> = self.sums.iter().flat_map(|s| s.to_le_bytes()).collect();
        format!("{}:{}", self.body_end, STANDARD_NO_PAD.encode(bytes))
    }

    /// Undoes [`encode`](Self::encode); the number of blocks must be the one that the body has.
    pub(crate) fn decode(text: &str) -> Result<Self> {
        let wrong = || Error::damaged(format!("{BLOCKS_KEY:?} in the footer is not a list of checksums"));
        let (end, sums) = text.split_once(':').ok_or_else(wrong)?;
        let body_end: u64 = end.parse().map_err(|_| wrong())?;
        let bytes = STANDARD_NO_PAD.decode(sums).map_err(|_| wrong())?;
        let (words, rest) = bytes.as_chunks::<4>();
        let sums: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
        if !rest.is_empty() || sums.len() as u64 != body_end.div_ceil(BLOCK_BYTES) {
            return Err(wrong());
        }
        Ok(Self { body_end, sums })
    }

    /// The smallest run of whole blocks that holds `start..end` of the body.
    pub(crate) fn widen(&self, start: u64, end: u64) -> std::ops::Range<u64> {
        let first = start / BLOCK_BYTES * BLOCK_BYTES;
        first..end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).min(self.body_end)
    }

    /// Checks whole blocks that begin at `offset`; answers the first block that is wrong.
    pub(crate) fn verify(&self, offset: u64, bytes: &[u8]) -> Result<(), u64> {
        let first = offset / BLOCK_BYTES;
        for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            let number = first + index as u64;
            let expected = usize::try_from(number).ok().and_then(|n| self.sums.get(n));
            if expected != Some(&crc32c::crc32c(block)) {
                return Err(number);
            }
        }
        Ok(())
    }
}

/// Takes the checksums of a body while it is written.
#[derive(Debug, Default)]
pub(crate) struct BlockSummer {
    sums: Vec<u32>,
    current: u32,
    filled: usize,
    total: u64,
}

impl BlockSummer {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = BLOCK_BYTES as usize - self.filled;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len();
            if self.filled == BLOCK_BYTES as usize {
                self.sums.push(std::mem::take(&mut self.current));
                self.filled = 0;
            }
            bytes = later;
        }
    }

    pub(crate) fn finish(mut self) -> BlockSums {
        if self.filled > 0 {
            self.sums.push(self.current);
        }
        BlockSums { body_end: self.total, sums: self.sums }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_how_the_bytes_came() {
        let body: Vec<u8> = (0..200_000u32).map(|i| (i * 7 / 3) as u8).collect();
        let mut whole = BlockSummer::default();
        whole.update(&body);
        let whole = whole.finish();
        let mut pieces = BlockSummer::default();
        body.chunks(777).for_each(|c| pieces.update(c));
        assert_eq!(whole, pieces.finish());
        assert_eq!(whole.len(), 4);
        assert_eq!(BlockSums::decode(&whole.encode()), Ok(whole.clone()));

        let range = whole.widen(70_000, 70_001);
        assert_eq!(range, 65_536..131_072);
        assert_eq!(whole.verify(range.start, &body[65_536..131_072]), Ok(()));
        assert_eq!(whole.widen(199_999, 200_000), 196_608..200_000);
        assert_eq!(whole.verify(196_608, &body[196_608..]), Ok(()));
        assert_eq!(whole.verify(196_608, &body[196_608..199_999]), Err(3));
    }

    #[test]
    fn a_list_of_the_wrong_length_is_refused() {
        for text in ["", "0", "65537:AAAAAA", "x:AAAAAA", "1:AAAA", "1:????"] {
            assert!(BlockSums::decode(text).is_err(), "{text:?}");
        }
        assert!(BlockSums::decode("65536:AAAAAA").is_ok());
    }
}
