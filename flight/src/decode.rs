//! Flight messages of a client to record batches. Nothing is decoded before the guard has seen it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow_flight::FlightData;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::root_as_message;
use arrow_schema::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use tandem_segment::Limits;
use tandem_segment::guard::{MessageKind, StreamGuard, guarded};
use tandem_types::{Error, Result};
use tonic::Status;

use crate::encode::slice_bytes;
use crate::errors::from_status;

/// Bytes that one compressed message may become.
const MAX_DECOMPRESSED_BYTES: u64 = 256 << 20;
/// Bytes of dictionaries that one client's stream may hold.
const MAX_DICTIONARY_BYTES: u64 = 256 << 20;

/// Decodes the messages of one stream, one after another.
#[derive(Debug)]
pub(crate) struct Decoder {
    guard: StreamGuard,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Default for Decoder {
    fn default() -> Self {
        let limits = Limits {
            max_decompressed_bytes: MAX_DECOMPRESSED_BYTES,
            max_dictionary_bytes: MAX_DICTIONARY_BYTES,
            ..Limits::default()
        };
        Self { guard: StreamGuard::new(limits), schema: None, dictionaries: HashMap::new() }
    }
}

impl Decoder {
    #[cfg(test)]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// The batch that this message completes, if it does. After an error the stream is lost.
    pub fn decode(&mut self, data: &FlightData) -> Result<Option<RecordBatch>> {
        // A descriptor or metadata alone.
        if data.data_header.is_empty() {
            return Ok(None);
        }
        let kind = self.guard.check(&data.data_header, &data.data_body)?;
        guarded("decoding an Arrow message", || self.decode_checked(kind, data))
    }

    fn decode_checked(&mut self, kind: MessageKind, data: &FlightData) -> Result<Option<RecordBatch>> {
        let broken = |e: &dyn std::fmt::Display| Error::invalid(format!("an Arrow message is broken: {e}"));
        let message = root_as_message(&data.data_header).map_err(|e| broken(&e))?;
        if kind == MessageKind::Schema {
            let schema = message.header_as_schema().ok_or_else(|| broken(&"no schema"))?;
            self.schema = Some(Arc::new(fb_to_schema(schema)));
            return Ok(None);
        }
        let schema = self.schema.clone().ok_or_else(|| Error::invalid("rows come before their schema"))?;
        let body = aligned(&data.data_body, &schema);
        if kind == MessageKind::Dictionary {
            let dictionary = message.header_as_dictionary_batch().ok_or_else(|| broken(&"no dictionary"))?;
            read_dictionary(&body, dictionary, &schema, &mut self.dictionaries, &message.version())
                .map_err(|e| broken(&e))?;
            return Ok(None);
        }
        let batch = message.header_as_record_batch().ok_or_else(|| broken(&"no record batch"))?;
        read_record_batch(&body, batch, schema, &self.dictionaries, None, &message.version())
            .map(Some)
            .map_err(|e| broken(&e))
    }
}

/// A message's body for the reader of its rows, which aligns what is not aligned, all but the offsets of unions.
fn aligned(body: &Bytes, schema: &Schema) -> Buffer {
    let whole = body.as_ptr().align_offset(align_of::<i64>()) == 0;
    let has_unions =
        || schema.flattened_fields().iter().any(|f| matches!(f.data_type(), DataType::Union(..)));
    if !whole && has_unions() { Buffer::from_slice_ref(body) } else { Buffer::from(body.clone()) }
}

/// A batch and what the client said about it.
#[derive(Debug)]
pub(crate) struct Received {
    pub batch: RecordBatch,
    pub app_metadata: Bytes,
}

/// The record batches of a request stream.
pub(crate) struct BatchReader {
    input: BoxStream<'static, Result<FlightData, Status>>,
    decoder: Decoder,
}

impl BatchReader {
    pub fn new(input: BoxStream<'static, Result<FlightData, Status>>) -> Self {
        Self { input, decoder: Decoder::default() }
    }

    /// Reads on until the schema is known; `None`: the stream ended without one.
    pub async fn schema(&mut self) -> Result<Option<SchemaRef>> {
        while self.decoder.schema.is_none() {
            let Some(data) = self.message().await? else { break };
            // Before the schema there can be no batch: the guard refuses one.
            self.decoder.decode(&data)?;
        }
        Ok(self.decoder.schema.clone())
    }

    /// The next batch; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Received>> {
        while let Some(data) = self.message().await? {
            if let Some(batch) = self.decoder.decode(&data)? {
                return Ok(Some(Received { batch, app_metadata: data.app_metadata }));
            }
        }
        Ok(None)
    }

    /// All rows in one batch, at most `limit` bytes of them; `None` when the client sent no columns, whatever it sent
    /// else: clients without parameters send nothing, an empty schema, or an empty schema and an empty batch.
    pub async fn collect(&mut self, limit: usize) -> Result<Option<RecordBatch>> {
        let Some(schema) = self.schema().await? else { return Ok(None) };
        let (mut batches, mut bytes) = (Vec::new(), 0usize);
        while let Some(received) = self.next().await? {
            bytes = bytes.saturating_add(slice_bytes(&received.batch));
            if bytes > limit {
                return Err(Error::new(
                    tandem_types::ErrorKind::Overloaded,
                    format!("the bound parameters have more than the {limit} bytes allowed"),
                ));
            }
            batches.push(received.batch);
        }
        if schema.fields().is_empty() {
            return Ok(None);
        }
        concat_batches(&schema, &batches)
            .map(Some)
            .map_err(|e| Error::invalid(format!("the bound parameters do not fit together: {e}")))
    }

    async fn message(&mut self) -> Result<Option<FlightData>> {
        self.input.next().await.transpose().map_err(|status| from_status(&status))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, UnionArray};
    use arrow::datatypes::Int32Type;
    use arrow_flight::FlightDescriptor;
    use arrow_flight::utils::batches_to_flight_data;
    use arrow_schema::{Field, UnionFields};
    use futures::executor::block_on;
    use tandem_types::ErrorKind;

    use super::*;

    fn batch(values: Vec<i32>) -> RecordBatch {
        RecordBatch::try_from_iter([("0", Arc::new(Int32Array::from(values)) as ArrayRef)]).unwrap()
    }

    fn messages(batches: Vec<RecordBatch>) -> Vec<FlightData> {
        let schema = batches[0].schema();
        batches_to_flight_data(&schema, batches).unwrap()
    }

    fn reader(messages: Vec<FlightData>) -> BatchReader {
        BatchReader::new(futures::stream::iter(messages.into_iter().map(Ok)).boxed())
    }

    #[test]
    fn parameters_of_many_batches_become_one() {
        let mut input = messages(vec![batch(vec![1, 2]), batch(vec![3])]);
        let bare = FlightData { flight_descriptor: Some(FlightDescriptor::default()), ..Default::default() };
        input.insert(0, bare.clone());
        assert_eq!(block_on(reader(input.clone()).collect(1000)).unwrap(), Some(batch(vec![1, 2, 3])));
        let error = block_on(reader(input).collect(4)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(block_on(reader(vec![bare]).collect(4)).unwrap(), None);
    }

    /// As gRPC hands bodies on: at any address.
    #[test]
    fn unions_are_read_wherever_their_bytes_lie() {
        let fields = UnionFields::from_fields(vec![Field::new("i", DataType::Int32, true)]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
        let column =
            UnionArray::try_new(fields, vec![0, 0].into(), Some(vec![0, 1].into()), vec![values]).unwrap();
        let sent = RecordBatch::try_from_iter([("0", Arc::new(column) as ArrayRef)]).unwrap();
        for shift in 0..16 {
            let mut input = messages(vec![sent.clone()]);
            let moved = [&vec![0; shift][..], &input[1].data_body].concat();
            input[1].data_body = Bytes::from(moved).slice(shift..);
            let read = block_on(reader(input).collect(1000)).unwrap().unwrap();
            let ints = read.column(0).as_union().child(0).as_primitive::<Int32Type>();
            assert_eq!(ints.values(), &[7, 8], "{shift}");
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_bad_input() {
        let mut input = messages(vec![batch(vec![1, 2, 3])]);
        input[1].data_body = Bytes::from_static(b"xy");
        let error = block_on(reader(input.clone()).collect(1000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        input[0].data_header = Bytes::from_static(b"nonsense");
        let error = block_on(reader(input.clone()).schema()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        input.remove(0);
        assert_eq!(block_on(reader(input).next()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
