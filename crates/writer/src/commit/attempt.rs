//! What an attempt to commit a group would do, and what its members are answered. Pure.

use bytes::Bytes;
use tandem_format::{Op, Primary, ProducerId, Token, Transaction, TransactionToken};
use tandem_manifest::{Intent, Manifest, Outcome, Rebased, Rejection, Step, rebase};
use tandem_types::{Error, Result, Seq};
use tokio::sync::oneshot;

use crate::Committed;
use crate::queue::{Admitted, Answer, Request, SectionBody};

/// Requests that share one fate: one commit, or one hand-over.
pub(super) struct Group {
    pub members: Vec<Admitted>,
    /// All of them can be handed over.
    pub handable: bool,
    /// They were handed over, and nobody told what became of that: the other node may commit them, now or much later.
    pub doubt: bool,
    /// Who was asked to commit them commits nothing.
    pub turned_away: bool,
}

impl Group {
    pub fn new(members: Vec<Admitted>, handable: bool) -> Self {
        Self { members, handable, doubt: false, turned_away: false }
    }

    /// Tells all members that they were not committed, as far as that is known.
    pub fn fail(self, error: &Error) {
        let error = if self.doubt { in_doubt(error) } else { error.clone() };
        fail_all(self.members, &error);
    }
}

/// The token that, once it is committed, keeps the tokens of its producer below it from being committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    pub producer: ProducerId,
    pub counter: u64,
}

/// What an attempt to commit a group would do.
pub(super) struct Attempt {
    pub transactions: Vec<Transaction>,
    /// Sections' bytes, in the order of the payload.
    pub payload: Vec<Bytes>,
    pub fates: Fates,
}

/// What becomes of each member.
pub(super) struct Fates {
    /// One per request of the group.
    pub each: Vec<Fate>,
    /// The transaction that makes [`Fate::Barred`] true.
    barrier: Option<usize>,
}

pub(super) enum Fate {
    /// Committed as the transaction with this index.
    Transaction(usize),
    /// There was nothing to do.
    Nothing,
    /// Decided by the state, without a commit.
    Decided(Answer),
    /// That, provided that the barrier is committed: the other node might still commit it otherwise.
    Barred(Box<Fate>),
    /// Nobody can tell: the other node might still commit it.
    Open,
}

/// Rebases the group on a state, each in the epoch in which this node writes there, and refuses what it does not write
/// there any more. With a `barrier` the group is one in doubt.
pub(super) fn attempt(
    group: &mut [Admitted],
    state: &Manifest,
    identity: Option<&Primary>,
    barrier: Option<Barrier>,
) -> Attempt {
    let at = state.seq().next();
    let mut draft: Option<Box<Manifest>> = None;
    let fates = Fates { each: Vec::with_capacity(group.len()), barrier: None };
    let mut attempt = Attempt { transactions: Vec::new(), payload: Vec::new(), fates };
    let mut offset = 0;
    for Admitted { request, .. } in group {
        let index = attempt.transactions.len();
        let on = draft.as_deref().unwrap_or(state);
        let rebased = stamp(request, on, identity)
            .map_err(Rejection::Refused)
            .and_then(|()| rebase(&request.intent, on, at, u32::try_from(index).unwrap_or(u32::MAX)));
        let mut after = None;
        let fate = match rebased {
            Ok(Rebased::Commit { mut transaction, state }) => {
                lay_out(&mut transaction, &request.bodies, &mut offset, &mut attempt.payload);
                attempt.transactions.push(transaction);
                after = Some(state);
                Fate::Transaction(index)
            }
            Ok(Rebased::NoOp) => Fate::Nothing,
            // Perhaps of a request before it in this group: answered once that one is committed.
            Ok(Rebased::Duplicate { seq, rows }) => {
                Fate::Decided(Answer::Committed(Committed { seq, rows, duplicate: true }))
            }
            Err(Rejection::Refused(error)) => Fate::Decided(Answer::Refused(error)),
            Err(Rejection::Recast(error)) => Fate::Decided(Answer::Recast(error)),
        };
        let fate = match barrier {
            Some(barrier) => doubted(fate, &request.intent, on, barrier.producer),
            None => fate,
        };
        attempt.fates.each.push(fate);
        draft = after.or(draft);
    }
    if let Some(barrier) = barrier
        && attempt.fates.each.iter().any(|fate| matches!(fate, Fate::Barred(_)))
    {
        attempt.bar(draft.as_deref().unwrap_or(state), at, barrier);
    }
    attempt
}

impl Attempt {
    /// Adds the transaction that raises the producer's `low` past the group's tokens, and does nothing else.
    fn bar(&mut self, on: &Manifest, at: Seq, Barrier { producer, counter }: Barrier) {
        let token = Token { producer, counter, low: counter, base: on.seq() };
        let steps = vec![Step::SetSettings { settings: Vec::new() }];
        // Without an epoch, as upkeep: it writes nothing.
        let intent =
            Intent { token: Some(token.into()), digest: Vec::new(), epoch: None, base: on.seq(), steps };
        let index = self.transactions.len();
        if let Ok(Rebased::Commit { transaction, .. }) =
            rebase(&intent, on, at, u32::try_from(index).unwrap_or(u32::MAX))
        {
            self.transactions.push(transaction);
            self.fates.barrier = Some(index);
        }
    }
}

/// Gives a client's request the epoch in which it is committed on top of `on`, or says why it is not.
fn stamp(request: &mut Request, on: &Manifest, identity: Option<&Primary>) -> Result<()> {
    let Intent { token, digest, epoch, .. } = &mut request.intent;
    if let (Some(TransactionToken::Content { window }), Some(age)) = (&*token, request.handed)
        && on.age().saturating_sub(age) > *window
    {
        // What stood for its token may have been committed by its own node, and not count as equal any more.
        return Err(Error::unavailable(
            "handed over too long ago: its own node has committed it, or given up",
        ));
    }
    if let Some(epoch) = epoch {
        match on.write_epoch(identity) {
            Ok(now) => *epoch = now,
            // Committed before: that stays a success.
            Err(_) if token.as_ref().is_some_and(|t| !matches!(on.committed(t, digest), Ok(None))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What may be said of a request that another node may still commit.
fn doubted(fate: Fate, intent: &Intent, on: &Manifest, producer: ProducerId) -> Fate {
    let Some(token) = &intent.token else { return fate };
    let ours = matches!(token, TransactionToken::Counted(token) if token.producer == producer);
    match fate {
        Fate::Transaction(_) => fate,
        // Nobody else sends it: what was committed is this very write.
        Fate::Decided(Answer::Committed(committed)) => Fate::Decided(Answer::Committed(Committed {
            duplicate: committed.duplicate && !ours,
            ..committed
        })),
        // Once a token has decided, it has decided for everybody.
        Fate::Decided(_) if on.committed(token, &intent.digest).is_err() => fate,
        undone if ours => Fate::Barred(Box::new(undone)),
        _ => Fate::Open,
    }
}

/// Gives the sections that ride along their places in the payload.
fn lay_out(
    transaction: &mut Transaction,
    bodies: &[SectionBody],
    offset: &mut u64,
    payload: &mut Vec<Bytes>,
) {
    let sections = transaction.ops.iter_mut().flat_map(Op::sections_mut);
    for (section, body) in sections.zip(bodies) {
        if section.segment.is_none() {
            section.offset = *offset;
            *offset += section.len;
            payload.extend(body.chunks.iter().cloned());
            // Sections begin aligned, so that their buffers need not be copied when they are read.
            let padding = offset.next_multiple_of(64) - *offset;
            if padding > 0 {
                payload.push(Bytes::from_static(&[0; 64]).slice(..usize::try_from(padding).unwrap_or(0)));
                *offset += padding;
            }
        }
    }
}

/// Answers each member after the commit at `seq` with these outcomes, or, without outcomes, at the head `seq`.
pub(super) fn answer_all(group: Vec<Admitted>, fates: Fates, outcomes: Option<Vec<Outcome>>, seq: Seq) {
    let mut outcomes = outcomes.unwrap_or_default();
    let barred = fates.barrier.and_then(|index| outcomes.get(index));
    let barred = matches!(barred, Some(Outcome::Applied { .. }));
    for (admitted, fate) in group.into_iter().zip(fates.each) {
        let fate = match fate {
            Fate::Barred(fate) if barred => *fate,
            Fate::Barred(_) => Fate::Open,
            fate => fate,
        };
        let answer = match fate {
            Fate::Decided(answer) => Ok(answer),
            // Perhaps because of what the same commit did.
            Fate::Nothing => Ok(Answer::Committed(Committed { seq, rows: 0, duplicate: false })),
            Fate::Transaction(index) => Ok(match outcomes.get_mut(index) {
                Some(Outcome::Applied { rows }) => {
                    Answer::Committed(Committed { seq, rows: *rows, duplicate: false })
                }
                Some(Outcome::Duplicate { seq, rows }) => {
                    Answer::Committed(Committed { seq: *seq, rows: *rows, duplicate: true })
                }
                Some(Outcome::Void(error)) => Answer::Refused(error.clone()),
                None => Answer::Refused(Error::internal("a transaction has no outcome")),
            }),
            Fate::Barred(_) | Fate::Open => {
                Err(in_doubt(&Error::unavailable("it cannot be committed here now")))
            }
        };
        reply(admitted.request.reply, answer);
    }
}

/// Says of a write that was handed over that its outcome is unknown.
pub(super) fn in_doubt(why: &Error) -> Error {
    Error::outcome_unknown(format!(
        "whether the write was committed is unknown: it was handed over to another node, which did not answer; {why}"
    ))
}

pub(super) fn fail_all(group: Vec<Admitted>, error: &Error) {
    for admitted in group {
        reply(admitted.request.reply, Err(error.clone()));
    }
}

pub(super) fn reply(to: oneshot::Sender<Result<Answer>>, answer: Result<Answer>) {
    // Whoever asked may be gone; the commit stands all the same.
    let _ = to.send(answer);
}
