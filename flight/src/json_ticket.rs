//! Tickets that people write by hand: UTF-8 JSON, `{"sql":"…","params":[…]}` or `{"table":"s.t","columns":[…]}`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, StringArray, UInt64Array,
};
use arrow_schema::{Field, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tandem_sql::AsOf;
use tandem_types::{Error, Result, Seq};

/// Keys that later parts of the design define.
const RESERVED: &[&str] = &["database", "sql_query", "query_type"];

/// What a ticket asks to read.
#[derive(Debug, PartialEq)]
pub(crate) struct ReadRequest {
    pub sql: String,
    /// One row, by position.
    pub params: Option<RecordBatch>,
    /// The state that must be seen at least.
    pub min_seq: Option<Seq>,
    /// The state of the past to see.
    pub as_of: Option<AsOf>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct JsonTicket {
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Moment>,
}

/// `{"seq": N}` or `{"time": "…"}`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Moment {
    Seq(u64),
    Time(String),
}

impl Moment {
    fn read(self) -> Result<AsOf> {
        match self {
            Self::Seq(seq) => Ok(AsOf::Seq(Seq(seq))),
            Self::Time(text) => AsOf::parse(&text).map_err(|e| e.context("\"as_of\" in the JSON ticket")),
        }
    }
}

/// Whether a ticket is JSON: no protobuf message of Flight SQL begins with a brace.
pub(crate) fn is_json(ticket: &[u8]) -> bool {
    ticket.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

/// Reads a JSON ticket.
pub(crate) fn parse(ticket: &[u8]) -> Result<ReadRequest> {
    let bad = |e: &dyn std::fmt::Display| Error::invalid(format!("the JSON ticket is wrong: {e}"));
    let value: Value = serde_json::from_slice(ticket).map_err(|e| bad(&e))?;
    let reserved = value.as_object().and_then(|o| o.keys().find(|k| RESERVED.contains(&k.as_str())));
    if let Some(key) = reserved {
        return Err(Error::unsupported(format!("tickets with {key:?} are not supported yet")));
    }
    let ticket: JsonTicket = serde_json::from_value(value).map_err(|e| bad(&e))?;
    let (min_seq, as_of) = (ticket.min_seq.map(Seq), ticket.as_of.map(Moment::read).transpose()?);
    let (sql, params) = match (ticket.sql, ticket.params, ticket.table, ticket.columns) {
        (Some(sql), params, None, None) => (sql, params.map(|p| row(&p)).transpose()?.flatten()),
        (None, None, Some(table), columns) => (select(&name_parts(&table)?, columns.as_deref())?, None),
        _ => {
            return Err(bad(&"it needs either \"sql\" (and \"params\") or \"table\" (and \"columns\")"));
        }
    };
    Ok(ReadRequest { sql, params, min_seq, as_of })
}

/// The ticket that reads a whole table, of this state if one is said.
pub(crate) fn of_table(schema: &str, table: &str, as_of: Option<Seq>) -> Vec<u8> {
    let ticket = JsonTicket {
        table: Some(format!("{}.{}", quoted(schema), quoted(table))),
        as_of: as_of.map(|seq| Moment::Seq(seq.0)),
        ..JsonTicket::default()
    };
    // A struct of strings always serializes.
    serde_json::to_vec(&ticket).unwrap_or_default()
}

/// `SELECT` of a table, or of some of its columns.
pub(crate) fn select(table: &[String], columns: Option<&[String]>) -> Result<String> {
    let columns = match columns {
        None => "*".to_owned(),
        Some([]) => {
            return Err(Error::invalid("the list of columns is empty; leave it out to read them all"));
        }
        Some(columns) => columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", "),
    };
    let table: Vec<String> = table.iter().map(|part| quoted(part)).collect();
    Ok(format!("SELECT {columns} FROM {}", table.join(".")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `t`, `s.t`; a part with a dot in it is written in double quotes. Names are taken as they are, whatever their case.
pub(crate) fn name_parts(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::invalid(format!("{text:?} is no table name; write \"table\" or \"schema.table\""));
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted_part(inside).ok_or_else(wrong)?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let (part, after) = rest.split_at_checked(end).ok_or_else(wrong)?;
                (part.to_owned(), after)
            }
        };
        if part.is_empty() {
            return Err(wrong());
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => break,
            None => return Err(wrong()),
        }
    }
    if parts.len() > 2 { Err(wrong()) } else { Ok(parts) }
}

/// Up to the closing quote, doubled ones being one of the name.
fn quoted_part(inside: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = inside;
    loop {
        let end = rest.find('"')?;
        let (head, tail) = rest.split_at_checked(end)?;
        part.push_str(head);
        rest = tail.strip_prefix('"')?;
        match rest.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Some((part, rest)),
        }
    }
}

fn row(params: &[Value]) -> Result<Option<RecordBatch>> {
    if params.is_empty() {
        return Ok(None);
    }
    let columns: Vec<ArrayRef> =
        params.iter().enumerate().map(|(i, v)| array(i, v)).collect::<Result<_>>()?;
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("${}", i + 1), c.data_type().clone(), true))
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
    batch.map(Some).map_err(|e| Error::internal(format!("parameters of a ticket: {e}")))
}

fn array(position: usize, value: &Value) -> Result<ArrayRef> {
    Ok(match value {
        Value::Null => Arc::new(NullArray::new(1)),
        Value::Bool(v) => Arc::new(BooleanArray::from(vec![*v])),
        Value::String(v) => Arc::new(StringArray::from(vec![v.as_str()])),
        Value::Number(v) => {
            if let Some(v) = v.as_i64() {
                Arc::new(Int64Array::from(vec![v]))
            } else if let Some(v) = v.as_u64() {
                Arc::new(UInt64Array::from(vec![v]))
            } else {
                Arc::new(Float64Array::from(vec![v.as_f64()]))
            }
        }
        Value::Array(_) | Value::Object(_) => {
            return Err(Error::invalid(format!(
                "parameter {} of the ticket is no number, text, boolean or null",
                position + 1
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn sql_with_parameters_of_every_type() {
        let request =
            parse(br#" {"sql": "SELECT $1", "params": [1, 18446744073709551615, 1.5, "x", true, null]}"#);
        let request = request.unwrap();
        assert_eq!(request.sql, "SELECT $1");
        let types: Vec<String> =
            request.params.unwrap().schema().fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types, ["Int64", "UInt64", "Float64", "Utf8", "Boolean", "Null"]);
        assert_eq!(parse(br#"{"sql":"SELECT 1","params":[]}"#).unwrap().params, None);
        assert_eq!(parse(br#"{"sql":"SELECT 1","min_seq":7}"#).unwrap().min_seq, Some(Seq(7)));
        assert_eq!(parse(br#"{"table":"t","min_seq":8}"#).unwrap().min_seq, Some(Seq(8)));
    }

    #[test]
    fn tickets_may_read_the_past() {
        let as_of = |ticket: &str| parse(ticket.as_bytes()).unwrap().as_of;
        assert_eq!(as_of(r#"{"sql":"x","as_of":{"seq":1}}"#), Some(AsOf::Seq(Seq(1))));
        assert_eq!(
            as_of(r#"{"table":"t","as_of":{"time":"1970-01-01T00:00:01Z"}}"#),
            Some(AsOf::Time(1_000_000))
        );
        assert_eq!(as_of(r#"{"sql":"x"}"#), None);
    }

    #[test]
    fn tables_become_quoted_selects() {
        let sql = |ticket: &str| parse(ticket.as_bytes()).unwrap().sql;
        assert_eq!(sql(r#"{"table":"s.T"}"#), r#"SELECT * FROM "s"."T""#);
        assert_eq!(sql(r#"{"table":"t","columns":["a","b\"c"]}"#), r#"SELECT "a", "b""c" FROM "t""#);
        let whole = of_table("a.b", "c\"d", None);
        assert!(is_json(&whole));
        assert_eq!(parse(&of_table("s", "t", Some(Seq(3)))).unwrap().as_of, Some(AsOf::Seq(Seq(3))));
        assert_eq!(parse(&whole).unwrap().sql, r#"SELECT * FROM "a.b"."c""d""#);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (r#"{"sql":"x","table":"t"}"#, ErrorKind::InvalidInput, "either"),
            (r#"{}"#, ErrorKind::InvalidInput, "either"),
            (r#"{"sql":"x","limit":3}"#, ErrorKind::InvalidInput, "limit"),
            (r#"{"sql":"x","params":[[1]]}"#, ErrorKind::InvalidInput, "parameter 1"),
            (r#"{"table":"a.b.c"}"#, ErrorKind::InvalidInput, "a.b.c"),
            (r#"{"table":"\"a"}"#, ErrorKind::InvalidInput, "no table name"),
            (r#"{"table":"t","columns":[]}"#, ErrorKind::InvalidInput, "empty"),
            (r#"{"sql":"x","min_seq":-1}"#, ErrorKind::InvalidInput, "wrong"),
            (r#"{"sql":"x","as_of":{"seq":1,"time":"2024-01-01"}}"#, ErrorKind::InvalidInput, "wrong"),
            (r#"{"sql":"x","as_of":{}}"#, ErrorKind::InvalidInput, "wrong"),
            (r#"{"sql":"x","as_of":{"time":"soon"}}"#, ErrorKind::InvalidInput, "soon"),
            (r#"{"sql":"x","as_of":7}"#, ErrorKind::InvalidInput, "wrong"),
            (r#"{"sql":"#, ErrorKind::InvalidInput, "wrong"),
        ];
        for (ticket, kind, said) in cases {
            let error = parse(ticket.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), kind, "{ticket}");
            assert!(error.message().contains(said), "{ticket}: {error}");
        }
    }
}
