//! The commit task: groups of requests become commits, one after another.

mod attempt;
mod hand;
mod meanwhile;
mod others;
mod time;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tandem_env::Mutant;
use tandem_format::{CommitHeader, Op, SectionKey, Token, Transaction, TransactionToken, encode_header};
use tandem_log::{Appended, Proposal};
use tandem_manifest::{Applied, Manifest, Outcome};
use tandem_types::{CommitId, Error, Result};
use tokio::sync::mpsc;

use crate::commit::attempt::{Barrier, Fate, Group, answer_all, attempt, fail_all};
use crate::commit::hand::Handing;
use crate::commit::meanwhile::Told;
use crate::commit::others::Others;
use crate::commit::time::Time;
use crate::company::Company;
use crate::contention::Contention;
use crate::feed::Arrived;
use crate::handover::can_be_handed;
use crate::queue::{Admitted, Bundle};
use crate::recent::RecentCommit;
use crate::{Refresh, Shared, is_promotion, spoilt};

/// Requests of one group; well below the number of tokens that the manifest keeps per producer.
pub(crate) const GROUP_MAX: usize = 512;

/// How long a group is tried at a store that never answers.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// Runs until all senders are gone, or until the log cannot be continued.
pub(crate) async fn run(
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Bundle>,
    news: mpsc::Receiver<Arrived>,
    refreshes: mpsc::UnboundedReceiver<Refresh>,
) {
    let mut task = CommitTask {
        requests,
        waiting: VecDeque::new(),
        next_counter: 1,
        others: Others::new(&shared, news, refreshes),
        company: Company::new(),
        contention: Contention::default(),
        handing: Handing::default(),
        time: Time::default(),
        shared: shared.clone(),
    };
    if let Err(error) = task.serve().await {
        tracing::error!(%error, "commits have stopped");
        let _ = shared.stopped.set(error.clone());
        task.requests.close();
        while let Ok(bundle) = task.requests.try_recv() {
            fail_all(bundle.0, &error);
        }
        for bundle in task.waiting {
            fail_all(bundle.0, &error);
        }
    }
}

struct CommitTask {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Bundle>,
    /// Received, but in no group yet.
    waiting: VecDeque<Bundle>,
    next_counter: u64,
    /// What is known of the commits of others.
    others: Others,
    company: Company,
    contention: Contention,
    handing: Handing,
    time: Time,
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
            let size = next.inline_bytes();
            let most = self.shared.config.inline_bytes;
            let full = group.len() + next.len() > GROUP_MAX || bytes + size > most;
            if full && !group.is_empty() {
                break;
            }
            bytes += size;
            group.extend(self.waiting.pop_front().into_iter().flat_map(|bundle| bundle.0));
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
            while let Ok(bundle) = self.requests.try_recv() {
                self.waiting.push_back(bundle);
            }
            // Whoever asked for a window has decided how long to wait.
            let waiting: usize = self.waiting.iter().map(Bundle::len).sum();
            let enough = waiting >= expected || !self.shared.config.window.is_zero();
            let bytes = self.waiting.iter().map(Bundle::inline_bytes).sum();
            let patience = self.company.patience(bytes);
            // Nor for more than a commit takes.
            if enough || patience.is_zero() || bytes >= self.shared.config.inline_bytes {
                return rest.map(|_| expected);
            }
            let rest = rest.get_or_insert_with(|| clock.sleep(patience));
            tokio::select! {
                biased;
                received = self.requests.recv() => match received {
                    Some(bundle) => self.waiting.push_back(bundle),
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

    /// Looks at a commit that is about to be applied.
    fn take_note(&self, header: &CommitHeader) {
        self.recognise(header);
        let bytes = header.sections().map(|s| s.len).sum();
        self.shared.logged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn publish(&self, state: Manifest) {
        metrics::gauge!("tandem_applied_seq").set(state.seq().0 as f64);
        self.shared.state.send_replace(Arc::new(state));
    }

    /// Commits a group, here or through another node. An error means that the log cannot be continued.
    async fn commit(&mut self, group: Vec<Admitted>) -> Result<()> {
        // What is another node's, and upkeep, is committed here or not at all.
        let handable = |admitted: &Admitted| {
            admitted.request.handed.is_none() && can_be_handed(&admitted.request.intent)
        };
        let expected = self.shared.deputies_expected();
        if group.iter().all(handable) || !expected || (self.elsewhere().is_none() && self.deputy().is_none())
        {
            let handable = expected && group.iter().all(handable);
            return self.commit_here_or_elsewhere(Group::new(group, handable)).await;
        }
        // One after another: a promotion comes after what waited before it.
        let mut rest = VecDeque::from(group);
        while let Some(first) = rest.pop_front() {
            let kind = handable(&first);
            let mut run = vec![first];
            while let Some(next) = rest.pop_front_if(|next| handable(next) == kind) {
                run.push(next);
            }
            if let Err(e) = self.commit_here_or_elsewhere(Group::new(run, kind)).await {
                return fail_and_stop(rest.into(), e);
            }
        }
        Ok(())
    }

    async fn commit_here_or_elsewhere(&mut self, mut group: Group) -> Result<()> {
        while !group.members.is_empty() {
            let left = match self.elsewhere() {
                Some(_) if group.handable => self.forward(group).await?,
                _ => match self.deputy_for(&group) {
                    Some(deputy) => self.hand_over(&deputy, group).await?,
                    None => self.race(group).await?,
                },
            };
            match left {
                Some(left) => group = left,
                None => break,
            }
        }
        self.forget_keepsakes();
        Ok(())
    }

    /// Commits a group by this node itself, however often others come first. What is given back is better committed by
    /// another node, as it turned out.
    async fn race(&mut self, mut group: Group) -> Result<Option<Group>> {
        let clock = self.shared.log.env().clock.clone();
        let started = clock.monotonic();
        // Before anything is tried: a node that has become a replica meanwhile commits nothing but who writes.
        let writes = self.shared.role.borrow().check_writes();
        if let Err(e) = writes {
            let (promotions, refused) = group.members.into_iter().partition(promotes);
            fail_all(refused, &e);
            group.members = promotions;
            if group.members.is_empty() {
                return Ok(None);
            }
        }
        let barrier = group.doubt.then(|| {
            let counter = self.next_counter;
            self.next_counter += 1;
            Barrier { producer: self.shared.producer, counter }
        });
        let mut lost = 0u32;
        let mut answered = started;
        loop {
            // What others told of in time need not be found out by losing to it.
            self.apply_news();
            self.note_refreshes();
            let state = self.shared.state.borrow().clone();
            if group.handable && self.elsewhere().is_some() {
                return Ok(Some(group));
            }
            let identity = self.shared.config.identity.as_ref();
            let attempt = attempt(&mut group.members, &state, identity, barrier);
            if attempt.transactions.is_empty() {
                let stale = self.shared.log.env().mutant(Mutant::StaleRejection);
                match if stale { Ok(0) } else { self.catch_up().await } {
                    Ok(0) => {
                        self.answer_refreshes(Ok(state.seq()));
                        answer_all(group.members, attempt.fates, None, state.seq());
                        return Ok(None);
                    }
                    Ok(_) => continue,
                    Err(e) if is_passing(&e) => {
                        group.fail(&e);
                        return Ok(None);
                    }
                    Err(e) => return stop(group, e),
                }
            }
            let proposal = match self.propose(&state, attempt.transactions, attempt.payload).await {
                Ok(proposal) => proposal,
                // Nothing was sent: what cannot be encoded is its clients' to know, and stops nobody.
                Err(e) => {
                    group.fail(&e);
                    return Ok(None);
                }
            };
            if self.shared.log.env().mutant(Mutant::AckBeforeCommit) {
                spoilt::answer_early(&mut group.members, &proposal.header);
            }
            if self.shared.log.env().mutant(Mutant::VisibleBeforeCommit) {
                self.publish(state.apply(&proposal.header, proposal.encoded.hash)?.manifest);
            }
            let told = match self.append(&proposal).await {
                Ok(Told::ByStore(appended)) => {
                    answered = clock.monotonic();
                    Ok(appended)
                }
                Ok(Told::TakenByPeer) => Ok(Appended::Lost),
                Err(e) => Err(e),
            };
            match told {
                Ok(Appended::Created(hash)) => {
                    let Applied { manifest, outcomes } = match state.apply(&proposal.header, hash) {
                        Ok(applied) => applied,
                        Err(e) => {
                            let unknown = Error::outcome_unknown(format!(
                                "the write was committed, but cannot be applied here: {e}"
                            ));
                            fail_all(group.members, &unknown);
                            return Err(e);
                        }
                    };
                    self.take_note(&proposal.header);
                    self.cache_rows(&group.members, &attempt.fates.each, &proposal.header, &outcomes);
                    let seq = proposal.header.seq;
                    let object = || RecentCommit::new(proposal.encoded.bytes, Some(proposal.payload), true);
                    self.shared.recent.keep(seq, object, true);
                    self.publish(manifest);
                    self.answer_refreshes(Ok(seq));
                    let now = clock.monotonic();
                    self.others.saw_the_end(now);
                    let took = now - started;
                    if lost == 0 {
                        self.contention.raced(false, now);
                        self.tell_contention();
                    }
                    self.company.committed(took);
                    metrics::histogram!("tandem_commit_seconds").record(took.as_secs_f64());
                    metrics::counter!("tandem_commits_total").increment(1);
                    answer_all(group.members, attempt.fates, Some(outcomes), seq);
                    return Ok(None);
                }
                Ok(Appended::Lost) => {
                    metrics::counter!("tandem_commits_lost_total").increment(1);
                    lost += 1;
                    self.contention.raced(true, clock.monotonic());
                    self.tell_contention();
                    // With the help of peers alone this node would see all commits and never make one.
                    if clock.monotonic() - answered > SILENT_MAX {
                        group.fail(&Error::unavailable(
                            "the store does not answer this node, and others commit",
                        ));
                        return Ok(None);
                    }
                    if self.shared.applied() < proposal.header.seq && !self.apply_news() {
                        match self.catch_up().await {
                            Ok(_) => {}
                            Err(e) if is_passing(&e) => {
                                group.fail(&e);
                                return Ok(None);
                            }
                            Err(e) => return stop(group, e),
                        }
                    }
                    if self.deputy_for(&group).is_some() {
                        return Ok(Some(group));
                    }
                    self.pause(lost).await;
                }
                Ok(Appended::Reopened) => match self.start_over().await {
                    // The commit may have been in the log before that was trimmed: tokens tell, and nothing else does.
                    Ok(()) => {
                        let (told, untold) = group.members.into_iter().partition(is_told_by_token);
                        fail_all(untold, &trimmed(""));
                        group.members = told;
                        if group.members.is_empty() {
                            return Ok(None);
                        }
                    }
                    Err(e) => {
                        fail_all(group.members, &trimmed(&format!("; {e}")));
                        return if is_passing(&e) { Ok(None) } else { Err(e) };
                    }
                },
                Ok(Appended::Unknown(reason)) => {
                    let e = Error::outcome_unknown(format!(
                        "whether the write was committed is unknown, the store did not answer: {reason}"
                    ));
                    fail_all(group.members, &e);
                    return Ok(None);
                }
                // The commit was sent and may stand: its clients must not take this for a rejection.
                Err(e) => {
                    let unknown = Error::outcome_unknown(format!(
                        "whether the write was committed is unknown, the log cannot be continued: {e}"
                    ));
                    fail_all(group.members, &unknown);
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

    async fn propose(
        &mut self,
        state: &Manifest,
        transactions: Vec<Transaction>,
        payload: Vec<Bytes>,
    ) -> Result<Proposal> {
        let env = self.shared.log.env();
        let raw_clock = env.clock.now_micros();
        let commit_time = self.time.of_commit(&self.shared.log, state, raw_clock).await;
        let header = CommitHeader {
            seq: state.seq().next(),
            commit_id: CommitId(env.chance.next_u128()),
            writer: self.shared.id,
            database: self.shared.log.database(),
            previous: state.header_hash(),
            commit_time,
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
            let sections = transaction.ops.iter().flat_map(Op::table_sections);
            for (section, ((table, stored), body)) in sections.zip(&admitted.request.bodies).enumerate() {
                if let (Some(rows), Ok(transaction), Ok(section)) =
                    (&body.rows, u32::try_from(*index), u32::try_from(section))
                {
                    let key = SectionKey { seq: header.seq, transaction, section };
                    self.shared.tail.insert(table, key, rows.clone(), stored.len);
                }
            }
        }
    }
}

fn fail_and_stop(group: Vec<Admitted>, error: Error) -> Result<()> {
    fail_all(group, &error);
    Err(error)
}

fn stop(group: Group, error: Error) -> Result<Option<Group>> {
    group.fail(&error);
    Err(error)
}

/// Whether this says who writes.
fn promotes(admitted: &Admitted) -> bool {
    is_promotion(admitted.request.intent.epoch, &admitted.request.intent.steps)
}

/// Whether any later state says of this request whether it was committed.
fn is_told_by_token(admitted: &Admitted) -> bool {
    let token = &admitted.request.intent.token;
    matches!(token, Some(TransactionToken::Counted(_) | TransactionToken::Foreign(_)))
}

fn trimmed(but: &str) -> Error {
    Error::outcome_unknown(format!(
        "whether the write was committed is unknown: the log was trimmed past it while it was tried{but}"
    ))
}

fn is_passing(error: &Error) -> bool {
    use tandem_types::ErrorKind::{DeadlineExceeded, Overloaded, Unavailable};
    matches!(error.kind(), Unavailable | Overloaded | DeadlineExceeded)
}
