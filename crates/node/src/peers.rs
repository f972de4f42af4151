//! The other nodes of the database, as their heartbeats in the store show them.
//!
//! A heartbeat is advice: it says where a node can be reached and how it is. Nothing that counts is decided by one. A
//! node is taken for alive while its heartbeat keeps changing, by the clock of whoever looks: clocks of different machines
//! are never compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_types::{Result, Seq};
use tokio::sync::{Notify, watch};

use crate::roles::{PRIMARY, WRITER};

/// What a node says of itself, in `nodes/<node id>.json`. Fields that are not known are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heartbeat {
    pub node_id: String,
    pub address: Option<String>,
    /// `writer`, `primary`, `standby` or `replica`.
    pub role: String,
    /// 0 to 100; `None`: it never takes over from a primary.
    pub failover_priority: Option<u8>,
    /// Random per process start.
    pub incarnation: String,
    pub epoch: u64,
    pub applied_seq: u64,
    /// The oldest state that something there reads; `None`: nothing but the applied one.
    pub oldest_seq: Option<u64>,
    /// What all commits up to there appended.
    pub logged_rows: u64,
    pub logged_bytes: u64,
    pub lag_seconds: f64,
    pub version: String,
    /// Microseconds since 1970 by the node's own clock; for people.
    pub time: i64,
    /// Grows with each heartbeat.
    pub beat: u64,
}

impl Heartbeat {
    pub fn applied(&self) -> Seq {
        Seq(self.applied_seq)
    }

    /// Whether it says that it writes now.
    pub fn is_writer(&self) -> bool {
        self.role == WRITER || self.role == PRIMARY
    }
}

/// A heartbeat, and when it was last seen to change.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub heartbeat: Heartbeat,
    /// By the clock here, that never steps back.
    pub changed: Duration,
    /// Whether it ever changed since it was first seen: what never did may be long dead.
    pub moving: bool,
    /// Rounds of looking that found no change.
    pub still: u32,
}

/// All heartbeats but this node's own.
#[derive(Debug)]
pub(crate) struct Peers {
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Grows when somebody came, went, or moved.
    pub changes: watch::Sender<u64>,
    /// Asks for a look at once.
    pub look: Notify,
    /// How long a heartbeat may stay the same before its node is taken for gone.
    patience: Duration,
}

/// A heartbeat that does not change is read only once in so many rounds.
const STILL_ROUNDS: u32 = 16;

impl Peers {
    pub fn new(patience: Duration) -> Self {
        let (changes, _) = watch::channel(0);
        Self { seen: Mutex::default(), changes, look: Notify::new(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this object should be read in this round: those that have long stood still are mostly passed over.
    pub fn wants(&self, node_id: &str) -> bool {
        match self.lock().get_mut(node_id) {
            Some(seen) if seen.still > STILL_ROUNDS => {
                seen.still += 1;
                seen.still.is_multiple_of(STILL_ROUNDS)
            }
            _ => true,
        }
    }

    /// Notes what was found under a node's name.
    pub fn found(&self, heartbeat: Heartbeat, now: Duration) {
        let mut seen = self.lock();
        let moved = match seen.get_mut(&heartbeat.node_id) {
            None => {
                let first = Seen { heartbeat: heartbeat.clone(), changed: now, moving: false, still: 0 };
                seen.insert(heartbeat.node_id.clone(), first);
                true
            }
            Some(known) => {
                let same = (&known.heartbeat.incarnation, known.heartbeat.beat)
                    == (&heartbeat.incarnation, heartbeat.beat);
                if same {
                    known.still += 1;
                    false
                } else {
                    let back = !known.moving || now.saturating_sub(known.changed) > self.patience;
                    let other = known.heartbeat.address != heartbeat.address
                        || known.heartbeat.role != heartbeat.role
                        || known.heartbeat.incarnation != heartbeat.incarnation;
                    *known = Seen { heartbeat, changed: now, moving: true, still: 0 };
                    back || other
                }
            }
        };
        drop(seen);
        if moved {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// Forgets those whose objects are gone.
    pub fn only(&self, node_ids: &[String]) {
        self.lock().retain(|node_id, _| node_ids.contains(node_id));
    }

    /// Those whose heartbeat has not changed for this long.
    pub fn unchanged_for(&self, time: Duration, now: Duration) -> Vec<String> {
        let seen = self.lock();
        let old = seen.iter().filter(|(_, seen)| now.saturating_sub(seen.changed) > time);
        old.map(|(node_id, _)| node_id.clone()).collect()
    }

    pub fn all(&self) -> Vec<Seen> {
        self.lock().values().cloned().collect()
    }

    /// Those that may be alive: their heartbeat changed lately, or was found only now.
    pub fn live(&self, now: Duration) -> Vec<Heartbeat> {
        self.alive(now).into_iter().map(|seen| seen.heartbeat).collect()
    }

    /// What is known of one.
    pub fn find(&self, node_id: &str) -> Option<Seen> {
        self.lock().get(node_id).cloned()
    }

    pub fn alive(&self, now: Duration) -> Vec<Seen> {
        let seen = self.lock();
        seen.values().filter(|s| now.saturating_sub(s.changed) <= self.patience).cloned().collect()
    }

    /// Nodes that are surely alive and say that they are reached at an address.
    pub fn also_at(&self, address: &str, now: Duration) -> Vec<String> {
        let there = |seen: &Seen| seen.moving && seen.heartbeat.address.as_deref() == Some(address);
        self.alive(now).into_iter().filter(there).map(|seen| seen.heartbeat.node_id).collect()
    }

    /// Addresses of writers: those that are surely alive, else those that may be.
    pub fn writers(&self, now: Duration) -> Vec<String> {
        let live = self.alive(now);
        let addresses = |sure: bool| -> Vec<String> {
            let writers = live.iter().filter(|s| s.heartbeat.is_writer() && (s.moving || !sure));
            writers.filter_map(|s| s.heartbeat.address.clone()).collect()
        };
        let sure = addresses(true);
        if sure.is_empty() { addresses(false) } else { sure }
    }
}

/// Refuses ids that cannot be a file's name everywhere.
pub(crate) fn check_node_id(node_id: &str) -> Result<()> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = (1..=64).contains(&node_id.len())
        && node_id.bytes().all(fit)
        && !node_id.starts_with('.')
        && !node_id.ends_with('.');
    if good {
        return Ok(());
    }
    Err(tandem_types::Error::invalid(format!(
        "the node id {node_id:?} is not fit for a name: use 1 to 64 letters, digits, '.', '_' and '-', \
         with no '.' at either end"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(node_id: &str, beat: u64) -> Heartbeat {
        Heartbeat {
            node_id: node_id.into(),
            address: Some(format!("grpc://{node_id}:1")),
            role: "writer".into(),
            incarnation: "1".into(),
            beat,
            ..Heartbeat::default()
        }
    }

    #[test]
    fn a_node_lives_while_its_heartbeat_changes() {
        let peers = Peers::new(3 * SECOND);
        peers.found(beat("a", 1), SECOND);
        peers.found(beat("b", 1), SECOND);
        assert_eq!(peers.writers(SECOND).len(), 2, "both may be alive");
        peers.found(beat("a", 2), 2 * SECOND);
        peers.found(beat("b", 1), 2 * SECOND);
        assert_eq!(peers.writers(2 * SECOND), ["grpc://a:1"], "one surely is");
        let live: Vec<_> = peers.live(5 * SECOND).into_iter().map(|h| h.node_id).collect();
        assert_eq!(live, ["a"]);
        assert!(peers.live(6 * SECOND).is_empty());
        assert_eq!(peers.unchanged_for(4 * SECOND, 6 * SECOND), ["b"]);
        // A clock set back, and a process started anew, are changes like any other.
        peers.found(Heartbeat { incarnation: "2".into(), ..beat("b", 1) }, 7 * SECOND);
        assert_eq!(peers.writers(7 * SECOND), ["grpc://b:1"]);
        peers.only(&["b".to_owned()]);
        assert_eq!(peers.all().len(), 1);
    }

    #[test]
    fn a_node_at_an_address_is_told_from_what_a_dead_one_left_there() {
        let peers = Peers::new(3 * SECOND);
        for node_id in ["a", "b"] {
            peers.found(Heartbeat { address: Some("grpc://x:1".into()), ..beat(node_id, 1) }, SECOND);
        }
        assert_eq!(peers.also_at("grpc://x:1", SECOND), [""; 0], "both may be long dead");
        peers.found(Heartbeat { address: Some("grpc://x:1".into()), ..beat("a", 2) }, 2 * SECOND);
        assert_eq!(peers.also_at("grpc://x:1", 2 * SECOND), ["a"]);
        assert_eq!(peers.also_at("grpc://a:1", 2 * SECOND), [""; 0]);
    }

    #[test]
    fn only_what_matters_is_told() {
        let peers = Peers::new(3 * SECOND);
        let changes = |peers: &Peers| *peers.changes.borrow();
        peers.found(beat("a", 1), SECOND);
        peers.found(beat("a", 2), 2 * SECOND);
        let before = changes(&peers);
        peers.found(beat("a", 3), 3 * SECOND);
        assert_eq!(changes(&peers), before, "it goes on as it did");
        peers.found(beat("a", 4), 9 * SECOND);
        assert_ne!(changes(&peers), before, "it is back");
    }

    #[test]
    fn what_stands_still_is_read_rarely() {
        let peers = Peers::new(SECOND);
        let mut reads = 0;
        for round in 0..160 {
            if peers.wants("a") {
                reads += 1;
                peers.found(beat("a", 1), SECOND * round);
            }
        }
        assert!((17..40).contains(&reads), "{reads} reads in 160 rounds");
    }

    #[test]
    fn ids_must_be_names() {
        for good in ["n", "node-1", "a.b_c"] {
            assert!(check_node_id(good).is_ok());
        }
        for bad in ["", "a/b", "..", ".a", "a b", "ä", &"x".repeat(65)] {
            assert!(check_node_id(bad).is_err(), "{bad:?}");
        }
    }
}
