//! Rows to write, and all that a database holds, read from the store alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use arrow_schema::DataType;
use tandem_format::segment_path;
use tandem_log::Log;
use tandem_manifest::{ColumnSpec, Manifest, TableSpec};
use tandem_segment::{Limits, decode_section};
use tandem_types::{Seq, TableName};

/// Rows of one batch are numbered from `batch * BATCH`.
pub const BATCH: i64 = 100_000;

pub fn ts_type() -> DataType {
    DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, None)
}

pub fn spec() -> TableSpec {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    let columns =
        vec![column("ts", ts_type()), column("id", DataType::Int64), column("host", DataType::Utf8)];
    TableSpec { columns, ..TableSpec::default() }
}

fn columns(batch: i64, from: i64, rows: i64) -> Vec<(&'static str, ArrayRef)> {
    let ids = (from..from + rows).map(|row| batch * BATCH + row);
    // Some batches span days.
    let ts = ids.clone().map(|id| 1_767_225_600_000 + id * 700_000 % 200_000_000);
    let host = ids.clone().map(|id| format!("host-{:04}", id % 7));
    vec![
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(ts))),
        ("id", Arc::new(Int64Array::from_iter_values(ids))),
        ("host", Arc::new(StringArray::from_iter_values(host))),
    ]
}

/// Rows `from..from + rows` of a batch.
pub fn part(batch: i64, from: i64, rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns(batch, from, rows).into_iter().map(|(n, c)| (n, c, true)),
    )
    .unwrap()
}

pub fn batch(batch: i64, rows: i64) -> RecordBatch {
    part(batch, 0, rows)
}

/// A batch with a further column of strings, equal to `host`.
pub fn batch_with(batch: i64, rows: i64, name: &'static str) -> RecordBatch {
    let mut columns = columns(batch, 0, rows);
    columns.push((name, columns[2].1.clone()));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

/// Where the log says a batch is: table, seq, and how often each of its rows is there.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub places: Vec<(String, Seq)>,
    pub rows: BTreeMap<i64, usize>,
}

/// The sections of a table, decoded, with the names of their columns.
pub async fn sections(log: &Log, state: &Manifest, table: &str) -> Vec<(Seq, Vec<String>, RecordBatch)> {
    let table = state.require(&TableName::public(table)).unwrap();
    let mut all = Vec::new();
    for tail in table.tail() {
        let section = &tail.section;
        let range = section.offset..section.offset + section.len;
        let bytes = match &section.segment {
            Some(segment) => log.env().store.get_range(&segment_path(segment), range).await.unwrap(),
            None => {
                let payload = log.read_payload(tail.key.seq).await.unwrap().0;
                assert_eq!(range.start % 64, 0, "sections that ride along are aligned");
                payload.slice(range.start as usize..range.end as usize)
            }
        };
        let decoded = decode_section(&bytes, Some(section.crc32c), &Limits::default()).unwrap();
        let name = |id| table.schema().column(id).map_or(String::new(), |c| c.name.clone());
        let names: Vec<String> = section.columns.iter().map(|id| name(*id)).collect();
        let rows: usize = decoded.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows as u64, section.rows);
        for batch in decoded.batches {
            all.push((tail.key.seq, names.clone(), batch));
        }
    }
    all
}

/// All rows of all tables, by batch; every value is checked against what was sent.
pub async fn read_all(log: &Log, state: &Manifest) -> BTreeMap<i64, Found> {
    let mut found: BTreeMap<i64, Found> = BTreeMap::new();
    for table in state.tables() {
        let name = table.name().table.clone();
        for (seq, names, rows) in sections(log, state, &name).await {
            let column = |wanted: &str| {
                let position = names.iter().position(|n| n == wanted).unwrap();
                rows.column(position).clone()
            };
            let ids = column("id");
            let ids = ids.as_primitive::<Int64Type>();
            let hosts = column("host");
            let hosts = hosts.as_string::<i32>();
            for row in 0..ids.len() {
                let id = ids.value(row);
                assert_eq!(hosts.value(row), format!("host-{:04}", id % 7), "a row's values stay together");
                let batch = found.entry(id / BATCH).or_default();
                *batch.rows.entry(id % BATCH).or_default() += 1;
                if batch.places.last() != Some(&(name.clone(), seq)) {
                    batch.places.push((name.clone(), seq));
                }
            }
        }
    }
    found
}
