//! Files of every format, alone and together, up to the batches that would be sent.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Schema};
use parquet::arrow::ArrowWriter;
use tandem_types::{Error, ErrorKind, Result};

use super::files::{ReadOptions, Table, infer, read};
use super::load::{LoadFailure, Totals};
use super::source::Source;
use super::text::Nulls;
use super::{ImportArgs, explain, one_byte, start_reading, without_first};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ImportArgs,
}

fn args(words: &[&str]) -> ImportArgs {
    let all = ["import", "f.csv", "--table", "t"].iter().chain(words);
    <Cli as clap::Parser>::try_parse_from(all).unwrap().args
}

fn options() -> ReadOptions {
    args(&[]).read_options()
}

fn write(path: &Path, bytes: &[u8]) -> Source {
    std::fs::write(path, bytes).unwrap();
    Source::locate(path.to_str().unwrap(), None).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn sum(source: &Source, table: &Table, column: &str) -> Result<i64> {
    let mut total = 0;
    for batch in read(source, table, &options(), &Arc::default())? {
        let batch = batch?;
        let values = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().clone();
        total += values.iter().flatten().sum::<i64>();
    }
    Ok(total)
}

#[test]
fn every_format_and_compression_gives_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let csv = b"n,t\n1,a\n2,NA\n3,\n";
    let jsonl = b"{\"n\":1,\"t\":\"a\"}\n{\"n\":2,\"t\":\"NA\"}\n{\"n\":3,\"t\":null}\n";
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let t: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("NA"), None]));
    let batch = RecordBatch::try_from_iter([("n", n), ("t", t)]).unwrap();
    let mut arrow = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    arrow.write(&batch).unwrap();
    let arrow = arrow.into_inner().unwrap();
    let zst = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let tsv = String::from_utf8(csv.to_vec()).unwrap().replace(',', "\t");
    let files: [(&str, Vec<u8>); 9] = [
        ("a.csv", csv.to_vec()),
        ("a.csv.gz", gzip(csv)),
        ("a.tsv.zst", zst(tsv.as_bytes())),
        ("a.jsonl", jsonl.to_vec()),
        ("a.ndjson.gz", gzip(jsonl)),
        ("a.parquet", parquet(&batch)),
        ("a.parquet.zst", zst(&parquet(&batch))),
        ("a.arrows", arrow.clone()),
        ("a.arrow.gz", gzip(&arrow)),
    ];
    let mut sources = Vec::new();
    for (name, bytes) in &files {
        let source = write(&dir.path().join(name), bytes);
        let fields = infer(std::slice::from_ref(&source), &options()).unwrap();
        let table = Table { name: "t".into(), schema: Schema::new(fields.clone()) };
        assert_eq!(table.schema.field(0).data_type(), &DataType::Int64, "{name}");
        assert_eq!(table.schema.field(1).data_type(), &DataType::Utf8, "{name}");
        let rows = read(&source, &table, &options(), &Arc::default()).unwrap();
        let rows: Vec<RecordBatch> = rows.collect::<Result<_>>().unwrap();
        assert_eq!(rows.len(), 1, "{name}");
        assert_eq!(rows[0].columns(), batch.columns(), "{name}");
        sources.push(source);
    }
    assert_eq!(infer(&sources, &options()).unwrap().len(), 2);
}

#[test]
fn files_with_different_columns_make_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let one = write(&dir.path().join("1.csv"), b"a,b\n1,NA\n");
    let two = write(&dir.path().join("2.csv"), b"b,c\n2.5,x\n");
    let sources = [one, two];
    let fields = infer(&sources, &options()).unwrap();
    let found: Vec<_> = fields.iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(found, [("a", DataType::Int64), ("b", DataType::Float64), ("c", DataType::Utf8)]);
    let mut typed = options();
    typed.types.insert("a".into(), DataType::Utf8);
    assert_eq!(infer(&sources, &typed).unwrap()[0].data_type(), &DataType::Utf8);
    typed.types.insert("z".into(), DataType::Utf8);
    assert!(infer(&sources, &typed).unwrap_err().message().contains("\"z\""));
}

#[test]
fn a_late_value_of_another_type_is_seen_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "n\n".to_owned();
    text.push_str(&"1\n".repeat(90_000));
    text.push_str("1.5\n");
    let source = write(&dir.path().join("late.csv"), text.as_bytes());
    let sources = std::slice::from_ref(&source);
    assert_eq!(infer(sources, &options()).unwrap()[0].data_type(), &DataType::Float64);
    let few = ReadOptions { infer_rows: Some(1000), ..options() };
    let table = Table { name: "t".into(), schema: Schema::new(infer(sources, &few).unwrap()) };
    let error = sum(&source, &table, "n").unwrap_err();
    assert!(error.message().ends_with("late.csv:90002: column n: cannot read \"1.5\" as Int64"), "{error}");
}

#[test]
fn unknown_columns_and_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table { name: "t".into(), schema: Schema::empty() };
    for (name, bytes) in [("a.csv", &b"x\n1\n"[..]), ("a.jsonl", b"{\"x\":1}\n")] {
        let error =
            read(&write(&dir.path().join(name), bytes), &table, &options(), &Arc::default()).err().unwrap();
        assert!(error.message().contains("the table t has no column \"x\""), "{error}");
    }
    assert_eq!(Source::locate("absent.csv", None).err().unwrap().kind(), ErrorKind::InvalidInput);
    assert!(Source::locate("README", None).err().unwrap().message().contains("--format"));
    assert!(Source::locate("-", None).err().unwrap().message().contains("--format"));
}

#[test]
fn json_keys_may_differ_from_columns_in_case() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(&dir.path().join("a.jsonl"), b"{\"N\":5}\n{\"N\":\"6\"}\n");
    let schema = Schema::new(vec![arrow_schema::Field::new("n", DataType::Int64, false)]);
    assert_eq!(sum(&source, &Table { name: "t".into(), schema }, "n").unwrap(), 11);
}

#[tokio::test]
async fn skipped_rows_run_over_files() {
    let dir = tempfile::tempdir().unwrap();
    let sources: Vec<Source> =
        (0..3).map(|i| write(&dir.path().join(format!("{i}.csv")), b"n\n1\n2\n")).collect();
    let schema = Schema::new(infer(&sources, &options()).unwrap());
    let table = Table { name: "t".into(), schema };
    let mut batches = start_reading(sources, table, options(), 3, Arc::default());
    let mut rows = Vec::new();
    while let Some(piece) = batches.recv().await {
        let piece = piece.unwrap();
        let values = piece.batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        rows.push((piece.file, piece.first_row, values));
    }
    assert_eq!(rows, [(1, 1, vec![2]), (2, 0, vec![1, 2])]);
    let mut to_skip = 0;
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    assert_eq!(without_first(&batch, &mut to_skip).num_rows(), 1);
}

#[test]
fn a_failure_says_how_to_go_on() {
    let failure = |committed| LoadFailure {
        error: Error::invalid("f.csv:9: bad"),
        done: Totals { committed, already: 0 },
        uncertain: false,
        unreadable: true,
    };
    let error = explain(&args(&["--create", "--skip-rows", "2"]), failure(5));
    assert_eq!(
        error.message(),
        "f.csv:9: bad (5 rows were committed; go on with --skip-rows 7 and without --create)"
    );
    assert_eq!(explain(&args(&[]), failure(0)).message(), "f.csv:9: bad (no rows were committed)");

    let gone = |committed, already| LoadFailure {
        error: Error::unavailable("gone"),
        done: Totals { committed, already },
        uncertain: true,
        unreadable: false,
    };
    assert_eq!(
        explain(&args(&["--create"]), gone(5, 10)).message(),
        "gone (15 rows were committed; run the same import again and without --create: what is in the table already is \
         not loaded twice)"
    );
    let error = explain(&args(&["--again"]), gone(5, 0));
    assert!(error.message().contains("--skip-rows 5; the chunk that failed may"), "{error}");

    let reused = LoadFailure { error: Error::new(ErrorKind::TokenReused, "two writes"), ..gone(0, 0) };
    assert!(explain(&args(&[]), reused).message().contains("--again"));
}

#[test]
fn options_are_parsed() {
    let given =
        args(&["--null", "NA", "--null", "-", "--delimiter", "\\t", "--no-header", "--columns", "a,b"]);
    let options = given.read_options();
    assert_eq!(options.nulls, Nulls::Given(vec!["NA".into(), "-".into()]));
    assert_eq!((options.delimiter, options.header, options.columns.len()), (Some(b'\t'), false, 2));
    assert!(one_byte("ab").is_err() && one_byte("é").is_err());
    let given = args(&["--create", "--partition-by", "day", "--type", "a=text", "--order-by", "a,b"]);
    assert_eq!(given.table_options().order_by, ["a", "b"]);
    let alone = ["import", "f.csv", "--table", "t", "--timestamp", "c"];
    assert!(<Cli as clap::Parser>::try_parse_from(alone).is_err());
}
