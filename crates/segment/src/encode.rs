//! Batches to bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamEncoder};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use tandem_types::{Error, Result};

use crate::Limits;
use crate::guard::{check_message, check_schema, guarded};

/// Bytes to which the buffers in a section are aligned, counted from its beginning. A section put at such an address is decoded
/// without copying; its length itself is a multiple of 8 only.
pub const SECTION_ALIGNMENT: usize = 64;

/// Buffers below this are gathered into one chunk: a chunk of its own costs more than the copy.
const COPY_BELOW: usize = 16 << 10;

/// View columns with more data buffers than this are compacted, for each costs 16 bytes of the message's header.
const MAX_VIEW_BUFFERS: usize = 256;
/// Bytes in a view column's buffers that no row points to, beyond which it is compacted.
const MAX_VIEW_WASTE: usize = 64 << 10;

/// A section, ready to be stored.
#[derive(Clone, Debug)]
pub struct EncodedSection {
    /// Back to back they are the section. Large ones are the batches' own buffers, not copies.
    pub chunks: Vec<Bytes>,
    /// Bytes in all chunks.
    pub len: u64,
    /// Of all chunks.
    pub crc32c: u32,
    pub rows: u64,
}

/// Encodes batches as one section. Field names, types, nullability and field metadata are kept, schema-level metadata is
/// not. A dictionary that equals the one of the batch before is written once; one that grew, by its new values.
/// Batches longer than [`Limits::MAX_ROWS_PER_BATCH`] are split. Equal input gives equal bytes.
///
/// Errors: a batch that does not fit `schema`, or a schema beyond the default [`Limits`], is invalid input.
pub fn encode_section(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<EncodedSection> {
    let limits = Limits::default();
    check_schema(schema, &limits)?;
    let schema: SchemaRef = if schema.metadata().is_empty() {
        schema.clone()
    } else {
        Arc::new(Schema::new(schema.fields().clone()))
    };
    guarded("encoding a section", || encode(&schema, batches, &limits))
}

fn encode(schema: &SchemaRef, batches: &[RecordBatch], limits: &Limits) -> Result<EncodedSection> {
    let alignment = SECTION_ALIGNMENT;
    let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5)
        .map_err(failed)?
        .with_dictionary_handling(DictionaryHandling::Delta);
    let mut encoder = StreamEncoder::try_new_with_options(schema, options).map_err(failed)?;
    let mut out = Chunks::default();
    let mut rows = 0u64;
    let step = usize::try_from(limits.max_rows_per_batch).unwrap_or(usize::MAX);
    for batch in batches {
        let batch = fit(schema, batch)?;
        rows += batch.num_rows() as u64;
        let mut start = 0;
        loop {
            let part = batch.slice(start, step.min(batch.num_rows() - start));
            let part = compact_views(part)?;
            check_batch(&part, limits)?;
            out.extend(encoder.encode(&part).map_err(failed)?, limits)?;
            start += part.num_rows();
            if start >= batch.num_rows() {
                break;
            }
        }
    }
    out.extend(encoder.finish().map_err(failed)?, limits)?;
    Ok(out.finish(rows))
}

/// The batch under the section's schema, which checks types, lengths and nulls.
fn fit(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|e| Error::invalid(format!("a batch does not fit the schema of its section: {e}")))
}

/// A slice of a view column drags the whole column's data along; copy what its rows point to instead.
fn compact_views(batch: RecordBatch) -> Result<RecordBatch> {
    let is_view = |c: &ArrayRef| matches!(c.data_type(), DataType::Utf8View | DataType::BinaryView);
    if !batch.columns().iter().any(is_view) {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => {
                let views = column.as_string_view();
                let wasteful = is_wasteful(views.data_buffers(), views.total_buffer_bytes_used());
                if wasteful { Arc::new(views.gc()) as ArrayRef } else { column.clone() }
            }
            DataType::BinaryView => {
                let views = column.as_binary_view();
                let wasteful = is_wasteful(views.data_buffers(), views.total_buffer_bytes_used());
                if wasteful { Arc::new(views.gc()) as ArrayRef } else { column.clone() }
            }
            _ => column.clone(),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(failed)
}

fn is_wasteful(buffers: &[Buffer], used: usize) -> bool {
    let held: usize = buffers.iter().map(Buffer::len).sum();
    buffers.len() > MAX_VIEW_BUFFERS || held > used.saturating_mul(2).saturating_add(MAX_VIEW_WASTE)
}

/// A message that a reader would refuse must not be written.
fn check_batch(batch: &RecordBatch, limits: &Limits) -> Result<()> {
    // generous: a node, a validity buffer, and room for what is not counted by parts
    let mut header = 4096;
    for column in batch.columns() {
        header += check_array(&column.to_data(), limits)?;
    }
    if header > limits.max_metadata_bytes {
        return Err(Error::invalid(format!(
            "a batch has too many buffers: its header would take {header} bytes"
        )));
    }
    Ok(())
}

/// Answers how many bytes the array takes in a message's header.
fn check_array(data: &ArrayData, limits: &Limits) -> Result<usize> {
    let stores_nothing = match data.data_type() {
        DataType::Null => true,
        DataType::Struct(fields) => fields.is_empty(),
        DataType::FixedSizeList(_, size) | DataType::FixedSizeBinary(size) => *size == 0,
        _ => false,
    };
    if stores_nothing && data.len() as u64 > limits.max_rows_per_batch {
        return Err(too_long("a nested column", data.len(), limits));
    }
    let mut header = 16 * (2 + data.buffers().len());
    for child in data.child_data() {
        if matches!(data.data_type(), DataType::Dictionary(..))
            && child.len() as u64 > limits.max_rows_per_batch
        {
            return Err(too_long("a dictionary", child.len(), limits));
        }
        header += check_array(child, limits)?;
    }
    Ok(header)
}

fn too_long(what: &str, len: usize, limits: &Limits) -> Error {
    Error::invalid(format!("{what} has {len} values, {} are allowed", limits.max_rows_per_batch))
}

fn failed(e: ArrowError) -> Error {
    Error::invalid(format!("a batch cannot be encoded: {e}"))
}

/// Gathers buffers into chunks, and their checksum, in one pass.
#[derive(Default)]
struct Chunks {
    chunks: Vec<Bytes>,
    pending: BytesMut,
    len: u64,
    crc32c: u32,
}

impl Chunks {
    fn extend(&mut self, buffers: Vec<Buffer>, limits: &Limits) -> Result<()> {
        if self.len == 0 {
            // the stream begins with a prefix and the schema's message; field metadata may make that too large to read
            let schema = buffers.get(1).ok_or_else(|| Error::internal("the encoder wrote no schema"))?;
            check_message(schema, &[], limits)?;
        }
        for buffer in buffers {
            self.len += buffer.len() as u64;
            self.crc32c = crc32c::crc32c_append(self.crc32c, &buffer);
            if buffer.len() < COPY_BELOW {
                self.pending.extend_from_slice(&buffer);
            } else {
                self.flush();
                self.chunks.push(Bytes::from_owner(Shared(buffer)));
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.chunks.push(self.pending.split().freeze());
        }
    }

    fn finish(mut self, rows: u64) -> EncodedSection {
        self.flush();
        EncodedSection { chunks: self.chunks, len: self.len, crc32c: self.crc32c, rows }
    }
}

/// An Arrow buffer as the owner of [`Bytes`].
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
