//! Request headers that begin with `tandem-`. Of the others, only the deadline and the client's name are looked at.

use std::time::Duration;

use arrow_ipc::CompressionType;
use tandem_manifest::SchemaPolicy;
use tandem_sql::{Ack, AsOf, ClientToken, parse_read, parse_seq};
use tandem_types::{Error, Result, Seq, parse_duration};
use tonic::metadata::{KeyRef, MetadataMap};

const KNOWN: &str = "tandem-token, tandem-ack, tandem-ack-timeout, tandem-min-seq, tandem-read, tandem-as-of, \
                     tandem-schema, tandem-types, tandem-compression";

/// Kept back from a request's deadline, at most: an answer that leaves at the deadline arrives after it.
const WAY_BACK: Duration = Duration::from_millis(100);

/// How the library names itself under which the JDBC driver runs.
const JAVA: &str = "grpc-java";

/// What a request's headers ask for. What they do not say is for the session to decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequestOptions {
    /// Of a write. A plain DoPut makes one for each of its batches from it.
    pub token: Option<ClientToken>,
    pub ack: Option<Ack>,
    pub ack_timeout: Option<Duration>,
    /// The state that a read must see.
    pub min_seq: Option<Seq>,
    /// Whether a read must see what other nodes committed before it.
    pub latest: Option<bool>,
    /// The state of the past that a read sees.
    pub as_of: Option<AsOf>,
    /// When an answer must leave, from the request's arrival on.
    pub deadline: Option<Duration>,
    /// What an append may do to its table; without the header the session decides.
    pub schema: Option<SchemaPolicy>,
    /// Compression of the record batches sent.
    pub compression: Option<CompressionType>,
    /// Whether the client binds all timestamps as milliseconds, as the JDBC driver does, whatever unit a parameter has.
    pub binds_milliseconds: bool,
}

impl RequestOptions {
    pub fn parse(metadata: &MetadataMap) -> Result<Self> {
        let mut options = Self::default();
        for key in metadata.keys() {
            let name = match key {
                KeyRef::Ascii(name) => name.as_str(),
                KeyRef::Binary(name) => name.as_str(),
            };
            if name == "grpc-timeout" {
                options.deadline = metadata.get(name).and_then(|v| grpc_timeout(v.to_str().ok()?));
            }
            if name == "user-agent" {
                let agent = metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
                options.binds_milliseconds = agent.contains(JAVA);
            }
            if !name.starts_with("tandem-") {
                continue;
            }
            let value = metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |error: Error| error.context(format!("header {name:?} is {value:?}"));
        match name {
            "tandem-token" => self.token = Some(ClientToken::parse(value).map_err(wrong)?),
            "tandem-ack" => self.ack = Some(Ack::parse(value).map_err(wrong)?),
            "tandem-ack-timeout" => self.ack_timeout = Some(parse_duration(value).map_err(wrong)?),
            "tandem-min-seq" => self.min_seq = Some(parse_seq(value).map_err(wrong)?),
            "tandem-read" => self.latest = Some(parse_read(value).map_err(wrong)?),
            "tandem-as-of" => self.as_of = Some(AsOf::parse(value).map_err(wrong)?),
            "tandem-schema" => self.schema = Some(schema_policy(value)?),
            "tandem-compression" => {
                self.compression = match value {
                    "none" => None,
                    "lz4" => Some(CompressionType::LZ4_FRAME),
                    "zstd" => Some(CompressionType::ZSTD),
                    _ => return Err(unknown_value(name, value, "none, lz4, zstd")),
                }
            }
            "tandem-types" => match value {
                "plain" => {}
                "native" => {
                    return Err(Error::unsupported(
                        "header \"tandem-types\": \"native\" is not supported yet, \"plain\" is",
                    ));
                }
                _ => return Err(unknown_value(name, value, "plain, native")),
            },
            _ => return Err(Error::invalid(format!("unknown header {name:?}; known are {KNOWN}"))),
        }
        Ok(())
    }
}

/// gRPC's deadline, less the way back; `None` for what is none, which is not ours to refuse.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = Some(number).filter(|n| n.len() <= 8)?.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout - WAY_BACK.min(timeout / 5))
}

fn schema_policy(value: &str) -> Result<SchemaPolicy> {
    match value {
        "strict" => Ok(SchemaPolicy::Strict),
        "add" => Ok(SchemaPolicy::Add),
        "create" => Ok(SchemaPolicy::Create),
        _ => Err(unknown_value("tandem-schema", value, "strict, add, create")),
    }
}

fn unknown_value(name: &str, value: &str, known: &str) -> Error {
    Error::invalid(format!("header {name:?} cannot be {value:?}; it is one of {known}"))
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    fn parse(pairs: &[(&'static str, &'static str)]) -> Result<RequestOptions> {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.insert(*name, value.parse().unwrap());
        }
        RequestOptions::parse(&metadata)
    }

    #[test]
    fn known_headers_are_read_and_foreign_ones_ignored() {
        let options = parse(&[
            ("tandem-schema", "add"),
            ("tandem-compression", "lz4"),
            ("user-agent", "x"),
            ("database", "y"),
        ])
        .unwrap();
        assert_eq!(options.schema, Some(SchemaPolicy::Add));
        assert_eq!(options.compression, Some(CompressionType::LZ4_FRAME));
        assert_eq!(parse(&[("tandem-types", "plain")]).unwrap(), RequestOptions::default());
        assert!(parse(&[("user-agent", "grpc-java-netty/1.71.0")]).unwrap().binds_milliseconds);
    }

    #[test]
    fn writes_and_reads_say_what_they_want() {
        let options = parse(&[
            ("tandem-token", "job 7"),
            ("tandem-ack", "quorum(2)"),
            ("tandem-ack-timeout", "250ms"),
            ("tandem-min-seq", "12"),
            ("tandem-read", "latest"),
            ("tandem-as-of", "seq:9"),
            ("grpc-timeout", "2S"),
        ])
        .unwrap();
        let expected = RequestOptions {
            token: Some(ClientToken::parse("job 7").unwrap()),
            ack: Some(Ack::Quorum(2)),
            ack_timeout: Some(Duration::from_millis(250)),
            min_seq: Some(Seq(12)),
            latest: Some(true),
            as_of: Some(AsOf::Seq(Seq(9))),
            deadline: Some(Duration::from_millis(1900)),
            ..RequestOptions::default()
        };
        assert_eq!(options, expected);
        assert_eq!(parse(&[("grpc-timeout", "50m")]).unwrap().deadline, Some(Duration::from_millis(40)));
        for none in ["", "S", "5", "123456789S", "1x", "\u{20}S"] {
            assert_eq!(grpc_timeout(none), None, "{none:?}");
        }
    }

    #[test]
    fn wrong_values_are_named_with_their_header() {
        for (name, value) in [
            ("tandem-token", ""),
            ("tandem-ack", "all"),
            ("tandem-ack-timeout", "5"),
            ("tandem-min-seq", "-3"),
            ("tandem-read", "newest"),
            ("tandem-as-of", "yesterday"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
            assert!(error.message().starts_with(&format!("header {name:?} is {value:?}")), "{error}");
        }
        assert_eq!(parse(&[("tandem-ack", "local")]).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn unknown_headers_are_errors_that_name_them() {
        let unknown = parse(&[("tandem-shema", "add")]).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
        assert!(unknown.message().contains("tandem-shema"));
        let value = parse(&[("tandem-compression", "gzip")]).unwrap_err();
        assert!(value.message().contains("gzip") && value.message().contains("zstd"), "{value}");
    }
}
