//! The log as it really is: what was first created at each seq, and the state that follows from it.

use bytes::Bytes;
use tandem_format::commit_path;
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
        let next = self.head().next();
        if path != commit_path(next) {
            let earlier = (1..next.0).any(|seq| path == commit_path(Seq(seq)));
            // Where deletion has reopened a number, what is created there is no commit.
            if path.ends_with(".commit") && !(earlier && self.is_trimmed()) {
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
