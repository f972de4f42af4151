//! Constants as they are stored: one column of Arrow IPC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use tandem_format::Literal;
use tandem_segment::{Limits, decode_section, encode_section};
use tandem_types::{Error, Result};

use crate::common::plain;

/// The values of an array as a literal. Equal values of one type give equal bytes: dictionaries are unpacked and
/// slices cut out.
pub fn literal_of(array: &ArrayRef) -> Result<Literal> {
    let to = plain(array.data_type());
    let unstorable = |e| Error::unsupported(format!("a constant of type {to} cannot be stored: {e}"));
    let values = cast(array, &to).map_err(unstorable)?;
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("v", to.clone(), true)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![values]).map_err(unstorable)?;
    let encoded = encode_section(&schema, &[batch])?;
    Ok(Literal { ipc: encoded.chunks.concat() })
}

/// The values of a literal. Its bytes may be anybody's; an error is of the kind damaged.
pub fn literal_array(literal: &Literal) -> Result<ArrayRef> {
    let limits = Limits { max_columns: 1, ..Limits::default() };
    let section = decode_section(&Bytes::from(literal.ipc.clone()), None, &limits)
        .map_err(|e| e.context("decoding a constant"))?;
    let [field] = section.schema.fields().as_ref() else {
        let columns = section.schema.fields().len();
        return Err(Error::damaged(format!("a constant has {columns} columns instead of one")));
    };
    let columns: Vec<&dyn Array> =
        section.batches.iter().flat_map(|b| b.columns()).map(AsRef::as_ref).collect();
    match columns.as_slice() {
        [] => Ok(new_empty_array(field.data_type())),
        many => concat(many).map_err(|e| Error::damaged(format!("decoding a constant: {e}"))),
    }
}
