//! Appends: binding fields to columns, whatever happened to the table since the rows were prepared.

use std::collections::BTreeMap;

use tandem_format::{NewTable, OnDuplicate, Op, Section};
use tandem_types::{Column, ColumnId, Error, Result, TableId, TableName, common_supertype, widens_to};

use super::{Draft, Rejection, conflict, no_such_column};
use crate::intent::{
    AppendIntent, AppendTarget, ColumnSpec, OnConflict, SchemaPolicy, SectionDraft, TableSpec,
};
use crate::table::Table;

impl Draft {
    pub(super) fn append(&mut self, append: &AppendIntent) -> Result<(), Rejection> {
        let id = self.target(append)?;
        let columns: Vec<ColumnId> = append
            .fields
            .iter()
            .map(|field| self.bind(id, append, field))
            .collect::<Result<_, Rejection>>()?;
        let table = self.table(id)?;
        check_not_null(table, append, &columns)?;
        let schema_id = table.schema_id();
        let on_duplicate = on_duplicate(table, append)?;
        self.check_segments(&append.name, &append.sections)?;
        let place = |draft: &SectionDraft| Section {
            on_duplicate: on_duplicate.clone(),
            ..draft.place(schema_id, columns.clone())
        };
        // No rows, no record: an append of nothing may still have created its table.
        if !append.sections.is_empty() {
            let sections = append.sections.iter().map(place).collect();
            self.push(Op::Append { table: id, sections })?;
        }
        Ok(())
    }

    /// Segments that lie below the horizon may have been deleted before they were named: upload again.
    pub(super) fn check_segments(
        &self,
        name: &TableName,
        sections: &[SectionDraft],
    ) -> Result<(), Rejection> {
        let base = sections.iter().filter_map(|s| s.segment).map(|s| s.base).min();
        match base {
            Some(base) if base < self.state.horizon() => {
                Err(Rejection::Recast(Error::serialization(format!(
                    "rows for table {name} were uploaded at {base}, before the horizon {}",
                    self.state.horizon()
                ))))
            }
            _ => Ok(()),
        }
    }

    fn table(&self, id: TableId) -> Result<&Table> {
        self.state.table(id).ok_or_else(|| Error::internal(format!("table {id} vanished from a draft")))
    }

    /// The table that the rows go to, created if that is what was asked.
    fn target(&mut self, append: &AppendIntent) -> Result<TableId, Rejection> {
        match &append.target {
            AppendTarget::Existing { table, .. } => match self.state.table(*table) {
                Some(table) => still_named(table, append),
                None => Err(crate::state::no_such_table(&append.name).into()),
            },
            AppendTarget::New(spec) => match self.state.table_named(&append.name) {
                Some(table) => same_layout(table, spec, append),
                None if append.policy == SchemaPolicy::Create => {
                    let def = spec.resolve(&append.name)?;
                    let id = self.state.next_table;
                    self.push(Op::CreateTable(NewTable { table: id, name: append.name.clone(), def }))?;
                    Ok(id)
                }
                None => Err(crate::state::no_such_table(&append.name).into()),
            },
        }
    }

    /// The column that a field goes to; added or widened where the policy allows it.
    fn bind(
        &mut self,
        id: TableId,
        append: &AppendIntent,
        field: &ColumnSpec,
    ) -> Result<ColumnId, Rejection> {
        let table = self.table(id)?.clone();
        let automatic = append.policy != SchemaPolicy::Strict;
        let Some(column) = table.schema().by_name(&field.name) else {
            if !automatic {
                return Err(no_such_column(&table, &field.name).into());
            }
            let added = table.state.next_column;
            let column = Column {
                id: added,
                name: field.name.clone(),
                data_type: field.data_type.clone(),
                nullable: true,
            };
            self.push(Op::AddColumn { table: id, column })?;
            return Ok(added);
        };
        if widens_to(&field.data_type, &column.data_type) {
            return Ok(column.id);
        }
        let changed_since = match &append.target {
            AppendTarget::Existing { schema_id, .. } => *schema_id != table.schema_id(),
            AppendTarget::New(_) => true,
        };
        let error = conflict(&table, &column.name, &column.data_type, &field.data_type);
        let widened = common_supertype(&column.data_type, &field.data_type);
        match widened {
            Some(to) if automatic && table.def().timestamp != Some(column.id) => {
                self.push(Op::WidenColumn { table: id, column: column.id, to })?;
                Ok(column.id)
            }
            _ if changed_since => Err(Rejection::Recast(error)),
            _ => Err(error.into()),
        }
    }
}

/// What the rows do to rows of equal key.
fn on_duplicate(table: &Table, append: &AppendIntent) -> Result<OnDuplicate> {
    if !table.is_keyed() {
        return match append.on_conflict {
            None => Ok(OnDuplicate::Keep),
            Some(_) => Err(Error::invalid(format!(
                "ON CONFLICT needs a primary key, and table {} has none",
                table.name()
            ))),
        };
    }
    match &append.on_conflict {
        None => Ok(table.on_duplicate()),
        Some(OnConflict::DoNothing) => Ok(OnDuplicate::Ignore),
        Some(OnConflict::Replace) => Ok(OnDuplicate::Replace),
        Some(OnConflict::Merge) => Ok(OnDuplicate::Merge),
        Some(OnConflict::Update(names)) => {
            let id = |name: &String| match table.schema().by_name(name) {
                None => Err(no_such_column(table, name)),
                Some(column) if table.primary_key().contains(&column.id) => Err(Error::invalid(format!(
                    "column {name:?} is in the primary key of table {} and cannot be updated",
                    table.name()
                ))),
                Some(column) => Ok(column.id),
            };
            names.iter().map(id).collect::<Result<_>>().map(OnDuplicate::Update)
        }
    }
}

/// Fields are bound by name, and the sections were cut by the column that had the designated timestamp's name then:
/// where a column was renamed since, both may mean another column now.
fn still_named(table: &Table, append: &AppendIntent) -> Result<TableId, Rejection> {
    let AppendTarget::Existing { schema_id, .. } = &append.target else { return Ok(table.id()) };
    if table.state.renamed > *schema_id {
        return Err(Rejection::Recast(Error::schema_conflict(format!(
            "columns of table {} were renamed since the rows were prepared",
            append.name
        ))));
    }
    Ok(table.id())
}

/// Whether sections that were cut for `spec` fit a table that somebody else created.
fn same_layout(table: &Table, spec: &TableSpec, append: &AppendIntent) -> Result<TableId, Rejection> {
    let wanted = spec.resolve(&append.name)?;
    let timestamp_of = |def: &tandem_format::TableDef| {
        def.timestamp.and_then(|id| def.schema.column(id)).map(|c| (c.name.clone(), c.data_type.clone()))
    };
    if wanted.partition_by == table.partition_by() && timestamp_of(&wanted) == timestamp_of(table.def()) {
        return Ok(table.id());
    }
    Err(Rejection::Recast(Error::schema_conflict(format!(
        "table {} was created with another designated timestamp or other partitions",
        append.name
    ))))
}

fn check_not_null(table: &Table, append: &AppendIntent, columns: &[ColumnId]) -> Result<()> {
    let positions: BTreeMap<ColumnId, usize> = columns.iter().copied().zip(0..).collect();
    if positions.len() != columns.len() {
        return Err(Error::invalid(format!("rows for table {} name a column twice", append.name)));
    }
    for column in table.schema().columns.iter().filter(|c| !c.nullable) {
        let Some(position) = positions.get(&column.id) else {
            if append.sections.is_empty() {
                continue;
            }
            return Err(Error::invalid(format!(
                "column {:?} of table {} is NOT NULL, and the rows lack it",
                column.name,
                table.name()
            )));
        };
        let nulls: u64 = append.sections.iter().filter_map(|s| s.null_counts.get(*position)).sum();
        if nulls > 0 && table.def().timestamp == Some(column.id) {
            return Err(Error::invalid(format!(
                "column {:?} is the designated timestamp of table {} and never null, and {nulls} of the rows have null in \
                 it: create the table WITH (timestamp = '…') naming another column, or 'none'",
                column.name,
                table.name()
            )));
        }
        if nulls > 0 {
            return Err(Error::invalid(format!(
                "column {:?} of table {} is NOT NULL, and {nulls} of the rows have null in it",
                column.name,
                table.name()
            )));
        }
    }
    Ok(())
}
