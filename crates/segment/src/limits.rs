//! How much a message of Arrow IPC may ask for.

use tandem_types::MAX_NAME_BYTES;

/// Bounds on what bytes of Arrow IPC may make the decoder do. What [`crate::encode_section`] wrote and a checksum confirms
/// always fits the defaults; lower ones are for strangers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows in one record batch or one dictionary.
    pub max_rows_per_batch: u64,
    /// Columns of a schema, nested fields not counted.
    pub max_columns: usize,
    /// Fields inside fields: a plain column has depth 1.
    pub max_depth: usize,
    /// Bytes of a field's name.
    pub max_name_bytes: usize,
    /// Bytes of one message's header (the flatbuffer, without the body).
    pub max_metadata_bytes: usize,
    /// Flatbuffer tables in one message's header.
    pub max_tables: usize,
    /// Bytes that compressed buffers may become: of one message when it is checked alone, of all messages of a
    /// section together.
    pub max_decompressed_bytes: u64,
    /// Dictionary messages in one stream. This and the next two do not apply to a section whose checksum was verified.
    pub max_dictionaries: u64,
    /// Bytes of all dictionaries that one stream holds at a time.
    pub max_dictionary_bytes: u64,
    /// Bytes of dictionaries that deltas may make the decoder copy, in one stream: it rebuilds the whole dictionary
    /// for each delta, so many small ones would cost a square.
    pub max_delta_bytes: u64,
}

impl Limits {
    /// 16 Mi rows.
    pub const MAX_ROWS_PER_BATCH: u64 = 1 << 24;
    pub const MAX_COLUMNS: usize = 4096;
    pub const MAX_DEPTH: usize = 32;
    /// 1 MiB.
    pub const MAX_METADATA_BYTES: usize = 1 << 20;
    pub const MAX_TABLES: usize = 100_000;
    /// 1 GiB. An edge that reserves memory per request puts its reservation here.
    pub const MAX_DECOMPRESSED_BYTES: u64 = 1 << 30;
    pub const MAX_DICTIONARIES: u64 = 1 << 20;
    /// 1 GiB.
    pub const MAX_DICTIONARY_BYTES: u64 = 1 << 30;
    /// 16 GiB: some seconds of copying.
    pub const MAX_DELTA_BYTES: u64 = 16 << 30;
}

impl Limits {
    /// Without the bounds on what messages add up to: for bytes known to be as they were written, whose writer had them in
    /// memory too.
    pub(crate) fn without_sums(&self) -> Self {
        Self {
            max_dictionaries: u64::MAX,
            max_dictionary_bytes: u64::MAX,
            max_delta_bytes: u64::MAX,
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows_per_batch: Self::MAX_ROWS_PER_BATCH,
            max_columns: Self::MAX_COLUMNS,
            max_depth: Self::MAX_DEPTH,
            max_name_bytes: MAX_NAME_BYTES,
            max_metadata_bytes: Self::MAX_METADATA_BYTES,
            max_tables: Self::MAX_TABLES,
            max_decompressed_bytes: Self::MAX_DECOMPRESSED_BYTES,
            max_dictionaries: Self::MAX_DICTIONARIES,
            max_dictionary_bytes: Self::MAX_DICTIONARY_BYTES,
            max_delta_bytes: Self::MAX_DELTA_BYTES,
        }
    }
}
