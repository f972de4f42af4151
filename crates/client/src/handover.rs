//! Transactions handed from node to node, to be committed there.
//!
//! One DoExchange per bundle, one message each way. What the bytes mean is the nodes' business; here they are carried, once
//! at most, and a failure says whether they can have arrived.

use std::sync::Arc;

use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use prost::Message;
use tandem_types::{DatabaseId, Error, ErrorKind, Result};

use crate::Client;
use crate::status::Failure;

/// The path of a DoExchange that hands over.
pub const SUBMIT_PATH: [&str; 3] = ["_tandem", "v1", "submit"];

/// What is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The database that it is for.
    pub database: DatabaseId,
    pub transactions: Bytes,
    /// The sections of the transactions, back to back.
    pub sections: Bytes,
}

/// What a service does with a bundle; its answers, as bytes.
pub type SubmitService = Arc<dyn Fn(Bundle) -> BoxFuture<'static, Result<Bytes>> + Send + Sync>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum SubmitFailure {
    /// The bundle did not arrive, or was not taken: nothing of it is or will be done.
    NotTaken(Error),
    /// Nobody knows.
    Unknown(Error),
}

#[derive(Clone, PartialEq, Message)]
struct SubmitMessage {
    #[prost(bytes = "vec", tag = "1")]
    database: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    transactions: Bytes,
}

impl Bundle {
    /// The only message of the exchange.
    pub fn to_message(&self) -> FlightData {
        let (database, transactions) = (self.database.0.to_be_bytes().to_vec(), self.transactions.clone());
        let path = SUBMIT_PATH.map(str::to_owned).to_vec();
        FlightData {
            flight_descriptor: Some(FlightDescriptor::new_path(path)),
            app_metadata: SubmitMessage { database, transactions }.encode_to_vec().into(),
            data_body: self.sections.clone(),
            ..FlightData::default()
        }
    }

    pub fn from_message(message: FlightData) -> Result<Self> {
        let bad = || {
            Error::invalid(
                "what a node hands over is not readable: it speaks another version of the protocol",
            )
        };
        let submit = SubmitMessage::decode(message.app_metadata).map_err(|_| bad())?;
        let database = submit.database.as_slice().try_into().map_err(|_| bad())?;
        let database = DatabaseId(u128::from_be_bytes(database));
        Ok(Self { database, transactions: submit.transactions, sections: message.data_body })
    }
}

/// Whether a DoExchange's first message hands something over.
pub fn asks_to_submit(first: &FlightData) -> bool {
    first.flight_descriptor.as_ref().is_some_and(|d| d.path.iter().eq(SUBMIT_PATH.iter()))
}

/// The message that carries the answers.
pub fn answer_message(answers: Bytes) -> FlightData {
    FlightData { app_metadata: answers, ..FlightData::default() }
}

/// Hands a bundle to the node that the client is connected to, or connects to first.
///
/// # Errors
///
/// Why there is no answer, and whether the bundle may be done all the same.
pub async fn submit(client: &Client, bundle: &Bundle) -> Result<Bytes, SubmitFailure> {
    let mut service = client.service().await.map_err(SubmitFailure::NotTaken)?;
    let message = bundle.to_message();
    let request = client.request(futures::stream::once(async move { message }));
    let mut answers = service.do_exchange(request).await.map_err(|s| judge(Failure::from(s)))?.into_inner();
    match answers.next().await {
        Some(Ok(answer)) => Ok(answer.app_metadata),
        Some(Err(status)) => Err(judge(Failure::from(status))),
        None => {
            Err(SubmitFailure::Unknown(Error::unavailable("the node ended the stream without an answer")))
        }
    }
}

fn judge(failure: Failure) -> SubmitFailure {
    use ErrorKind::{Forbidden, InvalidInput, Unauthenticated, Unsupported};
    // Said before anything is begun.
    let refused = matches!(failure.error.kind(), Forbidden | InvalidInput | Unauthenticated | Unsupported);
    if refused && !failure.lost {
        return SubmitFailure::NotTaken(failure.error);
    }
    SubmitFailure::Unknown(failure.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_arrives_and_garbage_is_an_error() {
        let bundle = Bundle {
            database: DatabaseId(u128::MAX - 9),
            transactions: Bytes::from_static(b"transactions"),
            sections: Bytes::from_static(b"sections"),
        };
        let message = bundle.to_message();
        assert!(asks_to_submit(&message));
        assert_eq!(Bundle::from_message(message).unwrap(), bundle);
        let garbage = FlightData { app_metadata: Bytes::from_static(b"\xff"), ..FlightData::default() };
        assert!(!asks_to_submit(&garbage));
        assert!(Bundle::from_message(garbage).is_err());
        assert!(Bundle::from_message(FlightData::default()).is_err(), "a database id of no length");
    }

    #[test]
    fn only_what_was_refused_before_it_began_was_not_taken() {
        let judged =
            |status: tonic::Status| matches!(judge(Failure::from(status)), SubmitFailure::NotTaken(_));
        assert!(judged(tonic::Status::permission_denied("no")));
        assert!(judged(tonic::Status::invalid_argument("what?")));
        for status in
            [tonic::Status::unknown("?"), tonic::Status::unavailable("?"), tonic::Status::cancelled("?")]
        {
            assert!(!judged(status));
        }
    }
}
