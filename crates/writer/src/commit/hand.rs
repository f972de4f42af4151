//! The commit task's side of a hand-over; why it is right is told in [`crate::handover`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tandem_env::{Mutant, within};
use tandem_format::{CommitHeader, Op, SectionKey, TransactionToken};
use tandem_manifest::{Intent, SectionDraft, Step};
use tandem_segment::DecodedSection;
use tandem_types::{Error, ErrorKind, Result};

use super::attempt::{Group, fail_all, in_doubt, reply};
use super::others::Learnt;
use super::{CommitTask, promotes};
use crate::Committed;
use crate::handover::{Deputy, Handed, HandedAnswer};
use crate::queue::{Admitted, Answer};

/// How long a deputy may take at least, and at most; in between, by what it usually takes.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(10);
const PATIENCE_TIMES: u32 = 8;

/// A deputy that did not answer is left alone for this long; doubles up to the second.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(5);

/// How long a commit that the deputy has made may take to arrive here.
const ARRIVE_WITHIN: Duration = Duration::from_secs(10);

/// How long a node that may not commit looks for one that may: for writes that nobody has turned away yet, and for
/// others.
const FORWARD_FOR: Duration = Duration::from_secs(5);
const FORWARD_AGAIN_FOR: Duration = Duration::from_secs(1);
const FORWARD_PAUSE: Duration = Duration::from_millis(50);

/// What the commit task knows of its deputies.
#[derive(Debug, Default)]
pub(super) struct Handing {
    /// What a hand-over takes, smoothed; zero before the first.
    usual: Duration,
    /// Who did not answer, until when it is left alone, and for how long the next time.
    resting: Option<(Arc<dyn Deputy>, Duration)>,
    rest: Duration,
    /// What was handed over, while it is not answered.
    keepsakes: Vec<Keepsake>,
}

/// By what a handed-over transaction is known when its commit arrives, and the rows that readers here will ask for.
#[derive(Debug)]
struct Keepsake {
    token: TransactionToken,
    digest: Vec<u8>,
    sections: Vec<(SectionDraft, Option<Arc<DecodedSection>>)>,
}

impl Keepsake {
    fn of(Admitted { request, .. }: &Admitted) -> Option<Self> {
        let token = request.intent.token.clone()?;
        let drafts = request.intent.steps.iter().flat_map(Step::sections);
        let sections = drafts.cloned().zip(request.bodies.iter().map(|body| body.rows.clone())).collect();
        Some(Self { token, digest: request.intent.digest.clone(), sections })
    }

    fn is_of(&self, token: &TransactionToken, digest: &[u8]) -> bool {
        use TransactionToken::Foreign;
        let same = match (&self.token, token) {
            // What goes with the text was added on the way.
            (Foreign(one), Foreign(other)) => one.text == other.text,
            (one, other) => one == other,
        };
        same && self.digest == digest
    }
}

impl Handing {
    fn is_resting(&self, deputy: &Arc<dyn Deputy>, now: Duration) -> bool {
        self.resting.as_ref().is_some_and(|(known, until)| Arc::ptr_eq(known, deputy) && now < *until)
    }

    /// Leaves a deputy alone for a while.
    fn rest(&mut self, deputy: &Arc<dyn Deputy>, now: Duration) {
        self.rest = (self.rest * 2).clamp(REST_MIN, REST_MAX);
        self.resting = Some((deputy.clone(), now + self.rest));
    }

    fn took(&mut self, time: Duration) {
        self.usual = if self.usual.is_zero() { time } else { (self.usual * 7 + time) / 8 };
        self.resting = None;
        self.rest = Duration::ZERO;
    }
}

impl CommitTask {
    /// Whether this node may not commit what clients send, and what it says to them.
    pub(super) fn elsewhere(&self) -> Option<Error> {
        let refused = self.shared.role.borrow().check_writes().err();
        let identity = self.shared.config.identity.as_ref();
        refused.or_else(|| self.shared.state.borrow().write_epoch(identity).err())
    }

    /// Who is to commit this group in this node's place, if that is worth it.
    pub(super) fn deputy_for(&mut self, group: &Group) -> Option<Arc<dyn Deputy>> {
        if !group.handable || group.doubt || group.turned_away { None } else { self.deputy() }
    }

    /// Who is to commit in this node's place now, if that is worth it.
    pub(super) fn deputy(&mut self) -> Option<Arc<dyn Deputy>> {
        if !self.contention.is_contended() {
            return None;
        }
        let deputy = self.shared.deputy.borrow().clone()?;
        let now = self.shared.log.env().clock.monotonic();
        let usual = self.handing.usual.max(self.company.usual());
        let worth = self.contention.look_round(now, usual) && !self.handing.is_resting(&deputy, now);
        self.tell_contention();
        worth.then_some(deputy)
    }

    pub(super) fn tell_contention(&self) {
        let contended = self.contention.is_contended();
        self.shared.contended.send_if_modified(|told| std::mem::replace(told, contended) != contended);
    }

    /// Hands a group over and answers its members. What is given back is still to be committed.
    pub(super) async fn hand_over(
        &mut self,
        deputy: &Arc<dyn Deputy>,
        mut group: Group,
    ) -> Result<Option<Group>> {
        let clock = self.shared.log.env().clock.clone();
        let started = clock.monotonic();
        let state = self.shared.state.borrow().clone();
        let handed = group.members.iter().map(|admitted| Handed::of(&admitted.request, &state)).collect();
        self.handing.keepsakes = group.members.iter().filter_map(Keepsake::of).collect();
        let usual = self.handing.usual.max(self.company.usual());
        let patience = (usual * PATIENCE_TIMES).clamp(PATIENCE_MIN, PATIENCE_MAX);
        let answered = within(&*clock, patience, deputy.submit(handed));
        let answered = match self.follow_until(answered).await {
            Ok(answered) => answered,
            Err(e) => {
                fail_all(group.members, &in_doubt(&e));
                return Err(e);
            }
        };
        let why = match answered {
            Some(Ok(answers)) if answers.len() == group.members.len() => {
                let took = clock.monotonic() - started;
                self.handing.took(took);
                self.company.committed(took);
                metrics::counter!("tandem_handed_over_total", "outcome" => "answered").increment(1);
                return self.settle(deputy, group, answers).await;
            }
            Some(Ok(_)) => Error::internal("it did not answer all that was handed to it"),
            Some(Err(e)) => e,
            None => Error::unavailable(format!("no answer within {patience:?}")),
        };
        metrics::counter!("tandem_handed_over_total", "outcome" => "lost").increment(1);
        tracing::info!(reason = %why, "transactions were handed over and not answered");
        self.handing.rest(deputy, clock.monotonic());
        group.doubt = true;
        Ok(Some(group))
    }

    /// Answers what the deputy has answered, once the state here shows it.
    async fn settle(
        &mut self,
        deputy: &Arc<dyn Deputy>,
        mut group: Group,
        answers: Vec<HandedAnswer>,
    ) -> Result<Option<Group>> {
        let clock = self.shared.log.env().clock.clone();
        if let Some(goal) = answers.iter().filter_map(HandedAnswer::seq).max() {
            self.shared.feeds.heard_of(goal, self.shared.applied());
            let mut states = self.shared.state.subscribe();
            let arrived = async move { states.wait_for(|state| state.seq() >= goal).await.is_ok() };
            if let Err(e) = self.follow_until(within(&*clock, ARRIVE_WITHIN, arrived)).await {
                fail_all(group.members, &in_doubt(&e));
                return Err(e);
            }
        }
        let state = self.shared.state.borrow().clone();
        let mut left = Vec::new();
        let mut unproven = false;
        for (admitted, answer) in group.members.into_iter().zip(answers) {
            let Intent { token, digest, .. } = &admitted.request.intent;
            let known = token.as_ref().map_or(Ok(None), |token| state.committed(token, digest));
            let told = match (answer, known) {
                // Of what is committed the state here is the judge.
                (answer, Ok(Some((seq, rows)))) => {
                    // Nobody else sends what has a token of this node's: it is this very write that was committed, perhaps
                    // by an earlier hand-over without an answer.
                    let ours = matches!(token, Some(TransactionToken::Counted(t)) if t.producer == self.shared.producer);
                    // Where nobody has committed it just now, it was there before.
                    let just_now = matches!(&answer, HandedAnswer::Committed(c) if !c.duplicate);
                    let duplicate = !ours && !just_now;
                    Ok(Answer::Committed(Committed { seq, rows, duplicate }))
                }
                // Once a token has decided, it has decided for everybody.
                (_, Err(e)) => Ok(Answer::Refused(e)),
                (HandedAnswer::Committed(c), Ok(None)) if state.seq() < c.seq => {
                    Err(Error::outcome_unknown(format!(
                        "the write was committed at {}, says the node that it was handed to, but this one cannot read \
                         the log so far",
                        c.seq
                    )))
                }
                // There was nothing to do, so that nothing shows it.
                (HandedAnswer::Committed(c), Ok(None)) if c.rows == 0 && !c.duplicate && !group.doubt => {
                    Ok(Answer::Committed(c))
                }
                (HandedAnswer::Committed(c), Ok(None))
                    if self.shared.log.env().mutant(Mutant::HandedAnswerBelieved) =>
                {
                    Ok(Answer::Committed(c))
                }
                (HandedAnswer::Committed(_), Ok(None)) => {
                    unproven = true;
                    left.push(admitted);
                    continue;
                }
                (HandedAnswer::Refused(e), Ok(None)) if e.kind() == ErrorKind::NotWriter => {
                    group.turned_away = true;
                    left.push(admitted);
                    continue;
                }
                (HandedAnswer::Refused(e) | HandedAnswer::Recast(e), Ok(None)) if group.doubt => {
                    Err(in_doubt(&e))
                }
                (HandedAnswer::Refused(e), Ok(None)) => Ok(Answer::Refused(plain(&e))),
                (HandedAnswer::Recast(e), Ok(None)) => Ok(Answer::Recast(plain(&e))),
            };
            reply(admitted.request.reply, told);
        }
        if left.is_empty() {
            return Ok(None);
        }
        if unproven {
            tracing::warn!("a node answers that it has committed what is not in the log");
        }
        self.handing.rest(deputy, clock.monotonic());
        group.doubt |= unproven;
        Ok(Some(Group { members: left, ..group }))
    }

    /// Has a group committed by the node that commits now, which is another one. What is given back is this node's to
    /// commit after all.
    pub(super) async fn forward(&mut self, mut group: Group) -> Result<Option<Group>> {
        let clock = self.shared.log.env().clock.clone();
        let started = clock.monotonic();
        let mut pause = FORWARD_PAUSE;
        loop {
            if self.elsewhere().is_none() {
                return Ok(Some(group));
            }
            let deputy = self.shared.deputy.borrow().clone();
            if let Some(deputy) = &deputy
                && !self.handing.is_resting(deputy, clock.monotonic())
            {
                match self.hand_over(deputy, group).await? {
                    None => return Ok(None),
                    Some(left) => group = left,
                }
            }
            // Without anybody who hands over for this node there is nobody to wait for.
            let expected = self.shared.deputies_expected();
            let again = group.turned_away || group.doubt;
            let patience = match (expected, again) {
                (false, _) => Duration::ZERO,
                (true, false) => FORWARD_FOR,
                (true, true) => FORWARD_AGAIN_FOR,
            };
            if clock.monotonic() - started >= patience {
                break;
            }
            // A demoted node learns of its successor, and of a way to it, a moment later.
            let mut deputies = self.shared.deputy.subscribe();
            deputies.mark_unchanged();
            let sleep = clock.sleep(pause);
            let news = async move {
                tokio::select! {
                    _ = deputies.changed() => {}
                    () = sleep => {}
                }
            };
            pause *= 2;
            if let Err(e) = self.follow_until(news).await {
                group.fail(&e);
                return Err(e);
            }
        }
        match self.elsewhere() {
            // The newest word on who commits.
            Some(refusal) => {
                group.fail(&refusal);
                Ok(None)
            }
            None => Ok(Some(group)),
        }
    }

    /// Follows the others until something else is done. Who says meanwhile who is to write is not kept waiting: another
    /// node may be the one that is waited for.
    async fn follow_until<T>(&mut self, until: impl Future<Output = T>) -> Result<T> {
        let mut until = std::pin::pin!(until);
        let mut open = true;
        loop {
            let learnt = tokio::select! {
                biased;
                done = &mut until => return Ok(done),
                learnt = self.follow(open) => learnt?,
            };
            match learnt {
                Learnt::News => {}
                Learnt::Request(None) => open = false,
                Learnt::Request(Some(bundle)) if bundle.0.iter().all(promotes) => {
                    self.race(Group::new(bundle.0, false)).await?;
                }
                Learnt::Request(Some(bundle)) => self.waiting.push_back(bundle),
            }
        }
    }

    /// Looks at a commit of somebody else's that is about to be applied: rows of what was handed over are kept before the
    /// state that names them is published, and writes of others are noticed.
    pub(super) fn recognise(&self, header: &CommitHeader) {
        if header.writer == self.shared.id {
            return;
        }
        if header.transactions.iter().any(|t| t.token.is_some()) {
            self.shared.beaten_by.store(header.writer.0, Ordering::Relaxed);
        }
        let mut others = false;
        for (index, transaction) in (0..).zip(&header.transactions) {
            let Some(token) = &transaction.token else { continue };
            let digest = &transaction.digest;
            let Some(keepsake) = self.handing.keepsakes.iter().find(|k| k.is_of(token, digest)) else {
                others = true;
                continue;
            };
            let sections = transaction.ops.iter().flat_map(Op::table_sections);
            for ((section, (table, stored)), (draft, rows)) in (0..).zip(sections).zip(&keepsake.sections) {
                // The same write, sent through two nodes, may be cut in two ways.
                let same = (stored.len, stored.crc32c, stored.rows) == (draft.len, draft.crc32c, draft.rows);
                if let Some(rows) = rows
                    && same
                {
                    let key = SectionKey { seq: header.seq, transaction: index, section };
                    self.shared.tail.insert(table, key, rows.clone(), stored.len);
                }
            }
        }
        if others {
            self.contention.meet(self.shared.log.env().clock.monotonic());
        }
    }

    /// Nothing that was handed over is waited for any more.
    pub(super) fn forget_keepsakes(&mut self) {
        self.handing.keepsakes.clear();
    }
}

/// The error without the seq that it carried between nodes.
fn plain(error: &Error) -> Error {
    Error::new(error.kind(), error.message()).with_writer(error.writer().unwrap_or_default())
}
