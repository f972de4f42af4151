//! Which columns mutations look at.

use std::sync::Arc;

use arrow::datatypes::DataType;
use tandem_format::{Mutation, MutationKind};
use tandem_types::ColumnId;

use crate::bound::Bound;

/// The columns that decide what a mutation does, ascending: of its predicate, its new values, its lookup's keys. The old
/// values of the columns that it assigns are not among them for that alone.
pub fn columns_read(mutation: &Mutation) -> Vec<ColumnId> {
    match &mutation.kind {
        MutationKind::Lookup { keys, section, .. } => {
            let mut ids: Vec<ColumnId> = section.columns.iter().take(*keys as usize).copied().collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        MutationKind::Delete { .. } | MutationKind::Update { .. } => {
            columns_with_types(mutation).into_iter().map(|(id, _)| id).collect()
        }
    }
}

/// Those of the expressions; a lookup has none.
pub(crate) fn columns_with_types(mutation: &Mutation) -> Vec<(ColumnId, DataType)> {
    let mut reads = Vec::new();
    match &mutation.kind {
        MutationKind::Delete { predicate } => merge_reads(&mut reads, predicate.columns()),
        MutationKind::Update { predicate, assignments } => {
            merge_reads(&mut reads, predicate.columns());
            for (_, value) in assignments {
                merge_reads(&mut reads, value.columns());
            }
        }
        MutationKind::Lookup { .. } => {}
    }
    reads
}

/// Adds columns that are not there yet; the result ascends.
pub(crate) fn merge_reads(
    reads: &mut Vec<(ColumnId, DataType)>,
    more: impl IntoIterator<Item = (ColumnId, DataType)>,
) {
    for (id, data_type) in more {
        if let Err(at) = reads.binary_search_by_key(&id, |(known, _)| *known) {
            reads.insert(at, (id, data_type));
        }
    }
}

/// What must be read beyond the columns `wanted` so that `mutations` leave the right values in them, and in what is read for
/// their sake: ascending, each with its type as a mutation saw it, for columns that the table has no more.
///
/// An update of columns that nobody wants is not among the reasons.
pub fn columns_needed(wanted: &[ColumnId], mutations: &[Arc<Bound>]) -> Vec<(ColumnId, DataType)> {
    let mut beyond: Vec<(ColumnId, DataType)> = Vec::new();
    loop {
        let known = beyond.len();
        for bound in mutations {
            let mut reads: Vec<ColumnId> = Vec::new();
            let mut acts = bound.deletes();
            for (column, read) in bound.assignments() {
                if wanted.contains(&column) || beyond.binary_search_by_key(&column, |(id, _)| *id).is_ok() {
                    acts = true;
                    reads.extend(read);
                }
            }
            if acts {
                reads.extend(bound.selects_by());
                let reads = bound.reads().iter().filter(|(id, _)| reads.contains(id) && !wanted.contains(id));
                merge_reads(&mut beyond, reads.cloned());
            }
        }
        if beyond.len() == known {
            return beyond;
        }
    }
}
