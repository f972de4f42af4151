//! The commit task: groups of requests become commits, one after another.

mod others;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tandem_format::{CommitHeader, Op, SectionKey, Token, Transaction, encode_header};
use tandem_log::{Appended, Proposal};
use tandem_manifest::{Applied, Manifest, Outcome, Rebased, Rejection, rebase};
use tandem_types::{CommitId, Error, Result, Seq};
use tokio::sync::{mpsc, oneshot};

use crate::commit::others::Others;
use crate::company::Company;
use crate::feed::Arrived;
use crate::queue::{Admitted, Answer, SectionBody};
use crate::recent::RecentCommit;
use crate::{Committed, Refresh, Shared};

/// Requests of one group; well below the number of tokens that the manifest keeps per producer.
const GROUP_MAX: usize = 512;

/// A longer step of the log's time is worth a word: an hour, in microseconds.
const LONG_TIME_STEP: i64 = 3_600_000_000;

/// Runs until all senders are gone, or until the log cannot be continued.
pub(crate) async fn run(
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Admitted>,
    news: mpsc::Receiver<Arrived>,
    refreshes: mpsc::UnboundedReceiver<Refresh>,
) {
    let mut task = CommitTask {
        requests,
        waiting: VecDeque::new(),
        next_counter: 1,
        others: Others::new(&shared, news, refreshes),
        company: Company::new(),
        shared: shared.clone(),
    };
    if let Err(error) = task.serve().await {
        tracing::error!(%error, "commits have stopped");
        let _ = shared.stopped.set(error.clone());
        task.requests.close();
        while let Ok(admitted) = task.requests.try_recv() {
            let _ = admitted.request.reply.send(Err(error.clone()));
        }
        for admitted in task.waiting {
            let _ = admitted.request.reply.send(Err(error.clone()));
        }
    }
}

struct CommitTask {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Admitted>,
    /// Received, but in no group yet.
    waiting: VecDeque<Admitted>,
    next_counter: u64,
    /// What is known of the commits of others.
    others: Others,
    company: Company,
}

/// What an attempt to commit a group would do.
struct Attempt {
    transactions: Vec<Transaction>,
    /// Sections' bytes, in the order of the payload.
    payload: Vec<Bytes>,
    /// One per request of the group.
    fates: Vec<Fate>,
}

enum Fate {
    /// Committed as the transaction with this index.
    Transaction(usize),
    /// There was nothing to do.
    Nothing,
    /// Decided by the state, without a commit.
    Decided(Answer),
}

impl CommitTask {
    async fn serve(&mut self) -> Result<()> {
        while let Some(group) = self.gather().await? {
            self.commit(group).await?;
        }
        Ok(())
    }

    /// The next group; `None` at the end.
    async fn gather(&mut self) -> Result<Option<Vec<Admitted>>> {
        if self.waiting.is_empty() {
            if !self.wait_for_request().await? {
                return Ok(None);
            }
            if !self.shared.config.window.is_zero() {
                self.shared.log.env().clock.sleep(self.shared.config.window).await;
            }
        }
        let waited_for = self.wait_for_company().await;
        let mut group: Vec<Admitted> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let size = next.request.inline_bytes();
            let full = group.len() >= GROUP_MAX || bytes + size > self.shared.config.inline_bytes;
            if full && !group.is_empty() {
                break;
            }
            bytes += size;
            group.extend(self.waiting.pop_front());
        }
        self.company.gathered(group.len(), waited_for);
        self.mint(&mut group);
        Ok(Some(group))
    }

    /// Takes in who is there, and gives those a moment who will probably come; how many were waited for, if any.
    async fn wait_for_company(&mut self) -> Option<usize> {
        let clock = self.shared.log.env().clock.clone();
        let expected = self.company.expected();
        let mut rest: Option<BoxFuture<'static, ()>> = None;
        loop {
            while let Ok(admitted) = self.requests.try_recv() {
                self.waiting.push_back(admitted);
            }
            // Whoever asked for a window has decided how long to wait.
            let enough = self.waiting.len() >= expected || !self.shared.config.window.is_zero();
            let bytes = self.waiting.iter().map(|admitted| admitted.request.inline_bytes()).sum();
            let patience = self.company.patience(bytes);
            // Nor for more than a commit takes.
            if enough || patience.is_zero() || bytes >= self.shared.config.inline_bytes {
                return rest.map(|_| expected);
            }
            let rest = rest.get_or_insert_with(|| clock.sleep(patience));
            tokio::select! {
                biased;
                received = self.requests.recv() => match received {
                    Some(admitted) => self.waiting.push_back(admitted),
                    None => return Some(expected),
                },
                () = rest => return Some(expected),
            }
        }
    }

    /// Tokens are minted once, so that every attempt at a request carries the same.
    fn mint(&mut self, group: &mut [Admitted]) {
        // Everything before this group was answered, or its outcome is unknown and will not be tried again.
        let low = self.next_counter;
        let base = self.shared.state.borrow().seq();
        for Admitted { request, .. } in group {
            if request.minted && request.intent.token.is_none() {
                let (producer, counter) = (self.shared.producer, self.next_counter);
                request.intent.token = Some(Token { producer, counter, low, base }.into());
                self.next_counter += 1;
            }
        }
    }

    fn count_bytes(&self, header: &CommitHeader) {
        let bytes = header.sections().map(|s| s.len).sum();
        self.shared.logged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn publish(&self, state: Manifest) {
        metrics::gauge!("tandem_applied_seq").set(state.seq().0 as f64);
        self.shared.state.send_replace(Arc::new(state));
    }

    /// Commits a group, however often others come first. An error means that the log cannot be continued.
    async fn commit(&mut self, group: Vec<Admitted>) -> Result<()> {
        let clock = self.shared.log.env().clock.clone();
        let started = clock.monotonic();
        // Before anything is tried: a node that has become a replica meanwhile commits nothing.
        let writes = self.shared.role.borrow().check_writes();
        if let Err(e) = writes {
            fail_all(group, &e);
            return Ok(());
        }
        let mut lost = 0u32;
        loop {
            // What others told of in time need not be found out by losing to it.
            self.apply_news();
            self.note_refreshes();
            let state = self.shared.state.borrow().clone();
            let attempt = attempt(&group, &state);
            if attempt.transactions.is_empty() {
                match self.catch_up().await {
                    Ok(0) => {
                        self.answer_refreshes(Ok(state.seq()));
                        answer_all(group, attempt.fates, None, state.seq());
                        return Ok(());
                    }
                    Ok(_) => continue,
                    Err(e) if is_passing(&e) => {
                        fail_all(group, &e);
                        return Ok(());
                    }
                    Err(e) => return fail_and_stop(group, e),
                }
            }
            let proposal = match self.propose(&state, attempt.transactions, attempt.payload) {
                Ok(proposal) => proposal,
                // Nothing was sent: what cannot be encoded is its clients' to know, and stops nobody.
                Err(e) => {
                    fail_all(group, &e);
                    return Ok(());
                }
            };
            match self.shared.log.append(&proposal).await {
                Ok(Appended::Created(hash)) => {
                    let Applied { manifest, outcomes } = match state.apply(&proposal.header, hash) {
                        Ok(applied) => applied,
                        Err(e) => {
                            let unknown = Error::outcome_unknown(format!(
                                "the write was committed, but cannot be applied here: {e}"
                            ));
                            fail_all(group, &unknown);
                            return Err(e);
                        }
                    };
                    self.count_bytes(&proposal.header);
                    self.cache_rows(&group, &attempt.fates, &proposal.header, &outcomes);
                    let seq = proposal.header.seq;
                    let object = || RecentCommit::new(proposal.encoded.bytes, Some(proposal.payload), true);
                    self.shared.recent.keep(seq, object, true);
                    self.publish(manifest);
                    self.answer_refreshes(Ok(seq));
                    let took = clock.monotonic() - started;
                    self.company.committed(took);
                    metrics::histogram!("tandem_commit_seconds").record(took.as_secs_f64());
                    metrics::counter!("tandem_commits_total").increment(1);
                    answer_all(group, attempt.fates, Some(outcomes), seq);
                    return Ok(());
                }
                Ok(Appended::Lost) => {
                    metrics::counter!("tandem_commits_lost_total").increment(1);
                    lost += 1;
                    if !self.apply_news() {
                        match self.catch_up().await {
                            Ok(_) => {}
                            Err(e) if is_passing(&e) => {
                                fail_all(group, &e);
                                return Ok(());
                            }
                            Err(e) => return fail_and_stop(group, e),
                        }
                    }
                    self.pause(lost).await;
                }
                Ok(Appended::Reopened) => {
                    let e = Error::unavailable("the log was trimmed past this node: start it again");
                    return fail_and_stop(group, e);
                }
                Ok(Appended::Unknown(reason)) => {
                    let e = Error::outcome_unknown(format!(
                        "whether the write was committed is unknown, the store did not answer: {reason}"
                    ));
                    fail_all(group, &e);
                    return Ok(());
                }
                // The commit was sent and may stand: its clients must not take this for a rejection.
                Err(e) => {
                    let unknown = Error::outcome_unknown(format!(
                        "whether the write was committed is unknown, the log cannot be continued: {e}"
                    ));
                    fail_all(group, &unknown);
                    return Err(e);
                }
            }
        }
    }

    /// A short random wait, so that writers who lost to each other do not march in step.
    async fn pause(&self, lost: u32) {
        let env = self.shared.log.env();
        let most = 500u64 << lost.min(5);
        env.clock.sleep(Duration::from_micros(env.chance.below(most))).await;
    }

    fn propose(
        &self,
        state: &Manifest,
        transactions: Vec<Transaction>,
        payload: Vec<Bytes>,
    ) -> Result<Proposal> {
        let env = self.shared.log.env();
        let raw_clock = env.clock.now_micros();
        let header = CommitHeader {
            seq: state.seq().next(),
            commit_id: CommitId(env.chance.next_u128()),
            writer: self.shared.id,
            database: self.shared.log.database(),
            previous: state.header_hash(),
            commit_time: commit_time(state, raw_clock),
            raw_clock,
            transactions,
        };
        let encoded = encode_header(&header)?;
        Ok(Proposal { header, encoded, payload })
    }

    /// Rows are kept before the state that names them is published, so that readers find them.
    fn cache_rows(&self, group: &[Admitted], fates: &[Fate], header: &CommitHeader, outcomes: &[Outcome]) {
        for (admitted, fate) in group.iter().zip(fates) {
            let Fate::Transaction(index) = fate else { continue };
            let (Some(transaction), Some(Outcome::Applied { .. })) =
                (header.transactions.get(*index), outcomes.get(*index))
            else {
                continue;
            };
            let sections = transaction.ops.iter().flat_map(|op| match op {
                Op::Append { table, sections } => sections.iter().map(|s| (*table, s.len)).collect(),
                _ => Vec::new(),
            });
            for (section, ((table, len), body)) in sections.zip(&admitted.request.bodies).enumerate() {
                if let (Some(rows), Ok(transaction), Ok(section)) =
                    (&body.rows, u32::try_from(*index), u32::try_from(section))
                {
                    let key = SectionKey { seq: header.seq, transaction, section };
                    self.shared.tail.insert(table, key, rows.clone(), len);
                }
            }
        }
    }
}

/// Strictly growing, and the writer's clock where that is ahead. Serves `AS OF` only: nothing is decided by it.
///
/// A step of more than an hour is followed, with a word in the log: an idle database makes one every night. Asking
/// the store's clock for a second opinion is left to the step that brings `AS OF`.
fn commit_time(state: &Manifest, raw_clock: i64) -> i64 {
    let previous = state.commit_time();
    if state.seq() == Seq(0) {
        return raw_clock.max(1);
    }
    if raw_clock > previous.saturating_add(LONG_TIME_STEP) {
        tracing::info!(
            step_s = (raw_clock - previous) / 1_000_000,
            "the log's time steps forward to this node's clock"
        );
    }
    raw_clock.max(previous + 1)
}

/// Rebases the group on a state.
fn attempt(group: &[Admitted], state: &Manifest) -> Attempt {
    let at = state.seq().next();
    let mut draft: Option<Box<Manifest>> = None;
    let mut attempt = Attempt { transactions: Vec::new(), payload: Vec::new(), fates: Vec::new() };
    let mut offset = 0;
    for Admitted { request, .. } in group {
        let index = attempt.transactions.len();
        let on = draft.as_deref().unwrap_or(state);
        let fate = match rebase(&request.intent, on, at, u32::try_from(index).unwrap_or(u32::MAX)) {
            Ok(Rebased::Commit { mut transaction, state }) => {
                lay_out(&mut transaction, &request.bodies, &mut offset, &mut attempt.payload);
                attempt.transactions.push(transaction);
                draft = Some(state);
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
        attempt.fates.push(fate);
    }
    attempt
}

/// Gives the sections that ride along their places in the payload.
fn lay_out(
    transaction: &mut Transaction,
    bodies: &[SectionBody],
    offset: &mut u64,
    payload: &mut Vec<Bytes>,
) {
    let sections = transaction.ops.iter_mut().flat_map(|op| match op {
        Op::Append { sections, .. } => sections.as_mut_slice(),
        _ => &mut [],
    });
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

fn answer_all(group: Vec<Admitted>, fates: Vec<Fate>, outcomes: Option<Vec<Outcome>>, seq: Seq) {
    let mut outcomes = outcomes.unwrap_or_default();
    for (admitted, fate) in group.into_iter().zip(fates) {
        let answer = match fate {
            Fate::Decided(answer) => answer,
            // Perhaps because of what the same commit did.
            Fate::Nothing => Answer::Committed(Committed { seq, rows: 0, duplicate: false }),
            Fate::Transaction(index) => match outcomes.get_mut(index) {
                Some(Outcome::Applied { rows }) => {
                    Answer::Committed(Committed { seq, rows: *rows, duplicate: false })
                }
                Some(Outcome::Duplicate { seq, rows }) => {
                    Answer::Committed(Committed { seq: *seq, rows: *rows, duplicate: true })
                }
                Some(Outcome::Void(error)) => Answer::Refused(error.clone()),
                None => Answer::Refused(Error::internal("a transaction has no outcome")),
            },
        };
        reply(admitted.request.reply, Ok(answer));
    }
}

fn fail_all(group: Vec<Admitted>, error: &Error) {
    for admitted in group {
        reply(admitted.request.reply, Err(error.clone()));
    }
}

fn fail_and_stop(group: Vec<Admitted>, error: Error) -> Result<()> {
    fail_all(group, &error);
    Err(error)
}

fn reply(to: oneshot::Sender<Result<Answer>>, answer: Result<Answer>) {
    // Whoever asked may be gone; the commit stands all the same.
    let _ = to.send(answer);
}

fn is_passing(error: &Error) -> bool {
    use tandem_types::ErrorKind::{DeadlineExceeded, Overloaded, Unavailable};
    matches!(error.kind(), Unavailable | Overloaded | DeadlineExceeded)
}
