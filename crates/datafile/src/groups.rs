//! Row groups: every column by the writer that suits it.

use std::collections::VecDeque;

use arrow::array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use crate::blocks::BlockSums;
use crate::delta::Layout;
use crate::integers;
use crate::repeated::RepeatedColumn;
use crate::sink::Sink;

/// Rows of a row group; smaller ones cost a fifth more bytes and make no query faster.
pub(crate) const ROW_GROUP_ROWS: usize = 1024 * 1024;
/// Encoded bytes of a row group, for wide rows: bounds memory here and in readers.
const ROW_GROUP_BYTES: usize = 128 * 1024 * 1024;
/// Rows written between two looks at the size of the row group.
const STEP_ROWS: usize = 16 * 1024;

/// Writes record batches into a [`Sink`].
pub(crate) struct GroupWriter {
    file: SerializedFileWriter<Sink>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// Per top-level column.
    encoders: Vec<Encoder>,
    columns: Vec<Column>,
    /// Rows in the row group in progress.
    rows: usize,
}

/// Who encodes a top-level column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// The Parquet crate, as the file's properties say.
    Parquet,
    /// [`RepeatedColumn`].
    Repeated,
    /// [`integers`].
    Deltas(Layout),
}

enum Column {
    Leaves(Vec<ArrowColumnWriter>),
    Own(Box<dyn OwnColumn>),
}

/// A column of the row group in progress that this crate encodes.
pub(crate) trait OwnColumn: Send {
    fn write(&mut self, array: &dyn Array) -> Result<()>;

    /// About how many bytes the column takes so far.
    fn encoded_bytes(&self) -> usize;

    /// The whole column chunk, ready to be spliced into a row group.
    fn close(self: Box<Self>) -> Result<(Bytes, ColumnCloseResult)>;
}

impl GroupWriter {
    pub(crate) fn new(
        schema: SchemaRef,
        properties: WriterProperties,
        encoders: Vec<Encoder>,
    ) -> Result<Self> {
        let writer = ArrowWriter::try_new(Sink::default(), SchemaRef::clone(&schema), Some(properties))?;
        let (file, factory) = writer.into_serialized_writer()?;
        Ok(Self { file, factory, schema, encoders, columns: Vec::new(), rows: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            if self.rows == 0 {
                self.begin()?;
            }
            let rows = STEP_ROWS.min(batch.num_rows() - start).min(ROW_GROUP_ROWS - self.rows);
            self.write_step(&batch.slice(start, rows))?;
            self.rows += rows;
            start += rows;
            if self.rows >= ROW_GROUP_ROWS || self.in_progress_bytes() >= ROW_GROUP_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let writers = self.factory.create_column_writers(self.file.flushed_row_groups().len())?;
        let mut writers = VecDeque::from(writers);
        let mut leaf = 0;
        self.columns.clear();
        let properties = self.file.properties();
        let page_rows = properties.data_page_row_count_limit().max(1) as u32;
        for (field, encoder) in self.schema.fields().iter().zip(&self.encoders) {
            let count = leaves(field.data_type());
            let parquet: Vec<ArrowColumnWriter> = writers.drain(..count.min(writers.len())).collect();
            let own = || {
                let column = self.file.schema_descr().column(leaf);
                let compression = properties.compression(column.path());
                (column, compression)
            };
            self.columns.push(match encoder {
                Encoder::Parquet => Column::Leaves(parquet),
                Encoder::Repeated => {
                    let (column, compression) = own();
                    let text = !matches!(
                        value_type(field.data_type()),
                        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
                    );
                    Column::Own(Box::new(RepeatedColumn::new(column, compression, page_rows, text)))
                }
                Encoder::Deltas(layout) => {
                    let (column, compression) = own();
                    Column::Own(integers::column(column, compression, page_rows, *layout))
                }
            });
            leaf += count;
        }
        Ok(())
    }

    fn write_step(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.columns.iter_mut().zip(self.schema.fields()).zip(batch.columns());
        for ((column, field), array) in columns {
            match column {
                Column::Own(column) => column.write(array.as_ref())?,
                Column::Leaves(writers) => {
                    for (writer, leaf) in writers.iter_mut().zip(compute_leaves(field, array)?) {
                        writer.write(&leaf)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the row group in progress.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let mut group = self.file.next_row_group()?;
        for column in self.columns.drain(..) {
            match column {
                Column::Leaves(writers) => {
                    for writer in writers {
                        writer.close()?.append_to_row_group(&mut group)?;
                    }
                }
                Column::Own(column) => {
                    let (bytes, close) = column.close()?;
                    group.append_column(&bytes, close)?;
                }
            }
        }
        group.close()?;
        Ok(())
    }

    /// Encoded bytes so far, the row group in progress included.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.file.bytes_written() + self.in_progress_bytes()
    }

    fn in_progress_bytes(&self) -> usize {
        let column = |column: &Column| match column {
            Column::Leaves(writers) => writers.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum(),
            Column::Own(column) => column.encoded_bytes(),
        };
        self.columns.iter().map(column).sum()
    }

    /// Ends the body of the file; only metadata follows.
    pub(crate) fn end_body(&mut self) -> Result<BlockSums> {
        self.flush()?;
        // What the file's writer still buffers belongs to the body.
        self.file.flush().map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(self.file.inner_mut().end_body())
    }

    pub(crate) fn append_metadata(&mut self, key: &str, value: String) {
        self.file.append_key_value_metadata(KeyValue { key: key.to_owned(), value: Some(value) });
    }

    /// Writes the footer.
    pub(crate) fn finish(mut self) -> Result<(Sink, ParquetMetaData)> {
        let metadata = self.file.finish()?;
        Ok((std::mem::take(self.file.inner_mut()), metadata))
    }
}

fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

/// How many Parquet columns a column of this type becomes.
pub(crate) fn leaves(data_type: &DataType) -> usize {
    use DataType::*;
    match data_type {
        Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) | Map(f, _) => {
            leaves(f.data_type())
        }
        _ => 1,
    }
}
