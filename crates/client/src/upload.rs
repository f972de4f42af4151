//! DoPut with a request that can fail.
//!
//! The generated client's request stream can only end, and an end means "that was all": a server would
//! commit half of an ingest whose source broke. Here an item may be an error; it makes the encoder
//! fail, which resets the HTTP/2 stream, and the server sees a broken call.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use arrow_schema::SchemaRef;
use futures::{Stream, StreamExt};
use prost::Message;
use tandem_types::{Error, Result};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::status::{error_from_flight, error_from_status};

const DO_PUT: &str = "/arrow.flight.protocol.FlightService/DoPut";

/// Where the request's own failure waits while the call that it broke comes down.
#[derive(Clone, Default)]
pub(crate) struct SourceError(Arc<Mutex<Option<Error>>>);

impl SourceError {
    fn keep(&self, error: Error) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(error);
    }

    /// The reason a call failed: the source's error if there was one, else what the status says.
    pub(crate) fn explain(&self, status: &Status) -> Error {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        slot.unwrap_or_else(|| error_from_status(status))
    }
}

/// The answers to a DoPut, and what its source may have to say about their end.
pub(crate) struct Upload {
    pub(crate) answers: Streaming<PutResult>,
    pub(crate) source_error: SourceError,
}

impl Upload {
    /// The next answer, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<PutResult>> {
        self.answers.message().await.map_err(|status| self.source_error.explain(&status))
    }
}

/// Sends batches under a descriptor. Each batch becomes exactly one message.
pub(crate) async fn upload<S>(
    channel: Channel,
    headers: MetadataMap,
    descriptor: FlightDescriptor,
    schema: SchemaRef,
    batches: S,
) -> Result<Upload>
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    let source_error = SourceError::default();
    let slot = source_error.clone();
    let batches = batches.map(move |batch| {
        batch.map_err(|error| {
            slot.keep(error);
            FlightError::Tonic(Box::new(Status::cancelled("the source of the upload failed")))
        })
    });
    let slot = source_error.clone();
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_flight_descriptor(Some(descriptor))
        // Batches are cut before they come here; a second cut would break their numbering.
        .with_max_flight_data_size(usize::MAX)
        // By default dictionaries are written out: more bytes here, and more work for the server.
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(batches)
        .map(move |message| {
            message.map_err(|error| {
                slot.keep(error_from_flight(&error));
                Status::cancelled("the upload could not be encoded")
            })
        });
    let answers = send(channel, headers, messages).await.map_err(|status| source_error.explain(&status))?;
    Ok(Upload { answers, source_error })
}

/// One DoPut call over messages that may fail.
pub(crate) async fn send<S>(
    channel: Channel,
    headers: MetadataMap,
    messages: S,
) -> Result<Streaming<PutResult>, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(format!("the server is not ready: {e}")))?;
    let mut request = Request::new(messages);
    *request.metadata_mut() = headers;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(DO_PUT);
    Ok(grpc.streaming(request, path, FallibleCodec).await?.into_inner())
}

struct FallibleCodec;
struct FallibleEncoder;
struct PutResultDecoder;

impl Codec for FallibleCodec {
    type Encode = Result<FlightData, Status>;
    type Decode = PutResult;
    type Encoder = FallibleEncoder;
    type Decoder = PutResultDecoder;

    fn encoder(&mut self) -> FallibleEncoder {
        FallibleEncoder
    }

    fn decoder(&mut self) -> PutResultDecoder {
        PutResultDecoder
    }
}

impl Encoder for FallibleEncoder {
    type Item = Result<FlightData, Status>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item?.encode(dst).map_err(|e| Status::internal(format!("cannot encode a message: {e}")))
    }
}

impl Decoder for PutResultDecoder {
    type Item = PutResult;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<PutResult>, Status> {
        let result = PutResult::decode(src)
            .map_err(|e| Status::internal(format!("the server's answer is not a PutResult: {e}")))?;
        Ok(Some(result))
    }
}
