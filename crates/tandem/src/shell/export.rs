//! Writing a result into a local file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tandem_client::QueryResult;
use tandem_types::{Error, Result};

use super::copy::{Compression, Copy, FileFormat};
use super::format::{json_lines, nested_as_text};

type Sink = Box<dyn Finish>;

/// Streams a result into the file of a COPY; returns the rows written.
///
/// The file appears under its name only when it is whole.
pub async fn export(copy: &Copy, mut result: QueryResult) -> Result<u64> {
    let schema = result.schema();
    if schema.fields().is_empty() {
        return Err(Error::invalid("COPY needs a query that returns columns"));
    }
    let target = Path::new(&copy.path);
    let partial = Partial(Some(partial_path(target)));
    let named = |e: &dyn std::fmt::Display| Error::unavailable(format!("cannot write {:?}: {e}", copy.path));
    let file = File::create(partial.path()).map_err(|e| named(&e))?;
    let mut writer = FileOf::new(copy, schema, BufWriter::new(file)).map_err(|e| named(&e))?;
    let mut rows = 0;
    while let Some(batch) = result.next_batch().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        writer.write(&batch).map_err(|e| named(&e))?;
        // Rows that are always there already would never let Ctrl-C be looked at.
        tokio::task::yield_now().await;
    }
    writer.finish().map_err(|e| named(&e))?;
    partial.keep_as(target).map_err(|e| named(&e))?;
    Ok(rows)
}

fn partial_path(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

/// An unfinished file, removed unless it is kept: a cancelled copy leaves nothing.
struct Partial(Option<PathBuf>);

impl Partial {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    fn keep_as(mut self, target: &Path) -> std::io::Result<()> {
        let renamed = std::fs::rename(self.path(), target);
        if renamed.is_ok() {
            self.0 = None;
        }
        renamed
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nothing to be done about a file that does not go away.
            std::fs::remove_file(path).ok();
        }
    }
}

/// A compressor has a trailer to write.
trait Finish: Write + Send {
    fn finish(self: Box<Self>) -> std::io::Result<()>;
}

impl Finish for BufWriter<File> {
    fn finish(mut self: Box<Self>) -> std::io::Result<()> {
        self.flush()
    }
}

impl Finish for flate2::write::GzEncoder<BufWriter<File>> {
    fn finish(self: Box<Self>) -> std::io::Result<()> {
        (*self).finish()?.flush()
    }
}

impl Finish for zstd::Encoder<'static, BufWriter<File>> {
    fn finish(self: Box<Self>) -> std::io::Result<()> {
        (*self).finish()?.flush()
    }
}

enum FileOf {
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
    Arrow(Box<FileWriter<BufWriter<File>>>),
    Separated { out: Sink, delimiter: u8, schema: SchemaRef, begun: bool },
    Json { out: Sink, array: bool, begun: bool },
}

impl FileOf {
    fn new(copy: &Copy, schema: SchemaRef, file: BufWriter<File>) -> Result<Self, ArrowError> {
        Ok(match copy.format {
            FileFormat::Parquet => {
                let level = ZstdLevel::default();
                let properties =
                    WriterProperties::builder().set_compression(ParquetCompression::ZSTD(level)).build();
                let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(from_parquet)?;
                Self::Parquet(Box::new(writer))
            }
            FileFormat::Arrow => Self::Arrow(Box::new(FileWriter::try_new(file, &schema)?)),
            FileFormat::Csv => Self::separated(copy, b',', schema, file)?,
            FileFormat::Tsv => Self::separated(copy, b'\t', schema, file)?,
            FileFormat::Json => Self::Json { out: sink(copy, file)?, array: true, begun: false },
            FileFormat::Ndjson => Self::Json { out: sink(copy, file)?, array: false, begun: false },
        })
    }

    fn separated(
        copy: &Copy,
        delimiter: u8,
        schema: SchemaRef,
        file: BufWriter<File>,
    ) -> Result<Self, ArrowError> {
        Ok(Self::Separated { out: sink(copy, file)?, delimiter, schema, begun: false })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Self::Parquet(writer) => writer.write(batch).map_err(from_parquet),
            Self::Arrow(writer) => writer.write(batch),
            Self::Separated { out, delimiter, begun, .. } => {
                let builder = CsvBuilder::new().with_header(!*begun).with_delimiter(*delimiter);
                *begun = true;
                builder.build(out).write(&nested_as_text(batch)?)
            }
            Self::Json { out, array, begun } => write_json(out, *array, begun, batch),
        }
    }

    fn finish(mut self) -> Result<(), ArrowError> {
        if let Self::Separated { schema, begun: false, .. } = &self {
            let empty = RecordBatch::new_empty(schema.clone());
            self.write(&empty)?;
        }
        match self {
            Self::Parquet(writer) => {
                writer.into_inner().map_err(from_parquet)?.flush()?;
            }
            Self::Arrow(mut writer) => writer.finish()?,
            Self::Separated { out, .. } => out.finish()?,
            Self::Json { mut out, array, begun } => {
                if array {
                    out.write_all(if begun { b"\n]\n" } else { b"[]\n" })?;
                }
                out.finish()?;
            }
        }
        Ok(())
    }
}

fn write_json(out: &mut Sink, array: bool, begun: &mut bool, batch: &RecordBatch) -> Result<(), ArrowError> {
    let text = json_lines(batch)?;
    if !array {
        return Ok(out.write_all(&text)?);
    }
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        out.write_all(if *begun { b",\n" } else { b"[\n" })?;
        *begun = true;
        out.write_all(line)?;
    }
    Ok(())
}

fn sink(copy: &Copy, file: BufWriter<File>) -> Result<Sink, ArrowError> {
    Ok(match copy.compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
        Compression::Zstd => Box::new(zstd::Encoder::new(file, 0)?),
    })
}

fn from_parquet(e: ParquetError) -> ArrowError {
    ArrowError::ParquetError(e.to_string())
}
