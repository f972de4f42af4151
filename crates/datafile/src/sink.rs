//! Where encoded bytes gather: pieces of some MiB, checksummed as they come.

use std::io::{self, Write};

use bytes::Bytes;

use crate::blocks::{BlockSummer, BlockSums};

/// Pieces are about this large: no single huge allocation that doubles as it grows.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// A growing file in memory.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pieces: Vec<Bytes>,
    current: Vec<u8>,
    written: u64,
    body: BlockSummer,
    tail: Option<u32>,
}

impl Sink {
    /// Says that all that was written so far is the body, and what follows the tail.
    pub(crate) fn end_body(&mut self) -> BlockSums {
        self.tail = Some(0);
        std::mem::take(&mut self.body).finish()
    }

    /// The pieces, their size in bytes, and the CRC32C of the tail.
    pub(crate) fn finish(mut self) -> (Vec<Bytes>, u64, u32) {
        self.cut();
        (self.pieces, self.written, self.tail.unwrap_or(0))
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            self.pieces.push(std::mem::take(&mut self.current).into());
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tail {
            Some(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            None => self.body.update(bytes),
        }
        self.written += bytes.len() as u64;
        if self.current.capacity() == 0 {
            self.current.reserve(bytes.len().max(64 * 1024));
        }
        self.current.extend_from_slice(bytes);
        if self.current.len() >= PIECE_BYTES {
            self.cut();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
