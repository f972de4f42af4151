//! The rows of a `COPY … FROM STDIN`, from text to columns.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, StringBuilder};
use arrow_schema::{DataType, Field, Schema};
use tandem_types::{Error, Result};

use super::options::Options;
use crate::decode::bytea;
use crate::suit::{Use, suited};

/// The end of the rows, where old clients write it.
const END: &[u8] = b"\\.";

/// The rows as parameters of an `INSERT`, in a form that the engine reads as the types it needs; `None`: there are none.
///
/// # Errors
///
/// `InvalidInput`, naming the row, for what is no row of so many values.
pub(super) fn parse(bytes: &[u8], options: &Options, needed: &Schema) -> Result<Option<RecordBatch>> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Error::invalid("the rows of the COPY are not UTF-8 text"));
    }
    let mut rows = Rows::new(needed.fields().len(), options.header);
    if options.csv { read_csv(bytes, options, &mut rows) } else { read_text(bytes, options, &mut rows) }?;
    let Some(columns) = rows.finish() else { return Ok(None) };
    let columns = columns.into_iter().zip(needed.fields());
    let columns = columns.map(|(texts, field)| {
        column(texts, field.data_type())
            .map_err(|e| e.context(format!("parameter {} of the COPY", field.name())))
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    let fields = columns.iter().enumerate();
    let fields =
        fields.map(|(at, array)| Field::new(format!("${}", at + 1), array.data_type().clone(), true));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns);
    batch.map(Some).map_err(|e| Error::internal(format!("the rows of a COPY cannot be bound: {e}")))
}

/// Texts that only PostgreSQL writes so are read here; the engine reads all others.
fn column(texts: StringArray, needed: &DataType) -> Result<ArrayRef> {
    match needed {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = texts.iter().map(|value| {
                value
                    .map(|text| bytea(text).ok_or_else(|| Error::invalid(format!("{text:?} is no bytea"))))
                    .transpose()
            });
            let bytes: Vec<Option<Vec<u8>>> = bytes.collect::<Result<_>>()?;
            Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
        }
        _ => suited(Arc::new(texts), needed, Use::Stored),
    }
}

/// Rows as they come, column by column.
struct Rows {
    columns: Vec<StringBuilder>,
    /// Fields of the row that is being read.
    fields: usize,
    rows: usize,
    in_header: bool,
}

impl Rows {
    fn new(columns: usize, header: bool) -> Self {
        let columns = (0..columns).map(|_| StringBuilder::new()).collect();
        Self { columns, fields: 0, rows: 0, in_header: header }
    }

    fn field(&mut self, value: Option<&[u8]>) -> Result<()> {
        if let Some(column) = self.columns.get_mut(self.fields).filter(|_| !self.in_header) {
            match value.map(std::str::from_utf8) {
                None => column.append_null(),
                Some(Ok(text)) => column.append_value(text),
                // Only by bytes that were written as numbers.
                Some(Err(_)) => return Err(self.wrong("has a value that is not UTF-8 text")),
            }
        }
        self.fields += 1;
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        let fields = std::mem::take(&mut self.fields);
        if !std::mem::take(&mut self.in_header) && fields != self.columns.len() {
            let columns = self.columns.len();
            return Err(self.wrong(&format!("has {fields} values, and the table is given {columns}")));
        }
        self.rows += 1;
        Ok(())
    }

    fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("row {} of the COPY {what}", self.rows + 1))
    }

    fn finish(self) -> Option<Vec<StringArray>> {
        let columns: Vec<_> = self.columns.into_iter().map(|mut column| column.finish()).collect();
        columns.first().is_some_and(|first| first.len() > 0).then_some(columns)
    }
}

/// Rows of a line each; a backslash hides delimiters and line ends, and writes what cannot be written.
fn read_text(bytes: &[u8], options: &Options, rows: &mut Rows) -> Result<()> {
    let delimiter = u8::try_from(options.delimiter).unwrap_or(b'\t');
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut end = 0;
        while let Some(byte) = rest.get(end).filter(|byte| **byte != b'\n') {
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        let line = rest.get(..end).unwrap_or(rest);
        rest = rest.get(end + 1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == END {
            break;
        }
        let (mut start, mut at) = (0, 0);
        loop {
            match line.get(at) {
                Some(b'\\') => at += 2,
                Some(byte) if *byte != delimiter => at += 1,
                found => {
                    let field = line.get(start..at.min(line.len())).unwrap_or_default();
                    let is_null = field == options.null.as_bytes();
                    rows.field(if is_null { None } else { Some(unescaped(field)) }.as_deref())?;
                    if found.is_none() {
                        break;
                    }
                    (start, at) = (at + 1, at + 1);
                }
            }
        }
        rows.end_row()?;
    }
    Ok(())
}

/// What a field of the text format says.
fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut value = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            value.push(*first);
            continue;
        }
        let Some((letter, after)) = rest.split_first() else {
            value.push(b'\\');
            break;
        };
        rest = after;
        value.push(match letter {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'0'..=b'7' => {
                let (byte, left) = number(*letter - b'0', rest, 2, 8);
                rest = left;
                byte
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (byte, left) = number(0, rest, 2, 16);
                rest = left;
                byte
            }
            other => *other,
        });
    }
    Cow::Owned(value)
}

/// A byte by its digits, at most `most` of them after those that are known; and what follows.
fn number(known: u8, bytes: &[u8], most: usize, base: u32) -> (u8, &[u8]) {
    let digits = bytes.iter().take(most).map_while(|byte| char::from(*byte).to_digit(base));
    let (mut value, mut count) = (u32::from(known), 0);
    for digit in digits {
        value = value * base + digit;
        count += 1;
    }
    (u8::try_from(value & 0xff).unwrap_or(0), bytes.get(count..).unwrap_or_default())
}

/// Rows of comma-separated values. What is in quotes is never null, and may hold delimiters and line ends.
fn read_csv(bytes: &[u8], options: &Options, rows: &mut Rows) -> Result<()> {
    let delimiter = u8::try_from(options.delimiter).unwrap_or(b',');
    let mut field = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(after) = bytes.get(at..).and_then(|rest| rest.strip_prefix(END))
            && (after.is_empty() || after.starts_with(b"\n") || after.starts_with(b"\r\n"))
        {
            break;
        }
        // One row.
        loop {
            field.clear();
            let (mut in_quotes, mut quoted) = (false, false);
            let end = loop {
                let byte = bytes.get(at).copied();
                at += 1;
                match byte {
                    None if in_quotes => return Err(rows.wrong("has a quoted value that does not end")),
                    Some(b'"') if in_quotes && bytes.get(at) == Some(&b'"') => {
                        field.push(b'"');
                        at += 1;
                    }
                    Some(b'"') => (in_quotes, quoted) = (!in_quotes, true),
                    Some(byte) if in_quotes => field.push(byte),
                    Some(b'\r') if matches!(bytes.get(at), None | Some(b'\n')) => {}
                    Some(byte) if byte != delimiter && byte != b'\n' => field.push(byte),
                    end => break end,
                }
            };
            let is_null = !quoted && field == options.null.as_bytes();
            rows.field(if is_null { None } else { Some(field.as_slice()) })?;
            if end != Some(delimiter) {
                break;
            }
        }
        rows.end_row()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::understand;
    use super::*;
    use crate::encode::{copy_csv, copy_text};
    use arrow::array::AsArray;

    type Row = Vec<Option<String>>;

    fn rows(bytes: &[u8], sql: &str, columns: usize) -> Result<Vec<Row>> {
        let fields: Vec<_> =
            (0..columns).map(|n| Field::new(format!("${n}"), DataType::Utf8, true)).collect();
        let Some(batch) = parse(bytes, &understand(sql).unwrap().options, &Schema::new(fields))? else {
            return Ok(Vec::new());
        };
        let value = |column: &ArrayRef, row: usize| {
            let texts = column.as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        Ok((0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| value(c, row)).collect()).collect())
    }

    fn row(values: &[Option<&str>]) -> Row {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn text_is_read() {
        let text = rows(b"1\ta\\tb\\\\\n\\N\t\n\\.\nmore\n", "COPY t FROM STDIN", 2).unwrap();
        assert_eq!(text, [row(&[Some("1"), Some("a\tb\\")]), row(&[None, Some("")])]);
        let error = rows(b"1\n1\t2\n", "COPY t FROM STDIN", 2).unwrap_err();
        assert!(error.message().contains("row 1") && error.message().contains("1 values"), "{error}");
        assert!(rows(b"\xff\n", "COPY t FROM STDIN", 1).is_err());
        // Bytes by their numbers, and a line end behind a backslash.
        let text = rows(b"\\x41\\103\\0601\\xg\na\\\nb\n\\xff\n", "COPY t FROM STDIN", 1);
        assert!(text.unwrap_err().message().contains("row 3"));
        let text = rows(b"\\x41\\103\\0601\\xg\na\\\nb\n", "COPY t FROM STDIN", 1).unwrap();
        assert_eq!(text, [row(&[Some("AC01xg")]), row(&[Some("a\nb")])]);
        // Empty lines are rows, whatever ends the text.
        for end in ["", "\\.\n", "\\."] {
            let text = rows(format!("a\n\n{end}").as_bytes(), "COPY t FROM STDIN", 1).unwrap();
            assert_eq!(text, [row(&[Some("a")]), row(&[Some("")])]);
        }
        assert_eq!(rows(b"h\r\n1\r\n", "COPY t FROM STDIN (HEADER)", 1).unwrap(), [row(&[Some("1")])]);
        assert_eq!(rows(b"\\", "COPY t FROM STDIN", 1).unwrap(), [row(&[Some("\\")])]);
        let null = rows(b"\\N\n", "COPY t FROM STDIN WITH NULL AS E'\\\\N'", 1).unwrap();
        assert_eq!(null, [row(&[None])], "as psycopg2 asks for it");
    }

    #[test]
    fn csv_is_read() {
        let csv = rows(b"h,i\n1,\"a,\"\"b\nc\"\n,x\n", "COPY t FROM STDIN CSV HEADER", 2).unwrap();
        assert_eq!(csv, [row(&[Some("1"), Some("a,\"b\nc")]), row(&[None, Some("x")])]);
        let csv = rows(b"\"\",\r\n\"x\",x\r\n", "COPY t FROM STDIN CSV NULL 'x'", 2).unwrap();
        assert_eq!(csv, [row(&[Some(""), Some("")]), row(&[Some("x"), None])], "in quotes there is no null");
        let csv = rows(b"1\n\n\"\"\n", "COPY t FROM STDIN CSV", 1).unwrap();
        assert_eq!(csv, [row(&[Some("1")]), row(&[None]), row(&[Some("")])], "no row is skipped");
        assert_eq!(rows(b"1\n\\.\n2\n", "COPY t FROM STDIN CSV", 1).unwrap(), [row(&[Some("1")])]);
        assert_eq!(rows(b"a\"b,c\"d", "COPY t FROM STDIN CSV", 1).unwrap(), [row(&[Some("ab,cd")])]);
        assert!(rows(b"", "COPY t FROM STDIN CSV", 1).unwrap().is_empty());
        for wrong in [&b"1,2,3\n"[..], b"1\n", b"1,\"2\n", b"1,"] {
            assert_eq!(rows(wrong, "COPY t FROM STDIN CSV", 2).is_err(), wrong != b"1,", "{wrong:?}");
        }
    }

    #[test]
    fn lists_are_read_as_lists() {
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        let needed = Schema::new(vec![Field::new("$1", DataType::List(item), true)]);
        let options = understand("COPY t FROM STDIN").unwrap().options;
        let batch = parse(b"{1,NULL}\n\\N\n{}\n", &options, &needed).unwrap().unwrap();
        let lists = batch.column(0).as_list::<i32>();
        assert_eq!((lists.value_length(0), lists.is_null(1), lists.value_length(2)), (2, true, 0));
        assert!(parse(b"1\n", &options, &needed).is_err());
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_written(
            all in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of("[a\\\\N.\"\t\r\n,ü ]{0,5}"), 2),
                1..5,
            ),
        ) {
            let text: String = all.iter().map(|row| copy_text(row, '\t', "\\N")).collect();
            prop_assert_eq!(&rows(text.as_bytes(), "COPY t FROM STDIN", 2).unwrap(), &all);
            let csv: String = all.iter().map(|row| copy_csv(row, ',', "")).collect();
            prop_assert_eq!(&rows(csv.as_bytes(), "COPY t FROM STDIN CSV", 2).unwrap(), &all);
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = rows(&bytes, "COPY t FROM STDIN", 2);
            let _ = rows(&bytes, "COPY t FROM STDIN CSV", 2);
        }
    }
}
