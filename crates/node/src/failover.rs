//! Taking over from a primary that fell silent.
//!
//! Every standby may. It counts how long it has seen no sign of the primary's life: no commit in the log, no change of its
//! heartbeat, no answer to a call. When that is longer than `failover_after`, it makes the commit that promotes itself, after
//! as many waits as there are better candidates. Of those who do so at once the log takes one. A wrong suspicion costs a
//! redirect of clients, never data; so what is decided here need not be certain, and no clock but this node's is asked.
//!
//! Where heartbeats are further apart than `failover_after` (on an object store they come every 5 s), calls bridge the gap: a
//! silent primary is called, and its answer, for which it has to reach the store itself, is a sign of life like any other. A
//! primary that this node was never able to call is given at least [`BEATS_MISSED`] heartbeats.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join3;
use tandem_env::within;
use tandem_format::Primary;
use tandem_manifest::Manifest;
use tandem_types::{Epoch, ErrorKind, Seq, parse_duration};

use crate::Shared;
use crate::peers::{Heartbeat, Seen};
use crate::roles::STANDBY;

/// How often the signs are looked at.
const TICK: Duration = Duration::from_millis(100);
const TICK_MIN: Duration = Duration::from_millis(10);

/// A primary that was never reached by a call may miss this many heartbeats.
const BEATS_MISSED: u32 = 3;

/// A primary that could be called is called again at least this often, so that it is known that it can be.
const CALL_EVERY: Duration = Duration::from_secs(30);

/// Bounds of what a call may take, and of how much later the next candidate is.
const CALL_FOR: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
const RANK_STEP: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How long the store may take to say that nothing has happened.
const STORE_FOR: Duration = Duration::from_secs(3);

/// After an attempt that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>, interval: Duration) {
    let (Some(me), Some(_)) = (shared.identity().cloned(), shared.config.failover_priority) else { return };
    let clock = shared.env.clock.clone();
    let mut states = shared.writer.watch();
    let mut watch = None;
    loop {
        let state = states.borrow_and_update().clone();
        let after = failover_after(&state);
        let (true, Some(after)) = (state.is_single_primary() && !shared.is_primary(&state), after) else {
            watch = None;
            metrics::gauge!("tandem_primary_silent_seconds").set(0.0);
            if states.changed().await.is_err() {
                return;
            }
            continue;
        };
        let watch = watch.get_or_insert_with(|| Watch::new(clock.monotonic()));
        shared.stand_by(watch, &me, &state, Patience { after, interval }).await;
        clock.sleep((after / 4).clamp(TICK_MIN, TICK)).await;
    }
}

/// The setting; `None` if nobody is to take over.
fn failover_after(state: &Manifest) -> Option<Duration> {
    const NAME: &str = "failover_after";
    let default = || {
        let defined = tandem_manifest::DATABASE_SETTINGS.iter().find(|setting| setting.name == NAME);
        defined.and_then(|setting| parse_duration(setting.default).ok())
    };
    match state.setting(NAME) {
        Some("off") => None,
        Some(set) => parse_duration(set).ok().or_else(default),
        None => default(),
    }
}

impl Shared {
    /// One look at the signs, and what follows from it.
    async fn stand_by(&self, watch: &mut Watch, me: &Primary, state: &Manifest, patience: Patience) {
        let clock = &*self.env.clock;
        let silent = watch.look(clock.monotonic(), self.signs(state), patience);
        metrics::gauge!("tandem_primary_silent_seconds").set(silent.as_secs_f64());
        let Some(primary) = state.primary() else {
            // Nobody can be asked.
            if silent >= patience.after + self.wait_of_rank(me, patience) {
                self.take_over(watch, me, state).await;
            }
            return;
        };
        if watch.wants_call(clock.monotonic(), silent, patience) {
            if silent > patience.after / 2 {
                // The other candidates say how far they are, and this one says so to them.
                self.peers.look.notify_one();
            }
            watch.called = Some(clock.monotonic());
            if self.ask_at_store(primary, patience.call()).await.is_ok() {
                watch.answered(clock.monotonic());
                return;
            }
        }
        let wait = self.wait_of_rank(me, patience);
        if silent < patience.limit(watch.reached.is_some()) + wait || clock.monotonic() < watch.retry_at {
            return;
        }
        // Here, at the latest, it must show that the log can be reached, and that the silence is the primary's and not its own.
        let (looked, read, called) = join3(
            within(clock, STORE_FOR, self.look()),
            within(clock, STORE_FOR, self.writer.catch_up_now()),
            self.ask_at_store(primary, patience.call()),
        )
        .await;
        if called.is_ok() {
            watch.answered(clock.monotonic());
        }
        let at_store = matches!((looked, read), (Some(Ok(())), Some(Ok(_))));
        let now = self.writer.state();
        let silent = watch.look(clock.monotonic(), self.signs(&now), patience);
        if !at_store {
            tracing::warn!("the primary is silent, and so is the store: nobody can take over from here");
            watch.retry_at = clock.monotonic() + RETRY_AFTER;
            return;
        }
        if silent < patience.limit(watch.reached.is_some()) + self.wait_of_rank(me, patience) {
            return;
        }
        tracing::warn!(
            primary = %primary.node_id, address = %primary.address, ?silent, "the primary is silent: taking over"
        );
        self.take_over(watch, me, &now).await;
    }

    async fn take_over(&self, watch: &mut Watch, me: &Primary, state: &Manifest) {
        let now = self.env.clock.monotonic();
        if now < watch.retry_at {
            return;
        }
        watch.retry_at = now + RETRY_AFTER;
        match self.commit_promotion(state, me.clone(), "failover").await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Serialization => {
                tracing::info!(%error, "another candidate was quicker");
            }
            Err(error) => tracing::warn!(%error, "taking over failed, trying again"),
        }
    }

    fn signs(&self, state: &Manifest) -> Signs {
        let beat = state.primary().and_then(|primary| self.peers.find(&primary.node_id));
        Signs { epoch: state.epoch(), seq: state.seq(), beat: beat.map(|seen| seen.changed) }
    }

    /// Who would take over first if this node, the primary, fell silent.
    pub(crate) fn best_standby(&self) -> Option<Primary> {
        let alive = self.peers.alive(self.env.clock.monotonic());
        let reached = alive.iter().filter(|seen| seen.heartbeat.address.is_some());
        let candidates =
            reached.filter_map(|seen| Candidate::of(&seen.heartbeat).map(|c| (c, &seen.heartbeat)));
        let (_, best) = candidates.min_by(|(a, _), (b, _)| a.order().cmp(&b.order()))?;
        Some(Primary { node_id: best.node_id.clone(), address: best.address.clone()? })
    }

    /// How much longer than the best candidate this one waits.
    fn wait_of_rank(&self, me: &Primary, patience: Patience) -> Duration {
        let now = self.env.clock.monotonic();
        let mine = Candidate {
            node_id: &me.node_id,
            priority: self.config.failover_priority.unwrap_or_default(),
            applied: self.writer.state().seq(),
        };
        let others = self.peers.alive(now);
        patience.rank_step() * rank(&mine, &others)
    }
}

/// Who might take over.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    node_id: &'a str,
    priority: u8,
    applied: Seq,
}

impl<'a> Candidate<'a> {
    fn of(heartbeat: &'a Heartbeat) -> Option<Self> {
        let priority = heartbeat.failover_priority.filter(|_| heartbeat.role == STANDBY)?;
        Some(Self { node_id: &heartbeat.node_id, priority, applied: heartbeat.applied() })
    }

    /// What decides who is first: who is wanted, then who has most, then anything on which all agree.
    fn order(&self) -> impl Ord + use<'a> {
        (Reverse(self.priority), Reverse(self.applied), self.node_id)
    }
}

/// How many of the others come before this one.
fn rank(mine: &Candidate<'_>, others: &[Seen]) -> u32 {
    let others = others.iter().filter_map(|seen| Candidate::of(&seen.heartbeat));
    let better = others.filter(|other| other.order() < mine.order()).count();
    u32::try_from(better).unwrap_or(u32::MAX)
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The setting.
    after: Duration,
    /// Between heartbeats.
    interval: Duration,
}

impl Patience {
    /// The silence after which a primary is replaced.
    fn limit(&self, reached: bool) -> Duration {
        if reached { self.after } else { self.after.max(self.interval * BEATS_MISSED) }
    }

    fn call(&self) -> Duration {
        (self.after / 3).clamp(CALL_FOR.0, CALL_FOR.1)
    }

    fn rank_step(&self) -> Duration {
        (self.after / 2).clamp(RANK_STEP.0, RANK_STEP.1)
    }
}

/// What is to be seen of the primary.
#[derive(Clone, Copy, Debug)]
struct Signs {
    epoch: Epoch,
    seq: Seq,
    /// When its heartbeat was last seen to change.
    beat: Option<Duration>,
}

/// What was seen of the present primary.
#[derive(Debug)]
struct Watch {
    epoch: Option<Epoch>,
    seq: Seq,
    /// The last sign of life.
    sign: Duration,
    /// When it last answered a call in this epoch, and when it was last called.
    reached: Option<Duration>,
    called: Option<Duration>,
    looked: Duration,
    retry_at: Duration,
}

impl Watch {
    fn new(now: Duration) -> Self {
        Self { epoch: None, seq: Seq(0), sign: now, reached: None, called: None, looked: now, retry_at: now }
    }

    /// Takes the signs in; how long the primary has been silent.
    fn look(&mut self, now: Duration, signs: Signs, patience: Patience) -> Duration {
        if self.epoch != Some(signs.epoch) {
            // A new primary has all the time that a living one has.
            *self = Self { epoch: Some(signs.epoch), sign: now, ..Self::new(now) };
        }
        // Whoever was frozen, or had no processor, has been deaf for as long.
        let deaf =
            now.saturating_sub(self.looked) > TICK + patience.call() + STORE_FOR.min(patience.after / 2);
        if signs.seq > self.seq || deaf {
            self.sign = now;
        }
        self.seq = signs.seq;
        self.sign = self.sign.max(signs.beat.unwrap_or_default());
        self.looked = now;
        now.saturating_sub(self.sign)
    }

    fn answered(&mut self, now: Duration) {
        self.reached = Some(now);
        self.sign = now;
        self.looked = now;
    }

    /// Whether it is time to call: often while there is a suspicion, else now and then, to know that it can be called.
    fn wants_call(&self, now: Duration, silent: Duration, patience: Patience) -> bool {
        let Some(called) = self.called else { return true };
        let pause = match self.reached {
            _ if silent > patience.after / 2 => patience.after / 4,
            Some(_) => CALL_EVERY,
            None => patience.after,
        };
        now.saturating_sub(called) >= pause
    }
}

#[cfg(test)]
mod tests;
