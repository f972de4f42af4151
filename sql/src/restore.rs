//! Bringing back what was: the past as steps of a transaction in the present.
//!
//! Nothing of the past changes by it: what is undone stays in the history, and can be brought back in turn. A table counts
//! as changed by what queries see; that compaction put its rows into other files is no difference.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use tandem_manifest::{Manifest, Step, Table, rejected_table};
use tandem_types::{Error, ErrorKind, Partition, Result, Seq, TableName};

use crate::as_of::{AsOf, show_time};
use crate::database::Database;
use crate::error::IntoTandem;
use crate::options::ReadOptions;
use crate::statement::Restore;

/// The setting that says who writes: a matter of now, and not brought back.
const MODE: &str = "mode";

/// What a restore does.
#[derive(Debug)]
pub(crate) struct RestorePlan {
    /// The state that it was formed on.
    pub(crate) base: Seq,
    /// None: all is as it was.
    pub(crate) steps: Vec<Step>,
    changes: Vec<Change>,
}

/// One difference between now and then, and how it goes away.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    kind: &'static str,
    name: String,
    action: &'static str,
    rows_now: Option<u64>,
    rows_then: Option<u64>,
}

impl RestorePlan {
    /// Compares now and then.
    pub(crate) async fn new(database: &dyn Database, restore: &Restore, read: &ReadOptions) -> Result<Self> {
        match restore {
            Restore::Undrop { table, to } => {
                let dropped = database.before_drop(table).await?;
                let now = database.snapshot();
                let then = dropped.before.table(dropped.table);
                let then = then
                    .ok_or_else(|| Error::internal(format!("table {table} was dropped and never there")))?;
                let name = to.as_ref().unwrap_or(then.name());
                if now.table_named(name).is_some() {
                    return Err(Error::already_exists(format!(
                        "table {name} exists: say UNDROP TABLE {table} AS and another name"
                    )));
                }
                let mut plan = Self::on(&now);
                plan.schema_of(&now, name);
                plan.bring_back(&dropped.before, None, then, to.clone());
                Ok(plan)
            }
            Restore::Table { table, at } => {
                let then = past(database, *at, read).await?;
                Self::of_table(&database.snapshot(), &then, table)
            }
            Restore::Database { at } => {
                let then = past(database, *at, read).await?;
                Ok(Self::of_database(&database.snapshot(), &then))
            }
        }
    }

    fn on(now: &Manifest) -> Self {
        Self { base: now.seq(), steps: Vec::new(), changes: Vec::new() }
    }

    fn of_table(now: &Manifest, then: &Manifest, name: &TableName) -> Result<Self> {
        let mut plan = Self::on(now);
        let present = now.table_named(name);
        match (then.table_named(name), present) {
            (Some(past), Some(present)) if past.id() == present.id() => {
                if differs(present, past, then) {
                    plan.bring_back(then, Some(present), past, None);
                }
            }
            (Some(past), present) => {
                if let Some(other) = present {
                    plan.drop(other);
                }
                plan.schema_of(now, name);
                plan.bring_back(then, now.table(past.id()), past, None);
            }
            // It had another name then.
            (None, Some(present)) if then.table(present.id()).is_some() => {
                if let Some(past) = then.table(present.id()) {
                    plan.bring_back(then, Some(present), past, Some(name.clone()));
                }
            }
            (None, _) => {
                return Err(Error::not_found(format!("table {name} did not exist at seq {}", then.seq())));
            }
        }
        Ok(plan)
    }

    fn of_database(now: &Manifest, then: &Manifest) -> Self {
        let mut plan = Self::on(now);
        for schema in then.schemas().filter(|schema| !now.has_schema(schema)) {
            plan.create_schema(schema);
        }
        // What was rejected stays told.
        let restored = |table: &&Table| *table.name() != rejected_table();
        for present in now.named_tables().filter(restored) {
            match then.table(present.id()) {
                None => plan.drop(present),
                // Its name may be another table's, which may want it before this one gives it away.
                Some(past) if past.name() != present.name() => {
                    plan.steps.push(Step::DropTable { name: present.name().clone(), if_exists: false });
                }
                Some(_) => {}
            }
        }
        for past in then.named_tables().filter(restored) {
            let present = now.table(past.id());
            if present.is_none_or(|present| differs(present, past, then)) {
                plan.bring_back(then, present, past, None);
            }
        }
        for schema in now.schemas().filter(|schema| !then.has_schema(schema)) {
            plan.change("schema", schema, "drop");
            plan.steps.push(Step::DropSchema { name: schema.to_owned(), if_exists: true });
        }
        plan.settings(now, then);
        plan
    }

    fn settings(&mut self, now: &Manifest, then: &Manifest) {
        let mut settings = Vec::new();
        for (name, value) in then.settings().filter(|(name, _)| *name != MODE) {
            if now.setting(name) != Some(value) {
                self.change("setting", name, "set");
                settings.push((name.to_owned(), Some(value.to_owned())));
            }
        }
        for (name, _) in now.settings().filter(|(name, _)| *name != MODE) {
            if then.setting(name).is_none() {
                self.change("setting", name, "reset");
                settings.push((name.to_owned(), None));
            }
        }
        if !settings.is_empty() {
            self.steps.push(Step::SetSettings { settings });
        }
    }

    fn change(&mut self, kind: &'static str, name: &str, action: &'static str) {
        let name = name.to_owned();
        self.changes.push(Change { kind, name, action, rows_now: None, rows_then: None });
    }

    fn create_schema(&mut self, schema: &str) {
        self.change("schema", schema, "create");
        self.steps.push(Step::CreateSchema { name: schema.to_owned(), if_not_exists: true });
    }

    fn schema_of(&mut self, now: &Manifest, name: &TableName) {
        if !now.has_schema(&name.schema) {
            self.create_schema(&name.schema);
        }
    }

    fn drop(&mut self, present: &Table) {
        let name = present.name();
        self.steps.push(Step::DropTable { name: name.clone(), if_exists: false });
        self.changes.push(Change {
            kind: "table",
            name: name.to_string(),
            action: "drop",
            rows_now: Some(present.rows()),
            rows_then: None,
        });
    }

    fn bring_back(
        &mut self,
        then: &Manifest,
        present: Option<&Table>,
        past: &Table,
        name: Option<TableName>,
    ) {
        self.changes.push(Change {
            kind: "table",
            name: name.as_ref().unwrap_or(past.name()).to_string(),
            action: if present.is_some() { "restore" } else { "bring back" },
            rows_now: present.map(Table::rows),
            rows_then: Some(past.rows()),
        });
        self.steps.push(Step::RestoreTable { image: Box::new(past.image(then.seq())), name });
    }

    /// What it shows to who wants to know before it is done.
    pub(crate) fn schema() -> SchemaRef {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let rows = |name| Field::new(name, DataType::UInt64, true);
        let fields = vec![text("kind"), text("name"), text("action"), rows("rows_now"), rows("rows_then")];
        Arc::new(Schema::new(fields))
    }

    /// The query that shows it.
    pub(crate) fn query(&self) -> Result<LogicalPlan> {
        let text = |value: fn(&Change) -> &str| -> ArrayRef {
            Arc::new(self.changes.iter().map(|c| Some(value(c))).collect::<StringArray>())
        };
        let rows = |value: fn(&Change) -> Option<u64>| -> ArrayRef {
            Arc::new(self.changes.iter().map(value).collect::<UInt64Array>())
        };
        let columns = vec![
            text(|c| c.kind),
            text(|c| &c.name),
            text(|c| c.action),
            rows(|c| c.rows_now),
            rows(|c| c.rows_then),
        ];
        let schema = Self::schema();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
            .map_err(|e| Error::internal(format!("the plan of a restore: {e}")))?;
        let table = MemTable::try_new(schema, vec![vec![batch]]).tandem()?;
        LogicalPlanBuilder::scan("plan", provider_as_source(Arc::new(table)), None)
            .and_then(LogicalPlanBuilder::build)
            .tandem()
    }
}

/// The state to go back to.
///
/// A time before the first commit names one in which nothing was: whoever asks for that has mistyped the time, and going
/// back to it would drop every table.
async fn past(database: &dyn Database, at: AsOf, read: &ReadOptions) -> Result<Arc<Manifest>> {
    let then = database.state_as_of(at, read.deadline).await?;
    if !matches!(at, AsOf::Time(_)) || then.seq() > Seq(0) {
        return Ok(then);
    }
    let first = Seq(1);
    let message = match database.read_log(first, first, 1).await?.first() {
        Some((header, _)) => format!(
            "{at} lies before the first commit of the database, seq {first} of {}: there is nothing of that time to restore",
            show_time(header.commit_time)
        ),
        None => format!("{at} lies before the first commit of the database, which has none yet"),
    };
    Err(Error::new(ErrorKind::HistoryGone, message).with_seq(first))
}

/// Whether a table is another one than it was in `then`, to those who query it.
fn differs(present: &Table, past: &Table, then: &Manifest) -> bool {
    let is_named_so = present.name() == past.name() && present.def() == past.def();
    !is_named_so || (present.changed() > then.seq() && !has_rows_of(present, past))
}

/// Whether two states of a table have the same rows in the same objects: it was restored already.
fn has_rows_of(present: &Table, past: &Table) -> bool {
    let files = |table: &Table| table.files().map(|file| file.file.name).collect::<Vec<_>>();
    let tail = |table: &Table| table.tail().map(|s| (s.key, s.live.clone())).collect::<Vec<_>>();
    let mutations = |table: &Table| table.mutations().map(|m| m.key).collect::<Vec<_>>();
    files(present) == files(past) && tail(present) == tail(past) && mutations(present) == mutations(past)
}

/// The step that drops partitions by their labels.
pub(crate) fn drop_partitions(now: &Manifest, name: &TableName, labels: &[String]) -> Result<Step> {
    let table = now.require(name)?;
    let files = table.files().map(|file| file.file.name.partition);
    let mut all: Vec<Partition> = files.chain(table.tail().flat_map(|s| s.live.clone())).collect();
    all.sort_unstable();
    all.dedup();
    let named = |label: &String| {
        let found = all.iter().find(|partition| table.partition_by().label(**partition) == *label);
        found.copied().ok_or_else(|| {
            Error::not_found(format!("table {name} has no partition {label:?}: system.partitions lists them"))
        })
    };
    let mut partitions = labels.iter().map(named).collect::<Result<Vec<_>>>()?;
    partitions.sort_unstable();
    Ok(Step::DropPartitions { name: name.clone(), partitions })
}
