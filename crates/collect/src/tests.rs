//! The collector over a store that fails as told, held against a naive reading of what is kept.

mod faults;
mod one_by_one;
mod random;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_env::sim::{FaultStore, SimClock, join};
use tandem_format::{
    CommitHeader, DataFile, FileName, ObjectName, Replace, SectionPart, commit_path, data_path,
    encode_header, segment_path,
};
use tandem_log::{Appended, Log, Proposal, WrittenCheckpoint};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, MutateDraft, MutateIntent, MutateTarget,
    Outcome, Rebased, RemovedObject, SchemaPolicy, SectionDraft, Step, TableSpec, rebase,
};
use tandem_types::{ColumnId, CommitId, Partition, Seq, TableId, TableName, WriterId};

use crate::{Collector, Report, Rules};

const NOW: Rules = Rules { job: Duration::ZERO, grace: Duration::ZERO };

fn store() -> Arc<FaultStore> {
    Arc::new(FaultStore::new(Arc::new(SimClock::manual())))
}

/// Runs to the end on one thread; the clock moves by a tick after every few rounds of the tasks.
fn run<T>(store: &Arc<FaultStore>, work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = store.clock();
    runtime.block_on(async move {
        let ticker = tokio::spawn(async move {
            loop {
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                clock.advance(Duration::from_millis(5));
            }
        });
        let done = work.await;
        ticker.abort();
        done
    })
}

/// A database as far as the collector needs one.
struct Db {
    store: Arc<FaultStore>,
    log: Log,
    state: Manifest,
    /// By seq, from 0.
    states: Vec<Manifest>,
    last: Option<WrittenCheckpoint>,
    collector: Collector,
    /// Of who writes.
    clock_ahead: Duration,
}

impl Db {
    async fn open(store: &Arc<FaultStore>) -> Self {
        let log = Log::open(join(store, 1)).await.unwrap();
        let state = log.recover().await.unwrap().manifest;
        assert_eq!(state.seq(), Seq(0));
        let mut db = Self {
            store: store.clone(),
            log,
            states: vec![state.clone()],
            state,
            last: None,
            collector: Collector::default(),
            clock_ahead: Duration::ZERO,
        };
        let window = ("history_window".to_owned(), Some("1ms".to_owned()));
        db.commit(Step::SetSettings { settings: vec![window] }).await;
        db
    }

    fn wait(&self, d: Duration) {
        self.store.clock().advance(d);
    }

    /// Commits a step; whether it was applied.
    async fn try_commit(&mut self, step: Step) -> bool {
        let intent = Intent {
            token: None,
            digest: Vec::new(),
            epoch: None,
            base: self.state.seq(),
            steps: vec![step],
        };
        let next = self.state.seq().next();
        let Ok(Rebased::Commit { transaction, .. }) = rebase(&intent, &self.state, next, 0) else {
            return false;
        };
        // Longer than the window.
        self.wait(Duration::from_millis(2));
        let ahead = i64::try_from(self.clock_ahead.as_micros()).unwrap();
        let raw_clock = self.log.env().clock.now_micros() + ahead;
        let header = CommitHeader {
            seq: next,
            commit_id: CommitId(self.log.env().chance.next_u128()),
            writer: WriterId(1),
            database: self.log.database(),
            previous: self.state.header_hash(),
            commit_time: raw_clock.max(self.state.commit_time() + 1),
            raw_clock,
            transactions: vec![transaction],
        };
        let encoded = encode_header(&header).unwrap();
        let proposal = Proposal { header, encoded, payload: vec![Bytes::from_static(b"rows in a commit")] };
        let Appended::Created(hash) = self.log.append(&proposal).await.unwrap() else {
            panic!("nobody else writes");
        };
        let applied = self.state.apply(&proposal.header, hash).unwrap();
        self.state = applied.manifest;
        self.states.push(self.state.clone());
        matches!(applied.outcomes[..], [Outcome::Applied { .. }])
    }

    async fn commit(&mut self, step: Step) {
        let what = format!("{step:?}");
        assert!(self.try_commit(step).await, "{what}");
    }

    fn name(&self) -> ObjectName {
        ObjectName { base: self.state.seq(), writer: WriterId(1), random: self.log.env().chance.next_u64() }
    }

    async fn put(&self, path: &str) {
        self.log.env().store.create_data(path, vec![Bytes::from(path.to_owned())]).await.unwrap();
    }

    async fn upload(&self) -> ObjectName {
        let segment = self.name();
        self.put(&segment_path(&segment)).await;
        segment
    }

    /// An append of one section to a table, whose rows are in a segment or ride along.
    async fn append(&mut self, table: &str, segment: Option<ObjectName>) {
        let step = append_step(table, segment);
        self.commit(step).await;
    }

    fn table(&self, name: &str) -> TableId {
        self.state.table_named(&TableName::public(name)).unwrap().id()
    }

    /// Puts everything of a table into one new file.
    async fn compact(&mut self, table: &str) -> FileName {
        let (replace, name, path) = self.replacement(table);
        self.put(&path).await;
        self.commit(Step::Replace(replace)).await;
        name
    }

    fn replacement(&self, table: &str) -> (Replace, FileName, String) {
        let found = self.state.table_named(&TableName::public(table)).unwrap();
        let name = FileName { partition: Partition(0), object: self.name() };
        let output = DataFile {
            name,
            rows: 1,
            size: 9,
            body_end: 9,
            tail_crc32c: 0,
            time: None,
            folded_through: self.state.seq(),
            level: 0,
        };
        let replace = Replace {
            table: found.id(),
            base: self.state.seq(),
            files: found.files().map(|f| f.file.name).collect(),
            parts: found.tail().map(|t| SectionPart { section: t.key, partition: Partition(0) }).collect(),
            outputs: vec![output],
        };
        (replace, name, data_path(found.id(), found.partition_by(), &name))
    }

    async fn checkpoint(&mut self) -> WrittenCheckpoint {
        let previous = self.last.clone().filter(|p| self.state.checkpoint() == Some((p.seq, p.root_hash)));
        let written = self.log.write_checkpoint(&self.state, previous.as_ref()).await.unwrap();
        self.commit(written.record()).await;
        self.last = Some(written.clone());
        written
    }

    /// Commits a horizon as far as it goes.
    async fn cut(&mut self, rules: &Rules) -> bool {
        let aim = self.collector.aim(&self.log, &self.state, rules, &[]).await.unwrap();
        if !aim.moves {
            return false;
        }
        self.commit(Step::Horizon { horizon: aim.horizon, history_start: aim.history_start }).await;
        true
    }

    async fn collect(&mut self, rules: &Rules) -> Report {
        let report = self.collector.collect(&self.log, &self.state, rules, &[]).await.unwrap();
        assert_eq!(report.failed, None);
        report
    }

    async fn paths(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let mut paths = BTreeSet::new();
        for dir in ["log", "wal", "data", "checkpoint"] {
            let found: Vec<_> = self.log.env().store.list_below(dir).try_collect().await.unwrap();
            paths.extend(found.into_iter().map(|listed| listed.path));
        }
        paths
    }

    /// Everything that is kept can be read: the objects that each snapshot names, and each snapshot itself, from nothing but
    /// the store.
    async fn check(&self, context: &str) {
        let paths = self.paths().await;
        let start = self.state.history_start();
        for state in self.states.iter().filter(|state| state.seq() >= start) {
            for path in named_by(state) {
                assert!(paths.contains(&path), "{context}: {path}, which {} names, is gone", state.seq());
            }
        }
        let fresh = Log::open(join(&self.store, 7)).await.unwrap();
        let recovered = fresh.recover().await.unwrap_or_else(|e| panic!("{context}: {e}")).manifest;
        assert_eq!(
            (recovered.seq(), recovered.digest()),
            (self.state.seq(), self.state.digest()),
            "{context}"
        );
        let found = fresh.state_at(start, None).await;
        let mut found = found.unwrap_or_else(|e| panic!("{context}: the state at {start}: {e}"));
        let run = fresh.read_run(start, 1000).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        let mut run = run.iter();
        loop {
            let state = &self.states[found.seq().0 as usize];
            assert_eq!(found.digest(), state.digest(), "{context}: the state at {}", found.seq());
            let Some(commit) = run.next() else { break };
            found = found.apply(&commit.header, commit.hash).unwrap().manifest;
        }
        assert_eq!(found.seq(), self.state.seq(), "{context}");
    }
}

/// A section of one row, in a segment or in its commit.
fn row_in(segment: Option<ObjectName>) -> SectionDraft {
    SectionDraft {
        segment,
        offset: 0,
        len: 8,
        crc32c: 1,
        rows: 1,
        time: None,
        partitions: vec![(Partition(0), 1)],
        null_counts: vec![0],
    }
}

fn append_step(table: &str, segment: Option<ObjectName>) -> Step {
    let column =
        ColumnSpec { name: "n".to_owned(), data_type: arrow_schema::DataType::Int64, nullable: true };
    let spec = TableSpec { columns: vec![column.clone()], ..TableSpec::default() };
    Step::Append(AppendIntent {
        name: TableName::public(table),
        target: AppendTarget::New(spec),
        policy: SchemaPolicy::Create,
        fields: vec![column],
        sections: vec![row_in(segment)],
        on_conflict: None,
    })
}

/// Deletes the rows whose keys stand in a section.
fn delete_step(state: &Manifest, table: &str, segment: Option<ObjectName>) -> Option<Step> {
    let found = state.table_named(&TableName::public(table))?;
    let section = row_in(segment);
    Some(Step::Mutate(MutateIntent {
        name: TableName::public(table),
        target: MutateTarget::Existing(found.id()),
        draft: MutateDraft::Lookup { columns: vec![ColumnId(1)], keys: 1, delete: true, section },
        time: None,
        statement: String::new(),
    }))
}

/// The objects in which the rows of a state lie, and what its pending mutations look up.
fn named_by(state: &Manifest) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for table in state.tables() {
        paths.extend(table.files().map(|f| data_path(table.id(), table.partition_by(), &f.file.name)));
        paths.extend(table.tail().map(|t| match &t.section.segment {
            Some(segment) => segment_path(segment),
            None => commit_path(t.key.seq),
        }));
        let looked_up = table.mutations().filter_map(|m| Some((m.key.seq, m.mutation.section()?)));
        paths.extend(looked_up.map(|(seq, section)| match &section.segment {
            Some(segment) => segment_path(segment),
            None => commit_path(seq),
        }));
    }
    paths
}

/// How many objects of the past the state still lists.
fn listed_as_removed(state: &Manifest) -> usize {
    state.removed().filter(|(_, object, _)| matches!(object, RemovedObject::File { .. })).count()
}
