//! What all clones of a client share: the connection, the tokens, and what was written last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::links::{Link, Links};
use crate::retry::{Outside, Retry};
use crate::statement::Setting;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) links: Arc<Links>,
    pub(crate) outside: Outside,
    /// 128 random bits: nobody else's tokens begin so.
    producer: String,
    counter: AtomicU64,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// The newest commit that a write of this client is in.
    written_seq: u64,
    /// The link whose node is known to have applied it.
    applied_at: u64,
    /// What the session's option demands of reads.
    min_seq: u64,
    /// What the session's option gave to the next write.
    token: Option<String>,
    /// The link whose session has a transaction open.
    transaction: Option<u64>,
}

impl Shared {
    pub(crate) fn new(links: Links, outside: Outside) -> Self {
        let producer = format!("{:032x}", outside.chance.next_u128());
        let standing = Mutex::default();
        Self { links: Arc::new(links), outside, producer, counter: AtomicU64::new(0), standing }
    }

    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.links.clone(), self.outside.clone())
    }

    /// The token of the next write: what the session's option says, else one that was never used.
    pub(crate) fn next_token(&self) -> String {
        let given = self.standing().token.take();
        given.unwrap_or_else(|| {
            let number = self.counter.fetch_add(1, Ordering::Relaxed);
            format!("{}-{number}", self.producer)
        })
    }

    /// A write is in this commit, says the node at this link.
    pub(crate) fn wrote(&self, seq: u64, link: &Link) {
        let mut standing = self.standing();
        if seq >= standing.written_seq {
            standing.written_seq = seq;
            standing.applied_at = link.generation;
        }
    }

    /// What a read over this link has to demand, so that it sees what this client wrote elsewhere.
    pub(crate) fn min_seq(&self, link: &Link) -> Option<u64> {
        let standing = self.standing();
        let needed = standing.written_seq > 0 && standing.applied_at != link.generation;
        // A request's demand hides the session's.
        needed.then(|| standing.written_seq.max(standing.min_seq))
    }

    /// A read over this link was answered that had demanded `min_seq`.
    pub(crate) fn has_applied(&self, min_seq: u64, link: &Link) {
        let mut standing = self.standing();
        if min_seq >= standing.written_seq {
            standing.applied_at = link.generation;
        }
    }

    /// A transaction was begun over this link, or one has ended.
    pub(crate) fn in_transaction_at(&self, link: Option<&Link>) {
        self.standing().transaction = link.map(|link| link.generation);
    }

    /// Whether a transaction is open, and if it is over this link.
    pub(crate) fn transaction_at(&self, link: &Link) -> Option<bool> {
        self.standing().transaction.map(|generation| generation == link.generation)
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        self.standing().transaction.is_some()
    }

    /// A statement set an option of the session.
    pub(crate) fn was_set(&self, setting: Setting, sql: &str) {
        let (name, value) = match &setting {
            Setting::Set(name, value) => (name.as_str(), Some(value.as_str())),
            Setting::Reset(name) => (name.as_str(), None),
        };
        match name {
            // Used up by one write, so it is no business of the next session's.
            "tandem.token" => {
                let given = value.filter(|v| !v.is_empty() && !v.eq_ignore_ascii_case("default"));
                self.standing().token = given.map(str::to_owned);
                return;
            }
            "tandem.min_seq" => {
                self.standing().min_seq = value.and_then(|v| v.parse().ok()).unwrap_or_default();
            }
            _ => {}
        }
        self.links.remember(setting, sql);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
