//! The commits that were applied last, as they are stored: for followers, who get them pushed, and for readers of their
//! rows, who need not ask the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tandem_log::StoredCommit;
use tandem_types::Seq;

/// Costs of an entry beside its bytes.
const ENTRY_BYTES: usize = 256;

/// A commit's bytes.
#[derive(Clone, Debug)]
pub struct RecentCommit {
    /// The object's first bytes, up to the end of its header and the zeros behind it.
    header: Bytes,
    /// `None` if it is not at hand.
    payload: Option<Vec<Bytes>>,
    /// Whether this process made it.
    pub own: bool,
}

impl RecentCommit {
    pub(crate) fn new(header: Bytes, payload: Option<Vec<Bytes>>, own: bool) -> Self {
        Self { header, payload, own }
    }

    /// Of a commit that somebody else made.
    pub(crate) fn of_others(stored: &StoredCommit) -> Self {
        Self::new(stored.header.clone(), stored.payload.clone().map(|p| vec![p]), false)
    }

    /// The object, and whether that is all of it: its payload is left out if it is not at hand or larger than
    /// `payload_max`.
    pub fn object(&self, payload_max: usize) -> (Bytes, bool) {
        let payload = self.payload.as_ref().filter(|p| bytes_of(p) <= payload_max);
        let Some(payload) = payload else { return (self.header.clone(), false) };
        let mut object = BytesMut::with_capacity(self.header.len() + bytes_of(payload));
        object.extend_from_slice(&self.header);
        for chunk in payload {
            object.extend_from_slice(chunk);
        }
        (object.freeze(), true)
    }

    /// The payload in one piece, if it is at hand.
    pub fn payload(&self) -> Option<Bytes> {
        match self.payload.as_ref()?.as_slice() {
            [one] => Some(one.clone()),
            chunks => Some(chunks.concat().into()),
        }
    }

    fn bytes(&self) -> usize {
        self.header.len() + self.payload.as_ref().map_or(0, |p| bytes_of(p)) + ENTRY_BYTES
    }
}

fn bytes_of(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

/// A window on the end of the log, bounded in bytes: the oldest commits leave first. It may have gaps.
#[derive(Debug)]
pub struct Recent {
    capacity: usize,
    followers: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    commits: BTreeMap<Seq, Arc<RecentCommit>>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, followers: AtomicUsize::new(0), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two steps leaves a window that counts more than it holds: it keeps less.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a commit. One of this process's own is kept only while somebody follows: its rows are in memory already.
    pub(crate) fn keep(&self, seq: Seq, commit: impl FnOnce() -> RecentCommit, own: bool) {
        if own && self.followers() == 0 {
            return;
        }
        let commit = commit();
        let mut inner = self.lock();
        inner.bytes += commit.bytes();
        if let Some(replaced) = inner.commits.insert(seq, Arc::new(commit)) {
            inner.bytes = inner.bytes.saturating_sub(replaced.bytes());
        }
        while inner.bytes > self.capacity {
            let Some((_, oldest)) = inner.commits.pop_first() else { break };
            inner.bytes = inner.bytes.saturating_sub(oldest.bytes());
        }
    }

    pub fn get(&self, seq: Seq) -> Option<Arc<RecentCommit>> {
        self.lock().commits.get(&seq).cloned()
    }

    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How many follow this process.
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Acquire)
    }

    /// Somebody follows, until the answer is dropped.
    pub fn follow(self: &Arc<Self>) -> Follower {
        self.followers.fetch_add(1, Ordering::AcqRel);
        Follower(self.clone())
    }
}

/// One who follows this process.
#[derive(Debug)]
pub struct Follower(Arc<Recent>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(bytes: usize) -> RecentCommit {
        RecentCommit::new(
            Bytes::from_static(b"head"),
            Some(vec![vec![1; bytes].into(), vec![2].into()]),
            true,
        )
    }

    #[test]
    fn the_oldest_leave_first_and_bytes_stay_within_bounds() {
        let recent = Recent::new(10_000);
        for seq in 1..=5 {
            recent.keep(Seq(seq), || commit(3_000), false);
            assert!(recent.bytes() <= 10_000);
        }
        let kept: Vec<u64> = (1..=5).filter(|seq| recent.get(Seq(*seq)).is_some()).collect();
        assert_eq!(kept, [3, 4, 5]);
        recent.keep(Seq(6), || commit(20_000), false);
        assert_eq!(recent.bytes(), 0, "one larger than the window is not kept");
    }

    #[test]
    fn own_commits_are_kept_while_somebody_follows() {
        let recent = Arc::new(Recent::new(10_000));
        recent.keep(Seq(1), || commit(1), true);
        assert!(recent.get(Seq(1)).is_none());
        let follower = recent.follow();
        recent.keep(Seq(2), || commit(1), true);
        assert!(recent.get(Seq(2)).is_some());
        drop(follower);
        assert_eq!(recent.followers(), 0);
    }

    #[test]
    fn a_large_payload_is_left_out_and_a_small_one_is_whole() {
        let commit = commit(3);
        assert_eq!(commit.object(4), (Bytes::from_static(b"head\x01\x01\x01\x02"), true));
        assert_eq!(commit.object(3), (Bytes::from_static(b"head"), false));
        assert_eq!(commit.payload().unwrap(), Bytes::from_static(b"\x01\x01\x01\x02"));
        let bare = RecentCommit::new(Bytes::from_static(b"head"), None, false);
        assert_eq!((bare.object(9), bare.payload()), ((Bytes::from_static(b"head"), false), None));
    }
}
