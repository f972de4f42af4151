//! The numbers of a record batch's (or dictionary's) header against its body.

use arrow_ipc::{BodyCompressionMethod, CompressionType, RecordBatch};
use tandem_types::{Error, Result};

use super::lz4;
use crate::Limits;

/// Bytes in front of a compressed buffer that say how long it was.
const PREFIX: usize = 8;

/// Checks counts, ranges and lengths; answers how many bytes decompression may yield.
pub(super) fn check_batch(batch: &RecordBatch<'_>, body: &[u8], limits: &Limits) -> Result<u64> {
    let rows = count("rows", batch.length())?;
    if rows > limits.max_rows_per_batch {
        return Err(Error::invalid(format!("{rows} rows, {} are allowed", limits.max_rows_per_batch)));
    }
    let decompressed = check_buffers(batch, body, limits)?;
    check_nodes(batch, decompressed.saturating_add(body.len() as u64), limits)?;
    Ok(decompressed)
}

fn check_buffers(batch: &RecordBatch<'_>, body: &[u8], limits: &Limits) -> Result<u64> {
    let buffers = batch.buffers().ok_or_else(|| Error::invalid("no list of buffers"))?;
    let codec = match batch.compression() {
        None => None,
        Some(c) if c.method() != BodyCompressionMethod::BUFFER => {
            return Err(Error::invalid(format!("compression method {:?} is not supported", c.method())));
        }
        Some(c) if matches!(c.codec(), CompressionType::LZ4_FRAME | CompressionType::ZSTD) => Some(c.codec()),
        Some(c) => return Err(Error::invalid(format!("compression {:?} is not supported", c.codec()))),
    };
    let (mut stored, mut decompressed) = (0u64, 0u64);
    for (i, buffer) in buffers.iter().enumerate() {
        let bytes = range(body, buffer.offset(), buffer.length()).ok_or_else(|| {
            Error::invalid(format!(
                "buffer {i} (offset {}, length {}) lies outside the body of {} bytes",
                buffer.offset(),
                buffer.length(),
                body.len()
            ))
        })?;
        // Buffers that share bytes have no honest use, and each may be copied to align it.
        stored = stored.saturating_add(bytes.len() as u64);
        if stored > body.len() as u64 {
            return Err(Error::invalid(format!("buffers overlap in the body of {} bytes", body.len())));
        }
        if let Some(codec) = codec {
            let yields = decompressed_len(bytes, codec).map_err(|e| e.context(format!("buffer {i}")))?;
            decompressed = decompressed.saturating_add(yields);
            if decompressed > limits.max_decompressed_bytes {
                return Err(Error::invalid(format!(
                    "compressed buffers declare more than the {} bytes allowed",
                    limits.max_decompressed_bytes
                )));
            }
        }
    }
    let mut variadic = 0u64;
    for n in batch.variadicBufferCounts().into_iter().flatten() {
        variadic = variadic.saturating_add(count("buffers of a view column", n)?);
    }
    if variadic > buffers.len() as u64 {
        return Err(Error::invalid(format!(
            "view columns declare {variadic} buffers, the batch has {}",
            buffers.len()
        )));
    }
    Ok(decompressed)
}

fn check_nodes(batch: &RecordBatch<'_>, bytes: u64, limits: &Limits) -> Result<()> {
    let nodes = batch.nodes().ok_or_else(|| Error::invalid("no list of field nodes"))?;
    // A value that is stored takes at least a bit. Some types store nothing (null, empty structs): those must
    // not be longer than a batch may be.
    let longest = limits.max_rows_per_batch.max(bytes.saturating_mul(8));
    for (i, node) in nodes.iter().enumerate() {
        let length = count("values", node.length()).map_err(|e| e.context(format!("field {i}")))?;
        let nulls = count("nulls", node.null_count()).map_err(|e| e.context(format!("field {i}")))?;
        if length > longest || nulls > length {
            return Err(Error::invalid(format!(
                "field {i} declares {length} values, {nulls} of them null, with {bytes} bytes of data"
            )));
        }
    }
    Ok(())
}

/// The most bytes that the decoder will make of a compressed buffer.
fn decompressed_len(buffer: &[u8], codec: CompressionType) -> Result<u64> {
    if buffer.is_empty() {
        return Ok(0);
    }
    let (prefix, data) = buffer.split_first_chunk::<PREFIX>().ok_or_else(|| {
        Error::invalid(format!("{} bytes are too few for a compressed buffer", buffer.len()))
    })?;
    match i64::from_le_bytes(*prefix) {
        // stored as it is, or empty: the decoder does not decompress
        -1 | 0 => Ok(0),
        declared => {
            let declared = count("decompressed bytes", declared)?;
            // The LZ4 decoder reads on to the end of the frame whatever was declared; the zstd decoder stops.
            let real = if codec == CompressionType::LZ4_FRAME { lz4::most_bytes(data)? } else { 0 };
            Ok(declared.max(real))
        }
    }
}

fn range(body: &[u8], offset: i64, length: i64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    body.get(start..end)
}

fn count(what: &str, n: i64) -> Result<u64> {
    u64::try_from(n).map_err(|_| Error::invalid(format!("{n} {what}")))
}
