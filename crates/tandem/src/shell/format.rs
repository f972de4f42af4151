//! Rows as text: tables for people, the other formats for programs.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_schema;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use clap::ValueEnum;
use tandem_types::Result;

use super::output::Output;

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Boxes
    Table,
    /// Comma-separated, with a header
    Csv,
    /// Tab-separated, with a header
    Tsv,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Ndjson,
    /// A Markdown table
    Markdown,
}

impl Format {
    /// Whether programs that read JSON are the likely readers.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson)
    }
}

/// Rows that are laid out as one table when all are shown. A longer result goes on in a further table, so
/// that memory stays bounded.
const TABLE_ROWS: usize = 10_000;

/// Prints one result in one format, a batch at a time.
pub struct Printer<'a> {
    out: &'a mut Output,
    schema: SchemaRef,
    format: Format,
    /// The most rows to print as a table.
    rows_max: Option<usize>,
    /// Batches of a table that wait to be laid out.
    held: Vec<RecordBatch>,
    held_rows: usize,
    shown: usize,
    rows: usize,
    begun: bool,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Rows of the result.
    pub rows: usize,
    /// Rows among them that were left out.
    pub hidden: usize,
}

impl<'a> Printer<'a> {
    pub fn new(out: &'a mut Output, schema: SchemaRef, format: Format, rows_max: Option<usize>) -> Self {
        let held = Vec::new();
        Self { out, schema, format, rows_max, held, held_rows: 0, shown: 0, rows: 0, begun: false }
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        match self.format {
            Format::Table => self.hold(batch),
            Format::Csv => self.separated(batch, b','),
            Format::Tsv => self.separated(batch, b'\t'),
            Format::Json => self.json(batch, true),
            Format::Ndjson => self.json(batch, false),
            Format::Markdown => self.markdown(batch),
        }
    }

    /// Ends the result: footers, and the header of a result without rows.
    pub fn finish(mut self) -> Result<Printed> {
        match self.format {
            Format::Table if !self.held.is_empty() || self.shown == 0 => self.lay_out()?,
            Format::Table | Format::Ndjson => {}
            Format::Csv | Format::Tsv | Format::Markdown => {
                if !self.begun {
                    self.write(&RecordBatch::new_empty(self.schema.clone()))?;
                }
            }
            Format::Json => {
                let end = if self.begun { "\n]" } else { "[]" };
                self.out.line(end)?;
            }
        }
        self.out.finish()?;
        let hidden = if self.format == Format::Table { self.rows - self.shown } else { 0 };
        Ok(Printed { rows: self.rows, hidden })
    }

    fn hold(&mut self, batch: &RecordBatch) -> Result<()> {
        let room = self.rows_max.map_or(usize::MAX, |max| max - self.shown - self.held_rows);
        let rows = batch.num_rows().min(room);
        if rows > 0 {
            self.held.push(batch.slice(0, rows));
            self.held_rows += rows;
        }
        if self.rows_max.is_none() && self.held_rows >= TABLE_ROWS {
            self.lay_out()?;
        }
        Ok(())
    }

    fn lay_out(&mut self) -> Result<()> {
        let text = pretty_format_batches_with_schema(self.schema.clone(), &self.held)
            .map_err(|e| self.out.error(e))?
            .to_string();
        self.shown += self.held_rows;
        self.held_rows = 0;
        self.held.clear();
        self.out.line(&text)
    }

    fn separated(&mut self, batch: &RecordBatch, delimiter: u8) -> Result<()> {
        let batch = nested_as_text(batch).map_err(|e| self.out.error(e))?;
        let header = !self.begun;
        self.begun = true;
        let mut writer =
            CsvBuilder::new().with_header(header).with_delimiter(delimiter).build(&mut *self.out);
        let outcome = writer.write(&batch);
        drop(writer);
        outcome.map_err(|e| self.out.error(e))
    }

    fn json(&mut self, batch: &RecordBatch, in_array: bool) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let text = json_lines(batch).map_err(|e| self.out.error(e))?;
        if !in_array {
            return self.out.write_all(&text).map_err(|e| self.out.error(e));
        }
        // Text inside JSON holds no line breaks, so each line is one whole object.
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let before: &[u8] = if self.begun { b",\n" } else { b"[\n" };
            self.begun = true;
            self.out
                .write_all(before)
                .and_then(|()| self.out.write_all(line))
                .map_err(|e| self.out.error(e))?;
        }
        Ok(())
    }

    fn markdown(&mut self, batch: &RecordBatch) -> Result<()> {
        if !self.begun {
            self.begun = true;
            let names: Vec<String> = self.schema.fields().iter().map(|f| markdown_cell(f.name())).collect();
            self.out.line(&format!("| {} |", names.join(" | ")))?;
            self.out.line(&format!("|{}", " --- |".repeat(names.len())))?;
        }
        let options = FormatOptions::default();
        let columns: Result<Vec<_>, _> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect();
        let columns = columns.map_err(|e| self.out.error(e))?;
        for row in 0..batch.num_rows() {
            let cells: Result<Vec<String>, _> =
                columns.iter().map(|c| c.value(row).try_to_string().map(|t| markdown_cell(&t))).collect();
            let cells = cells.map_err(|e| self.out.error(e))?;
            self.out.line(&format!("| {} |", cells.join(" | ")))?;
        }
        Ok(())
    }
}

/// A batch as JSON objects, one a line, nulls written out.
pub fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(text)
}

/// The batch with lists, structs and maps as text: delimited formats have no other place for them.
pub fn nested_as_text(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() && !matches!(field.data_type(), DataType::Dictionary(_, _)) {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
            let texts = (0..column.len())
                .map(|row| {
                    if column.is_null(row) {
                        Ok(None)
                    } else {
                        formatter.value(row).try_to_string().map(Some)
                    }
                })
                .collect::<Result<StringArray, _>>()?;
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(texts));
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn markdown_cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> RecordBatch {
        let n = Int64Array::from(vec![Some(1), None]);
        let t = StringArray::from(vec![Some("a|b\n\"c\""), Some("x,y")]);
        RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("t", Arc::new(t) as ArrayRef)]).unwrap()
    }

    fn print(format: Format, batches: &[RecordBatch], rows_max: Option<usize>) -> (String, Printed) {
        let sink = Sink::default();
        let mut out = Output::to("memory", Box::new(sink.clone()));
        let mut printer = Printer::new(&mut out, batch().schema(), format, rows_max);
        for batch in batches {
            printer.write(batch).unwrap();
        }
        let printed = printer.finish().unwrap();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        (text, printed)
    }

    #[test]
    fn each_format_prints_rows_of_several_batches() {
        let two = [batch(), batch()];
        let csv = print(Format::Csv, &two, None).0;
        assert_eq!(csv.matches("n,t\n").count(), 1, "{csv}");
        assert!(csv.contains("\"a|b\n\"\"c\"\"\"") && csv.ends_with(",\"x,y\"\n"), "{csv}");
        let json = print(Format::Json, &two, None).0;
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 4);
        assert!(value[1]["n"].is_null());
        let lines = print(Format::Ndjson, &two, None).0;
        assert_eq!(lines.lines().count(), 4);
        let markdown = print(Format::Markdown, &two, None).0;
        assert!(markdown.starts_with("| n | t |\n| --- | --- |\n| 1 | a\\|b \"c\" |\n"), "{markdown}");
        assert!(print(Format::Tsv, &two, None).0.starts_with("n\tt\n1\t"));
    }

    #[test]
    fn results_without_rows_keep_their_shape() {
        assert_eq!(print(Format::Csv, &[], None).0, "n,t\n");
        assert_eq!(print(Format::Json, &[], None).0, "[]\n");
        assert_eq!(print(Format::Ndjson, &[], None).0, "");
        assert_eq!(print(Format::Markdown, &[], None).0, "| n | t |\n| --- | --- |\n");
        assert!(print(Format::Table, &[], None).0.contains("| n | t |"));
    }

    #[test]
    fn a_table_shows_the_first_rows_and_counts_the_rest() {
        let (text, printed) = print(Format::Table, &[batch(), batch()], Some(3));
        assert_eq!(printed, Printed { rows: 4, hidden: 1 });
        assert_eq!(text.matches("x,y").count(), 1, "{text}");
        assert_eq!(print(Format::Table, &[batch()], None).1, Printed { rows: 2, hidden: 0 });
    }

    #[test]
    fn lists_become_text_where_there_is_no_room_for_them() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();
        let flat = nested_as_text(&batch).unwrap();
        assert_eq!(
            flat.column(0).as_ref(),
            &StringArray::from(vec![Some("[1, 2]"), None]) as &dyn arrow::array::Array
        );
    }
}
