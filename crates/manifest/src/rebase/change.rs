//! UPDATE, DELETE and what else changes rows that are there: preconditions, expired partitions, previews.

use tandem_format::{Expr, MAX_EXPR_DEPTH, MAX_STATEMENT_BYTES, Mutation, MutationKind, Op, Pin};
use tandem_types::{Error, Partition, Result, SchemaId, Seq, TableId, TableName};

use super::{Draft, Rebased, Rejection, rebase};
use crate::intent::{Intent, MutateIntent, MutateTarget};
use crate::state::{Manifest, no_such_table};

/// Texts of a pin, at most.
const MAX_PIN_BYTES: usize = 4096;

impl Draft {
    pub(super) fn mutate(&mut self, mutate: &MutateIntent) -> Result<(), Rejection> {
        let table = match mutate.target {
            MutateTarget::Existing(id) => self.state.table(id),
            MutateTarget::New => self.state.table_named(&mutate.name),
        };
        let table = table.ok_or_else(|| no_such_table(&mutate.name))?;
        let (id, schema_id) = (table.id(), table.schema_id());
        let kind = mutate.draft.place(schema_id);
        if let MutationKind::Lookup { .. } = &kind {
            self.check_segments(&mutate.name, mutate.draft.section().map_or(&[], std::slice::from_ref))?;
        }
        let mut statement = mutate.statement.clone();
        statement.truncate(statement.floor_char_boundary(MAX_STATEMENT_BYTES));
        self.push(Op::Mutate(Mutation { table: id, kind, time: mutate.time, statement }))
            .map_err(|error| error.context(format_args!("table {}", mutate.name)))?;
        Ok(())
    }

    pub(super) fn check_unchanged(&self, id: TableId, name: &TableName, since: Seq) -> Result<()> {
        let table = self.state.table(id).ok_or_else(|| {
            Error::serialization(format!("table {name} was dropped since {since}: run the transaction again"))
        })?;
        if table.changed() > since {
            return Err(Error::serialization(format!(
                "table {name} was changed at {}, after {since}: run the transaction again",
                table.changed()
            )));
        }
        Ok(())
    }

    pub(super) fn check_bound(
        &self,
        name: &TableName,
        table: Option<TableId>,
        schema: Option<SchemaId>,
    ) -> Result<()> {
        let now = self.state.table_named(name);
        let what = match (table, now) {
            (None, None) => return Ok(()),
            (None, Some(_)) => "was created",
            (Some(id), Some(now)) if now.id() == id => match schema {
                Some(schema) if schema != now.schema_id() => "was altered",
                _ => return Ok(()),
            },
            (Some(_), _) => "was dropped or renamed",
        };
        Err(Error::serialization(format!("table {name} {what} meanwhile: run the transaction again")))
    }

    /// Drops those of `partitions` that are over; the state decides, not who asks.
    pub(super) fn expire(&mut self, id: TableId, partitions: &[Partition]) -> Result<()> {
        let expired = self.state.expired_partitions(id);
        let partitions: Vec<Partition> =
            partitions.iter().copied().filter(|p| expired.binary_search(p).is_ok()).collect();
        match partitions.is_empty() {
            true => Ok(()),
            false => self.push(Op::DropPartitions { table: id, partitions }),
        }
    }
}

impl Manifest {
    /// The state that would follow if `intent` were committed next, at the next seq, at `commit_time`: what a transaction
    /// sees of its own writes. Its token plays no part.
    pub fn preview(&self, intent: &Intent, commit_time: i64) -> Result<Manifest, Rejection> {
        self.preview_at(intent, self.seq().next(), 0, commit_time)
    }

    /// As [`preview`](Self::preview), as transaction number `index` of the commit at `at`: statements that are previewed one
    /// after another, each on the state after the one before, stand in one commit and have sections of their own.
    pub fn preview_at(
        &self,
        intent: &Intent,
        at: Seq,
        index: u32,
        commit_time: i64,
    ) -> Result<Manifest, Rejection> {
        let mut base = self.clone();
        base.commit_time = commit_time.max(self.commit_time);
        let intent = Intent { token: None, ..intent.clone() };
        match rebase(&intent, &base, at, index)? {
            Rebased::Commit { state, .. } => Ok(*state),
            Rebased::NoOp | Rebased::Duplicate { .. } => Ok(base),
        }
    }

    /// The partitions that are older than their table's `ttl`, ascending. Age counts from the last commit or from the newest
    /// row of the table, whichever is earlier, so that neither a wrong clock nor a row from the future ends anything.
    pub fn expired_partitions(&self, id: TableId) -> Vec<Partition> {
        self.expired(id).unwrap_or_default()
    }

    fn expired(&self, id: TableId) -> Option<Vec<Partition>> {
        let table = self.table(id)?;
        let ttl = tandem_types::parse_duration(table.option("ttl")?).ok()?;
        let arrow_schema::DataType::Timestamp(unit, _) = table.timestamp()?.data_type else { return None };
        if table.partition_by() == tandem_types::PartitionUnit::None {
            return None;
        }
        let per_second: i128 = match unit {
            arrow_schema::TimeUnit::Second => 1,
            arrow_schema::TimeUnit::Millisecond => 1_000,
            arrow_schema::TimeUnit::Microsecond => 1_000_000,
            arrow_schema::TimeUnit::Nanosecond => 1_000_000_000,
        };
        let now = i128::from(self.commit_time()) * per_second / 1_000_000;
        let newest = i128::from(table.time_range()?.1);
        let ttl = i128::try_from(ttl.as_nanos()).ok()? * per_second / 1_000_000_000;
        let bound = now.min(newest) - ttl;
        let files = table.files().map(|f| f.file.name.partition);
        let tail = table.tail().flat_map(|t| t.live.iter().copied());
        let mut partitions: Vec<Partition> = files.chain(tail).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions.retain(|p| {
            let range = table.partition_by().range(*p, unit);
            range.end != i64::MAX && i128::from(range.end) <= bound
        });
        Some(partitions)
    }
}

pub(super) fn check_mutation(mutation: &Mutation) -> Result<()> {
    let exprs: Vec<&Expr> = match &mutation.kind {
        MutationKind::Delete { predicate } => vec![predicate],
        MutationKind::Update { predicate, assignments } => {
            assignments.iter().map(|(_, value)| value).chain([predicate]).collect()
        }
        MutationKind::Lookup { .. } => Vec::new(),
    };
    if exprs.iter().any(|expr| expr.depth() > MAX_EXPR_DEPTH) {
        return Err(Error::unsupported(format!(
            "an expression nests deeper than {MAX_EXPR_DEPTH}: use IN (…) in place of many ORs"
        )));
    }
    Ok(())
}

pub(super) fn check_pin(pin: &Pin) -> Result<()> {
    let bytes = pin.reason.len() + pin.store.as_ref().map_or(0, String::len);
    if bytes > MAX_PIN_BYTES {
        return Err(Error::invalid(format!(
            "the texts of a pin have {bytes} bytes, at most {MAX_PIN_BYTES} are allowed"
        )));
    }
    Ok(())
}
