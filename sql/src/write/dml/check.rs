//! That the log's language comes to a value wherever the query did.
//!
//! DataFusion's whole numbers wrap around where the log's do not: what would silently become null in the log is an error
//! as long as somebody is there to hear it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use datafusion::logical_expr::Expr;
use tandem_fold::{Mutations, bind, columns_needed};
use tandem_format::{BinaryOp, Expr as Logged, Mutation, MutationKey, MutationKind, PendingMutation};
use tandem_manifest::MutateDraft;
use tandem_types::{Column, ColumnId, Error, Result};

use super::View;
use super::analyse::Analysed;
use super::translate::always;
use crate::scan::query_type;

/// What an update would do to the rows that are there.
pub(super) struct Check {
    /// What it looks at, and what it assigns.
    columns: Vec<Column>,
    schema: Arc<Schema>,
    mutations: Mutations,
}

impl Check {
    /// `None` where nothing can differ.
    pub(super) fn of(analysed: &Analysed, draft: &MutateDraft, view: &View) -> Result<Option<Self>> {
        let MutateDraft::Update { assignments, .. } = draft else { return Ok(None) };
        if !assignments.iter().any(|(_, value)| computes(value)) {
            return Ok(None);
        }
        let Some(predicate) = always() else { return Ok(None) };
        let assignments =
            assignments.iter().map(|(column, value)| (*column, unguarded(value).clone())).collect();
        let kind = MutationKind::Update { predicate, assignments };
        let mutation = Mutation { table: analysed.table.id(), kind, time: None, statement: String::new() };
        let key = MutationKey { seq: view.snapshot.seq().next(), transaction: 0, section: 0, ordinal: 0 };
        let pending = PendingMutation { key, commit_time: view.snapshot.commit_time(), mutation };
        let bound = [bind(&pending, None)?];
        let assigned: Vec<ColumnId> = analysed.assigned().collect();
        let needed = columns_needed(&assigned, &bound);
        let wanted: BTreeSet<ColumnId> =
            assigned.into_iter().chain(needed.into_iter().map(|(id, _)| id)).collect();
        let schema = analysed.table.schema();
        let columns: Vec<Column> = wanted.iter().filter_map(|id| schema.column(*id)).cloned().collect();
        let ids: Vec<ColumnId> = columns.iter().map(|column| column.id).collect();
        // Nullable, all of them: what cannot be computed is to show as null.
        let fields = columns.iter().map(|c| Field::new(&c.name, query_type(&c.data_type), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mutations = Mutations::new(&ids, &schema, None, &bound)?;
        Ok(Some(Self { columns, schema, mutations }))
    }

    /// What is to be read for it.
    pub(super) fn columns(&self, analysed: &Analysed) -> Vec<Expr> {
        let named = self.columns.iter().enumerate();
        named.map(|(i, column)| analysed.column(column).alias(format!("old {i}"))).collect()
    }

    /// Compares the values that a query came to, one column for each assignment, with what the log would make of the rows.
    pub(super) fn values(&self, analysed: &Analysed, values: &[ArrayRef], old: &[ArrayRef]) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), old.to_vec())
            .map_err(|e| Error::internal(format!("rows to check: {e}")))?;
        let new = self.mutations.apply(batch)?;
        for ((column, _), value) in analysed.assignments.iter().zip(values) {
            let position = self.columns.iter().position(|c| c.id == column.id);
            let Some(logged) = position.and_then(|position| new.columns().get(position)) else { continue };
            let (expected, found) = (value.logical_null_count(), logged.logical_null_count());
            if found > expected {
                return Err(Error::invalid(format!(
                    "column {:?}: a new value cannot be computed, it is out of range",
                    column.name
                )));
            }
        }
        Ok(())
    }
}

/// A value without what keeps null out of a column that takes none.
fn unguarded(value: &Logged) -> &Logged {
    if let Logged::Case { branches, otherwise: Some(value) } = value
        && let [(Logged::IsNull(of), Logged::Column { .. })] = branches.as_slice()
        && of == value
    {
        return value;
    }
    value
}

/// Whether there is arithmetic in it.
pub(super) fn computes(expr: &Logged) -> bool {
    let here = match expr {
        Logged::Binary { op, .. } => {
            matches!(
                op,
                BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo
            )
        }
        Logged::Negate(_) => true,
        Logged::Cast {
            to: DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..),
            ..
        } => true,
        _ => false,
    };
    here || expr.children().into_iter().any(computes)
}
