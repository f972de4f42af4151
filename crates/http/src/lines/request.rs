//! What a write request asks for beside its lines.

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use tandem_lines::Precision;
use tandem_manifest::{SchemaPolicy, check_table_option};
use tandem_types::{Error, PartitionUnit, Result, parse_duration};

use super::{LineOptions, NewTables};
use crate::guard::Named;

/// Whose clients a route serves: they differ in their defaults and in the answers that they understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    QuestDb,
    InfluxV1,
    InfluxV2,
    InfluxV3,
}

/// A write request without its body.
#[derive(Clone, PartialEq)]
pub(crate) struct Asked {
    pub precision: Precision,
    /// Whether good lines are written though others are refused.
    pub partial: bool,
    pub gzip: bool,
    pub options: LineOptions,
    /// Who sends it, as far as headers tell: with its secrets, for the digest only.
    client: String,
}

/// Parameters that are options of the tables that a request makes.
const TABLE_PARAMETERS: &[&str] = &[
    "ttl",
    "dedup_window",
    "line_dedup_window",
    "on_duplicate",
    "on_type_conflict",
    "target_file_size",
    "compression",
];

/// What a client calls itself, in characters.
const CLIENT_CHARS: usize = 200;

impl Family {
    /// Of `/write`, which both families have: only InfluxDB's clients name a database.
    pub fn of_write(uri: &Uri) -> Self {
        if parameters(uri).any(|(name, _)| name == "db") { Self::InfluxV1 } else { Self::QuestDb }
    }
}

impl Asked {
    /// # Errors
    ///
    /// `InvalidInput` for a parameter or `tandem-…` header that is not understood; `Unsupported` for an encoding.
    pub fn parse(family: Family, head: &Parts) -> Result<Self> {
        let (uri, headers) = (&head.uri, &head.headers);
        let v3 = family == Family::InfluxV3;
        let mut asked = Self {
            precision: if v3 { Precision::Auto } else { Precision::Nanosecond },
            // InfluxDB's servers write good lines beside bad ones, in all versions.
            partial: family != Family::QuestDb,
            gzip: gzipped(headers)?,
            options: LineOptions { client: shown_client(head), ..options(headers)? },
            client: client(headers),
        };
        for (name, value) in parameters(uri) {
            match &*name {
                "precision" if !value.is_empty() => asked.precision = Precision::parse(&value)?,
                "accept_partial" => {
                    asked.partial = value.parse().map_err(|_| {
                        Error::invalid(format!("accept_partial is true or false, not {value:?}"))
                    })?;
                }
                name => asked.options.new_tables.take(name, &value)?,
            }
        }
        Ok(asked)
    }
}

impl NewTables {
    /// A parameter, if it is about tables. Databases, organisations and when to acknowledge are no business of ours.
    fn take(&mut self, name: &str, value: &str) -> Result<()> {
        let about = |e: Error| e.context(format_args!("parameter {name:?}"));
        match name {
            "keys" => {
                self.keys = Some(match value {
                    "tags" => true,
                    "none" => false,
                    _ => return Err(about(Error::invalid(format!("{value:?} is neither tags nor none")))),
                });
            }
            "partition_by" => {
                let unit = PartitionUnit::parse(value).ok_or_else(|| {
                    Error::invalid(format!("{value:?} is none of hour, day, week, month, year and none"))
                });
                self.partition_by = Some(unit.map_err(about)?);
            }
            name if TABLE_PARAMETERS.contains(&name) => {
                check_table_option(name, Some(value)).map_err(about)?;
                self.options.retain(|(known, _)| known != name);
                self.options.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Who sends it, for people.
fn shown_client(head: &Parts) -> String {
    let agent = head.headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let agent: String = agent.unwrap_or_default().chars().take(CLIENT_CHARS).collect();
    match head.extensions.get::<Named>() {
        None => agent,
        Some(Named(name)) if agent.is_empty() => name.clone(),
        Some(Named(name)) => format!("{name}, {agent}"),
    }
}

impl Asked {
    /// Of everything that tells one write from another, the body left out. Under a token it matters not who sends it.
    pub fn digest(&self) -> blake3::Hasher {
        let client = if self.options.token.is_some() { "" } else { &*self.client };
        let Self { precision, partial, .. } = self;
        let mut digest = blake3::Hasher::new();
        digest.update(format!("lines {precision:?} {partial} {} {client}\n", client.len()).as_bytes());
        digest
    }
}

fn client(headers: &HeaderMap) -> String {
    let of = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    format!("{:?} {:?}", of(AUTHORIZATION), of(USER_AGENT))
}

/// What stands behind the `?`.
pub(crate) fn parameters(uri: &Uri) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

fn gzipped(headers: &HeaderMap) -> Result<bool> {
    let mut gzip = false;
    for value in headers.get_all(CONTENT_ENCODING) {
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => {}
            "gzip" | "x-gzip" if !gzip => gzip = true,
            other => {
                return Err(Error::unsupported(format!("content encoding {other:?} is not known; gzip is")));
            }
        }
    }
    Ok(gzip)
}

fn options(headers: &HeaderMap) -> Result<LineOptions> {
    const KNOWN: &str = "tandem-token, tandem-ack, tandem-ack-timeout, tandem-schema";
    let mut options = LineOptions::default();
    for (name, value) in headers {
        if !name.as_str().starts_with("tandem-") {
            continue;
        }
        let value = value.to_str().unwrap_or_default().trim();
        match name.as_str() {
            "tandem-token" => options.token = Some(value.to_owned()),
            "tandem-ack" => options.ack = Some(value.to_owned()),
            "tandem-ack-timeout" => {
                let timeout = parse_duration(value);
                options.ack_timeout =
                    Some(timeout.map_err(|e| e.context(format_args!("header {name:?} is {value:?}")))?);
            }
            "tandem-schema" => options.schema = Some(policy(value)?),
            name => {
                return Err(Error::invalid(format!("unknown header {name:?}; known for lines are {KNOWN}")));
            }
        }
    }
    Ok(options)
}

fn policy(value: &str) -> Result<SchemaPolicy> {
    match value {
        "strict" => Ok(SchemaPolicy::Strict),
        "add" => Ok(SchemaPolicy::Add),
        "create" => Ok(SchemaPolicy::Create),
        _ => Err(Error::invalid(format!(
            "header \"tandem-schema\" cannot be {value:?}; it is one of strict, add, create"
        ))),
    }
}
