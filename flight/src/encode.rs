//! Record batches to Flight messages.
//!
//! Arrow's own encoder is not used: it sends `LargeList` columns under the type `List`, and measures slices by the
//! buffers behind them, so that a small slice of a large batch is sent row by row.

use std::collections::VecDeque;
use std::fmt;

use arrow::array::{Array, RecordBatch};
use arrow_flight::FlightData;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, try_unfold};
use tandem_types::{Error, Result};

/// Some clients take no message above 4 MiB; one huge value may still exceed this.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// The messages of a result: its schema, always, then the batches, which must have exactly that schema.
pub(crate) fn encode(
    schema: &SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
    compression: Option<CompressionType>,
) -> Result<BoxStream<'static, Result<FlightData>>> {
    let untagged = |batch| Tagged { batch, piece: Bytes::new(), last: Bytes::new() };
    encode_tagged(schema, batches.map(move |batch| batch.map(untagged)).boxed(), compression)
}

/// A batch, and the `app_metadata` of its messages.
pub(crate) struct Tagged {
    pub batch: RecordBatch,
    /// Of all messages but the last, where it takes several.
    pub piece: Bytes,
    pub last: Bytes,
}

/// As [`encode`], of batches that say something.
pub(crate) fn encode_tagged(
    schema: &SchemaRef,
    batches: BoxStream<'static, Result<Tagged>>,
    compression: Option<CompressionType>,
) -> Result<BoxStream<'static, Result<FlightData>>> {
    let options =
        IpcWriteOptions::default().try_with_compression(compression).map_err(|e| failed("the options", e))?;
    let mut encoder = Encoder {
        generator: IpcDataGenerator::default(),
        tracker: DictionaryTracker::new(false),
        context: IpcWriteContext::default(),
        options,
        batches,
        pieces: VecDeque::new(),
        tags: (Bytes::new(), Bytes::new()),
        messages: VecDeque::new(),
    };
    let message = encoder.generator.schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut encoder.tracker,
        &encoder.options,
    );
    encoder.messages.push_back(message.into());
    Ok(try_unfold(encoder, |mut encoder| async move {
        Ok(encoder.next().await?.map(|message| (message, encoder)))
    })
    .boxed())
}

struct Encoder {
    generator: IpcDataGenerator,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
    batches: BoxStream<'static, Result<Tagged>>,
    /// Of the present batch, not encoded yet: slices that copy nothing.
    pieces: VecDeque<RecordBatch>,
    /// What the present batch says.
    tags: (Bytes, Bytes),
    messages: VecDeque<FlightData>,
}

impl Encoder {
    async fn next(&mut self) -> Result<Option<FlightData>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            if let Some(piece) = self.pieces.pop_front() {
                self.encode(&piece)?;
                continue;
            }
            match self.batches.next().await.transpose()? {
                Some(Tagged { batch, piece, last }) => {
                    self.tags = (piece, last);
                    split(batch, &mut self.pieces);
                }
                None => return Ok(None),
            }
        }
    }

    fn encode(&mut self, piece: &RecordBatch) -> Result<()> {
        let (dictionaries, batch) = self
            .generator
            .encode(piece, &mut self.tracker, &self.options, &mut self.context)
            .map_err(|e| failed("a batch", e))?;
        self.messages.extend(dictionaries.into_iter().map(FlightData::from));
        let mut message = FlightData::from(batch);
        let (piece, last) = &self.tags;
        message.app_metadata = if self.pieces.is_empty() { last.clone() } else { piece.clone() };
        self.messages.push_back(message);
        Ok(())
    }
}

/// Halves the batch until each piece is small enough, or one row.
fn split(batch: RecordBatch, pieces: &mut VecDeque<RecordBatch>) {
    let rows = batch.num_rows();
    if rows <= 1 || slice_bytes(&batch) <= MAX_BATCH_BYTES {
        pieces.push_back(batch);
        return;
    }
    let half = rows / 2;
    split(batch.slice(0, half), pieces);
    split(batch.slice(half, rows - half), pieces);
}

/// Bytes of the rows themselves, not of the buffers that they are a part of.
pub(crate) fn slice_bytes(batch: &RecordBatch) -> usize {
    let of = |column: &dyn Array| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_buffer_memory_size())
    };
    batch.columns().iter().map(|c| of(c.as_ref())).sum()
}

fn failed(what: &str, error: impl fmt::Display) -> Error {
    Error::internal(format!("encoding {what} of a result: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, LargeListArray, StringArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use futures::TryStreamExt;

    use super::*;
    use crate::decode::Decoder;

    fn round_trip(batch: &RecordBatch, compression: Option<CompressionType>) -> (usize, RecordBatch) {
        let stream = futures::stream::iter([Ok(batch.clone())]).boxed();
        let messages = encode(&batch.schema(), stream, compression).unwrap().try_collect::<Vec<_>>();
        let messages = futures::executor::block_on(messages).unwrap();
        let largest = messages.iter().map(|m| m.data_body.len()).max().unwrap();
        let mut decoder = Decoder::default();
        let mut batches = Vec::new();
        for message in messages {
            batches.extend(decoder.decode(&message).unwrap());
        }
        assert_eq!(decoder.schema().unwrap(), &batch.schema());
        (largest, arrow::compute::concat_batches(&batch.schema(), &batches).unwrap())
    }

    fn columns() -> RecordBatch {
        let list = LargeListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![Some(3)]),
        ]);
        let dictionary: DictionaryArray<Int32Type> = [Some("a"), None, Some("b")].into_iter().collect();
        RecordBatch::try_from_iter([
            ("list", Arc::new(list) as ArrayRef),
            ("dictionary", Arc::new(dictionary) as ArrayRef),
            ("text", Arc::new(StringArray::from(vec![Some("x"), None, Some("z")])) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn types_and_values_arrive_as_declared() {
        let batch = columns();
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            assert_eq!(round_trip(&batch, compression).1, batch);
            assert_eq!(round_trip(&batch.slice(1, 2), compression).1, batch.slice(1, 2));
        }
    }

    #[test]
    fn large_batches_are_split_and_small_slices_of_them_are_not() {
        let numbers: Int64Array = (0..1_000_000).collect();
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        let (largest, back) = round_trip(&batch, None);
        assert!(largest <= MAX_BATCH_BYTES + 128, "{largest}");
        assert_eq!(back, batch);
        let mut pieces = VecDeque::new();
        split(batch.slice(500_000, 1000), &mut pieces);
        assert_eq!(pieces.len(), 1);
    }

    #[test]
    fn an_empty_result_still_has_its_schema() {
        let schema = columns().schema();
        let messages =
            encode(&schema, futures::stream::empty().boxed(), None).unwrap().try_collect::<Vec<_>>();
        let messages = futures::executor::block_on(messages).unwrap();
        assert_eq!(messages.len(), 1);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&messages[0]).unwrap(), None);
        assert_eq!(decoder.schema().unwrap(), &schema);
    }
}
