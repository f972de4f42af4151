//! The rows of the system tables, column by column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow_schema::{DataType, TimeUnit};
use tandem_format::{MutationKind, PendingMutation, commit_path, data_path, segment_path};
use tandem_manifest::{DATABASE_SETTINGS, FileState, Manifest, TABLE_OPTIONS, Table, TailSection};
use tandem_types::{Column, ColumnId, Partition, ticks_per_second};

use super::table::{f64s, text, times, u32s, u64s};
use crate::database::{NodeRow, NodeSetting};
use crate::queries::QueryStatus;
use crate::statement::quote_name;

/// How a table's designated timestamp counts.
fn unit(table: &Table) -> TimeUnit {
    match table.timestamp().map(|column| &column.data_type) {
        Some(DataType::Timestamp(unit, _)) => *unit,
        // Without one there are no times to convert.
        _ => TimeUnit::Microsecond,
    }
}

/// Ticks as microseconds, cut towards the past; `None` where they are out of reach.
fn micros(ticks: i64, unit: TimeUnit) -> Option<i64> {
    const MICRO: i64 = 1_000_000;
    let per_second = ticks_per_second(unit);
    if per_second > MICRO {
        Some(ticks.div_euclid(per_second / MICRO))
    } else {
        ticks.checked_mul(MICRO / per_second)
    }
}

fn first(time: Option<(i64, i64)>, unit: TimeUnit) -> Option<i64> {
    time.and_then(|(first, _)| micros(first, unit))
}

fn last(time: Option<(i64, i64)>, unit: TimeUnit) -> Option<i64> {
    time.and_then(|(_, last)| micros(last, unit))
}

fn column_names(table: &Table, ids: &[ColumnId]) -> String {
    let columns = ids.iter().filter_map(|id| table.schema().column(*id));
    columns.map(|column| quote_name(&column.name)).collect::<Vec<_>>().join(", ")
}

pub(super) fn tables(snapshot: &Manifest) -> Vec<ArrayRef> {
    let tables: Vec<&Table> = snapshot.named_tables().collect();
    let all = || tables.iter().copied();
    let options = |table: &Table| {
        let options = table.def().options.iter().map(|(key, value)| format!("{key} = {value}"));
        options.collect::<Vec<_>>().join(", ")
    };
    // Walks files and tail, so once for both columns.
    let ranges: Vec<_> = all().map(Table::time_range).collect();
    let range = || all().zip(ranges.iter().copied());
    vec![
        u64s(all().map(|t| Some(t.id().0))),
        text(all().map(|t| Some(&t.name().schema))),
        text(all().map(|t| Some(&t.name().table))),
        text(all().map(|t| t.timestamp().map(|c: &Column| &c.name))),
        text(all().map(|t| Some(t.partition_by().name()))),
        text(all().map(|t| Some(column_names(t, t.order_by())))),
        text(all().map(|t| t.is_keyed().then(|| column_names(t, t.primary_key())))),
        text(all().map(|t| Some(options(t)))),
        u64s(all().map(|t| Some(t.rows()))),
        u64s(all().map(|t| Some(t.file_bytes() + t.tail_bytes()))),
        u64s(all().map(|t| Some(t.file_count() as u64))),
        u64s(all().map(|t| Some(t.tail_rows()))),
        times(range().map(|(t, time)| first(time, unit(t)))),
        times(range().map(|(t, time)| last(time, unit(t)))),
        u64s(all().map(|t| Some(t.created().0))),
        u32s(all().map(|t| Some(t.schema_id().0))),
    ]
}

/// Sums over one partition's files and its part of the tail.
#[derive(Clone, Copy, Default)]
struct Sums {
    rows: u64,
    bytes: u64,
    files: u64,
    tail_rows: u64,
    time: Option<(i64, i64)>,
}

impl Sums {
    fn add_time(&mut self, time: Option<(i64, i64)>) {
        self.time = match (self.time, time) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }

    fn add_file(&mut self, file: &FileState) {
        self.rows += file.file.rows;
        self.bytes += file.file.size;
        self.files += 1;
        self.add_time(file.file.time);
    }

    fn add_section(&mut self, rows: u64, tail: &TailSection, time: Option<(i64, i64)>) {
        self.rows += rows;
        self.tail_rows += rows;
        if tail.section.rows > 0 {
            let share = u128::from(tail.section.len) * u128::from(rows) / u128::from(tail.section.rows);
            self.bytes += u64::try_from(share).unwrap_or(tail.section.len);
        }
        self.add_time(time);
    }
}

/// A section knows the time range of all its rows only: a partition of it gets the part that lies within
/// the partition, which is exact where the section has rows of a single one, else a bound.
fn partition_sums(table: &Table) -> BTreeMap<Partition, Sums> {
    let mut sums: BTreeMap<Partition, Sums> = BTreeMap::new();
    for file in table.files() {
        sums.entry(file.file.name.partition).or_default().add_file(file);
    }
    for tail in table.tail() {
        let live = tail.section.partitions.iter().filter(|(p, _)| tail.live.contains(p));
        for (partition, rows) in live {
            let range = table.partition_by().range(*partition, unit(table));
            let time =
                tail.section.time.map(|(a, b)| (a.max(range.start), b.min(range.end.saturating_sub(1))));
            sums.entry(*partition).or_default().add_section(*rows, tail, time);
        }
    }
    sums
}

pub(super) fn partitions(snapshot: &Manifest) -> Vec<ArrayRef> {
    let mut rows: Vec<(&Table, Partition, Sums)> = Vec::new();
    for table in snapshot.named_tables() {
        rows.extend(partition_sums(table).into_iter().map(|(partition, sums)| (table, partition, sums)));
    }
    let all = || rows.iter();
    vec![
        u64s(all().map(|(t, ..)| Some(t.id().0))),
        text(all().map(|(t, ..)| Some(&t.name().table))),
        text(all().map(|(t, p, _)| Some(t.partition_by().label(*p)))),
        u64s(all().map(|(.., s)| Some(s.rows))),
        u64s(all().map(|(.., s)| Some(s.bytes))),
        u64s(all().map(|(.., s)| Some(s.files))),
        u64s(all().map(|(.., s)| Some(s.tail_rows))),
        times(all().map(|(t, _, s)| first(s.time, unit(t)))),
        times(all().map(|(t, _, s)| last(s.time, unit(t)))),
    ]
}

pub(super) fn files(snapshot: &Manifest) -> Vec<ArrayRef> {
    let rows: Vec<(&Table, &FileState)> = snapshot
        .named_tables()
        .flat_map(|table| table.files().map(move |file| (table, file.as_ref())))
        .collect();
    let all = || rows.iter().copied();
    vec![
        u64s(all().map(|(t, _)| Some(t.id().0))),
        text(all().map(|(t, _)| Some(&t.name().table))),
        text(all().map(|(t, f)| Some(t.partition_by().label(f.file.name.partition)))),
        text(all().map(|(t, f)| Some(data_path(t.id(), t.partition_by(), &f.file.name)))),
        u64s(all().map(|(_, f)| Some(f.file.rows))),
        u64s(all().map(|(_, f)| Some(f.file.size))),
        times(all().map(|(t, f)| first(f.file.time, unit(t)))),
        times(all().map(|(t, f)| last(f.file.time, unit(t)))),
        u32s(all().map(|(_, f)| Some(f.file.level))),
        u64s(all().map(|(_, f)| Some(f.created.0))),
        u64s(all().map(|(_, f)| Some(f.file.folded_through.0))),
    ]
}

/// Sections of the tail. Rows and bytes are of what is still in it; offsets within a commit object count
/// from the start of its payload.
pub(super) fn sections(snapshot: &Manifest) -> Vec<ArrayRef> {
    let mut rows: Vec<(&Table, &TailSection)> =
        snapshot.named_tables().flat_map(|table| table.tail().map(move |s| (table, s.as_ref()))).collect();
    rows.sort_by_key(|(_, s)| s.key);
    let all = || rows.iter().copied();
    let object = |s: &TailSection| match &s.section.segment {
        Some(name) => segment_path(name),
        None => commit_path(s.key.seq),
    };
    vec![
        u64s(all().map(|(_, s)| Some(s.key.seq.0))),
        u32s(all().map(|(_, s)| Some(s.key.transaction))),
        u64s(all().map(|(t, _)| Some(t.id().0))),
        text(all().map(|(t, _)| Some(&t.name().table))),
        u64s(all().map(|(_, s)| Some(s.live_rows()))),
        u64s(all().map(|(_, s)| Some(s.live_bytes()))),
        times(all().map(|(t, s)| first(s.section.time, unit(t)))),
        times(all().map(|(t, s)| last(s.section.time, unit(t)))),
        text(all().map(|(_, s)| Some(object(s)))),
        u64s(all().map(|(_, s)| Some(s.section.offset))),
    ]
}

/// UPDATEs and DELETEs that rows still have to go through when they are read: until compaction has written them in.
pub(super) fn mutations(snapshot: &Manifest) -> Vec<ArrayRef> {
    let mut rows: Vec<(&Table, &PendingMutation)> = snapshot
        .named_tables()
        .flat_map(|table| table.mutations().map(move |pending| (table, pending.as_ref())))
        .collect();
    rows.sort_by_key(|(_, pending)| pending.key);
    let all = || rows.iter().copied();
    let kind = |pending: &PendingMutation| match pending.mutation.kind {
        MutationKind::Update { .. } | MutationKind::Lookup { delete: false, .. } => "update",
        MutationKind::Delete { .. } | MutationKind::Lookup { delete: true, .. } => "delete",
    };
    let files = |table: &Table, pending: &PendingMutation| {
        let meets = |time: Option<(i64, i64)>| match (pending.mutation.time, time) {
            (Some(acted_on), Some(file)) => acted_on.0 <= file.1 && file.0 <= acted_on.1,
            _ => true,
        };
        let waits =
            |file: &&Arc<FileState>| pending.key.seq > file.file.folded_through && meets(file.file.time);
        table.files().filter(waits).count() as u64
    };
    vec![
        u64s(all().map(|(_, p)| Some(p.key.seq.0))),
        text(all().map(|(t, _)| Some(&t.name().table))),
        text(all().map(|(_, p)| Some(kind(p)))),
        text(all().map(|(_, p)| Some(&p.mutation.statement))),
        u64s(all().map(|(t, p)| Some(files(t, p)))),
    ]
}

/// Of the database, of this node, and what a table's options are where it does not set them.
pub(super) fn settings(snapshot: &Manifest, node: &[NodeSetting]) -> Vec<ArrayRef> {
    struct Row<'a> {
        name: &'a str,
        value: &'a str,
        default: &'a str,
        scope: &'static str,
        description: &'a str,
    }
    let database = DATABASE_SETTINGS.iter().map(|def| Row {
        name: def.name,
        value: snapshot.setting(def.name).unwrap_or(def.default),
        default: def.default,
        scope: "database",
        description: def.description,
    });
    let table = TABLE_OPTIONS.iter().map(|def| Row {
        name: def.name,
        value: def.default,
        default: def.default,
        scope: "table",
        description: def.description,
    });
    let node = node.iter().map(|setting| Row {
        name: setting.name,
        value: &setting.value,
        default: &setting.default,
        scope: "node",
        description: setting.description,
    });
    let rows: Vec<Row<'_>> = database.chain(table).chain(node).collect();
    vec![
        text(rows.iter().map(|r| Some(r.name))),
        text(rows.iter().map(|r| Some(r.value))),
        text(rows.iter().map(|r| Some(r.default))),
        text(rows.iter().map(|r| Some(r.scope))),
        text(rows.iter().map(|r| Some(r.description))),
    ]
}

/// What this node has heard of them all; advisory.
pub(super) fn nodes(nodes: &[NodeRow]) -> Vec<ArrayRef> {
    let all = || nodes.iter();
    vec![
        text(all().map(|n| Some(&n.node_id))),
        text(all().map(|n| n.address.as_ref())),
        text(all().map(|n| Some(&n.role))),
        u64s(all().map(|n| Some(n.epoch))),
        u64s(all().map(|n| Some(n.applied_seq.0))),
        u64s(all().map(|n| n.lag_commits)),
        u64s(all().map(|n| n.lag_rows)),
        u64s(all().map(|n| n.lag_bytes)),
        f64s(all().map(|n| n.lag_seconds)),
        text(all().map(|n| Some(&n.version))),
        times(all().map(|n| n.last_heartbeat)),
    ]
}

/// The node's id is among its settings, where it has one.
pub(super) fn queries(queries: &[QueryStatus], node: &[NodeSetting]) -> Vec<ArrayRef> {
    let node_id = node.iter().find(|setting| setting.name == "node_id").map(|setting| &setting.value);
    let all = || queries.iter();
    vec![
        text(all().map(|q| Some(&q.id))),
        text(all().map(|q| Some(&q.session))),
        text(all().map(|_| node_id)),
        text(all().map(|q| q.user.as_ref())),
        text(all().map(|q| Some(&q.statement))),
        text(all().map(|q| Some(q.state.name()))),
        times(all().map(|q| Some(q.started))),
        u64s(all().map(|q| q.snapshot.map(|seq| seq.0))),
        u64s(all().map(|q| Some(q.rows))),
        u64s(all().map(|q| Some(q.bytes))),
        u64s(all().map(|q| Some(u64::try_from(q.elapsed.as_millis()).unwrap_or(u64::MAX)))),
        // Memory is accounted for all queries together.
        u64s(all().map(|_| None)),
    ]
}

/// What holds history back, but for forks. Ages of the log begin at its first commit's clock, so that they can be read as times.
pub(super) fn leases(snapshot: &Manifest) -> Vec<ArrayRef> {
    let all = || snapshot.pins().filter(|pin| pin.store.is_none());
    vec![
        text(all().map(|pin| Some(&pin.id))),
        u64s(all().map(|pin| Some(pin.seq.0))),
        times(all().map(|pin| pin.expires)),
        text(all().map(|pin| Some(&pin.reason))),
    ]
}

pub(super) fn forks(snapshot: &Manifest) -> Vec<ArrayRef> {
    let all = || snapshot.pins().filter_map(|pin| Some((pin, pin.store.as_ref()?)));
    vec![
        text(all().map(|(pin, _)| Some(&pin.id))),
        text(all().map(|(_, store)| Some(store))),
        u64s(all().map(|(pin, _)| Some(pin.seq.0))),
        // Whoever made it knows; the log keeps what it holds, and not since when.
        u64s(all().map(|_| None)),
    ]
}
