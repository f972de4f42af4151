//! Protobuf messages of Flight and Flight SQL that arrow-flight lacks.

use std::collections::HashMap;

use bytes::Bytes;
use tandem_types::{Error, Result};

/// A session option's value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub option_value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    TextList(TextList),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TextList {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, SetOptionError>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct SetOptionError {
    #[prost(enumeration = "SetOptionErrorValue", tag = "1")]
    pub value: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum SetOptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct CloseSessionResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// `ActionCreatePreparedStatementResult` with its field 4.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PreparedStatementResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub handle: Bytes,
    /// Of zero bytes for statements that return no rows.
    #[prost(bytes = "bytes", tag = "2")]
    pub dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    pub is_update: Option<bool>,
}

impl SessionOptionValue {
    pub fn text(value: impl Into<String>) -> Self {
        Self { option_value: Some(OptionValue::Text(value.into())) }
    }

    /// The value as `SET` would be given it; `None` unsets the option.
    pub fn to_text(&self) -> Option<String> {
        Some(match self.option_value.as_ref()? {
            OptionValue::Text(v) => v.clone(),
            OptionValue::Bool(v) => v.to_string(),
            OptionValue::Int64(v) => v.to_string(),
            OptionValue::Double(v) => v.to_string(),
            OptionValue::TextList(v) => v.values.join(","),
        })
    }
}

/// Decodes a message; `what` names it in the error.
pub(crate) fn decode<M: prost::Message + Default>(what: &str, bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|e| Error::invalid(format!("{what} is broken: {e}")))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn session_options_have_the_bytes_of_the_standard() {
        let request = SetSessionOptionsRequest {
            session_options: [("schema".to_owned(), SessionOptionValue::text("s"))].into(),
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x0d\x0a\x06schema\x12\x03\x0a\x01s");
        let back: SetSessionOptionsRequest = decode("x", &request.encode_to_vec()).unwrap();
        assert_eq!(back, request);
        let int = SessionOptionValue { option_value: Some(OptionValue::Int64(-2)) };
        assert_eq!(int.encode_to_vec(), b"\x19\xfe\xff\xff\xff\xff\xff\xff\xff", "sfixed64");
        assert_eq!(int.to_text().as_deref(), Some("-2"));
        assert_eq!(SessionOptionValue::default().to_text(), None);
        assert!(decode::<SetSessionOptionsRequest>("the request", b"\x0a\xff").is_err());
    }

    #[test]
    fn a_prepared_update_says_so() {
        let result = PreparedStatementResult {
            handle: Bytes::from_static(b"h"),
            is_update: Some(true),
            ..PreparedStatementResult::default()
        };
        assert_eq!(result.encode_to_vec(), b"\x0a\x01h\x20\x01");
    }
}
