//! What all share: the objects, the clock, the dice, the truth, and the first violation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tandem_env::sim::{SimChance, SimClock};
use tandem_env::{Chance, Clock, Mutant};
use tandem_types::{Seq, WriterId};

use crate::plan::Plan;
use crate::scripts::Way;
use crate::truth::Truth;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `I1` to `I29` of `reliability-notes.md`.
    pub name: &'static str,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// Kinds of events, each with its number: [`event`].
pub const EVENTS: usize = 15;

/// What happens.
pub mod event {
    pub const PUT: u64 = 0;
    pub const GET: u64 = 1;
    pub const LIST: u64 = 2;
    pub const BIRTH: u64 = 3;
    pub const DEATH: u64 = 4;
    pub const KILL: u64 = 5;
    pub const PUSH: u64 = 6;
    pub const ANSWER: u64 = 7;
    pub const HANDED: u64 = 8;
    pub const HANDED_BACK: u64 = 9;
    pub const TRIM: u64 = 10;
    pub const PAUSE: u64 = 11;
    pub const DELETE: u64 = 12;
    pub const LOOK_BACK: u64 = 13;
    pub const RESTORE: u64 = 14;
}

#[derive(Debug)]
pub struct World {
    pub clock: Arc<SimClock>,
    pub plan: Plan,
    pub mutant: Option<Mutant>,
    pub chance: SimChance,
    objects: Mutex<BTreeMap<String, Bytes>>,
    truth: Mutex<Truth>,
    /// Whose process a writer is.
    writers: Mutex<BTreeMap<WriterId, String>>,
    violation: Mutex<Option<Violation>>,
    /// No more faults: what was begun is to end well.
    calm: AtomicBool,
    /// The log's floor.
    floor: AtomicU64,
    trace: AtomicU64,
    steps: AtomicU64,
    calls: AtomicU64,
    counts: [AtomicU64; EVENTS],
}

impl World {
    pub fn new(plan: Plan, mutant: Option<Mutant>) -> Arc<Self> {
        let chance = SimChance::new(plan.seed);
        Arc::new(Self {
            clock: Arc::new(SimClock::manual()),
            plan,
            mutant,
            chance,
            objects: Mutex::default(),
            truth: Mutex::default(),
            writers: Mutex::default(),
            violation: Mutex::default(),
            calm: AtomicBool::new(false),
            floor: AtomicU64::new(0),
            trace: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            counts: [const { AtomicU64::new(0) }; EVENTS],
        })
    }

    pub fn below(&self, n: u64) -> u64 {
        self.chance.below(n)
    }

    /// Whether something of this share of 256 happens.
    pub fn share(&self, share: u64) -> bool {
        share > 0 && self.below(256) < share
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.below((to - from) * 1000 + 1))
    }

    pub async fn sleep(&self, d: Duration) {
        self.clock.sleep(d).await;
    }

    /// As a value that waits by itself.
    pub fn clock_sleep(&self, d: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.clock.sleep(d)
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Relaxed)
    }

    pub fn calm_down(&self) {
        self.calm.store(true, Relaxed);
    }

    /// The log up to here may be gone.
    pub fn floor(&self) -> Seq {
        Seq(self.floor.load(Relaxed))
    }

    pub fn raise_floor(&self, floor: Seq) {
        self.floor.fetch_max(floor.0, Relaxed);
        self.note(&[event::TRIM, floor.0]);
    }

    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().unwrap()
    }

    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    pub fn writers(&self) -> MutexGuard<'_, BTreeMap<WriterId, String>> {
        self.writers.lock().unwrap()
    }

    pub fn node_of(&self, writer: WriterId) -> Option<String> {
        self.writers().get(&writer).cloned()
    }

    /// The last commit that was created.
    pub fn head(&self) -> Seq {
        self.truth().head()
    }

    /// Only the first counts: the rest may be its consequences.
    pub fn blame(&self, name: &'static str, text: String) {
        self.violation.lock().unwrap().get_or_insert(Violation { name, text });
    }

    pub fn violation(&self) -> Option<Violation> {
        self.violation.lock().unwrap().clone()
    }

    /// A step of the schedule, for its fingerprint.
    pub fn note(&self, what: &[u64]) {
        let now = u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX);
        let mut hash = self.trace.load(Relaxed);
        for word in what.iter().chain([&now]) {
            hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        self.trace.store(hash, Relaxed);
        self.steps.fetch_add(1, Relaxed);
        let event = what.first().and_then(|event| usize::try_from(*event).ok());
        if let Some(count) = event.and_then(|event| self.counts.get(event)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub fn fingerprint(&self) -> u64 {
        self.trace.load(Relaxed)
    }

    /// Counts a store call, up to the calm, and says how it goes wrong if it is the one.
    pub fn call(&self) -> Option<Way> {
        if self.is_calm() {
            return None;
        }
        let number = self.calls.fetch_add(1, Relaxed) + 1;
        self.plan.single.and_then(|(single, way)| (single == number).then_some(way))
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// How often each kind of event happened.
    pub fn counts(&self) -> [u64; EVENTS] {
        std::array::from_fn(|event| self.counts.get(event).map_or(0, |count| count.load(Relaxed)))
    }

    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }
}

/// A path, for a fingerprint.
pub fn word(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
