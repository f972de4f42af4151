//! The files of an import: which columns they have, and their rows in the table's types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, FieldRef, Schema};
use tandem_types::{Error, Result};

use super::columnar::ColumnarFile;
use super::csv::{CsvFile, CsvOptions};
use super::json::{self, JsonBatches};
use super::source::{FileFormat, Source};
use super::table::match_columns;
use super::text::{Nulls, merge_types};

/// How files are to be read, whatever their format.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// `None`: what goes with the format.
    pub delimiter: Option<u8>,
    pub quote: u8,
    pub header: bool,
    pub columns: Vec<String>,
    pub nulls: Nulls,
    /// The most rows of a file to guess types from.
    pub infer_rows: Option<u64>,
    /// Types that are not to be guessed.
    pub types: BTreeMap<String, DataType>,
}

impl ReadOptions {
    fn csv(&self, format: FileFormat) -> CsvOptions {
        let usual = if format == FileFormat::Tsv { b'\t' } else { b',' };
        CsvOptions {
            delimiter: self.delimiter.unwrap_or(usual),
            quote: self.quote,
            header: self.header,
            columns: self.columns.clone(),
            nulls: self.nulls.clone(),
        }
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

fn columnar(source: &Source) -> Result<ColumnarFile> {
    let file = source.open_file()?;
    if source.format == FileFormat::Parquet {
        ColumnarFile::parquet(&source.name, file)
    } else {
        ColumnarFile::arrow(&source.name, file)
    }
}

/// The columns of one file and their types; `Null` where no value was seen.
fn infer_one(source: &Source, options: &ReadOptions) -> Result<Vec<(String, DataType)>> {
    let unseen = Arc::default();
    match source.format {
        FileFormat::Csv | FileFormat::Tsv => {
            let content = source.open(&unseen)?;
            CsvFile::open(&source.name, content, &options.csv(source.format))?.infer(options.infer_rows)
        }
        FileFormat::Json => json::infer(&source.name, source.open(&unseen)?, options.infer_rows),
        FileFormat::Parquet | FileFormat::Arrow => Ok(columnar(source)?.types()),
    }
}

/// The columns that a table needs to hold all the files.
pub fn infer(sources: &[Source], options: &ReadOptions) -> Result<Vec<Field>> {
    let mut columns: Vec<(String, DataType)> = Vec::new();
    for source in sources {
        for (name, data_type) in infer_one(source, options)? {
            let Some((_, known)) = columns.iter_mut().find(|(n, _)| *n == name) else {
                columns.push((name, data_type));
                continue;
            };
            *known = merge_types(known, &data_type, source.format.is_text()).ok_or_else(|| {
                Error::invalid(format!(
                    "{}: column {name} is {data_type}, in the files before it is {known}",
                    source.name
                ))
            })?;
        }
    }
    for wanted in options.types.keys() {
        if !columns.iter().any(|(name, _)| name == wanted) {
            return Err(Error::invalid(format!("--type names the column {wanted:?}, which no file has")));
        }
    }
    let field = |(name, found): (String, DataType)| {
        let found = if found == DataType::Null { DataType::Utf8 } else { found };
        let data_type = options.types.get(&name).cloned().unwrap_or(found);
        Field::new(name, data_type, true)
    };
    Ok(columns.into_iter().map(field).collect())
}

/// A table's name and columns.
pub struct Table {
    pub name: String,
    pub schema: Schema,
}

impl Table {
    fn matched(&self, source: &Source, columns: &[String]) -> Result<Vec<(usize, FieldRef)>> {
        match_columns(&source.name, columns, &self.name, &self.schema)
    }
}

/// The rows of a file as the table's types; stored bytes are counted as they are read.
pub fn read(
    source: &Source,
    table: &Table,
    options: &ReadOptions,
    bytes: &Arc<AtomicU64>,
) -> Result<Batches> {
    match source.format {
        FileFormat::Csv | FileFormat::Tsv => {
            let content = source.open(bytes)?;
            let file = CsvFile::open(&source.name, content, &options.csv(source.format))?;
            let chosen = table.matched(source, file.columns())?;
            Ok(Box::new(file.batches(chosen)))
        }
        FileFormat::Json => {
            // A column is a key that some object has, so the file is read once for its keys.
            let keys = json::infer(&source.name, source.open(&Arc::default())?, options.infer_rows)?;
            let columns: Vec<String> = keys.into_iter().map(|(key, _)| key).collect();
            json_batches(source, table, &columns, bytes)
        }
        FileFormat::Parquet | FileFormat::Arrow => {
            let file = columnar(source)?;
            let chosen = table.matched(source, &file.columns())?;
            // The reader jumps about in the file, so rows stand for bytes where their number is known.
            let (stored, rows, bytes) = (source.bytes, file.rows, bytes.clone());
            Ok(Box::new(file.batches(chosen).inspect(move |batch| {
                if let (Ok(batch), Some(rows)) = (batch, rows.filter(|n| *n > 0)) {
                    let share = stored as f64 * batch.num_rows() as f64 / rows as f64;
                    bytes.fetch_add(share as u64, Ordering::Relaxed);
                }
            })))
        }
    }
}

fn json_batches(
    source: &Source,
    table: &Table,
    columns: &[String],
    bytes: &Arc<AtomicU64>,
) -> Result<Batches> {
    let chosen = table.matched(source, columns)?;
    // Objects are read by key: where the table writes a name in another case, the key leads.
    let keyed = |(place, field): &(usize, FieldRef)| match columns.get(*place) {
        Some(key) => Arc::new(field.as_ref().clone().with_name(key)),
        None => field.clone(),
    };
    let fields = chosen.iter().map(keyed).collect();
    let named = Arc::new(Schema::new(chosen.iter().map(|(_, f)| f.clone()).collect::<Vec<_>>()));
    let batches = JsonBatches::new(&source.name, source.open(bytes)?, fields);
    let name = source.name.clone();
    Ok(Box::new(batches.map(move |batch| {
        RecordBatch::try_new(named.clone(), batch?.columns().to_vec())
            .map_err(|e| Error::internal(format!("{name}: cannot form a batch: {e}")))
    })))
}
