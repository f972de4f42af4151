//! How long commits have been there, as far as this process has seen.

use std::collections::VecDeque;
use std::time::Duration;

use tandem_types::Seq;

/// How finely waiting is told: so many heads are remembered per age.
const HEADS_PER_AGE: u32 = 16;

/// Seqs by the time at which they were the head.
#[derive(Debug)]
pub(super) struct Heads {
    age: Duration,
    seen: VecDeque<(Duration, Seq)>,
}

impl Heads {
    pub fn new(age: Duration) -> Self {
        Self { age, seen: VecDeque::new() }
    }

    /// The seq up to which everything is older than the age; 0 if nothing is known to be.
    pub fn waited(&mut self, now: Duration, head: Seq) -> Seq {
        let step = self.age / HEADS_PER_AGE;
        if self.seen.back().is_none_or(|(at, _)| now >= *at + step) {
            self.seen.push_back((now, head));
        }
        let old = |entry: &(Duration, Seq)| entry.0 + self.age <= now;
        while self.seen.get(1).is_some_and(old) {
            self.seen.pop_front();
        }
        self.seen.front().filter(|entry| old(entry)).map_or(Seq(0), |(_, seq)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_an_age_ago_is_old() {
        let mut heads = Heads::new(Duration::from_secs(160));
        let mut at = |seconds, head| heads.waited(Duration::from_secs(seconds), Seq(head)).0;
        assert_eq!(at(0, 3), 0);
        assert_eq!(at(5, 4), 0, "remembered with what comes later");
        assert_eq!(at(20, 7), 0);
        assert_eq!(at(159, 9), 0);
        assert_eq!(at(160, 10), 3);
        assert_eq!(at(180, 11), 7);
        assert_eq!(at(10_000, 12), 11, "nothing is forgotten that nobody asked about");
    }
}
