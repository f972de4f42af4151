//! Creating a commit, and finding out whether it was created.

use std::time::Duration;

use bytes::Bytes;
use tandem_env::{CreateOutcome, Mutant};
use tandem_format::{CommitHeader, EncodedHeader, HeaderHash, commit_path};
use tandem_types::{CommitId, ErrorKind, Result, Seq};

use crate::Log;

/// How long one commit's outcome is pursued before its clients are told that it is unknown.
const RESOLVE_FOR: Duration = Duration::from_secs(60);

/// First wait between two attempts; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A commit ready to be created.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub header: CommitHeader,
    pub encoded: EncodedHeader,
    /// Sections back to back, as the header says.
    pub payload: Vec<Bytes>,
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub enum Appended {
    /// It is the commit at its seq.
    Created(HeaderHash),
    /// The seq is another's. Read on from it.
    Lost,
    /// The log was trimmed past the number, so that what stands there, if anything, says nothing: the commit may have been
    /// in the log before, and may not. Start over from a checkpoint; tokens settle it.
    Reopened,
    /// Nobody could be asked within the bound. It may still land; tokens settle it.
    Unknown(String),
}

impl Log {
    /// Creates the commit, or finds out who holds its seq. Errors mean that the log is damaged or newer.
    pub async fn append(&self, proposal: &Proposal) -> Result<Appended> {
        let seq = proposal.header.seq;
        let path = commit_path(seq);
        let mut object = Vec::with_capacity(1 + proposal.payload.len());
        object.push(proposal.encoded.bytes.clone());
        object.extend(proposal.payload.iter().cloned());

        let started = self.env.clock.monotonic();
        let mut wait = WAIT_MIN;
        loop {
            let reason = match self.env.store.create(&path, object.clone()).await {
                CreateOutcome::Created => match self.created(proposal).await? {
                    Ok(appended) => return Ok(appended),
                    Err(reason) => reason,
                },
                CreateOutcome::Exists if self.env.mutant(Mutant::ExistsIsLost) => return Ok(Appended::Lost),
                CreateOutcome::Unknown(_) if self.env.mutant(Mutant::UnknownIsLost) => {
                    return Ok(Appended::Lost);
                }
                CreateOutcome::Unknown(_) if self.env.mutant(Mutant::UnknownIsCreated) => {
                    return Ok(Appended::Created(proposal.encoded.hash));
                }
                answer => match self.settle(proposal, seq).await? {
                    Ok(appended) => return Ok(appended),
                    Err(reason) => format!("{answer:?}; {reason}"),
                },
            };
            metrics::counter!("tandem_commit_retries_total").increment(1);
            if self.env.clock.monotonic() - started > RESOLVE_FOR {
                tracing::warn!(%seq, reason, "the outcome of a commit stays unknown");
                return Ok(Appended::Unknown(reason));
            }
            tracing::debug!(%seq, reason, "a commit's outcome is unknown, asking again");
            // Somewhere between half and the whole of it, so that writers do not march in step.
            let half = wait / 2;
            let jitter = self.env.chance.below(u64::try_from(half.as_micros()).unwrap_or(1).max(1));
            self.env.clock.sleep(half + Duration::from_micros(jitter)).await;
            wait = (wait * 2).min(WAIT_MAX);
            if self.env.mutant(Mutant::OtherBytesAtSameSeq) {
                return Ok(Appended::Lost);
            }
        }
    }

    /// The store said "created": it is a commit unless deletion had freed the number.
    async fn created(&self, proposal: &Proposal) -> Result<Result<Appended, String>> {
        if self.env.mutant(Mutant::NoFloorCheckInWriter) {
            return Ok(Ok(Appended::Created(proposal.encoded.hash)));
        }
        match self.floor().await {
            Ok(floor) if floor >= proposal.header.seq => Ok(Ok(Appended::Reopened)),
            Ok(_) => Ok(Ok(Appended::Created(proposal.encoded.hash))),
            Err(e) if passing(e.kind()) => Ok(Err(format!("created, but the floor cannot be read: {e}"))),
            Err(e) => Err(e),
        }
    }

    /// The store said anything else: what stands at the seq tells. `Err`: still unknown.
    async fn settle(&self, proposal: &Proposal, seq: Seq) -> Result<Result<Appended, String>> {
        let mine: CommitId = proposal.header.commit_id;
        match self.read(seq).await {
            Ok(Some(commit)) if commit.header.commit_id == mine => {
                // Found, not created: its entry in the directory may not be durable yet.
                if let Err(e) = self.env.store.seen_is_durable("log").await {
                    return Ok(Err(format!("found, but not known to be durable: {e}")));
                }
                self.created(proposal).await
            }
            // Another's, unless it came late into a number that was freed: ours may have been there before.
            Ok(Some(_)) => self.below_floor(seq, Ok(Appended::Lost)).await,
            // The request may land later: the same bytes again, never the next number.
            Ok(None) => self.below_floor(seq, Err("not there yet".to_owned())).await,
            Err(e) if passing(e.kind()) => Ok(Err(e.to_string())),
            Err(e) if e.kind() == ErrorKind::Damaged => match self.below_floor(seq, Err(e.to_string())).await
            {
                Ok(Ok(reopened)) => Ok(Ok(reopened)),
                _ => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    /// `otherwise`, which was seen before the call, unless the log was trimmed past the number by now.
    async fn below_floor(
        &self,
        seq: Seq,
        otherwise: Result<Appended, String>,
    ) -> Result<Result<Appended, String>> {
        match self.floor().await {
            Ok(floor) if floor >= seq => Ok(Ok(Appended::Reopened)),
            Ok(_) => Ok(otherwise),
            Err(e) if passing(e.kind()) => Ok(Err(e.to_string())),
            Err(e) => Err(e),
        }
    }
}

/// Whether an error says something about the moment and nothing about the log.
fn passing(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Damaged | ErrorKind::NewerFormat | ErrorKind::Internal)
}
