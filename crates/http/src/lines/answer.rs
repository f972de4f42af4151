//! Answers, in the shape that each family's clients read.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tandem_env::{Chance, SystemChance};
use tandem_lines::{LineError, LineErrorKind};
use tandem_types::{Error, ErrorKind};

use super::LineReceipt;
use super::body::BODY_BYTES;
use super::request::Family;
use super::write::Failure;

/// Seconds after which a request may be tried again here.
const AGAIN: &str = "1";

/// Refused lines that a message tells of; the list beside it has more.
const TOLD: usize = 5;

/// Success.
pub(crate) fn done(receipt: Option<&LineReceipt>) -> Response {
    with_receipt(StatusCode::NO_CONTENT.into_response(), receipt)
}

/// Anything else.
pub(crate) fn failed(family: Family, failure: &Failure) -> Response {
    match failure {
        Failure::Error(error) => refused(family, status_of(family, error.kind()), error),
        Failure::Encoding(error) => refused(family, StatusCode::UNSUPPORTED_MEDIA_TYPE, error),
        Failure::TooLarge => {
            let message = format!("the body has more than {BODY_BYTES} bytes: send less at a time");
            refused(family, StatusCode::PAYLOAD_TOO_LARGE, &Error::invalid(message))
        }
        Failure::Lines { errors, count, written } => lines(family, errors, *count, written.as_ref()),
    }
}

/// 400 is for what can never be written as it is: some clients throw it away. Everything that passes is 503.
fn status_of(family: Family, kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::SchemaConflict
        | ErrorKind::HistoryGone
        | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
        ErrorKind::Serialization
        | ErrorKind::Overloaded
        | ErrorKind::Unavailable
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Behind
        | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        // QuestDB's clients go to their next address; InfluxDB's would take any 4xx but 429 as final.
        ErrorKind::NotWriter if family == Family::QuestDb => StatusCode::MISDIRECTED_REQUEST,
        ErrorKind::NotWriter => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::TokenReused | ErrorKind::TokenExpired => StatusCode::CONFLICT,
        ErrorKind::QuorumTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::OutcomeUnknown
        | ErrorKind::Damaged
        | ErrorKind::NewerFormat
        | ErrorKind::StoreRefused
        | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn refused(family: Family, status: StatusCode, error: &Error) -> Response {
    let mut response =
        with_body(family, status, plain(family, status, error.message(), None), error.message());
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(AGAIN));
    }
    if error.kind() == ErrorKind::NotWriter {
        headers.insert("x-questdb-role", HeaderValue::from_static("REPLICA"));
    }
    if let Some(code) = error.kind().code() {
        headers.insert("tandem-error", HeaderValue::from_static(code));
    }
    let seq = error.seq().map(|seq| ("tandem-seq", seq.to_string()));
    let writer = error.writer().map(|writer| ("tandem-writer", writer.to_owned()));
    for (name, value) in seq.into_iter().chain(writer) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn lines(
    family: Family,
    errors: &[LineError],
    count: u64,
    written: Option<&Option<LineReceipt>>,
) -> Response {
    let Some(first) = errors.first() else {
        let error = Error::internal(format!("{count} lines were refused, and none is listed"));
        return refused(family, StatusCode::INTERNAL_SERVER_ERROR, &error);
    };
    let influx = matches!(family, Family::InfluxV1 | Family::InfluxV2);
    let message = match (influx && written.is_some(), count) {
        (true, _) => partial(errors, count),
        (false, 1) => format!("{first}; {}", fate(written)),
        (false, _) => format!("{first}; {} more lines are refused; {}", count - 1, fate(written)),
    };
    let limit = errors.iter().any(|error| error.kind == LineErrorKind::Limit);
    let status = match family {
        Family::InfluxV3 if limit => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = match (family, written) {
        (Family::InfluxV3, Some(_)) => json!({
            "error": "partial write of line protocol occurred",
            "data": errors.iter().map(line).collect::<Vec<_>>(),
        }),
        (Family::InfluxV3, None) => json!({"error": "line protocol parsing error", "data": line(first)}),
        (_, Some(_)) => {
            let mut body = plain(family, status, &message, Some(first.line));
            if let Some(body) = body.as_object_mut() {
                body.insert("data".to_owned(), errors.iter().map(line).collect());
            }
            body
        }
        _ => plain(family, status, &message, Some(first.line)),
    };
    with_receipt(with_body(family, status, body, &message), written.and_then(Option::as_ref))
}

fn fate(written: Option<&Option<LineReceipt>>) -> &'static str {
    match written {
        Some(Some(_)) => "the others are written",
        _ => "nothing is written",
    }
}

/// In the words of InfluxDB, whose clients and their users look for them.
fn partial(errors: &[LineError], count: u64) -> String {
    let told: Vec<String> = errors.iter().take(TOLD).map(LineError::to_string).collect();
    let more = match usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(told.len()) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("partial write: {}{more} dropped={count}", told.join("; "))
}

fn line(error: &LineError) -> Value {
    json!({
        "original_line": error.original,
        "line_number": error.line,
        "error_message": error.to_string(),
    })
}

/// The body of an error that is not about lines, or of families without a shape for those.
fn plain(family: Family, status: StatusCode, message: &str, line: Option<u64>) -> Value {
    let code = match status {
        StatusCode::BAD_REQUEST => "invalid",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable entity",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "not supported",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::CONFLICT => "conflict",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::GATEWAY_TIMEOUT => "timeout",
        StatusCode::MISDIRECTED_REQUEST => "not writer",
        _ => "internal error",
    };
    match family {
        Family::InfluxV1 | Family::InfluxV3 => json!({"error": message}),
        Family::InfluxV2 => match line {
            Some(line) => json!({"code": code, "message": message, "line": line}),
            None => json!({"code": code, "message": message}),
        },
        Family::QuestDb => {
            let id = format!("{:012x}", SystemChance.next_u64() >> 16);
            match line {
                Some(line) => json!({"code": code, "message": message, "line": line, "errorId": id}),
                None => json!({"code": code, "message": message, "errorId": id}),
            }
        }
    }
}

/// Without a length, and typed without a character set: that alone is what QuestDB's clients read.
fn with_body(family: Family, status: StatusCode, body: Value, message: &str) -> Response {
    let body = Body::from_stream(stream::iter([Ok::<_, std::convert::Infallible>(body.to_string())]));
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
    // What is no header text would break the answer.
    let short: String = message.chars().filter(|c| c.is_ascii() && !c.is_control()).take(500).collect();
    if family != Family::QuestDb
        && let Ok(value) = HeaderValue::try_from(short)
    {
        response.headers_mut().insert("x-influxdb-error", value.clone());
        response.headers_mut().insert("x-influx-error", value);
    }
    response
}

fn with_receipt(mut response: Response, receipt: Option<&LineReceipt>) -> Response {
    let Some(receipt) = receipt else { return response };
    let headers = response.headers_mut();
    headers.insert("tandem-seq", HeaderValue::from(receipt.seq.0));
    if let Ok(acked) = HeaderValue::try_from(&receipt.acked) {
        headers.insert("tandem-acked", acked);
    }
    if receipt.duplicate {
        headers.insert("tandem-duplicate", HeaderValue::from_static("true"));
    }
    response
}
