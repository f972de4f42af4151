//! gRPC statuses as errors of ours: the one table of the client's side.

use std::error::Error as StdError;

use arrow_flight::error::FlightError;
use tandem_types::{Error, ErrorKind, Seq};
use tonic::{Code, Status};

use crate::dial::Closed;

/// The trailer that names an error more finely than gRPC's codes do.
const ERROR_TRAILER: &str = "tandem-error";
/// The trailer that names the nodes that take writes.
const WRITER_TRAILER: &str = "tandem-writer";
/// The trailer that names the commit that an answer is about.
pub(crate) const SEQ_TRAILER: &str = "tandem-seq";

/// One call's failure, and whether anybody knows what became of it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The connection broke while the call was under way: it may have been carried out.
    pub(crate) lost: bool,
    /// This side broke the call off, so that no other node could do better.
    pub(crate) ours: bool,
}

impl Failure {
    /// What was to be sent could not be had, or not be sent.
    pub(crate) fn ours(error: Error) -> Self {
        Self { error, lost: false, ours: true }
    }

    /// The call ended in a way that says nothing of what became of it.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { error: Error::unavailable(message), lost: true, ours: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { lost: error.kind() == ErrorKind::OutcomeUnknown, error, ours: false }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let broken = is_transport(status) && !was_closed(status);
        let error = error_from_status(status);
        Self { lost: broken || error.kind() == ErrorKind::OutcomeUnknown, error, ours: false }
    }
}

impl From<FlightError> for Failure {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::from(*status),
            other => Self::from(error_from_flight(&other)),
        }
    }
}

/// The error that a status stands for, with the server's message and details kept.
pub fn error_from_status(status: &Status) -> Error {
    if is_transport(status) {
        return Error::unavailable(format!("the connection failed: {}", deepest(status)));
    }
    let text = |name: &str| status.metadata().get(name).and_then(|v| v.to_str().ok());
    let kind = text(ERROR_TRAILER).and_then(kind_of_name).unwrap_or_else(|| kind_of_code(status.code()));
    let message = match status.message() {
        "" => format!("the server answered {:?} without a message", status.code()),
        message => message.to_owned(),
    };
    let mut error = Error::new(kind, message);
    if let Some(urls) = text(WRITER_TRAILER) {
        error = error.with_writer(urls);
    }
    if let Some(seq) = text(SEQ_TRAILER).and_then(|s| s.parse().ok()) {
        error = error.with_seq(Seq(seq));
    }
    error
}

/// A status made on this side because the connection broke, as opposed to one that the server sent.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether the connection was gone before the call was sent.
fn was_closed(status: &Status) -> bool {
    let mut current: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = current {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<Closed>() || inner.is_some_and(|e| e.is::<Closed>()) {
            return true;
        }
        current = error.source();
    }
    false
}

/// The innermost cause: tonic's own text is only "transport error".
pub(crate) fn deepest(error: &dyn StdError) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn kind_of_name(name: &str) -> Option<ErrorKind> {
    Some(match name {
        "schema-conflict" => ErrorKind::SchemaConflict,
        "serialization" => ErrorKind::Serialization,
        "overloaded" => ErrorKind::Overloaded,
        "outcome-unknown" => ErrorKind::OutcomeUnknown,
        "damaged" => ErrorKind::Damaged,
        "token-reused" => ErrorKind::TokenReused,
        "token-expired" => ErrorKind::TokenExpired,
        "not-writer" => ErrorKind::NotWriter,
        "quorum-timeout" => ErrorKind::QuorumTimeout,
        "behind" => ErrorKind::Behind,
        "history-gone" => ErrorKind::HistoryGone,
        _ => return None,
    })
}

fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorKind::InvalidInput,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::Aborted => ErrorKind::Serialization,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::ResourceExhausted => ErrorKind::Overloaded,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::DataLoss => ErrorKind::Damaged,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}

/// The error behind a failure of arrow-flight's encoder or decoder.
pub(crate) fn error_from_flight(error: &FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => error_from_status(status),
        FlightError::Arrow(e) => Error::invalid(format!("cannot encode or decode a batch: {e}")),
        other => Error::internal(format!("the server's stream is not valid Flight: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_outranks_the_code() {
        let mut status = Status::invalid_argument("column x is bigint, got text");
        assert_eq!(error_from_status(&status).kind(), ErrorKind::InvalidInput);
        status.metadata_mut().insert(ERROR_TRAILER, "schema-conflict".parse().unwrap());
        let error = error_from_status(&status);
        assert_eq!(error.kind(), ErrorKind::SchemaConflict);
        assert_eq!(error.message(), "column x is bigint, got text");
        status.metadata_mut().insert(ERROR_TRAILER, "something-newer".parse().unwrap());
        assert_eq!(error_from_status(&status).kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn every_code_of_ours_comes_back_as_its_kind() {
        for kind in [
            ErrorKind::SchemaConflict,
            ErrorKind::Serialization,
            ErrorKind::Overloaded,
            ErrorKind::OutcomeUnknown,
            ErrorKind::Damaged,
            ErrorKind::TokenReused,
            ErrorKind::TokenExpired,
            ErrorKind::NotWriter,
            ErrorKind::QuorumTimeout,
            ErrorKind::Behind,
        ] {
            assert_eq!(kind.code().and_then(kind_of_name), Some(kind));
        }
    }

    #[test]
    fn details_are_kept() {
        let mut status = Status::unavailable("node b is a replica");
        status.metadata_mut().insert(ERROR_TRAILER, "not-writer".parse().unwrap());
        status.metadata_mut().insert(WRITER_TRAILER, "grpc://a:1".parse().unwrap());
        status.metadata_mut().insert(SEQ_TRAILER, "7".parse().unwrap());
        let failure = Failure::from(status);
        assert_eq!(failure.error.kind(), ErrorKind::NotWriter);
        assert_eq!((failure.error.writer(), failure.error.seq()), (Some("grpc://a:1"), Some(Seq(7))));
        assert!(!failure.lost);
    }

    #[test]
    fn a_status_without_words_still_says_something() {
        assert!(error_from_status(&Status::not_found("")).message().contains("NotFound"));
    }
}
