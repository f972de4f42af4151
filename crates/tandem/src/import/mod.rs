//! `tandem import`: files into a table, over Flight.
//!
//! A file's columns are matched with the table's by name. Chunks of rows are committed one after the
//! other, in the files' order, none with rows of two files; when something fails, what was committed before
//! stays, and the message says how to go on. Errors in a file name the file, the line (the row, where there
//! are no lines) and the column.
//!
//! Each chunk is committed under a token made of the file's content and the chunk's place in it, so the same
//! import run again, after a failure or by mistake, passes over what is in the table already. The server
//! remembers tokens for a while (a day by default). `--again` loads a second time on purpose.

mod columnar;
mod csv;
mod files;
mod identity;
mod json;
mod json_records;
mod load;
mod progress;
mod source;
mod table;
mod text;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{AsArray, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use futures::stream::BoxStream;
use tandem_client::{Client, IngestMode, table_path};
use tandem_types::{DEFAULT_SCHEMA, Error, ErrorKind, PartitionUnit, Result};
use tokio::sync::mpsc;

use crate::target::Target;
use files::{ReadOptions, Table};
use identity::Tokens;
use load::{Chunk, Ingest, LoadFailure, Loaded, Piece, QUEUE_BATCHES, Totals, load};
use progress::Progress;
use source::{FileFormat, Source};
use table::{TableOptions, create_sql, parse_column_type};
use text::Nulls;

/// Bytes of a chunk that are kept so that it can be sent again when a connection is lost.
const REPLAY_BYTES: usize = 256 << 20;

/// Load files into a table
#[derive(clap::Args, Clone, Debug)]
pub struct ImportArgs {
    /// Files to load: csv, tsv, parquet, json, jsonl, ndjson, arrow, arrows, ipc or feather, each also with .gz or
    /// .zst; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Table to load into, as `table` or `schema.table`
    #[arg(short, long, value_name = "TABLE")]
    pub table: String,
    /// Create the table, with the columns and types of the files
    #[arg(long)]
    pub create: bool,
    /// With --create: use the table if it exists
    #[arg(long, requires = "create")]
    pub if_not_exists: bool,
    /// With --create: the column that holds the time
    #[arg(long, value_name = "COLUMN", requires = "create")]
    pub timestamp: Option<String>,
    /// With --create: hour, day, week, month, year or none
    #[arg(long, value_name = "UNIT", requires = "create", value_parser = partition_unit)]
    pub partition_by: Option<PartitionUnit>,
    /// With --create: the order of rows in data files
    #[arg(long, value_name = "COLUMN,…", requires = "create", value_delimiter = ',')]
    pub order_by: Vec<String>,
    /// Format of the files, whatever their names say
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// Character between fields [default: a comma, a tab for tsv]
    #[arg(long, value_name = "CHAR", value_parser = one_byte)]
    pub delimiter: Option<u8>,
    /// Character around fields that hold delimiters
    #[arg(long, value_name = "CHAR", default_value = "\"", value_parser = one_byte)]
    pub quote: u8,
    /// The first line holds values, not names
    #[arg(long)]
    pub no_header: bool,
    /// Names of the fields, instead of the header's
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Text that means null in every column, besides empty text; may be repeated [default: NA, N/A, NULL, null, None
    /// and \N, but not in text columns]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub null: Vec<String>,
    /// Type of a column, with --create; may be repeated
    #[arg(long = "type", value_name = "COLUMN=TYPE", requires = "create", value_parser = parse_column_type)]
    pub types: Vec<(String, DataType)>,
    /// Rows of each file to guess types from; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub infer_rows: u64,
    /// Rows in a transaction
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub chunk_rows: u64,
    /// Load rows that an import has loaded before a second time; without it they are passed over
    #[arg(long)]
    pub again: bool,
    /// Rows to pass over, to go on after a file was mended
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip_rows: u64,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

fn one_byte(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        _ if text == "\\t" || text == "tab" => Ok(b'\t'),
        _ => Err("write one ASCII character, or \\t".to_owned()),
    }
}

fn partition_unit(text: &str) -> Result<PartitionUnit, String> {
    PartitionUnit::parse(text).ok_or_else(|| "write hour, day, week, month, year or none".to_owned())
}

impl ImportArgs {
    fn read_options(&self) -> ReadOptions {
        ReadOptions {
            delimiter: self.delimiter,
            quote: self.quote,
            header: !self.no_header,
            columns: self.columns.clone(),
            nulls: if self.null.is_empty() { Nulls::Usual } else { Nulls::Given(self.null.clone()) },
            infer_rows: Some(self.infer_rows).filter(|n| *n > 0),
            types: self.types.iter().cloned().collect(),
        }
    }

    fn table_options(&self) -> TableOptions {
        TableOptions {
            if_not_exists: self.if_not_exists,
            timestamp: self.timestamp.clone(),
            partition_by: self.partition_by,
            order_by: self.order_by.clone(),
        }
    }
}

/// Runs `tandem import` against the server of `urls`, whatever [`ImportArgs::target`] says.
pub async fn run(args: &ImportArgs, urls: &str) -> Result<()> {
    table_path(&args.table)?;
    let options = args.read_options();
    let sources: Vec<Source> =
        args.files.iter().map(|file| Source::locate(file, args.format)).collect::<Result<_>>()?;
    let mut progress = Progress::new(sources.iter().map(|s| s.bytes).sum(), args.quiet);
    let client = connect(args, urls, &progress).await?;
    if args.create {
        create(args, &client, &sources, &options).await?;
    }
    let table = Table { name: args.table.clone(), schema: table_schema(&client, &args.table).await? };
    let tokens = if args.again { Tokens::default() } else { tokens(args, &client, &sources).await? };
    progress.begin();
    let batches = start_reading(sources, table, options, args.skip_rows, progress.bytes.clone());
    let target = Destination { client: &client, table: &args.table, tokens };
    let chunk_rows = usize::try_from(args.chunk_rows).unwrap_or(usize::MAX);
    let outcome = load(&target, batches, chunk_rows, |rows| progress.rows(rows)).await;
    progress.clear();
    match outcome {
        Ok(done) => {
            report(args, done, &progress);
            Ok(())
        }
        Err(failure) => Err(explain(args, failure)),
    }
}

async fn connect(args: &ImportArgs, urls: &str, progress: &Progress) -> Result<Client> {
    let remark = progress.remark();
    let client = Client::connect_with(urls, args.target.connect_with_remarks(remark)?).await?;
    Ok(client.with_replay_bytes(REPLAY_BYTES))
}

/// The tokens of the files' chunks.
async fn tokens(args: &ImportArgs, client: &Client, sources: &[Source]) -> Result<Tokens> {
    // Reading blocks; the connection is idle meanwhile.
    let hashes: Vec<String> =
        tokio::task::block_in_place(|| sources.iter().map(Source::content_hash).collect::<Result<_>>())?;
    Ok(Tokens::new(&table_id(client, &args.table).await?, &hashes))
}

async fn table_id(client: &Client, table: &str) -> Result<String> {
    let mut path = table_path(table)?;
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let name = literal(&path.pop().unwrap_or_default());
    let schema = literal(path.pop().as_deref().unwrap_or(DEFAULT_SCHEMA));
    let sql = format!(
        "SELECT CAST(table_id AS VARCHAR) FROM system.tables WHERE schema_name = {schema} AND table_name = {name}"
    );
    let batches = client.query(&sql).await?.collect().await?;
    let ids = batches.iter().filter_map(|b| b.columns().first()).filter_map(|c| c.as_string_opt::<i32>());
    let id = ids.flat_map(|ids| ids.iter()).flatten().next().map(str::to_owned);
    id.ok_or_else(|| Error::not_found(format!("{table} is no table that rows can be loaded into")))
}

async fn create(args: &ImportArgs, client: &Client, sources: &[Source], options: &ReadOptions) -> Result<()> {
    // Reading blocks; the connection is idle meanwhile.
    let mut columns = tokio::task::block_in_place(|| files::infer(sources, options))?;
    for column in &mut columns {
        // A date is a time of day short of being a time.
        if Some(column.name()) == args.timestamp.as_ref() && *column.data_type() == DataType::Date32 {
            column.set_data_type(DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None));
        }
    }
    let sql = create_sql(&args.table, &columns, &args.table_options())?;
    client.execute(&sql).await.map_err(|e| e.context(format!("cannot create the table {}", args.table)))?;
    Ok(())
}

async fn table_schema(client: &Client, table: &str) -> Result<arrow_schema::Schema> {
    let path: Vec<String> =
        table_path(table)?.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    let result = client
        .query(&format!("SELECT * FROM {} LIMIT 0", path.join(".")))
        .await
        .map_err(|e| e.context(format!("cannot look at the table {table} (--create makes one)")))?;
    Ok(result.schema().as_ref().clone())
}

/// Reads the files on a thread of its own; the queue's bound holds it back.
fn start_reading(
    sources: Vec<Source>,
    table: Table,
    options: ReadOptions,
    skip_rows: u64,
    bytes: Arc<AtomicU64>,
) -> mpsc::Receiver<Result<Piece>> {
    let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
    tokio::task::spawn_blocking(move || {
        let mut to_skip = skip_rows;
        for (file, source) in sources.iter().enumerate() {
            let batches = match files::read(source, &table, &options, &bytes) {
                Ok(batches) => batches,
                // Nobody listens any more when this fails: the import has ended.
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            let mut row = 0;
            for batch in batches {
                let piece = batch.map(|batch| {
                    let end = row + batch.num_rows() as u64;
                    let batch = without_first(&batch, &mut to_skip);
                    let first_row = end - batch.num_rows() as u64;
                    row = end;
                    Piece { file, first_row, batch }
                });
                let ends = piece.is_err();
                if piece.as_ref().is_ok_and(|p| p.batch.num_rows() == 0) {
                    continue;
                }
                if sender.blocking_send(piece).is_err() || ends {
                    return;
                }
            }
        }
    });
    receiver
}

fn without_first(batch: &RecordBatch, to_skip: &mut u64) -> RecordBatch {
    let rows = batch.num_rows();
    let skipped = usize::try_from(*to_skip).unwrap_or(usize::MAX).min(rows);
    *to_skip -= skipped as u64;
    batch.slice(skipped, rows - skipped)
}

struct Destination<'a> {
    client: &'a Client,
    table: &'a str,
    tokens: Tokens,
}

impl Ingest for Destination<'_> {
    async fn ingest(
        &self,
        chunk: Chunk,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<Loaded> {
        let client = match self.tokens.of(chunk.file, chunk.first_row) {
            Some(token) => self.client.clone().with_token(&token)?,
            None => self.client.clone(),
        };
        let written = client.ingest(self.table, IngestMode::Append, schema, batches).await?;
        let rows = written.rows.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        // A duplicate of what this import itself sent before a connection was lost is its own.
        Ok(Loaded { rows, already: written.duplicate && !written.repeated })
    }
}

fn report(args: &ImportArgs, done: Totals, progress: &Progress) {
    let Totals { committed, already } = done;
    if args.json {
        let seconds = progress.seconds();
        let outcome = serde_json::json!({
            "table": args.table, "rows": committed, "already_there": already, "seconds": seconds,
        });
        println!("{outcome}");
    } else if !args.quiet {
        let (seconds, rate) = (progress.seconds(), progress.rate(done.rows()));
        println!("{committed} rows into {} in {seconds:.1} s, {rate} rows/s", args.table);
        if already > 0 {
            println!(
                "{already} rows were already there from an earlier import, --again loads them a second time"
            );
        }
    }
}

/// The failure with what a user needs to go on.
fn explain(args: &ImportArgs, failure: LoadFailure) -> Error {
    let LoadFailure { error, done, uncertain, unreadable } = failure;
    if error.kind() == ErrorKind::TokenReused {
        let why = "this file was imported into this table before, in other chunks or read in another way: the same \
                   --chunk-rows and options go on where that import ended, --again loads the file a second time";
        return Error::new(error.kind(), format!("{} ({why})", error.message()));
    }
    let rows = done.rows();
    let again = if args.create && !args.if_not_exists { " and without --create" } else { "" };
    let counted = match rows {
        0 => "no rows were committed".to_owned(),
        n => format!("{n} rows were committed"),
    };
    // A mended file is another one, and so are fresh tokens: nothing is passed over by itself.
    let advice = if unreadable || args.again {
        let doubt = if uncertain {
            "; the chunk that failed may have been committed too: count the table's rows before going on"
        } else {
            ""
        };
        let skip = args.skip_rows + rows;
        if rows == 0 { doubt.to_owned() } else { format!("; go on with --skip-rows {skip}{again}{doubt}") }
    } else {
        format!("; run the same import again{again}: what is in the table already is not loaded twice")
    };
    Error::new(error.kind(), format!("{} ({counted}{advice})", error.message()))
}

#[cfg(test)]
mod tests;
