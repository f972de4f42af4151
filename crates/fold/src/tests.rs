//! The evaluator against a model that takes one row at a time and knows nothing of Arrow.

mod exprs;
mod golden;
mod keyed;
mod keys;
mod limits;
mod model;
mod mutate;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tandem_format::{Expr, Mutation, MutationKey, MutationKind, OnDuplicate, PendingMutation, Section};
use tandem_types::{ColumnId, SchemaId, Seq, TableId};

use crate::{Bound, bind};

/// The commit's time in all tests.
const NOW: i64 = 1_700_000_000_000_000;

fn pending(seq: u64, kind: MutationKind, time: Option<(i64, i64)>) -> PendingMutation {
    PendingMutation {
        key: MutationKey { seq: Seq(seq), transaction: 0, section: 0, ordinal: 0 },
        commit_time: NOW,
        mutation: Mutation { table: TableId(1), kind, time, statement: String::new() },
    }
}

fn bound(kind: MutationKind) -> Arc<Bound> {
    bind(&pending(1, kind, None), None).unwrap()
}

fn delete(predicate: Expr) -> MutationKind {
    MutationKind::Delete { predicate }
}

/// A lookup of rows, the first `keys` columns being the key.
fn lookup(columns: &[u32], keys: u32, delete: bool) -> MutationKind {
    let section = Section {
        schema_id: SchemaId(1),
        columns: columns.iter().map(|c| ColumnId(*c)).collect(),
        segment: None,
        offset: 0,
        len: 0,
        crc32c: 0,
        rows: 0,
        time: None,
        partitions: Vec::new(),
        null_counts: Vec::new(),
        on_duplicate: OnDuplicate::Keep,
    };
    MutationKind::Lookup { keys, delete, section }
}

fn batch(columns: Vec<(&str, ArrayRef, bool)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array, null)| Field::new(*name, array.data_type().clone(), *null))
        .collect();
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}
