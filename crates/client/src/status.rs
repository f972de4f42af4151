//! gRPC statuses as errors of ours: the one table of the client's side.

use arrow_flight::error::FlightError;
use tandem_types::{Error, ErrorKind};
use tonic::{Code, Status};

use crate::address::deepest;

/// The trailer that names an error more finely than gRPC's codes do.
const ERROR_TRAILER: &str = "tandem-error";

/// The error that a status stands for, with the server's message kept.
pub fn error_from_status(status: &Status) -> Error {
    if is_transport(status) {
        return Error::unavailable(format!("the connection failed: {}", deepest(status)));
    }
    let named = status.metadata().get(ERROR_TRAILER).and_then(|v| v.to_str().ok());
    let kind = named.and_then(kind_of_name).unwrap_or_else(|| kind_of_code(status.code()));
    let message = match status.message() {
        "" => format!("the server answered {:?} without a message", status.code()),
        message => message.to_owned(),
    };
    Error::new(kind, message)
}

/// A status made on this side because the connection broke, as opposed to one that the server sent.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
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
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::InvalidInput,
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
    fn a_status_without_words_still_says_something() {
        assert!(error_from_status(&Status::not_found("")).message().contains("NotFound"));
    }
}
