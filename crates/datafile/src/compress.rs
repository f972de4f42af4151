//! Compressing pages: one kept zstd context, told what its input is like.

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use zstd::zstd_safe::CParameter;

/// Levels up to this one look for repetitions in the quick way that [`Symbols::Independent`] tunes.
const QUICK_LEVEL_MAX: i32 = 2;
/// In [`Symbols::Independent`] shorter repetitions are chance, and cost more than the symbols they replace.
const MATCH_MIN: u32 = 7;
/// Log2 of how many places are remembered in [`Symbols::Independent`]: real repetitions there are long and
/// soon met again, every other place only tempts.
const PLACES_LOG: u32 = 8;

/// What the bytes of a page are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbols {
    /// Sequences of bytes come again.
    Repeating,
    /// Every byte is drawn anew, some more often than others, as with deltas of noisy measurements.
    /// Entropy coding does the work.
    Independent,
}

/// Compresses one page after the other.
pub(crate) struct Compressor {
    compression: Compression,
    symbols: Symbols,
    /// To make one costs more than to compress a page of runs.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// As long as the worst page may get; what is kept of a page is as long as it is.
    buffer: Vec<u8>,
}

/// Whether [`Compressor`] knows the compression.
pub(crate) fn knows(compression: Compression) -> bool {
    matches!(compression, Compression::ZSTD(_) | Compression::UNCOMPRESSED)
}

impl Compressor {
    pub(crate) fn new(compression: Compression, symbols: Symbols) -> Self {
        Self { compression, symbols, zstd: None, buffer: Vec::new() }
    }

    pub(crate) fn compress(&mut self, body: &[u8]) -> Result<Bytes> {
        let Compression::ZSTD(level) = self.compression else { return Ok(Bytes::copy_from_slice(body)) };
        let failed = |e| ParquetError::External(Box::new(e));
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(context(level.compression_level(), self.symbols).map_err(failed)?),
        };
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(body.len()));
        zstd.compress_to_buffer(body, &mut self.buffer).map_err(failed)?;
        Ok(Bytes::copy_from_slice(&self.buffer))
    }
}

fn context(level: i32, symbols: Symbols) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(level)?;
    if symbols == Symbols::Independent && level <= QUICK_LEVEL_MAX {
        zstd.set_parameter(CParameter::MinMatch(MATCH_MIN))?;
        zstd.set_parameter(CParameter::HashLog(PLACES_LOG))?;
    }
    Ok(zstd)
}
