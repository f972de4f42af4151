//! Delimited text.
//!
//! Records are read as text first and cast column by column, so that an error can name the line and
//! the column, whatever quoted line breaks came before.

use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, StringBuilder};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use tandem_types::{Error, Result};

use super::text::{CastFailure, Guess, Nulls, cast_text, excerpt};

/// Rows of a batch: enough to make the cast cheap, few enough to stay in cache.
const BATCH_ROWS: usize = 16_384;

/// How delimited text is to be read.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    pub delimiter: u8,
    pub quote: u8,
    pub header: bool,
    /// Names for the columns, instead of the header's.
    pub columns: Vec<String>,
    pub nulls: Nulls,
}

type Content = Box<dyn BufRead + Send>;

/// An open file: its columns are known, its records come next.
pub struct CsvFile {
    name: String,
    reader: csv::Reader<Content>,
    columns: Vec<String>,
    nulls: Nulls,
    /// Whether lines end with CR LF.
    crlf: bool,
    /// The line on which the record read last begins, from 1.
    line: u64,
}

impl CsvFile {
    /// Reads the header. `name` goes into messages.
    pub fn open(name: &str, mut content: Content, options: &CsvOptions) -> Result<Self> {
        let first = content.fill_buf().map_err(|e| Error::invalid(format!("cannot read {name:?}: {e}")))?;
        let crlf = first.split_inclusive(|b| *b == b'\n').next().is_some_and(|line| line.ends_with(b"\r\n"));
        let mut reader = ReaderBuilder::new()
            .delimiter(options.delimiter)
            .quote(options.quote)
            .has_headers(options.header)
            .from_reader(content);
        // Without a header this peeks at the first record, for its length.
        let first = reader.byte_headers().map_err(|e| explain(name, &e, crlf))?.clone();
        let mut columns: Vec<String> = if options.header {
            let column = |bytes| std::str::from_utf8(bytes).map(|s: &str| s.trim().to_owned());
            let read: Result<_, _> = first.iter().map(column).collect();
            read.map_err(|_| Error::invalid(format!("{name}:1: the header is not UTF-8")))?
        } else {
            (1..=first.len()).map(|i| format!("column_{i}")).collect()
        };
        if !options.columns.is_empty() {
            if !columns.is_empty() && options.columns.len() != columns.len() {
                return Err(Error::invalid(format!(
                    "{name}: --columns names {} columns, the file has {}",
                    options.columns.len(),
                    columns.len()
                )));
            }
            columns.clone_from(&options.columns);
        }
        if columns.is_empty() {
            return Err(Error::invalid(format!("{name}: the file is empty")));
        }
        Ok(Self { name: name.to_owned(), reader, columns, nulls: options.nulls.clone(), crlf, line: 1 })
    }

    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Guesses each column's type from at most `rows_max` records; `Null` where no value was seen.
    pub fn infer(mut self, rows_max: Option<u64>) -> Result<Vec<(String, DataType)>> {
        let mut guesses = vec![Guess::default(); self.columns.len()];
        let mut record = ByteRecord::new();
        let mut left = rows_max.unwrap_or(u64::MAX);
        while left > 0 && self.read(&mut record)? {
            left -= 1;
            for ((bytes, guess), column) in record.iter().zip(&mut guesses).zip(&self.columns) {
                let text = utf8(&self.name, self.line, column, bytes)?;
                if !self.nulls.may_be_null(text) {
                    guess.see(text);
                }
            }
        }
        Ok(self.columns.into_iter().zip(guesses.into_iter().map(Guess::data_type)).collect())
    }

    /// The records as batches of the chosen columns: pairs of a column's place in the file and its field.
    pub fn batches(self, chosen: Vec<(usize, FieldRef)>) -> CsvBatches {
        let fields: Vec<FieldRef> = chosen.iter().map(|(_, field)| field.clone()).collect();
        CsvBatches { file: self, chosen, schema: Arc::new(Schema::new(fields)), done: false }
    }

    fn read(&mut self, record: &mut ByteRecord) -> Result<bool> {
        if !self.reader.read_byte_record(record).map_err(|e| explain(&self.name, &e, self.crlf))? {
            return Ok(false);
        }
        // A record is taken to begin where the one before ended: before the LF of a CR LF, and before blank
        // lines. So the line breaks that are neither in it nor at its end came first.
        let passed = record.position().map_or(self.line, csv::Position::line);
        let breaks = self.reader.position().line().saturating_sub(passed);
        let at_end = u64::from(!self.crlf);
        let leading = match breaks.saturating_sub(at_end) {
            0 => 0,
            more => more.saturating_sub(record.as_slice().iter().filter(|b| **b == b'\n').count() as u64),
        };
        self.line = passed + leading;
        Ok(true)
    }
}

/// Batches of a file, up to the first error.
pub struct CsvBatches {
    file: CsvFile,
    chosen: Vec<(usize, FieldRef)>,
    schema: SchemaRef,
    done: bool,
}

impl CsvBatches {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut builders: Vec<StringBuilder> = self.chosen.iter().map(|_| StringBuilder::new()).collect();
        let mut lines: Vec<u64> = Vec::new();
        let mut record = ByteRecord::new();
        while lines.len() < BATCH_ROWS {
            if !self.file.read(&mut record)? {
                self.done = true;
                break;
            }
            lines.push(self.file.line);
            for ((place, field), builder) in self.chosen.iter().zip(&mut builders) {
                let bytes = record.get(*place).unwrap_or_default();
                let text = utf8(&self.file.name, self.file.line, field.name(), bytes)?;
                let is_text = *field.data_type() == DataType::Utf8;
                let text = if is_text { text } else { text.trim_ascii() };
                if self.file.nulls.is_null(text, is_text) {
                    builder.append_null();
                } else {
                    builder.append_value(text);
                }
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let columns = self
            .chosen
            .iter()
            .zip(builders)
            .map(|((_, field), mut builder)| self.cast(field, &Arc::new(builder.finish()), &lines));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        RecordBatch::try_new(self.schema.clone(), columns)
            .map(Some)
            .map_err(|e| Error::internal(format!("{}: cannot form a batch: {e}", self.file.name)))
    }

    fn cast(&self, field: &FieldRef, texts: &Arc<StringArray>, lines: &[u64]) -> Result<ArrayRef> {
        let (name, column, to) = (&self.file.name, field.name(), field.data_type());
        cast_text(texts, to).map_err(|failure| match failure {
            CastFailure::Row(row) => {
                let line = lines.get(row).copied().unwrap_or_default();
                let value = excerpt(texts.value(row));
                Error::invalid(format!("{name}:{line}: column {column}: cannot read {value} as {to}"))
            }
            CastFailure::Type(why) => {
                Error::unsupported(format!("{name}: column {column}: text cannot be read as {to}: {why}"))
            }
        })
    }
}

impl Iterator for CsvBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.next_batch();
        self.done |= batch.is_err();
        batch.transpose()
    }
}

fn utf8<'a>(name: &str, line: u64, column: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::invalid(format!("{name}:{line}: column {column}: the value is not UTF-8")))
}

fn explain(name: &str, e: &csv::Error, crlf: bool) -> Error {
    // The position is that of the end of the line before, ahead of the LF of a CR LF.
    let line = |position: &Option<csv::Position>| position.as_ref().map_or(0, |p| p.line() + u64::from(crlf));
    match e.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => Error::invalid(format!(
            "{name}:{}: the record has {len} fields, the first one has {expected_len}",
            line(pos)
        )),
        ErrorKind::Io(io) => Error::invalid(format!("cannot read {name:?}: {io}")),
        _ => Error::invalid(format!("{name}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use arrow_schema::Field;

    use super::*;

    fn options() -> CsvOptions {
        CsvOptions { delimiter: b',', quote: b'"', header: true, columns: Vec::new(), nulls: Nulls::Usual }
    }

    fn open(text: &str, options: &CsvOptions) -> Result<CsvFile> {
        CsvFile::open("f.csv", Box::new(Cursor::new(text.to_owned().into_bytes())), options)
    }

    fn load(text: &str, fields: &[(&str, DataType)]) -> Result<Vec<RecordBatch>> {
        let field =
            |(i, (name, t)): (usize, &(&str, DataType))| (i, Arc::new(Field::new(*name, t.clone(), true)));
        open(text, &options())?.batches(fields.iter().enumerate().map(field).collect()).collect()
    }

    const IT: [(&str, DataType); 2] = [("i", DataType::Int64), ("t", DataType::Utf8)];

    #[test]
    fn types_are_inferred_over_all_rows() {
        let text = "a,b,c,d\n1,x,NA,NA\n2,NA,,2013-01-01 00:00:00\n2.5,y,NA,NA\n";
        let types = open(text, &options()).unwrap().infer(None).unwrap();
        let types: Vec<DataType> = types.into_iter().map(|(_, t)| t).collect();
        let time = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None);
        assert_eq!(types, [DataType::Float64, DataType::Utf8, DataType::Null, time]);
        let few = open(text, &options()).unwrap().infer(Some(1)).unwrap();
        assert_eq!(few[0].1, DataType::Int64);
    }

    #[test]
    fn values_nulls_and_quotes_are_read() {
        let batches = load("\u{feff}i,t\r\n1,\"a,\"\"b\"\"\nc\"\r\nNA,NA\r\n 3 ,\r\n", &IT).unwrap();
        let batch = &batches[0];
        let numbers: Vec<Option<i64>> = batch.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(numbers, [Some(1), None, Some(3)]);
        let texts: Vec<Option<&str>> = batch.column(1).as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("a,\"b\"\nc"), Some("NA"), None]);
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        for (text, message) in [
            ("i,t\n1,a\nx,b\n", "f.csv:3: column i: cannot read \"x\" as Int64"),
            ("i,t\n1,\"a\nb\"\n\n2,c\nx,b\n", "f.csv:6: column i: cannot read \"x\" as Int64"),
            ("i,t\r\n1,a\r\n2,b\r\nx,b\r\n", "f.csv:4: column i: cannot read \"x\" as Int64"),
            ("i,t\n1,a\n\n\nx,b\n", "f.csv:5: column i: cannot read \"x\" as Int64"),
            ("i,t\r\n1,\"a\r\nb\"\r\n\r\nx,b", "f.csv:5: column i: cannot read \"x\" as Int64"),
            ("i,t\r\n1,a\r\n2\r\n", "f.csv:3: the record has 1 fields, the first one has 2"),
            ("i,t\nx,b", "f.csv:2: column i: cannot read \"x\" as Int64"),
            ("i,t\n1,a\n2\n", "f.csv:3: the record has 1 fields, the first one has 2"),
        ] {
            assert_eq!(load(text, &IT).unwrap_err().message(), message);
        }
        let bytes = b"i,t\n1,a\n2,\xff\n".to_vec();
        let file = CsvFile::open("f.csv", Box::new(Cursor::new(bytes)), &options()).unwrap();
        let error = file.infer(None).unwrap_err();
        assert_eq!(error.message(), "f.csv:3: column t: the value is not UTF-8");
    }

    #[test]
    fn files_without_a_header_get_names() {
        let bare = CsvOptions { header: false, delimiter: b';', ..options() };
        let file = open("1;a\n2;b\n", &bare).unwrap();
        assert_eq!(file.columns(), ["column_1", "column_2"]);
        assert_eq!(file.infer(None).unwrap()[0].1, DataType::Int64);
        let named = CsvOptions { columns: vec!["i".into(), "t".into()], ..bare.clone() };
        let chosen = vec![(0, Arc::new(Field::new("i", DataType::Int64, true)))];
        let batches: Vec<_> = open("1;a\n2;b\n", &named).unwrap().batches(chosen).collect();
        assert_eq!(batches[0].as_ref().unwrap().num_rows(), 2);
        let wrong = CsvOptions { columns: vec!["i".into()], ..bare };
        assert!(open("1;a\n", &wrong).is_err());
        assert!(open("", &options()).is_err());
    }
}
