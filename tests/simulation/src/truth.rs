//! The log as it really is: what was first created at each seq, and the state that follows from it.

use bytes::Bytes;
use tandem_format::{commit_path, data_path, segment_path};
use tandem_log::StoredCommit;
use tandem_manifest::{Manifest, Outcome};
use tandem_types::Seq;

use crate::naive::Naive;
use crate::world::World;

#[derive(Debug, Default)]
pub struct Truth {
    /// By seq, from 1.
    commits: Vec<StoredCommit>,
    /// By seq, from 0.
    states: Vec<Manifest>,
    pub naive: Naive,
}

impl Truth {
    pub fn head(&self) -> Seq {
        Seq(self.commits.len() as u64)
    }

    pub fn commit(&self, seq: Seq) -> Option<&StoredCommit> {
        self.commits.get(usize::try_from(seq.0.checked_sub(1)?).ok()?)
    }

    pub fn state(&self, seq: Seq) -> Option<&Manifest> {
        self.states.get(usize::try_from(seq.0).ok()?)
    }
}

impl World {
    /// An object of the log was created.
    pub fn created(&self, path: &str, bytes: &Bytes) {
        if path.starts_with("log/floor/") {
            match tandem_format::decode_floor(bytes) {
                Ok(floor) if floor.seq > self.floor() => self.raise_floor(floor.seq),
                Ok(floor) => self.blame("I11", format!("{path} says {}, after {}", floor.seq, self.floor())),
                Err(e) => self.blame("I11", format!("{path} is unreadable: {e}")),
            }
            return;
        }
        let next = self.head().next();
        if path != commit_path(next) {
            let freed = (1..=self.floor().0).any(|seq| path == commit_path(Seq(seq)));
            // Where deletion has reopened a number, what is created there is no commit.
            if path.ends_with(".commit") && !freed {
                self.blame("I4", format!("{path} was created, and the log ends before {next}"));
            }
            return;
        }
        if let Err(text) = self.fold(next, bytes) {
            self.blame("I4", text);
        }
    }

    fn fold(&self, seq: Seq, bytes: &Bytes) -> Result<(), String> {
        let stored =
            StoredCommit::decode(bytes, true).map_err(|e| format!("commit {seq} is unreadable: {e}"))?;
        let header = stored.commit.header.clone();
        let mut truth = self.truth();
        if truth.states.is_empty() {
            truth.states.push(Manifest::empty(header.database));
        }
        let before = truth.states.last().cloned().ok_or("no state")?;
        let applied = before.apply(&header, stored.commit.hash);
        let applied = applied.map_err(|e| format!("commit {seq} continues no history: {e}"))?;
        truth.commits.push(stored);
        truth.states.push(applied.manifest.clone());
        drop(truth);
        for (index, (outcome, transaction)) in applied.outcomes.iter().zip(&header.transactions).enumerate() {
            // Its writer has tried it on this very state.
            if !matches!(outcome, Outcome::Applied { .. }) {
                self.blame(
                    "I28",
                    format!("transaction {index} of commit {seq} is {outcome:?}: {transaction:?}"),
                );
            }
        }
        self.check_epochs(&before, &header);
        let mut truth = self.truth();
        let told = truth.naive.apply(&header, &self.objects());
        drop(truth);
        if let Err((name, text)) = told {
            self.blame(name, format!("commit {seq}: {text}"));
        }
        Ok(())
    }
}

impl World {
    /// An object is deleted.
    pub fn deleted(&self, path: &str) {
        if path.starts_with("log/floor/") {
            self.blame("I11", format!("{path} is deleted, and floors stay for ever"));
        }
        let above = (self.floor().0 + 1..=self.head().0).any(|seq| path == commit_path(Seq(seq)));
        if above {
            self.blame("I11", format!("{path} is deleted, and the log's floor is {}", self.floor()));
        }
        if !path.starts_with("wal/") && !path.starts_with("data/") {
            return;
        }
        let truth = self.truth();
        let start = truth.states.last().map_or(Seq(0), Manifest::history_start);
        let mut kept = truth.states.iter().filter(|state| state.seq() >= start);
        let named = kept.find(|state| names(state).any(|named| named == path)).map(Manifest::seq);
        drop(truth);
        if let Some(seq) = named {
            let text = format!("{path} is deleted, which the state at {seq} names, kept from {start} on");
            self.blame("I10", text);
        }
    }
}

/// The objects in which the rows of a state lie.
pub fn names(state: &Manifest) -> impl Iterator<Item = String> {
    state.tables().flat_map(|table| {
        let files = table.files().map(|f| data_path(table.id(), table.partition_by(), &f.file.name));
        files.chain(table.tail().filter_map(|t| t.section.segment.as_ref().map(segment_path)))
    })
}
