//! The rows of a table as the parts of the real read path give them: files and tail through `tandem-fold`.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow_schema::{DataType, Schema, SchemaRef};
use futures::TryStreamExt;
use tandem_compact::{Inputs, Source, table_rows};
use tandem_datafile::{cast_to_schema, read_batches};
use tandem_fold::{Bound, KeyedFold, bind, columns_needed, mutate};
use tandem_format::{MutationKind, OnDuplicate, PendingMutation, data_path};
use tandem_log::Log;
use tandem_manifest::{FileState, Table, TailSection};
use tandem_types::{Column, ColumnId, Error, Result, Seq, TableSchema, common_supertype};

use crate::node::load;
use crate::value::{Value, value_at};

/// Batches of a source, with the columns of their fields.
struct Stored {
    ids: Vec<ColumnId>,
    batches: Vec<RecordBatch>,
}

/// A mistake in reading, made on purpose: what is tested would show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// Mutations act on files that they are folded into.
    FoldedTwice,
    /// Mutations act on rows that came after them.
    MutationsLast,
    /// The newest mutation is not looked at.
    MutationLost,
    /// Fields that are null take the place of older ones.
    MergeReplaces,
    /// The first row of a key is kept.
    FirstWins,
    /// Rows that are in files are read from the tail once more.
    DeadRows,
    /// Columns that are gone are taken for null.
    GoneColumns,
}

impl Slip {
    pub const ALL: [Self; 7] = [
        Self::FoldedTwice,
        Self::MutationsLast,
        Self::MutationLost,
        Self::MergeReplaces,
        Self::FirstWins,
        Self::DeadRows,
        Self::GoneColumns,
    ];
}

enum Event {
    Section(Arc<TailSection>, Stored),
    Mutation(Arc<Bound>),
}

/// All rows, in no order; each has the values of the table's columns.
pub async fn table(inputs: &Inputs, log: &Log, table: &Table, slip: Option<Slip>) -> Result<Vec<Vec<Value>>> {
    let mut mutations = Vec::new();
    for pending in table.mutations() {
        let lookup = match &pending.mutation.kind {
            MutationKind::Lookup { section, .. } => Some(load(log, pending.key.seq, section).await?),
            MutationKind::Delete { .. } | MutationKind::Update { .. } => None,
        };
        mutations.push((bind(pending, lookup.as_deref().map(|l| l.batches.as_slice()))?, pending));
    }
    let mut files = Vec::new();
    for state in table.files() {
        files.push((state.clone(), read_file(inputs, table, state).await?));
    }
    let mut sections = Vec::new();
    for tail in table.tail() {
        let decoded = load(log, tail.key.seq, &tail.section).await?;
        let batches = match slip {
            Some(Slip::DeadRows) => decoded.batches.clone(),
            _ => live_rows(table, tail, &decoded.batches)?,
        };
        sections.push((tail.clone(), Stored { ids: tail.section.columns.clone(), batches }));
    }
    if slip == Some(Slip::MutationLost) {
        mutations.pop();
    }
    if slip == Some(Slip::GoneColumns) {
        let stored = files.iter_mut().map(|(_, s)| s).chain(sections.iter_mut().map(|(_, s)| s));
        for id in stored.flat_map(|s| &mut s.ids).filter(|id| table.schema().column(**id).is_none()) {
            *id = ColumnId(u32::MAX);
        }
    }
    let folded = |state: &FileState| match slip {
        Some(Slip::FoldedTwice) => Seq(0),
        _ => state.file.folded_through,
    };
    let on_duplicate = |tail: &TailSection| match (slip, &tail.section.on_duplicate) {
        (Some(Slip::MergeReplaces), OnDuplicate::Merge) => OnDuplicate::Replace,
        (Some(Slip::FirstWins), OnDuplicate::Replace) => OnDuplicate::Ignore,
        (_, listed) => listed.clone(),
    };
    let acts = |pending: &PendingMutation, tail: &TailSection| {
        slip == Some(Slip::MutationsLast) || pending.key.follows(&tail.key)
    };
    let schema =
        wanted(table, &mutations, files.iter().map(|(_, s)| s).chain(sections.iter().map(|(_, s)| s)));
    let ids: Vec<ColumnId> = schema.columns.iter().map(|c| c.id).collect();
    let fit = |stored: &Stored| -> Result<Vec<RecordBatch>> {
        stored.batches.iter().map(|b| cast_to_schema(b, &stored.ids, &schema)).collect()
    };

    let mut out: Vec<RecordBatch> = Vec::new();
    if table.is_keyed() {
        let arrow: SchemaRef = schema.arrow();
        let mut fold =
            KeyedFold::new(ids.clone(), arrow, table.primary_key(), table.timestamp().map(|c| c.id))?;
        for (state, stored) in &files {
            for batch in fit(stored)? {
                fold.base(batch, folded(state))?;
            }
        }
        for event in in_log_order(sections, &mutations, acts) {
            match event {
                Event::Section(tail, stored) => {
                    for batch in fit(&stored)? {
                        fold.section(&on_duplicate(&tail), batch)?;
                    }
                }
                Event::Mutation(bound) => fold.mutation(&bound)?,
            }
        }
        out.extend(fold.finish()?);
    } else {
        for (state, stored) in &files {
            let after: Vec<Arc<Bound>> = mutations
                .iter()
                .filter(|(_, m)| m.key.seq > folded(state))
                .map(|(bound, _)| bound.clone())
                .collect();
            for batch in fit(stored)? {
                out.push(mutate(&ids, batch, &after)?);
            }
        }
        for (tail, stored) in &sections {
            let after: Vec<Arc<Bound>> =
                mutations.iter().filter(|(_, m)| acts(m, tail)).map(|(bound, _)| bound.clone()).collect();
            for batch in fit(stored)? {
                out.push(mutate(&ids, batch, &after)?);
            }
        }
    }
    rows_of(table, &ids, &out)
}

/// All rows, in no order, as compaction reads them: in groups that are closed, streams where they can be.
pub async fn as_compaction(inputs: &Inputs, table: &Table) -> Result<Vec<Vec<Value>>> {
    let source = Source {
        objects: inputs.env.store.objects().clone(),
        footers: inputs.footers.clone(),
        load: inputs.load.clone(),
    };
    let ids: Vec<ColumnId> = table.schema().columns.iter().map(|c| c.id).collect();
    rows_of(table, &ids, &table_rows(&source, table).await?)
}

fn in_log_order(
    sections: Vec<(Arc<TailSection>, Stored)>,
    mutations: &[(Arc<Bound>, &Arc<PendingMutation>)],
    acts: impl Fn(&PendingMutation, &TailSection) -> bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = mutations.iter().peekable();
    for (tail, stored) in sections {
        while let Some((bound, _)) = rest.next_if(|(_, m)| !acts(m, &tail)) {
            events.push(Event::Mutation(bound.clone()));
        }
        events.push(Event::Section(tail, stored));
    }
    events.extend(rest.map(|(bound, _)| Event::Mutation(bound.clone())));
    events
}

async fn read_file(inputs: &Inputs, table: &Table, state: &FileState) -> Result<Stored> {
    let path = data_path(table.id(), table.partition_by(), &state.file.name);
    let reader = inputs.footers.reader(
        inputs.env.store.objects(),
        &path,
        state.file.size,
        state.file.body_end,
        state.file.tail_crc32c,
    );
    let file = read_batches(reader, None, 1 << 16).await?;
    let ids = file.schema.columns.iter().map(|c| c.id).collect();
    Ok(Stored { ids, batches: file.stream.try_collect().await? })
}

/// Rows of the partitions that are still in the tail.
fn live_rows(table: &Table, tail: &TailSection, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let Some(column) = table.timestamp().filter(|_| !tail.is_whole()) else { return Ok(batches.to_vec()) };
    let DataType::Timestamp(unit, _) = &column.data_type else {
        return Err(Error::internal("a designated timestamp that is none"));
    };
    let at = tail.section.columns.iter().position(|id| *id == column.id);
    let at = at.ok_or_else(|| Error::damaged("rows without their time"))?;
    let mut kept = Vec::new();
    for batch in batches {
        let live = (0..batch.num_rows()).map(|row| match value_at(batch.column(at), row)? {
            Value::Int(ticks) => {
                let ticks = i64::try_from(ticks).map_err(|_| Error::damaged("a time beyond its type"))?;
                Ok(Some(tail.live.contains(&table.partition_by().partition(ticks, *unit))))
            }
            _ => Err(Error::damaged("a row without a time")),
        });
        let live: BooleanArray = live.collect::<Result<Vec<_>>>()?.into();
        kept.push(filter_record_batch(batch, &live).map_err(|e| Error::internal(e.to_string()))?);
    }
    Ok(kept)
}

/// The table's columns, and those that are gone from it but read by mutations that are still pending.
fn wanted<'a>(
    table: &Table,
    mutations: &[(Arc<Bound>, &Arc<PendingMutation>)],
    sources: impl Iterator<Item = &'a Stored>,
) -> TableSchema {
    let mut schema = table.schema().clone();
    let here = schema.columns.len();
    let mut widen = |id: ColumnId, data_type: &DataType, may_add: bool| match schema
        .columns
        .iter()
        .position(|c| c.id == id)
    {
        Some(at) if at < here => {}
        Some(at) => {
            let column = &mut schema.columns[at];
            if let Some(to) = common_supertype(&column.data_type, data_type) {
                column.data_type = to;
            }
        }
        None if may_add => schema.columns.push(Column {
            id,
            name: format!("gone {id}"),
            data_type: data_type.clone(),
            nullable: true,
        }),
        None => {}
    };
    let own: Vec<ColumnId> = table.schema().columns.iter().map(|c| c.id).collect();
    let bounds: Vec<Arc<Bound>> = mutations.iter().map(|(bound, _)| bound.clone()).collect();
    for (id, data_type) in columns_needed(&own, &bounds) {
        widen(id, &data_type, true);
    }
    for (bound, _) in mutations {
        for (id, data_type) in bound.reads() {
            widen(*id, data_type, false);
        }
    }
    for stored in sources {
        for (at, id) in stored.ids.iter().enumerate() {
            if let Some(batch) = stored.batches.first() {
                let schema: &Schema = batch.schema_ref();
                widen(*id, schema.field(at).data_type(), false);
            }
        }
    }
    schema
}

fn rows_of(table: &Table, ids: &[ColumnId], batches: &[RecordBatch]) -> Result<Vec<Vec<Value>>> {
    let place = |c: &Column| ids.iter().position(|id| *id == c.id);
    let places: Vec<usize> = table.schema().columns.iter().filter_map(place).collect();
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = places.iter().map(|at| value_at(batch.column(*at) as &dyn Array, row));
            rows.push(values.collect::<Result<_>>()?);
        }
    }
    Ok(rows)
}
