//! Whether a group of writes is worth holding back for the next ones.
//!
//! Clients that wait for each answer come back together, a moment after it: the first of them should not have a commit
//! to itself while the others are on their way, for every commit costs a request. Nobody says how many there are, so it
//! is learnt: as many as the last two groups had, unless waiting for that many was in vain.

use std::time::Duration;

/// The longest wait of small writes, which a client notices.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Writes from this size on take their clients about as long to make as a commit takes: they wait longer for each other …
const BULK_BYTES: u64 = 256 << 10;

/// … and this long at most.
const BULK_WAIT_MAX: Duration = Duration::from_millis(12);

/// How many groups after a vain wait more is hoped for again.
const GROUPS_UNTIL_HOPE: u32 = 128;

/// What past groups tell of the next.
#[derive(Debug)]
pub(crate) struct Company {
    /// Sizes of the last two groups.
    last: usize,
    before: usize,
    /// More than this did not come when they were waited for.
    most: usize,
    groups_until_hope: u32,
    /// How long a commit takes, smoothed.
    commit: Duration,
}

impl Company {
    pub const fn new() -> Self {
        Self { last: 0, before: 0, most: usize::MAX, groups_until_hope: 0, commit: Duration::ZERO }
    }

    /// How long a commit takes, smoothed; zero before the first.
    pub const fn usual(&self) -> Duration {
        self.commit
    }

    /// How many requests make a group complete.
    pub fn expected(&self) -> usize {
        self.last.saturating_add(self.before).min(self.most)
    }

    /// How long those with so many bytes, who are there, are to wait for them, measured by what a commit takes.
    pub fn patience(&self, bytes: u64) -> Duration {
        match bytes {
            BULK_BYTES.. => (self.commit * 4).min(BULK_WAIT_MAX),
            _ => (self.commit / 2).min(WAIT_MAX),
        }
    }

    /// A group was closed with `size` requests, after a wait for `expected` if there was one.
    pub fn gathered(&mut self, size: usize, waited_for: Option<usize>) {
        self.groups_until_hope = self.groups_until_hope.saturating_sub(1);
        if waited_for.is_some_and(|expected| size < expected) {
            self.most = size.max(1);
            self.groups_until_hope = GROUPS_UNTIL_HOPE;
        } else if size > self.most || self.groups_until_hope == 0 {
            self.most = size.max(self.most.saturating_mul(2));
        }
        self.before = self.last;
        self.last = size;
    }

    /// A commit took this long.
    pub fn committed(&mut self, took: Duration) {
        self.commit = if self.commit.is_zero() { took } else { (self.commit * 7 + took) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of `clients` that each wait for their answer, two of them being quicker; and how many waits were in vain.
    fn run(clients: usize, groups: usize) -> (Vec<usize>, usize) {
        let mut company = Company::new();
        let mut sizes = Vec::new();
        let mut vain = 0;
        let mut present = clients.min(2);
        for _ in 0..groups {
            let expected = company.expected();
            let waited = (present < expected).then_some(expected);
            let size = if waited.is_some() { clients.min(expected) } else { present };
            vain += usize::from(waited.is_some_and(|expected| size < expected));
            company.gathered(size, waited);
            sizes.push(size);
            // Who is not in this group is there for the next.
            present = (clients - size).max(clients.min(2));
        }
        (sizes, vain)
    }

    #[test]
    fn clients_that_come_together_are_committed_together() {
        let (sizes, vain) = run(4, 1000);
        assert!(sizes[10..].iter().all(|size| *size == 4), "{sizes:?}");
        assert!(vain <= 1000 / GROUPS_UNTIL_HOPE as usize + 2, "{vain}");
    }

    #[test]
    fn one_client_alone_is_hardly_ever_kept_waiting() {
        let (sizes, vain) = run(1, 1000);
        assert!(sizes.iter().all(|size| *size == 1));
        assert!(vain <= 1000 / GROUPS_UNTIL_HOPE as usize + 2, "{vain}");
    }

    #[test]
    fn patience_is_bounded() {
        let mut company = Company::new();
        assert_eq!(company.patience(1), Duration::ZERO);
        company.committed(Duration::from_millis(2));
        assert_eq!(company.patience(1), Duration::from_millis(1));
        assert_eq!(company.patience(1 << 20), Duration::from_millis(8));
        company.committed(Duration::from_secs(60));
        assert_eq!((company.patience(1), company.patience(1 << 20)), (WAIT_MAX, BULK_WAIT_MAX));
    }
}
