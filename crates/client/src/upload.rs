//! DoPut with a request that can fail.
//!
//! The generated client's request stream can only end, and an end means "that was all": a server would
//! commit half of an ingest whose source broke. Here an item may be an error; it makes the encoder
//! fail, which resets the HTTP/2 stream, and the server sees a broken call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use arrow_schema::SchemaRef;
use futures::{Stream, StreamExt};
use prost::Message;
use tandem_types::{Error, Result};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use crate::links::Link;
use crate::status::{Failure, error_from_flight};

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
    pub(crate) fn explain(&self, status: &Status) -> Failure {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        slot.map_or_else(|| Failure::from(status), Failure::ours)
    }
}

/// A batch on its way, and the token that stands for it if it is a transaction of its own.
pub(crate) struct Outgoing {
    pub(crate) batch: RecordBatch,
    pub(crate) token: Option<String>,
}

/// The answers to a DoPut, and what its source may have to say about their end.
pub(crate) struct Upload {
    headers: MetadataMap,
    answers: Streaming<PutResult>,
    source_error: SourceError,
}

impl Upload {
    /// The next answer, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<PutResult>, Failure> {
        self.answers.message().await.map_err(|status| self.source_error.explain(&status))
    }

    /// What the server said beside its answers; reads on to their end.
    pub(crate) async fn metadata(mut self) -> MetadataMap {
        // The answers are here: a connection that breaks now takes nothing away from them.
        let trailers = self.answers.trailers().await.ok().flatten().unwrap_or_default();
        let mut headers = self.headers.into_headers();
        headers.extend(trailers.into_headers());
        MetadataMap::from_headers(headers)
    }
}

/// Sends batches under a descriptor. Each batch becomes exactly one message.
pub(crate) async fn upload<S>(
    link: &Link,
    headers: MetadataMap,
    descriptor: FlightDescriptor,
    schema: SchemaRef,
    batches: S,
) -> Result<Upload, Failure>
where
    S: Stream<Item = Result<Outgoing>> + Send + 'static,
{
    let source_error = SourceError::default();
    let slot = source_error.clone();
    let tokens = Arc::new(Mutex::new(VecDeque::new()));
    let unsent = tokens.clone();
    let batches = batches.map(move |outgoing| match outgoing {
        Ok(Outgoing { batch, token }) => {
            unsent.lock().unwrap_or_else(PoisonError::into_inner).push_back(token);
            Ok(batch)
        }
        Err(error) => {
            slot.keep(error);
            Err(FlightError::Tonic(Box::new(Status::cancelled("the source of the upload failed"))))
        }
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
        .map(move |message| match message {
            Ok(mut message) => {
                if is_batch(&message) {
                    let token = tokens.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
                    message.app_metadata = token.map(metadata_of).unwrap_or_default();
                }
                Ok(message)
            }
            Err(error) => {
                slot.keep(error_from_flight(&error));
                Err(Status::cancelled("the upload could not be encoded"))
            }
        });
    let (headers, answers) =
        send(link, headers, messages).await.map_err(|status| source_error.explain(&status))?;
    Ok(Upload { headers, answers, source_error })
}

/// Whether a message completes a batch; schemas and dictionaries come in messages of their own.
fn is_batch(message: &FlightData) -> bool {
    root_as_message(&message.data_header).is_ok_and(|m| m.header_type() == MessageHeader::RecordBatch)
}

fn metadata_of(token: String) -> bytes::Bytes {
    serde_json::json!({ "token": token }).to_string().into()
}

/// One DoPut call over messages that may fail.
pub(crate) async fn send<S>(
    link: &Link,
    headers: MetadataMap,
    messages: S,
) -> Result<(MetadataMap, Streaming<PutResult>), Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let mut grpc = tonic::client::Grpc::new(link.channel.clone());
    grpc.ready().await.map_err(|e| Status::unavailable(format!("the server is not ready: {e}")))?;
    let mut request = Request::new(messages);
    *request.metadata_mut() = headers;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(DO_PUT);
    let (headers, answers, _) = grpc.streaming(request, path, FallibleCodec).await?.into_parts();
    Ok((headers, answers))
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
