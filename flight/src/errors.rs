//! Errors on the wire: one table from kinds to gRPC codes, and the way back for errors of a client's stream.

use std::any::Any;

use tandem_types::{Error, ErrorKind};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Longer messages would burst the header limits of clients once they are percent-encoded.
const MAX_MESSAGE_BYTES: usize = 2000;

/// The gRPC code of an error of this kind.
pub(crate) const fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::SchemaConflict => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Serialization => Code::Aborted,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::Unavailable | ErrorKind::NotWriter => Code::Unavailable,
        // not Unavailable, which client libraries retry by themselves
        ErrorKind::OutcomeUnknown => Code::Unknown,
        ErrorKind::DeadlineExceeded | ErrorKind::QuorumTimeout | ErrorKind::Behind => Code::DeadlineExceeded,
        ErrorKind::HistoryGone => Code::OutOfRange,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Damaged | ErrorKind::NewerFormat => Code::DataLoss,
        ErrorKind::StoreRefused | ErrorKind::TokenReused | ErrorKind::TokenExpired => {
            Code::FailedPrecondition
        }
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Internal => Code::Internal,
    }
}

/// An error as the client gets it: code, message as it is, the trailer `tandem-error` where the kind has a code, and
/// what else the error has to say to programs.
pub(crate) fn to_status(error: &Error) -> Status {
    let mut status = Status::new(code_of(error.kind()), clipped(error.message()));
    if let Some(code) = error.kind().code() {
        status.metadata_mut().insert("tandem-error", MetadataValue::from_static(code));
    }
    let seq = error.seq().map(|seq| ("tandem-seq", seq.to_string()));
    let writer = error.writer().map(|writer| ("tandem-writer", writer.to_owned()));
    for (name, value) in seq.into_iter().chain(writer) {
        // An address that cannot be a header is of no use to the client either.
        if let Ok(value) = MetadataValue::try_from(value) {
            status.metadata_mut().insert(name, value);
        }
    }
    status
}

/// What a broken request stream means here.
pub(crate) fn from_status(status: &Status) -> Error {
    let kind = match status.code() {
        Code::Cancelled | Code::Unknown => ErrorKind::Cancelled,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        // a message above the size limit
        Code::OutOfRange | Code::ResourceExhausted => ErrorKind::Overloaded,
        Code::Unavailable => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, format!("the client's stream broke: {}", status.message()))
}

/// The error of a request whose handling panicked. The panic's message goes to the log, not to the client.
pub(crate) fn from_panic(method: &str, panic: &(dyn Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(method, panic = said, "a request failed by a fault of the server");
    Error::internal("the request failed by a fault of the server; its log says more")
}

/// A code's name, for metrics.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn clipped(message: &str) -> String {
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    format!("{} …", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tandem_types::Seq;

    use super::*;

    #[test]
    fn kinds_with_a_code_carry_it_as_a_trailer() {
        let cases = [
            (ErrorKind::SchemaConflict, Code::InvalidArgument, Some("schema-conflict")),
            (ErrorKind::Overloaded, Code::ResourceExhausted, Some("overloaded")),
            (ErrorKind::Serialization, Code::Aborted, Some("serialization")),
            (ErrorKind::OutcomeUnknown, Code::Unknown, Some("outcome-unknown")),
            (ErrorKind::Damaged, Code::DataLoss, Some("damaged")),
            (ErrorKind::TokenReused, Code::FailedPrecondition, Some("token-reused")),
            (ErrorKind::TokenExpired, Code::FailedPrecondition, Some("token-expired")),
            (ErrorKind::NotWriter, Code::Unavailable, Some("not-writer")),
            (ErrorKind::QuorumTimeout, Code::DeadlineExceeded, Some("quorum-timeout")),
            (ErrorKind::Behind, Code::DeadlineExceeded, Some("behind")),
            (ErrorKind::NotFound, Code::NotFound, None),
            (ErrorKind::InvalidInput, Code::InvalidArgument, None),
        ];
        for (kind, code, trailer) in cases {
            let status = to_status(&Error::new(kind, "column \"größe\" is missing"));
            assert_eq!(status.code(), code, "{kind:?}");
            assert_eq!(status.message(), "column \"größe\" is missing");
            let found = status.metadata().get("tandem-error").map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(found.as_deref(), trailer, "{kind:?}");
        }
    }

    #[test]
    fn details_become_trailers() {
        let error =
            Error::quorum_timeout("committed at 7").with_seq(Seq(7)).with_writer("http://a:1,http://b:2");
        let status = to_status(&error);
        let trailer = |name: &str| status.metadata().get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(trailer("tandem-seq").as_deref(), Some("7"));
        assert_eq!(trailer("tandem-writer").as_deref(), Some("http://a:1,http://b:2"));
        let odd = to_status(&Error::not_writer("x").with_writer("a\nb"));
        assert!(odd.metadata().get("tandem-writer").is_none() && odd.metadata().get("tandem-seq").is_none());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let status = to_status(&Error::invalid("ä".repeat(5000)));
        assert!(status.message().len() <= MAX_MESSAGE_BYTES + 4);
        assert!(status.message().ends_with("ä …"));
    }
}
