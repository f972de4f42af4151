//! What stands between bytes of unknown origin and the Arrow IPC decoder.
//!
//! The decoder believes what a message declares: a message of 19 KB that declares a buffer of 100 GB makes it
//! allocate 100 GB, which aborts the process. So every message is checked before: that the flatbuffer is sound, that each
//! buffer lies inside the body, that no length is absurd, that what decompression may yield fits a budget.
//! The decoder's remaining panics are caught by [`guarded`].
//!
//! What a check cannot see: the values. Arrow's own validation does (offsets, UTF-8, dictionary keys).

mod batch;
mod lz4;
mod schema;
mod stream;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_ipc::{Message, MessageHeader, MetadataVersion, root_as_message_with_opts};
use flatbuffers::VerifierOptions;
use tandem_types::{Error, Result};

use crate::Limits;

pub(crate) use schema::check_schema;
pub use stream::{StreamGuard, check_stream};

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Schema,
    Dictionary,
    Batch,
}

/// What a checked message will cost the decoder.
struct Checked {
    kind: MessageKind,
    /// Bytes that its compressed buffers may become.
    decompressed: u64,
    /// Of a dictionary: its id, and whether it adds to one sent before.
    dictionary: Option<(i64, bool)>,
}

/// Checks one message: `header` is its flatbuffer, `body` all of its body. An error (invalid input) says what is wrong;
/// without one the message may be given to the Arrow decoder, under [`guarded`].
pub fn check_message(header: &[u8], body: &[u8], limits: &Limits) -> Result<MessageKind> {
    guarded("checking an Arrow message", || Ok(check_parsed(&parse(header, limits)?, body, limits)?.kind))
}

/// Checks one incoming Flight message before Arrow decodes it. Errors are of the kind invalid input.
///
/// Each message is judged alone; a [`StreamGuard`] also sees to what many of them add up to.
pub fn check_flight_data(data_header: &[u8], data_body: &[u8], limits: &Limits) -> Result<MessageKind> {
    check_message(data_header, data_body, limits)
}

/// Runs `f`, which decodes bytes that others made; a panic in it becomes an error (invalid input) that names `what` was
/// being done. Whatever `f` was changing must be thrown away then.
pub fn guarded<T>(what: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(Error::invalid(format!("{what}: the decoder gave up: {said}")))
        }
    }
}

/// Reads a message's flatbuffer, within the limits.
fn parse<'a>(header: &'a [u8], limits: &Limits) -> Result<Message<'a>> {
    if header.len() > limits.max_metadata_bytes {
        return Err(Error::invalid(format!(
            "an Arrow message's header has {} bytes, {} are allowed",
            header.len(),
            limits.max_metadata_bytes
        )));
    }
    let options = VerifierOptions {
        // a field costs two levels, itself and its type; the message and the schema come on top
        max_depth: limits.max_depth.saturating_add(8),
        max_tables: limits.max_tables,
        // parts may be shared, so the header seen as a tree is larger than the header, but honestly never by much
        max_apparent_size: limits.max_metadata_bytes.saturating_mul(16),
        ignore_missing_null_terminator: false,
    };
    let message = root_as_message_with_opts(&options, header)
        .map_err(|e| Error::invalid(format!("an Arrow message's header is broken: {e}")))?;
    if !matches!(message.version(), MetadataVersion::V4 | MetadataVersion::V5) {
        return Err(Error::invalid(format!(
            "Arrow metadata version {:?} is not supported",
            message.version()
        )));
    }
    if message.bodyLength() < 0 {
        return Err(Error::invalid(format!(
            "an Arrow message declares a body of {} bytes",
            message.bodyLength()
        )));
    }
    Ok(message)
}

fn check_parsed(message: &Message<'_>, body: &[u8], limits: &Limits) -> Result<Checked> {
    match message.header_type() {
        MessageHeader::Schema => {
            let schema = message.header_as_schema().ok_or_else(|| missing("schema"))?;
            schema::check_fb_schema(&schema, limits)?;
            Ok(Checked { kind: MessageKind::Schema, decompressed: 0, dictionary: None })
        }
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch().ok_or_else(|| missing("dictionary"))?;
            let data = dictionary.data().ok_or_else(|| missing("dictionary's data"))?;
            let decompressed = batch::check_batch(&data, body, limits)
                .map_err(|e| e.context(format!("dictionary {}", dictionary.id())))?;
            Ok(Checked {
                kind: MessageKind::Dictionary,
                decompressed,
                dictionary: Some((dictionary.id(), dictionary.isDelta())),
            })
        }
        MessageHeader::RecordBatch => {
            let data = message.header_as_record_batch().ok_or_else(|| missing("record batch"))?;
            let decompressed =
                batch::check_batch(&data, body, limits).map_err(|e| e.context("record batch"))?;
            Ok(Checked { kind: MessageKind::Batch, decompressed, dictionary: None })
        }
        other => Err(Error::invalid(format!("Arrow messages of type {other:?} are not supported"))),
    }
}

fn missing(part: &str) -> Error {
    Error::invalid(format!("an Arrow message lacks its {part}"))
}
