//! Parquet and Arrow IPC: files that know their types. Values are cast only where nothing is lost.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::util::display::array_value_to_string;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tandem_types::{Error, Result, widens_to};

use super::text::excerpt;

const BATCH_ROWS: usize = 16_384;
/// What an Arrow IPC file begins with, as opposed to a stream.
const IPC_FILE_MAGIC: &[u8] = b"ARROW1";

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// An open file with a schema of its own.
pub struct ColumnarFile {
    name: String,
    schema: SchemaRef,
    batches: Batches,
    /// Rows in the file, where it says so.
    pub rows: Option<u64>,
}

impl ColumnarFile {
    pub fn parquet(name: &str, file: File) -> Result<Self> {
        let not_parquet =
            |e: &dyn std::fmt::Display| Error::invalid(format!("{name}: not a readable Parquet file: {e}"));
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| not_parquet(&e))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
        let schema = builder.schema().clone();
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| not_parquet(&e))?;
        Ok(Self { name: name.to_owned(), schema, batches: Box::new(reader), rows })
    }

    pub fn arrow(name: &str, mut file: File) -> Result<Self> {
        let not_arrow =
            |e: &dyn std::fmt::Display| Error::invalid(format!("{name}: not readable Arrow IPC: {e}"));
        let mut first = Vec::with_capacity(IPC_FILE_MAGIC.len());
        let read = file.by_ref().take(IPC_FILE_MAGIC.len() as u64).read_to_end(&mut first);
        read.and_then(|_| file.rewind()).map_err(|e| not_arrow(&e))?;
        let file = BufReader::new(file);
        let (schema, batches): (SchemaRef, Batches) = if first == IPC_FILE_MAGIC {
            let reader = FileReader::try_new(file, None).map_err(|e| not_arrow(&e))?;
            (reader.schema(), Box::new(reader))
        } else {
            let reader = StreamReader::try_new(file, None).map_err(|e| not_arrow(&e))?;
            (reader.schema(), Box::new(reader))
        };
        Ok(Self { name: name.to_owned(), schema, batches, rows: None })
    }

    pub fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    /// The columns' names and types.
    pub fn types(&self) -> Vec<(String, DataType)> {
        self.schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
    }

    /// The rows as batches of the chosen columns: pairs of a column's place in the file and its field.
    pub fn batches(self, chosen: Vec<(usize, FieldRef)>) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        let fields: Vec<FieldRef> = chosen.iter().map(|(_, field)| field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let name = self.name;
        let mut rows_before = 0;
        self.batches.map(move |batch| {
            let batch = batch.map_err(|e| Error::invalid(format!("{name}: after row {rows_before}: {e}")))?;
            let columns = chosen.iter().map(|(place, field)| {
                cast_exactly(batch.column(*place), field).map_err(|(row, why)| {
                    Error::invalid(format!(
                        "{name}: row {}: column {}: {why}",
                        rows_before + row + 1,
                        field.name()
                    ))
                })
            });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            rows_before += batch.num_rows();
            RecordBatch::try_new(schema.clone(), columns)
                .map_err(|e| Error::internal(format!("{name}: cannot form a batch: {e}")))
        })
    }
}

/// Casts a column to a field's type; the error holds the row and what is wrong with it.
fn cast_exactly(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, (usize, String)> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(column.clone());
    }
    let cast = |array: &ArrayRef, to: &DataType| {
        let options = CastOptions { safe: true, ..Default::default() };
        cast_with_options(array, to, &options)
            .map_err(|e| (0, format!("{from} cannot be stored as {}: {e}", field.data_type())))
    };
    let values = cast(column, to)?;
    let bad = if values.null_count() > column.null_count() {
        (0..column.len()).find(|&row| column.is_valid(row) && values.is_null(row))
    } else if widens_to(from, to) || is_text(from) || is_text(to) {
        None
    } else {
        // Back again: a value that does not return has lost something, a fraction or some digits.
        let back = cast(&values, from)?;
        // What cannot be compared (nested types) was cast member by member.
        not_distinct(&back, column).ok().as_ref().and_then(first_false)
    };
    match bad {
        None => Ok(values),
        Some(row) => {
            let value = array_value_to_string(column, row).unwrap_or_default();
            Err((row, format!("{} does not fit {to}", excerpt(&value))))
        }
    }
}

fn is_text(t: &DataType) -> bool {
    widens_to(t, &DataType::Utf8) && *t != DataType::Null
}

fn first_false(same: &BooleanArray) -> Option<usize> {
    (0..same.len()).find(|&row| same.is_valid(row) && !same.value(row))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::ipc::writer::{FileWriter, StreamWriter};
    use arrow_schema::{Field, TimeUnit};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn cast(column: impl Array + 'static, to: DataType) -> Result<ArrayRef, (usize, String)> {
        let column: ArrayRef = Arc::new(column);
        cast_exactly(&column, &Arc::new(Field::new("c", to, true)))
    }

    #[test]
    fn casts_that_lose_something_are_refused_with_the_row() {
        assert!(cast(Float64Array::from(vec![Some(1.0), None, Some(2.0)]), DataType::Int64).is_ok());
        let (row, why) = cast(Float64Array::from(vec![1.0, 1.5]), DataType::Int64).unwrap_err();
        assert_eq!((row, why.as_str()), (1, "\"1.5\" does not fit Int64"));
        assert_eq!(cast(Int64Array::from(vec![1, 300]), DataType::Int8).unwrap_err().0, 1);
        assert_eq!(cast(Int64Array::from(vec![(1 << 53) + 1]), DataType::Float64).unwrap_err().0, 0);
        assert!(cast(StringArray::from(vec!["007"]), DataType::Int64).is_ok());
        assert_eq!(cast(StringArray::from(vec!["1", "x"]), DataType::Int64).unwrap_err().0, 1);
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        assert!(cast(TimestampMicrosecondArray::from(vec![1_000_000]), seconds.clone()).is_ok());
        assert_eq!(cast(TimestampMicrosecondArray::from(vec![1]), seconds).unwrap_err().0, 0);
        let zoned = TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC");
        let plain = cast(zoned, DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
        assert_eq!(plain.as_ref(), &TimestampMicrosecondArray::from(vec![5]) as &dyn Array);
    }

    #[test]
    fn parquet_and_both_arrow_forms_are_read() {
        let numbers = Int64Array::from_iter_values(0..20_000);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        let file = || tempfile::tempfile().unwrap();
        let rewound = |mut f: File| {
            f.rewind().unwrap();
            f
        };

        let parquet = file();
        let mut writer = ArrowWriter::try_new(parquet.try_clone().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let whole = file();
        let mut writer = FileWriter::try_new(whole.try_clone().unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let stream = file();
        let mut writer = StreamWriter::try_new(stream.try_clone().unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();

        for open in [
            ColumnarFile::parquet("f", rewound(parquet)),
            ColumnarFile::arrow("f", rewound(whole)),
            ColumnarFile::arrow("f", rewound(stream)),
        ] {
            let chosen = vec![(0, Arc::new(Field::new("n", DataType::Int32, true)))];
            let rows: usize = open.unwrap().batches(chosen).map(|b| b.unwrap().num_rows()).sum();
            assert_eq!(rows, 20_000);
        }
        assert!(ColumnarFile::parquet("f", file()).is_err());
        assert!(ColumnarFile::arrow("f", file()).is_err());
    }
}
