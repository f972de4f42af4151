//! Errors on the wire: one table from kinds to SQLSTATE codes.

use tandem_types::{Error, ErrorKind};

use crate::message::Output;

/// An error as the client gets it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub state: &'static str,
    pub error: Error,
}

impl Failure {
    /// With a code of its own, where PostgreSQL has a closer one than the kind's.
    pub fn new(state: &'static str, error: Error) -> Self {
        Self { state, error }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { state: state_of(&error), error }
    }
}

/// The SQLSTATE of an error. `TD…` are codes of our own: PostgreSQL knows nothing like them.
fn state_of(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidInput if is_syntax(error.message()) => "42601",
        ErrorKind::InvalidInput => "22023",
        ErrorKind::NotFound if error.message().contains("column") || error.message().contains("field") => {
            "42703"
        }
        ErrorKind::NotFound if error.message().contains("schema") => "3F000",
        ErrorKind::NotFound => "42P01",
        ErrorKind::AlreadyExists => "42P07",
        ErrorKind::SchemaConflict => "42804",
        ErrorKind::Serialization => "40001",
        ErrorKind::Unsupported => "0A000",
        ErrorKind::Overloaded => "53000",
        ErrorKind::Unavailable => "57P03",
        // Drivers that know several hosts take this one for "try another".
        ErrorKind::NotWriter => "25006",
        ErrorKind::OutcomeUnknown => "08007",
        ErrorKind::DeadlineExceeded | ErrorKind::Cancelled => "57014",
        ErrorKind::HistoryGone => "72000",
        ErrorKind::Damaged | ErrorKind::NewerFormat => "XX001",
        ErrorKind::StoreRefused => "58000",
        ErrorKind::QuorumTimeout => "TD001",
        ErrorKind::Behind => "TD002",
        ErrorKind::TokenReused => "TD003",
        ErrorKind::TokenExpired => "TD004",
        ErrorKind::Unauthenticated => "28P01",
        ErrorKind::Forbidden => "42501",
        ErrorKind::Internal => "XX000",
    }
}

/// How a sentence about a table that is not there begins.
pub(crate) const UNDEFINED_TABLE: &str = "relation";

/// Whether a sentence begins with a place in the statement, as those of the parser do.
fn is_syntax(message: &str) -> bool {
    let begins = ["line ", "expected ", "the statement cannot be parsed", "there is no statement"];
    begins.iter().any(|begin| message.starts_with(begin))
}

/// Writes an error; `FATAL` ends the connection.
pub(crate) fn write_error(output: &mut Output, failure: &Failure, fatal: bool) {
    let severity = if fatal { "FATAL" } else { "ERROR" };
    let error = &failure.error;
    let code = error.kind().code().map(|code| match error.seq() {
        Some(seq) => format!("tandem-error: {code}; tandem-seq: {seq}"),
        None => format!("tandem-error: {code}"),
    });
    let writer = error.writer().map(|writer| format!("send writes to {writer}"));
    let mut fields = vec![(b'S', severity), (b'V', severity), (b'C', failure.state), (b'M', error.message())];
    fields.extend(code.as_deref().map(|code| (b'D', code)));
    fields.extend(writer.as_deref().map(|writer| (b'H', writer)));
    output.report(b'E', &fields);
}

/// Writes a remark that changes nothing.
pub(crate) fn write_warning(output: &mut Output, state: &'static str, message: &str) {
    output.report(b'N', &[(b'S', "WARNING"), (b'V', "WARNING"), (b'C', state), (b'M', message)]);
}

#[cfg(test)]
mod tests {
    use tandem_types::Seq;

    use super::*;

    #[test]
    fn programs_are_told_by_codes_what_they_can_do() {
        for (error, state) in [
            (Error::invalid("line 1, column 8: expected a name"), "42601"),
            (Error::invalid("a value of type Utf8 does not fit Int64"), "22023"),
            (Error::not_found("table public.x does not exist"), "42P01"),
            (Error::not_found("no field named \"x\""), "42703"),
            (Error::serialization("run it again"), "40001"),
            (Error::not_writer("a replica"), "25006"),
            (Error::forbidden("no"), "42501"),
        ] {
            assert_eq!(Failure::from(error.clone()).state, state, "{error}");
        }
    }

    #[test]
    fn details_travel_with_the_message() {
        let mut output = Output::default();
        let error = Error::not_writer("node b is a replica").with_writer("grpc://a:1").with_seq(Seq(7));
        write_error(&mut output, &error.into(), false);
        let bytes = output.take();
        let text = String::from_utf8_lossy(&bytes);
        for part in ["ERROR", "25006", "node b is a replica", "not-writer; tandem-seq: 7", "grpc://a:1"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
