//! `COPY`: rows in bulk, to the client or from it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::{BufMut, BytesMut};
use tandem_access::Right;
use tandem_sql::text::{leading, statements, tokens, unquoted};
use tandem_types::{Error, Result, TableName};

use crate::connection::{Connection, Stop};
use crate::decode::bytea;
use crate::encode::{Rows, copy_csv, copy_text};
use crate::errors::Failure;
use crate::message::Message;
use crate::statement::{Outcome, counted_tag};

/// A `COPY` that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Copy {
    source: Source,
    options: Options,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// Rows of the client's, for a table. No columns named: all of them.
    From { table: Vec<String>, columns: Vec<String> },
    /// The rows of this query.
    To(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Options {
    csv: bool,
    header: bool,
    delimiter: char,
    null: String,
}

/// # Errors
///
/// What is no `COPY`, and what is one and not supported.
pub(crate) fn understand(sql: &str) -> Result<Copy> {
    let wrong = |what: &str| Error::invalid(format!("COPY: {what}"));
    let all = tokens(sql);
    let word = |at: usize| all.get(at).map_or("", |token| token.text);
    let is = |at: usize, text: &str| word(at).eq_ignore_ascii_case(text);
    let (mut at, query) = if is(1, "(") {
        let mut depth = 0_usize;
        let mut end = 1;
        loop {
            match word(end) {
                "(" => depth += 1,
                ")" => depth -= 1,
                "" => return Err(wrong("a parenthesis is not closed")),
                _ => {}
            }
            if depth == 0 {
                break;
            }
            end += 1;
        }
        let (from, to) = (all.get(2).map_or(0, |t| t.at), all.get(end).map_or(0, |t| t.at));
        (end + 1, Some(sql.get(from..to).unwrap_or_default().trim().to_owned()))
    } else {
        (1, None)
    };
    let (mut table, mut columns) = (Vec::new(), Vec::new());
    if query.is_none() {
        table.push(word(at).to_owned());
        at += 1;
        while word(at) == "." {
            table.push(word(at + 1).to_owned());
            at += 2;
        }
        if word(at) == "(" {
            at += 1;
            loop {
                columns.push(word(at).to_owned());
                at += 2;
                match word(at - 1) {
                    "," => {}
                    ")" => break,
                    _ => return Err(wrong("the list of columns is not understood")),
                }
            }
        }
    }
    let from = match word(at).to_ascii_lowercase().as_str() {
        "from" => true,
        "to" => false,
        other => return Err(wrong(&format!("expected FROM STDIN or TO STDOUT, found {other:?}"))),
    };
    if !is(at + 1, if from { "stdin" } else { "stdout" }) {
        return Err(Error::unsupported(
            "COPY reads and writes no files of the server: COPY … FROM STDIN, COPY … TO STDOUT, or psql's \\copy",
        ));
    }
    let rest = all.get(at + 2..).unwrap_or_default();
    let options = options(&rest.iter().map(|token| token.text).collect::<Vec<_>>())?;
    let source = match (query, from) {
        (Some(_), true) => return Err(wrong("rows cannot be copied into a query")),
        (Some(query), false) => Source::To(query),
        (None, true) => Source::From { table, columns },
        (None, false) => {
            let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
            Source::To(format!("SELECT {columns} FROM {}", table.join(".")))
        }
    };
    Ok(Copy { source, options })
}

/// `[WITH] (FORMAT csv, HEADER true, …)`, and how they were written before.
fn options(words: &[&str]) -> Result<Options> {
    let (mut csv, mut header, mut delimiter, mut null) = (false, false, None, None);
    let mut words = words.iter().copied().filter(|word| !matches!(*word, "(" | ")" | ",")).peekable();
    while let Some(word) = words.next() {
        let mut value = |what: &str| {
            let value = words.next_if(|next| !next.eq_ignore_ascii_case("as")).or_else(|| words.nth(1));
            // `E'\t'` is written by some.
            let value = value.map(|text| {
                text.strip_prefix(['e', 'E']).filter(|rest| rest.starts_with('\'')).unwrap_or(text)
            });
            value.map(unquoted).ok_or_else(|| Error::invalid(format!("COPY: {what} wants a value")))
        };
        match word.to_ascii_lowercase().as_str() {
            "with" => {}
            "csv" => csv = true,
            "text" => csv = false,
            "format" => match value("FORMAT")?.to_ascii_lowercase().as_str() {
                "csv" => csv = true,
                "text" => csv = false,
                other => {
                    return Err(Error::unsupported(format!(
                        "COPY in format {other:?}: text and csv are supported"
                    )));
                }
            },
            "header" => {
                let off = |next: &&str| matches!(next.to_ascii_lowercase().as_str(), "false" | "off" | "0");
                let on = |next: &&str| matches!(next.to_ascii_lowercase().as_str(), "true" | "on" | "1");
                header = words.next_if(off).is_none();
                words.next_if(on);
            }
            "delimiter" => delimiter = Some(value("DELIMITER")?),
            "null" => null = Some(value("NULL")?),
            "encoding" => {
                let name = value("ENCODING")?;
                if !matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
                    return Err(Error::unsupported(format!("COPY in encoding {name:?}: text is UTF-8 here")));
                }
            }
            "binary" => {
                return Err(Error::unsupported("COPY in format \"binary\": text and csv are supported"));
            }
            other => return Err(Error::unsupported(format!("COPY: option {other:?} is not supported"))),
        }
    }
    let delimiter = match delimiter {
        None => {
            if csv {
                ','
            } else {
                '\t'
            }
        }
        Some(text) => match (text.as_str(), text.chars().next()) {
            ("\\t", _) => '\t',
            (one, Some(letter)) if one.len() == 1 && !matches!(letter, '\n' | '\r' | '"' | '\\') => letter,
            _ => {
                return Err(Error::invalid(format!(
                    "COPY: {text:?} is no delimiter: it is one ASCII character"
                )));
            }
        },
    };
    let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
    Ok(Options { csv, header, delimiter, null })
}

impl Connection {
    /// Runs it to its end; the command tag.
    pub async fn copy(&mut self, copy: &Copy) -> Result<String, Stop> {
        match &copy.source {
            Source::To(query) => self.copy_to(query, &copy.options).await,
            Source::From { table, columns } => self.copy_from(table, columns, &copy.options).await,
        }
    }

    async fn copy_to(&mut self, query: &str, options: &Options) -> Result<String, Stop> {
        if statements(query).len() != 1 || leading(query, 1).first().is_some_and(|word| word == "copy") {
            return Err(Error::invalid("COPY takes one query").into());
        }
        let statement = Box::pin(self.understand(query, &[])).await?;
        let Some(columns) = statement.columns() else {
            return Err(Error::invalid("COPY takes a query, and the statement yields no rows").into());
        };
        let Outcome::Rows(mut running) = Box::pin(self.start(&statement, None, false)).await? else {
            return Err(Error::internal("a query yielded no rows").into());
        };
        self.output.copy(false, columns.len());
        let line = |values: &[Option<String>]| match options.csv {
            true => copy_csv(values, options.delimiter, &options.null),
            false => copy_text(values, options.delimiter, &options.null),
        };
        if options.header {
            let names: Vec<_> = columns.into_iter().map(|column| Some(column.name)).collect();
            self.copy_line(&line(&names))?;
        }
        while let Some(batch) = self.next_batch(&mut running).await? {
            let rows = Rows::new(&batch, &[])?;
            for row in 0..batch.num_rows() {
                self.copy_line(&line(&rows.texts(row)?))?;
                self.send_much().await?;
            }
            running.sent += batch.num_rows() as u64;
        }
        self.output.copy_done();
        Ok(counted_tag("COPY", Some(running.sent)))
    }

    fn copy_line(&mut self, line: &str) -> Result<()> {
        self.output.message(b'd', |out| {
            out.put_slice(line.as_bytes());
            Ok(())
        })
    }

    async fn copy_from(
        &mut self,
        table: &[String],
        columns: &[String],
        options: &Options,
    ) -> Result<String, Stop> {
        self.grant.require(Right::Write, "COPY … FROM STDIN")?;
        let columns = match columns {
            [] => self.columns_of(table).await?,
            named => named.to_vec(),
        };
        let marks: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let insert =
            format!("INSERT INTO {} ({}) VALUES ({})", table.join("."), columns.join(", "), marks.join(", "));
        let prepared = self.session.prepare(&insert).await?;
        self.output.copy(true, columns.len());
        self.send().await?;
        let text = self.copied().await?;
        let rows = parse(&text, options, columns.len()).map_err(|error| Failure::new("22P04", error))?;
        if rows.is_empty() {
            return Ok("COPY 0".to_owned());
        }
        let batch = batch(&rows, &prepared.parameters())?;
        let done = prepared.update(Some(batch)).await?;
        Ok(counted_tag("COPY", done.rows))
    }

    /// The columns of a table, quoted.
    async fn columns_of(&mut self, table: &[String]) -> Result<Vec<String>, Stop> {
        let parts: Vec<String> = table
            .iter()
            .map(|part| if part.starts_with('"') { unquoted(part) } else { part.to_lowercase() })
            .collect();
        let name = match parts.as_slice() {
            [table] => TableName::new(self.session.default_schema(), table),
            [schema, table] | [_, schema, table] => TableName::new(schema, table),
            _ => return Err(Error::invalid(format!("{} is no table's name", table.join("."))).into()),
        };
        let state = self.session.state_for(&self.session.read_options(None, None, None)).await?;
        let table = state.require(&name)?;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        Ok(table.schema().columns.iter().map(|column| quoted(&column.name)).collect())
    }

    /// All that the client sends up to the end of its rows.
    async fn copied(&mut self) -> Result<BytesMut, Stop> {
        let most = self.server.config.max_copy_bytes;
        let mut text = BytesMut::new();
        let mut too_much = false;
        loop {
            match self.receive().await? {
                // Read to the end nevertheless: the client reads no error before it.
                Message::CopyData(data) if text.len() + data.len() > most => {
                    too_much = true;
                    text.clear();
                }
                Message::CopyData(_) if too_much => {}
                Message::CopyData(data) => text.extend_from_slice(&data),
                Message::CopyDone if too_much => {
                    return Err(Error::overloaded(format!(
                        "the rows of one COPY have more than {most} bytes: send them in several, or over Flight"
                    )).into());
                }
                Message::CopyDone => return Ok(text),
                Message::CopyFail(why) => {
                    let error = Error::invalid(format!("the client gave its COPY up: {why}"));
                    return Err(Failure::new("57014", error).into());
                }
                Message::Sync | Message::Flush => {}
                _ => {
                    let error = Error::invalid("a message that has no place in a COPY");
                    return Err(Failure::new("08P01", error).into());
                }
            }
        }
    }
}

/// A row's values; `None` is null.
type Row = Vec<Option<String>>;

fn parse(bytes: &[u8], options: &Options, columns: usize) -> Result<Vec<Row>> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Error::invalid("the rows of the COPY are not UTF-8 text"))?;
    let rows = if options.csv { parse_csv(text, options) } else { parse_text(text, options) }?;
    let skipped = usize::from(options.header);
    for (at, row) in rows.iter().enumerate().skip(skipped) {
        if row.len() != columns {
            return Err(Error::invalid(format!(
                "row {} of the COPY has {} values, and the table is given {columns}",
                at + 1,
                row.len()
            )));
        }
    }
    Ok(rows.into_iter().skip(skipped).collect())
}

fn parse_csv(text: &str, options: &Options) -> Result<Vec<Row>> {
    let delimiter = u8::try_from(options.delimiter).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record =
            record.map_err(|e| Error::invalid(format!("row {} of the COPY: {e}", rows.len() + 1)))?;
        rows.push(record.iter().map(|value| (value != options.null).then(|| value.to_owned())).collect());
    }
    Ok(rows)
}

fn parse_text(text: &str, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        if line == "\\." {
            break;
        }
        rows.push(line.to_owned());
    }
    // What follows the last line end is no row.
    if rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    let rows = rows.iter().map(|line| fields(line, options.delimiter));
    let rows = rows.map(|fields| {
        let value = |field: &str| (field != options.null).then(|| unescaped(field));
        fields.into_iter().map(value).collect()
    });
    Ok(rows.collect())
}

/// The fields of a line, still escaped.
fn fields(line: &str, delimiter: char) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut hidden) = (0, false);
    for (at, letter) in line.char_indices() {
        match letter {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            letter if letter == delimiter => {
                all.push(line.get(start..at).unwrap_or_default());
                start = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    all.push(line.get(start..).unwrap_or_default());
    all
}

fn unescaped(field: &str) -> String {
    let mut value = String::with_capacity(field.len());
    let mut letters = field.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        value.push(match letters.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('v') => '\u{b}',
            Some(other) => other,
            None => '\\',
        });
    }
    value
}

/// Rows as parameters of an `INSERT`: text, which the engine reads as the columns' types.
fn batch(rows: &[Row], needed: &Schema) -> Result<RecordBatch> {
    let columns = needed.fields().iter().enumerate().map(|(at, field)| {
        let values = rows.iter().map(|row| row.get(at).and_then(Option::as_deref));
        Ok(match field.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
                let bytes = values.map(|value| {
                    value
                        .map(|text| {
                            bytea(text).ok_or_else(|| Error::invalid(format!("{text:?} is no bytea")))
                        })
                        .transpose()
                });
                let bytes: Vec<Option<Vec<u8>>> = bytes.collect::<Result<_>>()?;
                Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef
            }
            _ => Arc::new(values.collect::<StringArray>()),
        })
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    let fields = columns.iter().enumerate();
    let fields =
        fields.map(|(at, array)| Field::new(format!("${}", at + 1), array.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
        .map_err(|e| Error::internal(format!("the rows of a COPY cannot be bound: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(sql: &str) -> Options {
        understand(sql).unwrap().options
    }

    fn rows(text: &str, sql: &str, columns: usize) -> Result<Vec<Row>> {
        parse(text.as_bytes(), &options_of(sql), columns)
    }

    fn row(values: &[Option<&str>]) -> Row {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn copies_are_understood_in_old_and_new_spelling() {
        let copy =
            understand("COPY s.\"My t\" (a, \"B\") FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')")
                .unwrap();
        let (table, columns) = (vec!["s".into(), "\"My t\"".into()], vec!["a".into(), "\"B\"".into()]);
        assert_eq!(copy.source, Source::From { table, columns });
        assert_eq!(copy.options, Options { csv: true, header: true, delimiter: ';', null: String::new() });
        let copy = understand("copy (SELECT a, (b) FROM t) to stdout csv header null as 'x'").unwrap();
        assert_eq!(copy.source, Source::To("SELECT a, (b) FROM t".into()));
        assert_eq!((copy.options.header, copy.options.null.as_str()), (true, "x"));
        assert_eq!(understand("COPY t (a) TO STDOUT").unwrap().source, Source::To("SELECT a FROM t".into()));
        for refused in
            ["COPY t FROM '/etc/passwd'", "COPY t FROM STDIN BINARY", "COPY t FROM STDIN (FORMAT binary)"]
        {
            assert!(understand(refused).is_err(), "{refused}");
        }
        for wrong in
            ["COPY", "COPY t", "COPY t (a FROM STDIN", "COPY (SELECT 1", "COPY t FROM STDIN (DELIMITER 'ab')"]
        {
            assert!(understand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_and_csv_are_read() {
        let text = rows("1\ta\\tb\\\\\n\\N\t\n\\.\nmore\n", "COPY t FROM STDIN", 2).unwrap();
        assert_eq!(text, [row(&[Some("1"), Some("a\tb\\")]), row(&[None, Some("")])]);
        let csv = rows("h,i\n1,\"a,\"\"b\nc\"\n,x\n", "COPY t FROM STDIN CSV HEADER", 2).unwrap();
        assert_eq!(csv, [row(&[Some("1"), Some("a,\"b\nc")]), row(&[None, Some("x")])]);
        let error = rows("1\n1\t2\n", "COPY t FROM STDIN", 2).unwrap_err();
        assert!(error.message().contains("row 1") && error.message().contains("1 values"), "{error}");
        assert!(parse(b"\xff\n", &options_of("COPY t FROM STDIN"), 1).is_err());
    }
}
