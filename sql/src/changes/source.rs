//! States and commits, asked for on the threads that may wait for the store.

use std::sync::Arc;

use tandem_format::CommitHeader;
use tandem_manifest::Manifest;
use tandem_types::{Error, Result, Seq};
use tokio::sync::watch;

use crate::as_of::AsOf;
use crate::engine::Engine;
use crate::options::ReadOptions;
use crate::runtime::on;

/// The database behind an engine.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) engine: Engine,
}

impl Source {
    /// The newest state.
    pub(super) fn newest(&self) -> Arc<Manifest> {
        self.engine.database().snapshot()
    }

    /// Returns once everything before a seq is applied.
    ///
    /// # Errors
    ///
    /// `Behind` if that is not in time.
    pub(super) async fn reach_before(&self, seq: Seq) -> Result<()> {
        let before = Seq(seq.0.saturating_sub(1));
        if self.newest().seq() >= before {
            return Ok(());
        }
        let database = Arc::clone(self.engine.database());
        let read = ReadOptions { min_seq: Some(before), ..ReadOptions::default() };
        on(self.engine.io(), async move { database.settle(&read).await }).await?
    }

    /// The state at a seq that was reached.
    pub(super) async fn state(&self, seq: Seq) -> Result<Arc<Manifest>> {
        let newest = self.newest();
        if newest.seq() == seq {
            return Ok(newest);
        }
        let database = Arc::clone(self.engine.database());
        on(self.engine.io(), async move { database.state_as_of(AsOf::Seq(seq), None).await }).await?
    }

    /// The state after the first transactions of a commit.
    pub(super) async fn state_within(&self, seq: Seq, transactions: usize) -> Result<Arc<Manifest>> {
        let database = Arc::clone(self.engine.database());
        on(self.engine.io(), async move { database.state_within(seq, transactions).await }).await?
    }

    /// Commits that follow each other, `from` the first of them.
    pub(super) async fn commits(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<CommitHeader>> {
        let database = Arc::clone(self.engine.database());
        let read = on(self.engine.io(), async move { database.read_log(from, to, limit).await }).await??;
        let mut commits = Vec::with_capacity(read.len());
        for (seq, (header, _)) in (from.0..).map(Seq).zip(read) {
            if header.seq != seq {
                break;
            }
            commits.push(header);
        }
        if commits.is_empty() {
            let start = self.newest().history_start();
            return Err(if from <= start {
                super::request::gone(from, start)
            } else {
                Error::unavailable(format!("commit {from} is not in the log any more"))
            });
        }
        Ok(commits)
    }

    /// Changes whenever a commit was applied.
    pub(super) fn watch(&self) -> Result<watch::Receiver<Arc<Manifest>>> {
        let states = self.engine.database().watch();
        states.ok_or_else(|| Error::unsupported("this database cannot be followed"))
    }

    /// A better reason why the rows of a state could not be read, if there is one.
    pub(super) async fn explain(&self, seq: Seq, error: Error) -> Error {
        let database = Arc::clone(self.engine.database());
        let told = error.clone();
        let explained = on(self.engine.io(), async move { database.explain_damage(seq, told).await }).await;
        explained.unwrap_or(error)
    }
}
