//! Nodes that write through the real writer, over one simulated store.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tandem_collect::{Collector, Rules};
use tandem_compact::Inputs;
use tandem_datafile::FooterCache;
use tandem_env::Env;
use tandem_env::sim::{FaultStore, join};
use tandem_format::segment_path;
use tandem_log::{Log, WrittenCheckpoint};
use tandem_manifest::{
    AppendIntent, AppendTarget, Intent, Manifest, MutateDraft, MutateIntent, MutateTarget, SchemaPolicy,
    Step, Table, TailSection,
};
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{Error, Result, Seq, TableName};
use tandem_writer::{Append, WriteToken, Writer, WriterConfig};

use crate::bind::{self, Uploads, unfit};
use crate::eval::{Row, eval};
use crate::interpreter::Interpreter;
use crate::read;
use crate::statement::{Alter, Change, Insert, Shape, Statement};
use crate::value::{Value, array_of};

pub struct Node {
    pub env: Env,
    pub log: Log,
    pub writer: Writer,
    pub checkpoint: Option<WrittenCheckpoint>,
    pub footers: Arc<FooterCache>,
    collector: Collector,
    /// Rows ride in segments of their own.
    segments: bool,
}

/// Rows of a section, from wherever they are.
pub async fn load(log: &Log, key_seq: Seq, section: &tandem_format::Section) -> Result<Arc<DecodedSection>> {
    let range = section.offset..section.offset + section.len;
    let bytes = match &section.segment {
        Some(segment) => log.env().store.get_range(&segment_path(segment), range).await?,
        None => log.read_payload(key_seq).await?.0.slice(range.start as usize..range.end as usize),
    };
    decode_section(&bytes, Some(section.crc32c), &Limits::default()).map(Arc::new)
}

fn named(table: &str) -> TableName {
    TableName::public(table)
}

impl Node {
    pub async fn open(store: &Arc<FaultStore>, seed: u64, segments: bool) -> Result<Self> {
        let env = join(store, seed);
        let log = Log::open(env.clone()).await?;
        let recovered = log.recover().await?;
        let config = WriterConfig {
            poll: Duration::from_millis(1500),
            poll_min: Duration::from_millis(100),
            ..WriterConfig::default()
        };
        let writer = Writer::start(log.clone(), recovered.manifest, config);
        let footers = Arc::new(FooterCache::new(4 << 20));
        Ok(Self {
            env,
            log,
            writer,
            checkpoint: recovered.checkpoint,
            footers,
            collector: Collector::default(),
            segments,
        })
    }

    pub fn inputs(&self, manifest: Arc<Manifest>) -> Inputs {
        let log = self.log.clone();
        Inputs {
            env: self.env.clone(),
            writer: self.writer.id(),
            manifest,
            footers: self.footers.clone(),
            load: Arc::new(move |tail: TailSection| {
                let log = log.clone();
                async move { load(&log, tail.key.seq, &tail.section).await }.boxed()
            }),
        }
    }

    /// Sends a statement on the state that the node has; `past` is where restored tables come from.
    pub async fn execute(&self, statement: &Statement, past: &Interpreter) -> Result<()> {
        let state = self.writer.state();
        if let Statement::Insert(insert) = statement
            && !self.segments
        {
            return self.append(&state, insert).await;
        }
        let mut steps = Vec::new();
        match statement {
            Statement::Transaction(statements) => {
                // Each statement is formed on what those before it make of the state.
                let mut seen = (*state).clone();
                for statement in statements {
                    let more = match self.steps(statement, &state, &seen, past).await {
                        Ok(more) => more,
                        // Its client leaves it out.
                        Err(_) => continue,
                    };
                    let steps_then = [steps.clone(), more.clone()].concat();
                    if let Ok(next) =
                        state.preview(&intent(&state, steps_then.clone()), state.commit_time() + 1)
                    {
                        seen = next;
                        steps = steps_then;
                    }
                }
            }
            statement => steps = self.steps(statement, &state, &state, past).await?,
        }
        if steps.is_empty() {
            return Err(unfit("nothing to do"));
        }
        self.writer.submit(state.seq(), steps, WriteToken::Minted).await.map(drop)
    }

    async fn append(&self, state: &Manifest, insert: &Insert) -> Result<()> {
        let (schema, batches) = bind::batches(insert, state.require(&named(&insert.table))?)?;
        let append = Append {
            table: named(&insert.table),
            schema,
            policy: SchemaPolicy::Strict,
            on_conflict: insert.conflict.as_ref().map(bind::on_conflict),
            create: None,
            token: WriteToken::Minted,
            queued: None,
        };
        let rows = futures::stream::iter(batches.into_iter().map(Ok::<_, Error>)).boxed();
        self.writer.append(append, rows).await.map(drop)
    }

    /// `base`: the state that the node has; `seen`: with what the transaction did so far.
    async fn steps(
        &self,
        statement: &Statement,
        base: &Manifest,
        seen: &Manifest,
        past: &Interpreter,
    ) -> Result<Vec<Step>> {
        let uploads = Uploads { env: &self.env, writer: self.writer.id(), base: base.seq() };
        let step = match statement {
            Statement::Create(shape) => create(shape),
            Statement::Drop(table) => Step::DropTable { name: named(table), if_exists: false },
            Statement::Rename(table, to) => Step::RenameTable { name: named(table), to: named(to) },
            Statement::Insert(insert) => {
                let table = seen.require(&named(&insert.table))?;
                let (schema, batches) = bind::batches(insert, table)?;
                let at_once = insert.batches.first().map_or(1, Vec::len) % 2 == 1;
                let mut sections = Vec::new();
                for part in batches.chunks(if at_once { 2 } else { 1 }) {
                    sections.push(uploads.section(&schema, part, Some(table)).await?);
                }
                let target = match base.table(table.id()) {
                    Some(known) => AppendTarget::Existing { table: known.id(), schema_id: table.schema_id() },
                    None => AppendTarget::New(spec_of(table)),
                };
                let fields = schema.fields().iter().map(|f| tandem_manifest::ColumnSpec {
                    name: f.name().clone(),
                    data_type: f.data_type().clone(),
                    nullable: true,
                });
                Step::Append(AppendIntent {
                    name: named(&insert.table),
                    target,
                    policy: SchemaPolicy::Strict,
                    fields: fields.collect(),
                    sections,
                    on_conflict: insert.conflict.as_ref().map(bind::on_conflict),
                })
            }
            Statement::Change(change) => return self.change(change, base, seen, &uploads).await,
            Statement::Alter(table, alter) => Step::AlterTable { name: named(table), change: altered(alter) },
            Statement::Truncate(table) => Step::Truncate { name: named(table) },
            Statement::DropPartitions(table, times, _) => {
                let name = named(table);
                let table = seen.require(&name)?;
                let Some(arrow_schema::DataType::Timestamp(unit, _)) =
                    table.timestamp().map(|c| c.data_type.clone())
                else {
                    return Err(unfit("no partitions"));
                };
                let mut partitions: Vec<_> =
                    times.iter().map(|t| table.partition_by().partition(*t, unit)).collect();
                partitions.sort_unstable();
                partitions.dedup();
                Step::DropPartitions { name, partitions }
            }
            Statement::Restore(table, back) => {
                let then = Seq(base.seq().0.saturating_sub(*back).max(1));
                let then = past.manifest(then).ok_or_else(|| unfit("that is too long ago"))?;
                let table = then.require(&named(table))?;
                Step::RestoreTable { image: Box::new(table.image(then.seq())), name: None }
            }
            Statement::Transaction(_) => return Err(unfit("a transaction in a transaction")),
        };
        Ok(vec![step])
    }

    async fn change(
        &self,
        change: &Change,
        base: &Manifest,
        seen: &Manifest,
        uploads: &Uploads<'_>,
    ) -> Result<Vec<Step>> {
        let name = named(&change.table);
        let table = seen.require(&name)?;
        let target = match base.table(table.id()) {
            Some(known) => MutateTarget::Existing(known.id()),
            None => MutateTarget::New,
        };
        let predicate = bind::expr(&change.predicate, table)?;
        let mut assignments = Vec::new();
        for (column, term) in change.assignments.iter().flatten() {
            assignments.push(bind::assignment(column, term, table)?);
        }
        let mut steps = Vec::new();
        let draft = match (change.computed, &change.assignments) {
            (false, None) => MutateDraft::Delete { predicate },
            (false, Some(_)) => MutateDraft::Update { predicate, assignments },
            (true, _) => {
                steps.push(Step::Unchanged { table: table.id(), name: name.clone(), since: base.seq() });
                self.computed(table, base, &predicate, &assignments, change.assignments.is_none(), uploads)
                    .await?
            }
        };
        let statement = change.to_string();
        let time = if change.computed { None } else { change.time };
        steps.push(Step::Mutate(MutateIntent { name, target, draft, time, statement }));
        Ok(steps)
    }

    /// What a statement does to the rows that are there, as a table to look up by all columns.
    async fn computed(
        &self,
        table: &Table,
        base: &Manifest,
        predicate: &tandem_format::Expr,
        assignments: &[(tandem_types::ColumnId, tandem_format::Expr)],
        delete: bool,
        uploads: &Uploads<'_>,
    ) -> Result<MutateDraft> {
        let rows = read::table(&self.inputs(Arc::new(base.clone())), &self.log, table, None).await?;
        let schema = table.schema();
        let mut found: Vec<Vec<Value>> = Vec::new();
        for row in rows {
            let seen = Known { table, row: &row, now: self.env.clock.now_micros() };
            if eval(predicate, &seen)?.1 != Value::Bool(true) {
                continue;
            }
            let mut whole = row.clone();
            for (id, value) in assignments {
                let (of, value) = eval(value, &seen)?;
                let to = schema.column(*id).ok_or_else(|| unfit("a column is gone"))?;
                let value = crate::eval::cast(value, &of, &to.data_type)?;
                let old = schema.position(*id).and_then(|at| row.get(at)).cloned();
                let stays = value.is_null() && !to.nullable;
                whole.push(if stays { old.unwrap_or(Value::Null) } else { value });
            }
            found.push(whole);
        }
        found.sort();
        found.dedup();
        if found.is_empty() {
            return Err(unfit("no row to change"));
        }
        let keys = schema.columns.len();
        let mut columns: Vec<_> = schema.columns.iter().map(|c| c.id).collect();
        columns.extend(assignments.iter().map(|(id, _)| *id));
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (at, id) in columns.iter().enumerate() {
            let column = schema.column(*id).ok_or_else(|| unfit("a column is gone"))?;
            let values: Vec<Value> = found.iter().map(|row| row[at].clone()).collect();
            fields.push(arrow_schema::Field::new(format!("c{at}"), column.data_type.clone(), true));
            arrays.push(array_of(&column.data_type, &values)?);
        }
        let arrow = Arc::new(arrow_schema::Schema::new(fields));
        let batch = arrow::array::RecordBatch::try_new(arrow.clone(), arrays)
            .map_err(|e| Error::internal(e.to_string()))?;
        let section = uploads.section(&arrow, &[batch], None).await?;
        Ok(MutateDraft::Lookup { columns, keys: keys as u32, delete, section })
    }

    /// Has as little history kept as `window` says, and deletes what nobody needs; how many objects.
    pub async fn collect(&mut self, window: Option<&str>) -> Result<u64> {
        let state = self.writer.state();
        if state.setting("history_window") != window {
            let settings = vec![("history_window".to_owned(), window.map(str::to_owned))];
            self.writer.submit_upkeep(state.seq(), vec![Step::SetSettings { settings }]).await?;
        }
        let state = self.writer.state();
        let rules = Rules { job: Duration::from_millis(1), grace: Duration::ZERO };
        let aim = self.collector.aim(&self.log, &state, &rules, &[]).await?;
        if aim.moves {
            let step = Step::Horizon { horizon: aim.horizon, history_start: aim.history_start };
            self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        }
        let state = self.writer.state();
        let report = self.collector.collect(&self.log, &state, &rules, &[]).await?;
        Ok(report.deleted.objects)
    }

    /// Writes a checkpoint and has it recorded.
    pub async fn write_checkpoint(&mut self) -> Result<()> {
        let state = self.writer.state();
        if state.seq().0 == 0 || state.checkpoint().is_some_and(|(seq, _)| seq.next() == state.seq()) {
            return Ok(());
        }
        let kept = self.checkpoint.clone();
        let previous = kept.filter(|p| state.checkpoint() == Some((p.seq, p.root_hash)));
        let written = self.log.write_checkpoint(&state, previous.as_ref()).await?;
        let step = written.record();
        self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        self.checkpoint = Some(written);
        Ok(())
    }
}

fn intent(state: &Manifest, steps: Vec<Step>) -> Intent {
    Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps }
}

fn create(shape: &Shape) -> Step {
    Step::CreateTable {
        name: named(&shape.table),
        spec: bind::table_spec(shape),
        if_not_exists: false,
        replace: false,
    }
}

/// Of a table that its own transaction creates.
fn spec_of(table: &Table) -> tandem_manifest::TableSpec {
    tandem_manifest::TableSpec {
        columns: table
            .schema()
            .columns
            .iter()
            .map(|c| tandem_manifest::ColumnSpec {
                name: c.name.clone(),
                data_type: c.data_type.clone(),
                nullable: c.nullable,
            })
            .collect(),
        timestamp: Some(table.timestamp().map_or_else(|| "none".to_owned(), |c| c.name.clone())),
        partition_by: Some(table.partition_by()),
        ..Default::default()
    }
}

fn altered(alter: &Alter) -> tandem_manifest::Change {
    use tandem_manifest::Change as To;
    match alter {
        Alter::Add(column) => To::AddColumn { column: bind::column_spec(column), if_not_exists: false },
        Alter::Drop(name) => To::DropColumn { name: name.clone(), if_exists: false },
        Alter::Rename(name, to) => To::RenameColumn { name: name.clone(), to: to.clone() },
        Alter::Widen(name, to) => To::WidenColumn { name: name.clone(), to: to.clone() },
        Alter::DropNotNull(name) => To::DropNotNull { name: name.clone() },
        Alter::OnDuplicate(value) => {
            To::SetOptions { options: vec![("on_duplicate".to_owned(), value.map(str::to_owned))] }
        }
    }
}

/// A row that was read, as an expression sees it.
struct Known<'a> {
    table: &'a Table,
    row: &'a [Value],
    now: i64,
}

impl Row for Known<'_> {
    fn column(&self, id: tandem_types::ColumnId) -> Option<(arrow_schema::DataType, Value)> {
        let at = self.table.schema().position(id)?;
        Some((self.table.schema().columns[at].data_type.clone(), self.row.get(at)?.clone()))
    }

    fn now(&self) -> i64 {
        self.now
    }
}
