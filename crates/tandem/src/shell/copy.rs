//! `COPY (query) TO 'file'`: the query runs on the server, the file is written here.

use tandem_sql::text::{blank_len, token_len};
use tandem_types::{Error, Result};

/// Kinds of files that a copy writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Parquet,
    Csv,
    Tsv,
    /// An array.
    Json,
    /// An object a line.
    Ndjson,
    /// The Arrow IPC file format.
    Arrow,
}

impl FileFormat {
    fn of_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "parquet" => Self::Parquet,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "arrow" | "ipc" | "feather" => Self::Arrow,
            _ => return None,
        })
    }
}

/// How a text file is compressed, by its last extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A parsed COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub query: String,
    pub path: String,
    pub format: FileFormat,
    pub compression: Compression,
}

/// Parses `COPY (query) | table TO 'file' [STORED AS format]`; `None` if the statement is no COPY.
pub fn parse(statement: &str) -> Result<Option<Copy>> {
    let tokens = tokens(statement);
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|t| t.text.eq_ignore_ascii_case(word));
    if !is(0, "copy") {
        return Ok(None);
    }
    let (query, to) = source(statement, &tokens)?;
    if !is(to, "to") {
        return Err(Error::invalid("COPY needs TO 'file' after its query or table"));
    }
    let path = tokens.get(to + 1).and_then(|t| text_literal(t.text));
    let path = path
        .filter(|p| !p.is_empty())
        .ok_or_else(|| Error::invalid("COPY needs a file name in single quotes after TO"))?;
    let (stem, compression) = compression_of(&path);
    let by_extension = stem.rsplit_once('.').and_then(|(_, extension)| FileFormat::of_name(extension));
    let format = match tokens.get(to + 2) {
        None => by_extension.ok_or_else(|| {
            Error::invalid(format!(
                "cannot tell the format of {path:?}: add STORED AS parquet, csv, tsv, json, ndjson or arrow"
            ))
        })?,
        Some(_) if is(to + 2, "stored") && is(to + 3, "as") && tokens.len() == to + 5 => {
            let name = tokens.get(to + 4).map_or("", |t| t.text.trim_matches('\''));
            FileFormat::of_name(name)
                .ok_or_else(|| Error::invalid(format!("COPY cannot write the format {name:?}")))?
        }
        Some(other) => {
            return Err(Error::unsupported(format!(
                "COPY does not understand {:?} after the file name",
                other.text
            )));
        }
    };
    if compression != Compression::None && matches!(format, FileFormat::Parquet | FileFormat::Arrow) {
        return Err(Error::invalid(format!("{path:?} would compress a format that is compressed inside")));
    }
    Ok(Some(Copy { query, path, format, compression }))
}

/// The query to copy, and the index of the token after it.
fn source(statement: &str, tokens: &[Token<'_>]) -> Result<(String, usize)> {
    let between = |from: usize, to: usize| {
        let start = tokens.get(from).map_or(statement.len(), |t| t.start);
        let end = tokens.get(to).map_or(statement.len(), |t| t.start);
        statement.get(start..end).unwrap_or_default().trim().to_owned()
    };
    if tokens.get(1).is_none_or(|t| t.text != "(") {
        let end = tokens.iter().position(|t| t.text.eq_ignore_ascii_case("to")).unwrap_or(tokens.len());
        let name = between(1, end);
        if name.is_empty() {
            return Err(Error::invalid("COPY needs a query in parentheses or a table"));
        }
        return Ok((format!("SELECT * FROM {name}"), end));
    }
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(1) {
        match token.text {
            "(" => depth += 1,
            ")" if depth == 1 => return Ok((between(2, i), i + 1)),
            ")" => depth -= 1,
            _ => {}
        }
    }
    Err(Error::invalid("COPY has an unclosed parenthesis"))
}

#[derive(Clone, Copy)]
struct Token<'a> {
    start: usize,
    text: &'a str,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        start += blank_len(text.get(start..).unwrap_or_default());
        let left = text.get(start..).unwrap_or_default();
        let len = token_len(left);
        if len == 0 {
            return found;
        }
        found.push(Token { start, text: left.get(..len).unwrap_or_default() });
        start += len;
    }
}

fn text_literal(token: &str) -> Option<String> {
    Some(token.strip_prefix('\'')?.strip_suffix('\'')?.to_owned())
}

fn compression_of(path: &str) -> (&str, Compression) {
    if let Some(stem) = path.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = path.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (path, Compression::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_its_query_as_written() {
        let copy = parse("copy (select a<=1.5, ')' as \"x)\" from (select 1) -- )\n) to 'out.parquet'")
            .unwrap()
            .unwrap();
        assert_eq!(copy.query, "select a<=1.5, ')' as \"x)\" from (select 1) -- )");
        assert_eq!((copy.path.as_str(), copy.format), ("out.parquet", FileFormat::Parquet));
    }

    #[test]
    fn formats_come_from_the_extension_or_stored_as() {
        let of = |text: &str| parse(text).unwrap().map(|c| (c.query, c.format, c.compression));
        assert_eq!(
            of("COPY s.\"my t\" TO 'x.csv.gz'"),
            Some(("SELECT * FROM s.\"my t\"".into(), FileFormat::Csv, Compression::Gzip))
        );
        assert_eq!(of("COPY t TO 'x' STORED AS JSON").unwrap().1, FileFormat::Json);
        assert_eq!(of("COPY t TO 'x.jsonl.zst'").unwrap().1, FileFormat::Ndjson);
        assert_eq!(of("SELECT 1"), None);
    }

    #[test]
    fn what_a_copy_lacks_is_named() {
        for (text, part) in [
            ("COPY", "needs a query"),
            ("COPY t", "needs TO"),
            ("COPY (select 1 TO 'x.csv'", "unclosed"),
            ("COPY t TO x.csv", "single quotes"),
            ("COPY t TO 'x'", "STORED AS"),
            ("COPY t TO 'x.xml' STORED AS xml", "\"xml\""),
            ("COPY t TO 'x.csv' OPTIONS (a 1)", "OPTIONS"),
            ("COPY t TO 'x.parquet.gz'", "compressed inside"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(part), "{text}: {error}");
        }
    }
}
