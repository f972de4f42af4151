mod binary;
mod naive;
mod pieces;
mod random;
mod text;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::array_value_to_string;

use crate::{Catalog, KnownTable, LineError, Parser, Precision, Settings, TableBatch};

/// Tables that exist.
#[derive(Clone, Default)]
struct Known(BTreeMap<String, KnownTable>);

impl Known {
    fn with(table: &str, timestamp: Option<&str>, columns: &[(&str, DataType)]) -> Self {
        let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
        let known =
            KnownTable { timestamp: timestamp.map(str::to_owned), columns: Arc::new(Schema::new(fields)) };
        Self(BTreeMap::from([(table.to_owned(), known)]))
    }
}

impl Catalog for Known {
    fn table(&self, name: &str) -> Option<KnownTable> {
        self.0.get(name).cloned()
    }
}

/// What became of a body.
#[derive(Debug, PartialEq)]
struct Read {
    batches: Vec<TableBatch>,
    errors: Vec<LineError>,
    rows: u64,
}

fn settings() -> Settings {
    Settings { now: 7, ..Settings::default() }
}

fn read_with<'a>(settings: Settings, known: &Known, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut parser = Parser::new(settings, Arc::new(known.clone()));
    for piece in pieces {
        parser.feed(piece).unwrap();
    }
    parser.finish().unwrap();
    let read = Read { batches: parser.take(), errors: parser.errors().to_vec(), rows: parser.rows() };
    assert_eq!(read.batches.iter().map(|b| b.batch.num_rows() as u64).sum::<u64>(), read.rows);
    assert!(parser.failed() >= read.errors.len() as u64);
    assert!(parser.rows() > 0 || parser.all_stamped());
    read
}

fn read(body: impl AsRef<[u8]>) -> Read {
    read_with(settings(), &Known::default(), [body.as_ref()])
}

/// The batches of a body without errors.
fn good(body: impl AsRef<[u8]>) -> Vec<TableBatch> {
    let read = read(body);
    assert_eq!(read.errors, [], "{read:?}");
    read.batches
}

/// The one batch of a body without errors.
fn one(body: impl AsRef<[u8]>) -> RecordBatch {
    let mut batches = good(body);
    assert_eq!(batches.len(), 1);
    batches.remove(0).batch
}

fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema())).clone()
}

/// A column's values as text; null is `-`.
fn shown(batch: &RecordBatch, name: &str) -> Vec<String> {
    let mut values = column(batch, name);
    if matches!(values.data_type(), DataType::Dictionary(..)) {
        values = cast(&values, &DataType::Utf8).unwrap();
    }
    if matches!(values.data_type(), DataType::Timestamp(..)) {
        values = cast(&values, &DataType::Int64).unwrap();
    }
    // As Rust spells them: the comparison with the slow reader is by text.
    let floats = values.as_primitive_opt::<Float64Type>();
    let show = |row| match (values.is_null(row), floats) {
        (true, _) => "-".to_owned(),
        (false, Some(floats)) => format!("{:?}", floats.value(row)),
        (false, None) => array_value_to_string(&values, row).unwrap(),
    };
    (0..values.len()).map(show).collect()
}

/// The one error of a body, as people see it.
fn fault(body: impl AsRef<[u8]>) -> String {
    let read = read(body);
    assert_eq!(read.errors.len(), 1, "{read:?}");
    read.errors[0].to_string()
}

fn precisely(precision: Precision) -> Settings {
    Settings { precision, ..settings() }
}
