//! Bytes to batches.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use tandem_types::{Error, Result};

use crate::Limits;
use crate::guard::{check_stream, guarded};

/// What a section holds.
#[derive(Clone, Debug)]
pub struct DecodedSection {
    pub schema: SchemaRef,
    /// In the order of writing. Their buffers point into the section's bytes and keep them in memory.
    pub batches: Vec<RecordBatch>,
}

/// Decodes a section. Any error is of the kind damaged: the bytes are not what was written, or were not written as a
/// section. `expected_crc32c` is the checksum that the commit header names; only bytes without one may pass `None`.
pub fn decode_section(
    bytes: &Bytes,
    expected_crc32c: Option<u32>,
    limits: &Limits,
) -> Result<DecodedSection> {
    if let Some(expected) = expected_crc32c {
        let found = crc32c::crc32c(bytes);
        if found != expected {
            return Err(Error::damaged(format!(
                "a section of {} bytes has the checksum {found:#010x}, {expected:#010x} was written",
                bytes.len()
            )));
        }
    }
    let limits = match expected_crc32c {
        Some(_) => limits.without_sums(),
        None => limits.clone(),
    };
    check_stream(bytes, &limits)
        .and_then(|()| guarded("decoding a section", || decode(bytes)))
        .map_err(|e| Error::damaged(format!("a section of {} bytes: {}", bytes.len(), e.message())))
}

fn decode(bytes: &Bytes) -> Result<DecodedSection> {
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(bytes.clone());
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        if let Some(batch) =
            decoder.decode(&mut rest).map_err(|e| Error::damaged(format!("after byte {at}: {e}")))?
        {
            batches.push(batch);
        }
    }
    decoder.finish().map_err(|e| Error::damaged(e.to_string()))?;
    let schema = decoder.schema().ok_or_else(|| Error::damaged("no schema"))?;
    Ok(DecodedSection { schema, batches })
}
