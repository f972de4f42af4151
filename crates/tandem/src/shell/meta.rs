//! Meta commands: lines that begin with a backslash, and a few words alone on a line, that never reach the server as they are.

use clap::ValueEnum;
use tandem_client::table_path;
use tandem_types::{Error, Result};

use super::format::Format;

/// A parsed meta command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meta {
    Help,
    Quit,
    /// Where the connection leads.
    Connection,
    /// All tables and views, system ones too.
    Relations,
    /// The user's tables.
    Tables,
    Schemas,
    /// One table's columns.
    Describe(String),
    /// Set, or toggle.
    Timing(Option<bool>),
    /// Set, or show.
    Format(Option<Format>),
    /// Rows of a table format to show; 0 means all.
    RowsMax(usize),
    /// Send rows to a file, or back to standard output.
    Output(Option<String>),
    /// Run a file.
    Include(String),
}

pub const HELP: &str = "\
\\d             list tables and views      \\d TABLE    describe a table
\\dt            list tables                \\dn         list schemas
\\format F      table, csv, tsv, json, ndjson or markdown
\\timing [on|off]                          \\maxrows N  rows of a table to show, 0 for all
\\o [FILE]      write rows to FILE, or back to the terminal
\\i FILE        run the statements of FILE
\\c             say which server is used   \\q         leave
Statements end with a semicolon. Ctrl-C cancels a running one.
COPY (SELECT …) TO 'file.parquet';  also writes csv, tsv, json, ndjson, jsonl and arrow files.";

/// Parses a line such as `\d flights`; a `;` at the end is forgiven.
pub fn parse(line: &str) -> Result<Meta> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (command, argument) = match line.split_once(char::is_whitespace) {
        Some((command, argument)) => (command, Some(argument.trim()).filter(|a| !a.is_empty())),
        None => (line, None),
    };
    let word = command.to_ascii_lowercase();
    match (word.as_str(), argument) {
        ("help", None) => return Ok(Meta::Help),
        ("exit" | "quit", None) => return Ok(Meta::Quit),
        _ => {}
    }
    let unquoted = |a: &str| a.trim_matches('\'').to_owned();
    let needs = |what: &str| Error::invalid(format!("{command} needs {what}"));
    Ok(match (command, argument) {
        ("\\?" | "\\h" | "\\help", _) => Meta::Help,
        ("\\q" | "\\quit", None) => Meta::Quit,
        ("\\c", None) => Meta::Connection,
        ("\\d" | "\\d+", None) => Meta::Relations,
        ("\\d" | "\\d+", Some(table)) => Meta::Describe(table.to_owned()),
        ("\\dt", None) => Meta::Tables,
        ("\\dn", None) => Meta::Schemas,
        ("\\timing", None) => Meta::Timing(None),
        ("\\timing", Some("on")) => Meta::Timing(Some(true)),
        ("\\timing", Some("off")) => Meta::Timing(Some(false)),
        ("\\format", None) => Meta::Format(None),
        ("\\format", Some(name)) => Meta::Format(Some(
            Format::from_str(name, true)
                .map_err(|_| Error::invalid(format!("unknown format {name:?}: {}", format_names())))?,
        )),
        ("\\maxrows", argument) => {
            Meta::RowsMax(argument.and_then(|a| a.parse().ok()).ok_or_else(|| needs("a number of rows"))?)
        }
        ("\\o", argument) => Meta::Output(argument.map(unquoted)),
        ("\\i", argument) => Meta::Include(argument.map(unquoted).ok_or_else(|| needs("a file"))?),
        _ => return Err(Error::invalid(format!("unknown command {line:?}, \\? lists them"))),
    })
}

fn format_names() -> String {
    let names: Vec<String> = Format::value_variants()
        .iter()
        .filter_map(|f| f.to_possible_value().map(|v| v.get_name().to_owned()))
        .collect();
    names.join(", ")
}

/// The query behind `\d`.
pub const RELATIONS: &str = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
     WHERE table_schema <> 'information_schema' ORDER BY 1, 2";
/// The query behind `\dt`.
pub const TABLES: &str = "SELECT table_schema, table_name FROM information_schema.tables \
     WHERE table_schema NOT IN ('information_schema', 'system') AND table_type = 'BASE TABLE' ORDER BY 1, 2";
/// The query behind `\dn`.
pub const SCHEMAS: &str = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";

/// The statements behind `\d TABLE`.
pub struct Described {
    /// What it is, by the name that a statement would know it by.
    pub table: String,
    /// The columns of whatever has that name, in any schema.
    pub columns: String,
    /// How it is stored.
    pub storage: String,
}

pub fn describe(table: &str) -> Result<Described> {
    let mut path = table_path(table)?;
    let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
    let whole: Vec<String> = path.iter().map(quoted).collect();
    let name = literal(&path.pop().unwrap_or_default());
    let (schema_is, stored_schema_is) = match path.pop() {
        Some(schema) => {
            let schema = literal(&schema);
            (format!(" AND table_schema = {schema}"), format!(" AND schema_name = {schema}"))
        }
        None => (String::new(), String::new()),
    };
    let columns = format!(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
         WHERE table_name = {name}{schema_is} ORDER BY table_schema, ordinal_position"
    );
    let storage = format!(
        "SELECT timestamp_column, partition_by, order_by, primary_key, rows, bytes, files, tail_rows \
         FROM system.tables WHERE table_name = {name}{stored_schema_is}"
    );
    Ok(Described { table: format!("DESCRIBE {}", whole.join(".")), columns, storage })
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_with_their_arguments() {
        let expected = [
            ("\\?", Meta::Help),
            ("\\q;", Meta::Quit),
            ("Exit ;", Meta::Quit),
            ("quit", Meta::Quit),
            ("help", Meta::Help),
            ("\\c", Meta::Connection),
            ("\\d", Meta::Relations),
            ("\\d  s.t ;", Meta::Describe("s.t".into())),
            ("\\dt", Meta::Tables),
            ("\\dn", Meta::Schemas),
            ("\\timing", Meta::Timing(None)),
            ("\\timing off", Meta::Timing(Some(false))),
            ("\\format CSV", Meta::Format(Some(Format::Csv))),
            ("\\maxrows 5", Meta::RowsMax(5)),
            ("\\o 'a b.csv'", Meta::Output(Some("a b.csv".into()))),
            ("\\o", Meta::Output(None)),
            ("\\i x.sql", Meta::Include("x.sql".into())),
        ];
        for (line, meta) in expected {
            assert_eq!(parse(line).unwrap(), meta, "{line}");
        }
        for line in ["\\x", "\\format xml", "\\maxrows", "\\maxrows many", "\\i", "\\timing maybe", "\\"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn names_in_describe_are_quoted() {
        let Described { table, columns, storage } = describe("s.o'brien").unwrap();
        assert_eq!(table, "DESCRIBE \"s\".\"o'brien\"");
        assert!(columns.contains("table_name = 'o''brien' AND table_schema = 's'"), "{columns}");
        assert!(storage.contains("table_name = 'o''brien' AND schema_name = 's'"), "{storage}");
    }
}
