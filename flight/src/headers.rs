//! Request headers that begin with `tandem-`. All others are somebody else's and ignored.

use arrow_ipc::CompressionType;
use tandem_manifest::SchemaPolicy;
use tandem_types::{Error, Result};
use tonic::metadata::{KeyRef, MetadataMap};

/// Understood by later parts of the design.
const RESERVED: &[&str] =
    &["tandem-token", "tandem-ack", "tandem-ack-timeout", "tandem-min-seq", "tandem-read", "tandem-as-of"];

const KNOWN: &str = "tandem-schema, tandem-types, tandem-compression";

/// What a request's headers ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestOptions {
    /// What an append may do to its table; without the header the session decides.
    pub schema: Option<SchemaPolicy>,
    /// Compression of the record batches sent.
    pub compression: Option<CompressionType>,
}

impl RequestOptions {
    pub fn parse(metadata: &MetadataMap) -> Result<Self> {
        let mut options = Self::default();
        for key in metadata.keys() {
            let name = match key {
                KeyRef::Ascii(name) => name.as_str(),
                KeyRef::Binary(name) => name.as_str(),
            };
            if !name.starts_with("tandem-") {
                continue;
            }
            if RESERVED.contains(&name) {
                return Err(Error::unsupported(format!("header {name:?} is not supported yet")));
            }
            let value = metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
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
    }

    #[test]
    fn unknown_and_reserved_headers_are_errors_that_name_them() {
        let unknown = parse(&[("tandem-shema", "add")]).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
        assert!(unknown.message().contains("tandem-shema"));
        for name in RESERVED {
            let reserved = parse(&[(name, "1")]).unwrap_err();
            assert_eq!(reserved.kind(), ErrorKind::Unsupported);
            assert!(reserved.message().contains(name), "{reserved}");
        }
        let value = parse(&[("tandem-compression", "gzip")]).unwrap_err();
        assert!(value.message().contains("gzip") && value.message().contains("zstd"), "{value}");
    }
}
