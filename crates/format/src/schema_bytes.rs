//! Arrow types as bytes: the flatbuffer of an Arrow IPC `Schema`, which outlives any version of this program.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow_ipc::root_as_schema;
use arrow_ipc::writer::DictionaryTracker;
use arrow_schema::{DataType, Field, Fields, Schema};
use tandem_types::{Error, Result};

/// Fields as an IPC schema flatbuffer. Deterministic: fields of ours carry no metadata at the top level.
pub fn encode_fields(fields: Vec<Field>) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    IpcSchemaEncoder::new()
        .with_dictionary_tracker(&mut dictionaries)
        .schema_to_fb(&Schema::new(fields))
        .finished_data()
        .to_vec()
}

/// The fields that [`encode_fields`] was given, or an error: the bytes may be anybody's.
pub fn decode_fields(bytes: &[u8]) -> Result<Fields> {
    let schema = root_as_schema(bytes)
        .map_err(|e| Error::damaged(format!("an Arrow schema in the record does not decode: {e}")))?;
    // The converter panics on flatbuffers that verify but make no sense.
    catch_unwind(AssertUnwindSafe(|| fb_to_schema(schema).fields))
        .map_err(|_| Error::damaged("an Arrow schema in the record makes no sense"))
}

/// A single type, as the only field of a schema.
pub(crate) fn encode_type(data_type: &DataType) -> Vec<u8> {
    encode_fields(vec![Field::new("", data_type.clone(), true)])
}

pub(crate) fn decode_type(bytes: &[u8]) -> Result<DataType> {
    match decode_fields(bytes)?.as_ref() {
        [field] => Ok(field.data_type().clone()),
        fields => Err(Error::damaged(format!("a type was stored as {} fields", fields.len()))),
    }
}
