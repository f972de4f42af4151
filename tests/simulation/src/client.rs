//! Clients: each sends one write after the other, to whichever node, and again under its token until it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrow_schema::{DataType, TimeUnit};
use tandem_format::{ForeignToken, ObjectName, segment_path};
use tandem_manifest::{
    AppendIntent, AppendTarget, Change, ColumnSpec, Manifest, SchemaPolicy, SectionDraft, Step, TableSpec,
};
use tandem_types::{Error, ErrorKind, Partition, Result, Seq, TableName};
use tandem_writer::{Committed, WriteToken};

use crate::check::{Attempt, is_definite};
use crate::node::{Cluster, Process};
use crate::rows::{self, PER_WRITE, Row};
use crate::store::within;
use crate::world::{World, event};

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Append { table: TableName, policy: SchemaPolicy, extra: Option<&'static str> },
    Alter(Alteration),
}

/// A change of tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Alteration {
    Create { table: TableName, if_not_exists: bool },
    Drop { table: TableName },
    Rename { from: TableName, to: TableName },
    AddColumn { table: TableName, name: &'static str },
    DropColumn { table: TableName, name: &'static str },
    RenameColumn { table: TableName, from: &'static str, to: &'static str },
    Truncate { table: TableName },
    Schema { name: &'static str },
}

#[derive(Debug)]
pub struct Write {
    pub number: u64,
    /// 0 where it changes tables.
    pub rows: u64,
    pub what: What,
    /// Whether its client sends it under a token of its own.
    pub tokened: bool,
    /// How often it was sent.
    sent: AtomicU64,
}

impl Write {
    pub fn new(number: u64, rows: u64, what: What, tokened: bool) -> Self {
        Self { number, rows, what, tokened, sent: AtomicU64::new(0) }
    }

    /// Whether whatever is known of it is due to one attempt.
    pub fn is_sent_once(&self) -> bool {
        self.sent.load(Relaxed) == 1
    }

    pub fn token_text(&self) -> Option<String> {
        self.tokened.then(|| format!("write-{}", self.number))
    }

    fn token(&self, base: Option<Seq>) -> WriteToken {
        match self.token_text() {
            Some(text) => {
                let token = ForeignToken { text, base };
                WriteToken::Client { token, digest: self.number.to_be_bytes().to_vec() }
            }
            None => WriteToken::Minted,
        }
    }
}

const TABLES: [&str; 3] = ["a", "b", "c"];
const COLUMNS: [&str; 2] = ["x", "y"];

fn table(world: &World) -> TableName {
    TableName::public(TABLES[[0, 0, 0, 1, 1, 2][world.below(6) as usize]])
}

fn choose(world: &World, number: u64) -> Write {
    let tokened = world.below(4) != 0;
    let name = |n: u64| COLUMNS[n as usize % COLUMNS.len()];
    if !world.share(world.plan.ddl) {
        let policy = [SchemaPolicy::Create, SchemaPolicy::Create, SchemaPolicy::Strict, SchemaPolicy::Add]
            [world.below(4) as usize];
        let extra = (world.below(8) == 0).then(|| name(world.below(2)));
        let what = What::Append { table: table(world), policy, extra };
        return Write::new(number, 1 + world.below(4), what, tokened);
    }
    let table_name = table(world);
    let step = match world.below(12) {
        0..=2 => Alteration::Create { table: table_name, if_not_exists: world.below(2) == 0 },
        3 => Alteration::Drop { table: table_name },
        4 => Alteration::Rename { from: table_name, to: table(world) },
        5..=7 => Alteration::AddColumn { table: table_name, name: name(world.below(2)) },
        8 => Alteration::DropColumn { table: table_name, name: name(world.below(2)) },
        9 => Alteration::RenameColumn { table: table_name, from: name(0), to: name(1) },
        10 => Alteration::Truncate { table: table_name },
        _ => Alteration::Schema { name: "s" },
    };
    Write::new(number, 0, What::Alter(step), tokened)
}

/// One client's whole work. Ends early once nobody answers any more.
pub async fn client(cluster: Arc<Cluster>, client: u64) {
    let world = cluster.world.clone();
    for n in 0..world.plan.writes as u64 {
        world.sleep(world.millis(0, if world.plan.handover { 40 } else { 400 })).await;
        let write = choose(&world, 1 + client * 1000 + n);
        if !settle(&cluster, Arc::new(write)).await {
            return;
        }
    }
}

/// Sends a write until its outcome is known, or cannot be; `false` where no node serves any more.
pub async fn settle(cluster: &Arc<Cluster>, write: Arc<Write>) -> bool {
    let world = &cluster.world;
    let mut base = None;
    let mut redirect = None;
    loop {
        if world.violation().is_some() {
            return false;
        }
        let any = world.below(world.plan.nodes as u64) as usize;
        let node = redirect.take().unwrap_or(any);
        let Some(process) = cluster.process(node) else {
            world.sleep(world.millis(50, 300)).await;
            continue;
        };
        let base = *base.get_or_insert_with(|| process.writer.state().seq());
        let invoked = world.head();
        let patience = world.millis(300, 9000);
        write.sent.fetch_add(1, Relaxed);
        let attempt = attempt(world.clone(), process, write.clone(), base, invoked);
        // Its node goes on with it when its client does not wait any longer.
        let answer = within(world, patience, tokio::spawn(attempt)).await;
        match answer {
            Some(Ok(Ok(_))) => return true,
            Some(Ok(Err(e))) if is_definite(e.kind()) => {
                world.note_refusal(&write);
                return true;
            }
            Some(Ok(Err(e))) if e.kind() == ErrorKind::NotWriter => {
                redirect =
                    e.writer().and_then(|url| url.strip_prefix("sim://n")).and_then(|n| n.parse().ok());
            }
            // What its node minted a token for is settled by nobody but that node.
            _ if !write.tokened => return true,
            _ => {}
        }
        world.sleep(world.millis(10, 300)).await;
    }
}

async fn attempt(
    world: Arc<World>,
    process: Arc<Process>,
    write: Arc<Write>,
    base: Seq,
    invoked: Seq,
) -> Result<Committed> {
    world.sleep(world.millis(0, 5)).await;
    process.life.pass().await;
    let state = process.writer.state();
    let steps = steps(&process, &write, &state).await?;
    let attempt = Attempt { node: process.node, invoked, base: state.seq(), steps: steps.clone() };
    let answer = process.writer.submit(state.seq(), steps, write.token(Some(base))).await;
    world.check_answer(&write, &attempt, process.writer.state().seq(), &answer);
    let told = answer.as_ref().map_or_else(|e| 1000 + e.kind() as u64, |c| c.seq.0);
    world.note(&[event::ANSWER, write.number, process.node as u64, told]);
    process.life.pass().await;
    world.sleep(world.millis(0, 5)).await;
    answer
}

fn columns(extra: Option<&str>) -> Vec<ColumnSpec> {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    let ts = column("ts", DataType::Timestamp(TimeUnit::Millisecond, None));
    let mut columns = vec![ts, column("id", DataType::Int64)];
    columns.extend(extra.map(|name| column(name, DataType::Utf8)));
    columns
}

async fn steps(process: &Process, write: &Write, state: &Manifest) -> Result<Vec<Step>> {
    let step = match &write.what {
        What::Append { table, policy, extra } => {
            let fields = columns(*extra);
            let target = match state.table_named(table) {
                Some(table) => AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() },
                None => AppendTarget::New(TableSpec { columns: fields.clone(), ..TableSpec::default() }),
            };
            let section = upload(process, write, fields.len()).await?;
            let (name, policy, sections) = (table.clone(), *policy, vec![section]);
            Step::Append(AppendIntent { name, target, policy, fields, sections, on_conflict: None })
        }
        What::Alter(step) => change(step),
    };
    Ok(vec![step])
}

/// Puts a write's rows into a segment.
async fn upload(process: &Process, write: &Write, fields: usize) -> Result<SectionDraft> {
    // Some span two partitions.
    let partition = |n: u64| Partition(20_000 + ((write.number + n / 3) % 3).cast_signed());
    let mut rows: Vec<Row> = (0..write.rows).map(|n| (partition(n), write.number * PER_WRITE + n)).collect();
    let mut partitions: Vec<(Partition, u64)> = Vec::new();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    for (partition, _) in sorted {
        match partitions.last_mut() {
            Some((last, count)) if *last == partition => *count += 1,
            _ => partitions.push((partition, 1)),
        }
    }
    rows.sort_unstable_by_key(|(_, id)| *id);
    let bytes = rows::encode(&rows);
    let segment = ObjectName {
        base: process.writer.state().seq(),
        writer: process.writer.id(),
        random: process.env.chance.next_u64(),
    };
    let len = bytes.len() as u64;
    process.env.store.create_data(&segment_path(&segment), vec![bytes]).await.map_err(unsent)?;
    Ok(SectionDraft {
        segment: Some(segment),
        offset: 0,
        len,
        crc32c: 0,
        rows: write.rows,
        time: Some((0, 1)),
        partitions,
        null_counts: vec![0; fields],
    })
}

/// Nothing was sent: to be tried again.
fn unsent(error: Error) -> Error {
    Error::unavailable(error.to_string())
}

fn change(step: &Alteration) -> Step {
    let alter = |name: &TableName, change| Step::AlterTable { name: name.clone(), change };
    match step {
        Alteration::Create { table, if_not_exists } => {
            let spec = TableSpec { columns: columns(None), ..TableSpec::default() };
            let (name, if_not_exists) = (table.clone(), *if_not_exists);
            Step::CreateTable { name, spec, if_not_exists, replace: false }
        }
        Alteration::Drop { table } => Step::DropTable { name: table.clone(), if_exists: false },
        Alteration::Rename { from, to } => Step::RenameTable { name: from.clone(), to: to.clone() },
        Alteration::AddColumn { table, name } => {
            let column = ColumnSpec { name: (*name).to_owned(), data_type: DataType::Utf8, nullable: true };
            alter(table, Change::AddColumn { column, if_not_exists: false })
        }
        Alteration::DropColumn { table, name } => {
            alter(table, Change::DropColumn { name: (*name).to_owned(), if_exists: false })
        }
        Alteration::RenameColumn { table, from, to } => {
            alter(table, Change::RenameColumn { name: (*from).to_owned(), to: (*to).to_owned() })
        }
        Alteration::Truncate { table } => Step::Truncate { name: table.clone() },
        Alteration::Schema { name } => Step::CreateSchema { name: (*name).to_owned(), if_not_exists: true },
    }
}

/// How long a client may need at most once everything works again.
pub const CALM: Duration = Duration::from_secs(120);
