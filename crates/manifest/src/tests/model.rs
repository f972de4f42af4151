//! Random writers that lag behind, a log made of what rebase lets through, and a naive interpreter beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;
use tandem_format::{DataFile, FileName, Op, Primary, Replace, SectionKey, SectionPart};
use tandem_types::{ErrorKind, Partition, TableId};

use super::checkpoints::reload;
use super::*;

/// One random choice; the numbers are read modulo what is there.
#[derive(Clone, Copy, Debug)]
struct Choice {
    writer: usize,
    /// How many commits the writer's state is behind the head, at most.
    lag: usize,
    kind: u8,
    a: usize,
    b: usize,
    tokened: bool,
}

fn choice() -> impl Strategy<Value = Choice> {
    (0..3usize, 0..4usize, 0..24u8, 0..60usize, 0..60usize, any::<bool>())
        .prop_map(|(writer, lag, kind, a, b, tokened)| Choice { writer, lag, kind, a, b, tokened })
}

const TYPES: [DataType; 5] =
    [DataType::Int8, DataType::Int32, DataType::Int64, DataType::Float64, DataType::Utf8];

/// What a writer asks for, given the state that it sees.
fn step(c: Choice, seen: &Manifest, fresh: &mut u64) -> Step {
    let table = format!("t{}", c.a % 4);
    let column = format!("c{}", c.b % 4);
    let data_type = TYPES[(c.a + c.b) % TYPES.len()].clone();
    let fields: Vec<(&str, DataType)> = vec![("ts", TS), (&column, data_type.clone())];
    match c.kind {
        0 | 1 => {
            let (if_not_exists, replace) = (c.b % 3 == 1, c.b % 3 == 2);
            Step::CreateTable { name: name(&table), spec: spec(&fields), if_not_exists, replace }
        }
        2 => Step::DropTable { name: name(&table), if_exists: c.b.is_multiple_of(2) },
        3 => Step::RenameTable { name: name(&table), to: name(&format!("t{}", c.b % 4)) },
        4 | 5 => alter(
            &table,
            Change::AddColumn { column: col(&column, data_type), if_not_exists: c.b.is_multiple_of(5) },
        ),
        6 => alter(&table, Change::DropColumn { name: column, if_exists: c.a.is_multiple_of(2) }),
        7 => alter(&table, Change::RenameColumn { name: column, to: format!("c{}", c.a % 4) }),
        8 => alter(&table, Change::WidenColumn { name: column, to: data_type }),
        9 => Step::Truncate { name: name(&table) },
        10 => {
            let (key, values) = [
                ("checkpoint_commits", ["1", "2"]),
                ("token_window", ["10m", "1h"]),
                ("token_count", ["1", "4"]),
            ][c.a % 3];
            let value = values.get(c.b % 3).map(|v| (*v).to_owned());
            Step::SetSettings { settings: vec![(key.into(), value)] }
        }
        11 => Step::CreateSchema { name: format!("s{}", c.a % 2), if_not_exists: c.b.is_multiple_of(2) },
        12 => Step::DropSchema { name: format!("s{}", c.a % 2), if_exists: c.b.is_multiple_of(2) },
        13 => match c.b % 3 {
            0 => Step::Checkpoint { seq: seen.seq(), root_hash: [c.a as u8; 32], after: seen.checkpoint() },
            1 => {
                let (node_id, address) = (format!("n{}", c.writer), String::new());
                let primary = c.a.is_multiple_of(2).then_some(Primary { node_id, address });
                Step::Promote { epoch: seen.epoch().next(), primary }
            }
            _ => {
                let term = seen.lease().map_or(0, |lease| lease.term) + 1;
                Step::Lease { holder: format!("n{}", c.writer), address: String::new(), term }
            }
        },
        14..=17 => compaction(c, seen, &table, fresh),
        _ => {
            let policy = [SchemaPolicy::Strict, SchemaPolicy::Add, SchemaPolicy::Create][c.b % 3];
            *fresh += 1;
            // Half of them have two sections in one segment.
            let segment = c.a.is_multiple_of(2).then(|| object(seen.seq(), *fresh));
            let cut = |n: usize| {
                let partitions: Vec<(i64, u64)> =
                    (0..=(c.b + n) as i64 % 3).map(|p| (p * 2 - 1, 1 + (c.a + n) as u64 % 7)).collect();
                section(fields.len(), &partitions, segment)
            };
            append_on(seen, &table, policy, &fields, (0..1 + c.b % 2).map(cut).collect())
        }
    }
}

/// Some files and parts of the tail of one partition become one file.
fn compaction(c: Choice, seen: &Manifest, table: &str, fresh: &mut u64) -> Step {
    let Ok(table) = seen.require(&name(table)) else {
        return Step::Truncate { name: name(table) };
    };
    let partition = Partition(c.b as i64 % 3 * 2 - 1);
    let files: Vec<_> =
        table.files().filter(|f| f.file.name.partition == partition).take(c.a % 3).cloned().collect();
    let sections: Vec<_> =
        table.tail().filter(|s| s.live.contains(&partition)).take(1 + c.b % 4).cloned().collect();
    let tail_rows = sections.iter().flat_map(|s| &s.section.partitions).filter(|(p, _)| *p == partition);
    let rows = tail_rows.map(|(_, rows)| rows).sum::<u64>() + files.iter().map(|f| f.file.rows).sum::<u64>();
    *fresh += 1;
    let output = DataFile {
        name: FileName { partition, object: object(seen.seq(), *fresh) },
        rows,
        size: rows * 3 + 100,
        body_end: 50,
        tail_crc32c: 5,
        time: Some((0, 9)),
        folded_through: seen.seq(),
        level: 1,
    };
    Step::Replace(Replace {
        table: table.id(),
        base: seen.seq(),
        files: files.iter().map(|f| f.file.name).collect(),
        parts: sections.iter().map(|s| SectionPart { section: s.key, partition }).collect(),
        outputs: vec![output],
    })
}

type PartitionRows = Vec<(Partition, u64)>;

/// A table, as plainly as one can keep it.
#[derive(Debug, Default)]
struct PlainTable {
    name: String,
    /// Id, name and type.
    columns: Vec<(u32, String, DataType)>,
    /// With the segment that holds each, and its rows by partition.
    sections: BTreeMap<SectionKey, (Option<ObjectName>, PartitionRows)>,
    files: BTreeMap<FileName, (u64, u64)>,
}

/// Replays a log, one operation after another, and keeps what ought never to happen twice.
#[derive(Default)]
struct Plain {
    tables: BTreeMap<TableId, PlainTable>,
    tables_ever: BTreeSet<TableId>,
    columns_ever: BTreeSet<(TableId, u32)>,
    /// Every object that was named, with whether it still is.
    objects: BTreeMap<String, bool>,
    settings: BTreeMap<String, String>,
    /// Clients' tokens in the order of their commits: text, seq, age.
    foreign: Vec<(String, Seq, i64)>,
    forgotten: BTreeSet<String>,
    token_floor: Seq,
    epoch: u64,
    primary: Option<Primary>,
    lease: (u64, String),
}

impl Plain {
    fn apply(&mut self, seq: Seq, index: u32, transaction: &Transaction, age: i64) -> u64 {
        let (mut sections_seen, mut rows_seen) = (0, 0);
        if let Some(TransactionToken::Foreign(token)) = &transaction.token {
            assert!(self.foreign.iter().all(|(text, ..)| *text != token.text));
            self.foreign.push((token.text.clone(), seq, age));
            self.forget(age);
        }
        for op in &transaction.ops {
            match op {
                Op::CreateTable(new) => {
                    assert!(self.tables_ever.insert(new.table), "table id {} is used again", new.table);
                    let mut table = PlainTable { name: new.name.table.clone(), ..PlainTable::default() };
                    for c in &new.def.schema.columns {
                        assert!(self.columns_ever.insert((new.table, c.id.0)));
                        table.columns.push((c.id.0, c.name.clone(), c.data_type.clone()));
                    }
                    self.tables.insert(new.table, table);
                }
                Op::DropTable { table } => drop(self.tables.remove(table).unwrap()),
                Op::RenameTable { table, to } => self.table(table).name = to.table.clone(),
                Op::AddColumn { table, column: c } => {
                    let fresh = self.columns_ever.insert((*table, c.id.0));
                    assert!(fresh, "column id {} of table {table} is used again", c.id);
                    self.table(table).columns.push((c.id.0, c.name.clone(), c.data_type.clone()));
                }
                Op::DropColumn { table, column } => self.table(table).columns.retain(|c| c.0 != column.0),
                Op::RenameColumn { table, column, to } => {
                    self.table(table).columns.iter_mut().find(|c| c.0 == column.0).unwrap().1 = to.clone();
                }
                Op::WidenColumn { table, column, to } => {
                    self.table(table).columns.iter_mut().find(|c| c.0 == column.0).unwrap().2 = to.clone();
                }
                Op::Truncate { table } => {
                    let table = self.table(table);
                    table.sections.clear();
                    table.files.clear();
                }
                Op::Append { table, sections } => {
                    for s in sections {
                        let key = SectionKey { seq, transaction: index, section: sections_seen };
                        sections_seen += 1;
                        rows_seen += s.rows;
                        self.table(table).sections.insert(key, (s.segment, s.partitions.clone()));
                    }
                }
                Op::Replace(r) => {
                    let table = self.table(&r.table);
                    let mut gone = 0;
                    for name in &r.files {
                        gone += table.files.remove(name).unwrap().0;
                    }
                    for part in &r.parts {
                        let (_, live) = table.sections.get_mut(&part.section).unwrap();
                        let at = live.iter().position(|(p, _)| *p == part.partition).unwrap();
                        gone += live.remove(at).1;
                    }
                    table.sections.retain(|_, (_, live)| !live.is_empty());
                    let made: u64 = r.outputs.iter().map(|f| f.rows).sum();
                    assert_eq!(gone, made, "compaction loses or invents rows");
                    table.files.extend(r.outputs.iter().map(|f| (f.name, (f.rows, f.size))));
                }
                Op::Promote { epoch, primary } => {
                    self.epoch += 1;
                    assert_eq!(epoch.0, self.epoch, "an epoch follows the one before it");
                    self.primary.clone_from(primary);
                }
                Op::Lease { holder, term, .. } => {
                    assert_eq!(*term, self.lease.0 + 1);
                    self.lease = (*term, holder.clone());
                }
                Op::SetSettings { settings } => {
                    for (key, value) in settings {
                        self.settings.remove(key);
                        self.settings.extend(value.clone().map(|value| (key.clone(), value)));
                    }
                }
                _ => {}
            }
        }
        self.note_objects();
        rows_seen
    }

    /// Up to four at once, the oldest first.
    fn forget(&mut self, age: i64) {
        let setting = |key: &str| self.settings.get(key).map(String::as_str);
        let window = match setting("token_window") {
            Some("10m") => 600_000_000,
            Some("1h") => 3_600_000_000,
            _ => 86_400_000_000,
        };
        let count = setting("token_count").map_or(1_000_000, |n| n.parse().unwrap());
        for _ in 0..4 {
            if self.foreign.len() > count && age - self.foreign[0].2 >= window {
                let (text, seq, _) = self.foreign.remove(0);
                self.token_floor = seq;
                self.forgotten.insert(text);
            }
        }
    }

    fn table(&mut self, id: &TableId) -> &mut PlainTable {
        self.tables.get_mut(id).unwrap()
    }

    fn live_objects(&self) -> BTreeMap<String, u64> {
        let mut live = BTreeMap::new();
        for (id, table) in &self.tables {
            for name in table.files.keys() {
                *live.entry(format!("file {id} {name:?}")).or_default() += 1;
            }
            for segment in table.sections.values().filter_map(|(segment, _)| *segment) {
                *live.entry(format!("segment {segment:?}")).or_default() += 1;
            }
        }
        live
    }

    fn note_objects(&mut self) {
        let live = self.live_objects();
        for (object, still) in &mut self.objects {
            *still = live.contains_key(object);
        }
        self.objects.extend(live.into_keys().map(|object| (object, true)));
    }

    /// The state says what the naive replay says.
    fn compare(&self, state: &Manifest) {
        assert_eq!((state.epoch().0, state.primary()), (self.epoch, self.primary.as_ref()));
        let lease = state.lease().map_or((0, String::new()), |lease| (lease.term, lease.holder.clone()));
        assert_eq!(lease, self.lease);
        assert_eq!(state.tokens().foreign(), self.foreign.len());
        assert_eq!(state.tokens().floor(), self.token_floor);
        for (text, seq, _) in &self.foreign {
            let known = state.token_answer(&foreign(text, Some(0)).unwrap(), b"third");
            assert_eq!(known, TokenAnswer::Reused { seq: *seq }, "{text}");
        }
        assert_eq!(
            state.tables().map(Table::id).collect::<Vec<_>>(),
            self.tables.keys().copied().collect::<Vec<_>>()
        );
        let names: BTreeMap<&str, TableId> =
            state.named_tables().map(|t| (t.name().table.as_str(), t.id())).collect();
        assert_eq!(names.len(), self.tables.len(), "names are unique, and every table has one");
        for (id, plain) in &self.tables {
            let table = state.table(*id).unwrap();
            assert_eq!(names.get(plain.name.as_str()), Some(id));
            let columns: Vec<_> = table
                .schema()
                .columns
                .iter()
                .map(|c| (c.id.0, c.name.clone(), c.data_type.clone()))
                .collect();
            assert_eq!(columns, plain.columns);
            assert_eq!(columns.iter().map(|c| &c.1).collect::<BTreeSet<_>>().len(), columns.len());
            assert_eq!(table.state.column_added.len(), columns.len());

            let file_rows: u64 = plain.files.values().map(|(rows, _)| rows).sum();
            let tail_rows: u64 =
                plain.sections.values().flat_map(|(_, live)| live).map(|(_, rows)| rows).sum();
            assert_eq!((table.rows(), table.tail_rows()), (file_rows + tail_rows, tail_rows));
            assert_eq!(table.file_bytes(), plain.files.values().map(|(_, bytes)| bytes).sum::<u64>());
            assert_eq!(table.tail_bytes(), table.tail().map(|s| s.live_bytes()).sum::<u64>());
            assert_eq!(
                table.files().map(|f| f.file.name).collect::<Vec<_>>(),
                plain.files.keys().copied().collect::<Vec<_>>()
            );
            let live: Vec<_> = table.tail().map(|s| (s.key, s.live.clone())).collect();
            let expected =
                plain.sections.iter().map(|(k, (_, live))| (*k, live.iter().map(|(p, _)| *p).collect()));
            assert_eq!(live, expected.collect::<Vec<(SectionKey, Vec<Partition>)>>());
        }
        let segments = state.segments.iter().map(|(s, count)| (format!("segment {s:?}"), *count));
        let live = self.live_objects();
        assert_eq!(
            segments.collect::<BTreeMap<_, _>>(),
            live.into_iter().filter(|(o, _)| o.starts_with("segment")).collect()
        );
        let mut removed: Vec<String> = state
            .removed()
            .map(|(_, object, _)| match object {
                RemovedObject::File { table, file, .. } => format!("file {table} {file:?}"),
                RemovedObject::Segment(segment) => format!("segment {segment:?}"),
            })
            .collect();
        removed.sort();
        let expected: Vec<String> =
            self.objects.iter().filter(|(_, still)| !**still).map(|(object, _)| object.clone()).collect();
        assert_eq!(removed, expected, "every object that was named and is no more, exactly once");
    }
}

/// What is known of a token that was sent.
struct Sent {
    intent: Intent,
    committed: Option<(Seq, u64)>,
}

fn play(groups: Vec<Vec<Choice>>) {
    let mut log = Log::new();
    log.must(vec![Step::SetSettings { settings: vec![("token_count".into(), Some("1".into()))] }]);
    let mut plain = Plain::default();
    plain.settings.insert("token_count".into(), "1".into());
    let mut twin = log.head().clone();
    let mut sent: HashMap<u128, Vec<Sent>> = HashMap::new();
    let mut fresh = 0;
    for (round, group) in groups.into_iter().enumerate() {
        let mut intents = Vec::new();
        for c in &group {
            let seen = log.states[log.states.len().saturating_sub(1 + c.lag)].clone();
            let mine = sent.entry(c.writer as u128).or_default();
            if c.kind == 23 && !mine.is_empty() {
                // Sent again, by some node, with all that it had; or with other content.
                let mut again = mine[c.a % mine.len()].intent.clone();
                if c.b.is_multiple_of(4) {
                    again.digest = b"other".to_vec();
                }
                intents.push(again);
                continue;
            }
            let steps =
                (0..1 + usize::from(c.b.is_multiple_of(7))).map(|_| step(*c, &seen, &mut fresh)).collect();
            let counter = mine.len() as u64 + 1;
            // Every fifth intent settles all but the last four.
            let low = if counter.is_multiple_of(5) { counter.saturating_sub(4).max(1) } else { 1 };
            let base = seen.seq().0;
            let token = match (c.tokened, c.b % 3) {
                (false, _) => None,
                (true, 0) => foreign(&format!("{}/{counter}", c.writer), (c.a % 2 == 0).then_some(base)),
                (true, _) => token(c.writer as u128, counter, low, base),
            };
            let intent = Intent { token, digest: b"same".to_vec(), epoch: None, base: seen.seq(), steps };
            if intent.token.is_some() {
                mine.push(Sent { intent: intent.clone(), committed: None });
            }
            intents.push(intent);
        }
        let before = log.head().seq();
        log.clock += group[0].b as i64 * 60_000_000;
        let fates = log.commit(&intents);
        if log.head().seq() > before {
            let (header, hash) = log.headers.last().unwrap().clone();
            let mut stood = fates.iter().filter(|f| f.stands());
            for (index, transaction) in header.transactions.iter().enumerate() {
                let rows = plain.apply(header.seq, index as u32, transaction, log.head().age());
                assert_eq!(stood.next(), Some(&Fate::Stands { rows }));
            }
            twin = twin.apply(&header, hash).unwrap().manifest;
        }
        for (intent, fate) in intents.iter().zip(&fates) {
            check_token(&mut sent, &plain.forgotten, intent, fate, before.next());
            if let Fate::Refused(e) = fate {
                assert_ne!(e.kind(), ErrorKind::Internal, "{e}");
            }
        }
        plain.compare(log.head());
        if round % 5 == 4 {
            twin = reload(&twin);
            plain.compare(&twin);
        }
        assert_eq!(twin.digest(), log.head().digest(), "however a node came here");
    }
    let mut replayed = Manifest::empty(log.head().database());
    for (header, hash) in &log.headers {
        replayed = replayed.apply(header, *hash).unwrap().manifest;
    }
    assert_eq!(replayed.digest(), log.head().digest());
    assert_eq!(reload(log.head()).digest(), log.head().digest());
}

/// A token stands at most once; afterwards it answers what it answered then, or that it is settled. A client's that was
/// forgotten is not accepted either, unless the client did not say when it was made.
fn check_token(
    sent: &mut HashMap<u128, Vec<Sent>>,
    forgotten: &BTreeSet<String>,
    intent: &Intent,
    fate: &Fate,
    at: Seq,
) {
    let Some(token) = &intent.token else { return };
    let entry = sent.values_mut().flatten().find(|s| s.intent.token.as_ref() == Some(token)).unwrap();
    let base = match token {
        TransactionToken::Foreign(token) if forgotten.contains(&token.text) => Some(token.base),
        _ => None,
    };
    match (fate, entry.committed) {
        (Fate::Stands { rows }, before) => {
            assert!(before.is_none() || base == Some(None), "{token:?} stands twice");
            // Which may be the one with the other content.
            entry.intent.digest.clone_from(&intent.digest);
            entry.committed = Some((at, *rows));
        }
        (Fate::NoOp | Fate::Recast(_), Some(_)) => assert_eq!(base, Some(None), "{token:?} is not known"),
        (Fate::Duplicate { seq, rows }, committed) => {
            assert_eq!(committed, Some((*seq, *rows)), "{token:?}");
            assert_eq!(intent.digest, entry.intent.digest, "another write is no duplicate");
        }
        (Fate::Refused(e), Some(_)) => match base {
            None => assert_eq!(e.kind(), ErrorKind::TokenReused, "{token:?}: {e}"),
            Some(Some(_)) => {
                let known = matches!(e.kind(), ErrorKind::TokenReused | ErrorKind::TokenExpired);
                assert!(known, "{token:?}: {e}");
            }
            Some(None) => {}
        },
        (_, None) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lagging_writers_make_one_history(groups in vec(vec(choice(), 1..4), 1..60)) {
        play(groups);
    }
}
