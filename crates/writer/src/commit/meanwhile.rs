//! Waiting for the store without going deaf: what peers push is applied meanwhile.
//!
//! A peer pushes a commit once it was created and checked there. So a store that does not answer this node hides no commits
//! from it; and where one of them stands at the seq that this node is trying to create, there is nothing left to wait for.
//! The request that is given up may still arrive: it finds its place taken, as it would have.

use std::time::Duration;

use tandem_log::{Appended, Proposal};
use tandem_types::{Error, Result};

use super::CommitTask;

/// How long the store may take to say itself what a peer has said. A request that is given up costs a connection.
const SAID_WITHIN: Duration = Duration::from_millis(500);

/// Who said what became of a proposal.
pub(super) enum Told {
    ByStore(Appended),
    /// Another's commit stands at its seq, and is applied here.
    TakenByPeer,
}

impl CommitTask {
    /// As [`tandem_log::Log::append`], unless a peer tells first who has taken the proposal's seq.
    ///
    /// The proposal itself may come back from a peer before the store has answered. It is left to the store to say so.
    ///
    /// # Errors
    ///
    /// As there; `Damaged` if the store and a peer say different things.
    pub(super) async fn append(&mut self, proposal: &Proposal) -> Result<Told> {
        self.others.proposed = Some(proposal.header.commit_id);
        let told = self.append_or_hear(proposal).await;
        self.others.proposed = None;
        told
    }

    async fn append_or_hear(&mut self, proposal: &Proposal) -> Result<Told> {
        let shared = self.shared.clone();
        let (seq, before) = (proposal.header.seq, shared.applied());
        let mut appending = std::pin::pin!(shared.log.append(proposal));
        let mut patience = None;
        loop {
            let waits = patience.is_some();
            let over = async {
                match patience.as_mut() {
                    Some(patience) => patience.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                appended = &mut appending => {
                    return match appended? {
                        Appended::Created(_) if waits => Err(Error::damaged(format!(
                            "the log has two histories: {seq} was created here, and a peer has pushed another commit at it"
                        ))),
                        appended => Ok(Told::ByStore(appended)),
                    };
                }
                Some(arrived) = self.others.news.recv() => {
                    self.others.early.keep(arrived, shared.applied());
                    self.apply_news();
                    if !waits && shared.applied() > before {
                        patience = Some(shared.log.env().clock.sleep(SAID_WITHIN));
                    }
                }
                () = over => {
                    tracing::info!(%seq, "the store does not answer; a peer has told who created this commit");
                    return Ok(Told::TakenByPeer);
                }
            }
        }
    }

    /// Waits for something that the store is asked.
    pub(super) async fn meanwhile<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let mut asked = std::pin::pin!(asked);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Some(arrived) = self.others.news.recv() => {
                    self.others.early.keep(arrived, self.shared.applied());
                    self.apply_news();
                }
            }
        }
    }
}
