//! A table of a snapshot as DataFusion reads it: data files and tail, pruned before anything is opened.
//!
//! ```text
//!  SnapshotTable ─┬─ DataSourceExec   files whose rows are what they were when they were written
//!   (UnionExec)   ├─ FoldExec         files that mutations are still to act on
//!                 ├─ FoldExec         of a keyed table: its tail, and files with rows of the same time
//!                 └─ TailExec         sections of a table without a key, through the mutations after them
//! ```
//!
//! - [`prune`]: which files and sections a filter rules out, by the manifest alone;
//! - [`files`], [`many`]: files as a Parquet scan, through verified readers and cached footers;
//! - [`binding`]: file columns found by id, whatever they were called when the file was written;
//! - [`tail`], [`sections`]: sections, loaded one at a time when the query runs;
//! - [`pending`], [`bounds`]: which mutations act on what, what must be read for them, and their decoded forms;
//! - [`split`]: which files and sections of a keyed table may hold rows of equal keys;
//! - [`fold`], [`folding`], [`items`]: reading files and what came later, as one;
//! - [`shape`]: a table of one moment in the columns of another.
//!
//! A filter prunes what it can be sure of: below a mutation it may not look at columns that the mutation assigns, and
//! where rows of equal keys are folded only at columns of the key. Statistics of rows that are not the last word are
//! estimates, and a limit counts rows that are.

mod binding;
mod bounds;
mod files;
mod fold;
mod folding;
mod items;
mod many;
mod pending;
mod plan;
mod prune;
mod sections;
mod shape;
mod split;
mod table;
mod tail;

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tandem_datafile::FooterCache;
use tandem_types::TableSchema;
use tokio::runtime::Handle;

use crate::database::Database;
use crate::engine::Engine;
use crate::io::IoStore;
use crate::transaction::OwnRows;

pub(crate) use bounds::BoundCache;
pub(crate) use shape::Shape;
pub(crate) use table::SnapshotTable;

/// What scans need of the engine.
#[derive(Debug)]
pub(crate) struct ScanContext {
    database: Arc<dyn Database>,
    objects: Arc<IoStore>,
    footers: Arc<FooterCache>,
    bounds: Arc<BoundCache>,
    /// Rows of the transaction that the scan is part of.
    own: Option<Arc<OwnRows>>,
    io: Handle,
}

impl ScanContext {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self::within(engine, None)
    }

    /// For the view of a transaction that has written these rows.
    pub(crate) fn within(engine: &Engine, own: Option<Arc<OwnRows>>) -> Self {
        Self {
            database: Arc::clone(engine.database()),
            objects: Arc::clone(engine.objects()),
            footers: engine.database().footers(),
            bounds: Arc::clone(engine.bounds()),
            own,
            io: engine.io().clone(),
        }
    }
}

/// The type under which queries see a column that is declared as `declared`.
pub(crate) fn query_type(declared: &DataType) -> DataType {
    match declared {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, value) => query_type(value),
        other => other.clone(),
    }
}

/// The schema under which queries see a table.
pub(crate) fn query_schema(table: &TableSchema) -> SchemaRef {
    let fields = table.columns.iter().map(|c| Field::new(&c.name, query_type(&c.data_type), c.nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_encodings_are_views_in_a_query() {
        let dict = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8));
        assert_eq!(query_type(&dict), DataType::Utf8View);
        assert_eq!(query_type(&DataType::Binary), DataType::BinaryView);
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        assert_eq!(query_type(&list), list);
    }
}
