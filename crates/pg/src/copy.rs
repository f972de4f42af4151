//! `COPY`: rows in bulk, to the client or from it.

mod options;
mod rows;

use bytes::{BufMut, BytesMut};
use tandem_access::Right;
use tandem_sql::text::{leading, statements, tokens, unquoted};
use tandem_types::{Error, Result, TableName};

use crate::connection::{Connection, Stop};
use crate::encode::{Rows, copy_csv, copy_text};
use crate::errors::Failure;
use crate::message::Message;
use crate::statement::{Outcome, counted_tag};

use options::{Options, options};

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

impl Copy {
    /// Whether it writes rows of the client's.
    pub fn writes(&self) -> bool {
        matches!(self.source, Source::From { .. })
    }
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
        let parsed = rows::parse(&text, options, &prepared.parameters());
        // They are held once.
        drop(text);
        let Some(batch) = parsed.map_err(|error| Failure::new("22P04", error))? else {
            return Ok("COPY 0".to_owned());
        };
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

#[cfg(test)]
mod tests {
    use super::*;

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
        // As psycopg2 writes it.
        let copy = understand("COPY t FROM STDIN WITH DELIMITER AS '\t' NULL AS E'\\\\N'").unwrap();
        assert_eq!((copy.options.delimiter, copy.options.null.as_str()), ('\t', "\\N"));
        assert_eq!(understand("COPY t FROM STDIN DELIMITER E'\\t'").unwrap().options.delimiter, '\t');
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
}
