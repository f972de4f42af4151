//! The log's contract over a store that fails as told.

mod appending;
mod checkpoints;
mod past;
mod recovering;
mod trimming;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_env::sim::{FaultStore, SimClock, join};
use tandem_format::{CommitHeader, ObjectName, Transaction, encode_header};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, Rebased, SchemaPolicy, SectionDraft, Step,
    TableSpec, rebase,
};
use tandem_types::{CommitId, Partition, Seq, TableName, WriterId};

use crate::{Appended, Log, Proposal};

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

/// A node as far as the log needs one: what it applied, and how it makes the next commit.
struct Node {
    log: Log,
    state: Manifest,
}

impl Node {
    async fn open(store: &Arc<FaultStore>, seed: u64) -> Self {
        let log = Log::open(join(store, seed)).await.unwrap();
        let state = log.recover().await.unwrap().manifest;
        Self { log, state }
    }

    fn propose(&self, step: Step) -> Proposal {
        let intent = Intent {
            token: None,
            digest: Vec::new(),
            epoch: None,
            base: self.state.seq(),
            steps: vec![step],
        };
        let Rebased::Commit { transaction, .. } =
            rebase(&intent, &self.state, self.state.seq().next(), 0).unwrap()
        else {
            panic!("nothing to commit")
        };
        self.proposal(vec![transaction])
    }

    fn proposal(&self, transactions: Vec<Transaction>) -> Proposal {
        let raw_clock = self.log.env().clock.now_micros();
        let header = CommitHeader {
            seq: self.state.seq().next(),
            commit_id: CommitId(self.log.env().chance.next_u128()),
            writer: WriterId(1),
            database: self.log.database(),
            previous: self.state.header_hash(),
            commit_time: raw_clock.max(self.state.commit_time() + 1),
            raw_clock,
            transactions,
        };
        let encoded = encode_header(&header).unwrap();
        Proposal {
            header,
            encoded,
            payload: vec![Bytes::from_static(b"some rows"), Bytes::from_static(b"!")],
        }
    }

    async fn catch_up(&mut self) {
        for commit in self.log.read_run(self.state.seq(), 3).await.unwrap() {
            self.state = self.state.apply(&commit.header, commit.hash).unwrap().manifest;
        }
    }

    /// Commits a step where nobody else writes.
    async fn commit(&mut self, step: Step) {
        let proposal = self.propose(step);
        let Appended::Created(hash) = self.log.append(&proposal).await.unwrap() else {
            panic!("nobody else writes");
        };
        self.state = self.state.apply(&proposal.header, hash).unwrap().manifest;
    }

    /// Commits, changing little.
    async fn tick(&mut self, name: &str) {
        self.commit(schema(name)).await;
    }
}

fn schema(name: &str) -> Step {
    Step::CreateSchema { name: name.to_owned(), if_not_exists: false }
}

/// An append of so many sections of one row each, in a segment that nobody reads here.
fn append(sections: u64) -> Step {
    let column =
        ColumnSpec { name: "n".to_owned(), data_type: arrow_schema::DataType::Int64, nullable: true };
    let spec = TableSpec { columns: vec![column.clone()], ..TableSpec::default() };
    let draft = |n| SectionDraft {
        segment: Some(ObjectName { base: Seq(0), writer: WriterId(1), random: n }),
        offset: 0,
        len: 8,
        crc32c: 1,
        rows: 1,
        time: None,
        partitions: vec![(Partition(0), 1)],
        null_counts: vec![0],
    };
    Step::Append(AppendIntent {
        name: TableName::public("t"),
        target: AppendTarget::New(spec),
        policy: SchemaPolicy::Create,
        on_conflict: None,
        fields: vec![column],
        sections: (0..sections).map(draft).collect(),
    })
}

/// Overwrites an object behind everybody's back.
async fn overwrite(store: &Arc<FaultStore>, path: &str, bytes: Vec<u8>) {
    use object_store::ObjectStoreExt;
    store.put(&path.into(), bytes.into()).await.unwrap();
}

async fn bytes_of(log: &Log, path: &str) -> Vec<u8> {
    log.env().store.get(path).await.unwrap().unwrap().to_vec()
}
