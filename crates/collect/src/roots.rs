//! The recorded checkpoints, and which parts they name.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use tandem_format::{PartRef, ROOT_DIR, parse_root_name};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{ErrorKind, Result, Seq};

/// Roots that are read at once.
const READS: usize = 8;

/// Base and hash of a part: its name.
pub(crate) type PartName = (Seq, [u8; 32]);

/// A recorded checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub seq: Seq,
    pub hash: [u8; 32],
    /// The log's age there, in microseconds.
    pub age: i64,
}

/// What is known of a root.
#[derive(Debug)]
struct Known {
    link: Link,
    recorded: Option<(Seq, [u8; 32])>,
}

/// What a collector remembers of checkpoints. They never change: each is read once.
#[derive(Debug, Default)]
pub struct Roots {
    known: BTreeMap<Seq, Known>,
    /// The newest root that names a part, recorded or not: which of them is, is known only later. Parts that a root drops
    /// never come back.
    named: BTreeMap<PartName, Seq>,
    /// Oldest first.
    chain: Vec<Link>,
    /// A recorded checkpoint that is there and cannot be read: what it names is not known.
    unreadable: Option<Seq>,
}

impl Roots {
    /// Reads what was recorded since the last call, and forgets what is gone.
    pub async fn refresh(&mut self, log: &Log, state: &Manifest) -> Result<()> {
        let names = log.env().store.list_dir(ROOT_DIR).await?;
        let mut there: BTreeSet<Seq> = names.iter().filter_map(|name| parse_root_name(name)).collect();
        // A listing may be late.
        there.extend(state.checkpoint().map(|(seq, _)| seq));
        self.known.retain(|seq, _| there.contains(seq));
        let wanted: Vec<Seq> = there.into_iter().filter(|seq| !self.known.contains_key(seq)).collect();
        let mut unreadable = BTreeSet::new();
        let mut reads =
            stream::iter(wanted).map(async |seq| (seq, log.load_root(seq).await)).buffer_unordered(READS);
        while let Some((seq, read)) = reads.next().await {
            match read {
                Ok((root, hash)) => {
                    let link = Link { seq, hash, age: root.age };
                    self.known.insert(seq, Known { link, recorded: root.recorded });
                    self.index(seq, &root.parts);
                }
                Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat) => {
                    unreadable.insert(seq);
                }
                Err(e) => return Err(e),
            }
        }
        drop(reads);
        self.follow(state, &unreadable);
        Ok(())
    }

    fn index(&mut self, seq: Seq, parts: &[PartRef]) {
        for part in parts {
            let newest = self.named.entry((part.base, part.hash)).or_insert(seq);
            *newest = seq.max(*newest);
        }
    }

    /// Walks from the newest recorded checkpoint back as far as they are there.
    fn follow(&mut self, state: &Manifest, unreadable: &BTreeSet<Seq>) {
        self.chain.clear();
        self.unreadable = None;
        let mut next = state.checkpoint();
        while let Some((seq, hash)) = next {
            let Some(known) = self.known.get(&seq).filter(|known| known.link.hash == hash) else {
                let damaged = unreadable.contains(&seq) || self.known.contains_key(&seq);
                self.unreadable = damaged.then_some(seq);
                break;
            };
            self.chain.push(known.link);
            next = known.recorded;
        }
        self.chain.reverse();
        // A chain that cannot be followed says nothing about what is old. Both are forgotten together: what is known is
        // indexed, or is read again.
        let oldest = self.chain.first().map(|link| link.seq).filter(|_| self.unreadable.is_none());
        if let Some(oldest) = oldest {
            self.named.retain(|_, newest| *newest >= oldest);
            self.known.retain(|seq, _| *seq >= oldest);
        }
    }

    pub(crate) fn chain(&self) -> &[Link] {
        &self.chain
    }

    pub(crate) fn unreadable(&self) -> Option<Seq> {
        self.unreadable
    }

    /// Whether there is such a root, and it can be read.
    pub(crate) fn knows(&self, seq: Seq) -> bool {
        self.known.contains_key(&seq)
    }

    /// The newest recorded checkpoint at or before a seq.
    pub(crate) fn at(&self, seq: Seq) -> Option<Link> {
        self.chain.iter().rev().find(|link| link.seq <= seq).copied()
    }

    /// The oldest recorded checkpoint that is needed, and everything from it on: one more than history begins with, so
    /// that one may be damaged. `None`: none can be done without.
    ///
    /// A checkpoint that is being written, to be recorded later, shares parts with the newest one that was recorded when it was
    /// begun. It cannot be recorded any more once the horizon has passed it; until then, what it shares with is not older than
    /// this one. It need not be in the chain: one that was begun earlier and recorded later leads past it. So all from this one
    /// on are kept, whether they are in the chain or not.
    pub(crate) fn oldest_kept(&self, state: &Manifest) -> Option<Link> {
        let limit = state.history_start().min(state.horizon());
        let newest = self.chain.iter().rposition(|link| link.seq <= limit)?;
        self.chain.get(newest.saturating_sub(1)).copied()
    }

    /// The newest checkpoint that names a part.
    pub(crate) fn newest_naming(&self, part: &PartName) -> Option<Seq> {
        self.named.get(part).copied()
    }

    /// How old the newest recorded checkpoint is, in microseconds of the log's age; `None`: there is none.
    pub fn newest_age(&self, state: &Manifest) -> Option<i64> {
        self.chain.last().map(|link| state.age().saturating_sub(link.age))
    }
}
