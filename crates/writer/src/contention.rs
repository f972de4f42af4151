//! Whether this node's commits keep losing to those of others.
//!
//! Nobody asks who else writes: it shows in the races for the log's next number. A node that loses about every second one
//! is in company, and better off with a sequencer. While it hands over it races no more, so that it is told otherwise when
//! the company has gone: the commits that it applies hold no writes but its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Races that are remembered.
const RACES: u32 = 8;

/// So many of them lost: contention begins. It ends, for who goes on racing, at fewer than half of it.
const MANY: u32 = 4;

/// Races longer apart than this tell nothing of each other.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// Without others' writes for this long, their writers are taken for gone; for longer where commits take long.
const CALM: Duration = Duration::from_secs(1);
const CALM_COMMITS: u32 = 8;

/// What past races tell.
#[derive(Debug, Default)]
pub(crate) struct Contention {
    /// One bit per race, the last one lowest: lost.
    lost: u32,
    raced: Duration,
    contended: bool,
    /// When a write of somebody else's was last seen, in microseconds.
    met: AtomicU64,
}

impl Contention {
    pub fn is_contended(&self) -> bool {
        self.contended
    }

    /// A commit of ours was created, or came too late.
    pub fn raced(&mut self, lost: bool, now: Duration) {
        if now.saturating_sub(self.raced) > FORGET_AFTER {
            self.lost = 0;
        }
        self.raced = now;
        self.lost = ((self.lost << 1) | u32::from(lost)) & ((1 << RACES) - 1);
        match self.lost.count_ones() {
            MANY.. if !self.contended => {
                self.contended = true;
                // They were there a moment ago.
                self.meet(now);
            }
            count if count < MANY / 2 => self.contended = false,
            _ => {}
        }
    }

    /// A commit of somebody else's brought writes of somebody else's.
    pub fn meet(&self, now: Duration) {
        self.met.fetch_max(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the others are still there, for one who hands over; `usual` is what that takes.
    pub fn look_round(&mut self, now: Duration, usual: Duration) -> bool {
        let met = Duration::from_micros(self.met.load(Ordering::Relaxed));
        if self.contended && now.saturating_sub(met) > CALM.max(usual * CALM_COMMITS) {
            self.contended = false;
            self.lost = 0;
        }
        self.contended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn one_writer_alone_is_never_contended_and_two_soon_are() {
        let mut alone = Contention::default();
        for n in 0..100 {
            // Upkeep of others wins now and then.
            alone.raced(n % 10 == 9, ms(n * 20));
            assert!(!alone.is_contended());
        }
        let mut two = Contention::default();
        for n in 0..8 {
            two.raced(n % 2 == 0, ms(n * 20));
        }
        assert!(two.is_contended());
        for n in 8..16 {
            two.raced(false, ms(n * 20));
        }
        assert!(!two.is_contended(), "the other one has gone");
    }

    #[test]
    fn races_far_apart_make_no_contention() {
        let mut slow = Contention::default();
        for n in 0..100 {
            slow.raced(true, ms(n * 6_000));
            assert!(!slow.is_contended());
        }
    }

    #[test]
    fn who_hands_over_notices_that_the_others_have_gone() {
        let mut contention = Contention::default();
        for n in 0..4 {
            contention.raced(true, ms(n));
        }
        assert!(contention.look_round(ms(900), ms(10)));
        contention.meet(ms(1_000));
        assert!(contention.look_round(ms(1_900), ms(10)));
        assert!(contention.look_round(ms(3_000), ms(400)), "commits take longer here");
        assert!(!contention.look_round(ms(2_100), ms(10)));
        contention.raced(true, ms(2_101));
        assert!(!contention.is_contended(), "from the start");
    }
}
