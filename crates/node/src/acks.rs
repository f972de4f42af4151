//! Which other nodes have applied what, and waiting for enough of them.
//!
//! A node is told apart by its *incarnation*, the writer id of its process: one that was started anew is another one,
//! which says for itself what it has applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_env::{Clock, within};
use tandem_types::Seq;
use tokio::sync::watch;

/// What the other nodes say that they have applied. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Progress {
    clock: Arc<dyn Clock>,
    applied: watch::Sender<BTreeMap<u64, Seq>>,
}

impl Progress {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, applied: watch::Sender::new(BTreeMap::new()) }
    }

    /// Notes that a node has applied everything up to `seq`. Reports may come late and in any order.
    pub fn report(&self, incarnation: u64, seq: Seq) {
        self.applied.send_if_modified(|applied| {
            let known = applied.entry(incarnation).or_default();
            let news = seq > *known;
            *known = seq.max(*known);
            news
        });
    }

    /// Forgets a node that nobody will hear of any more.
    pub fn gone(&self, incarnation: u64) {
        self.applied.send_if_modified(|applied| applied.remove(&incarnation).is_some());
    }

    /// How many other nodes have applied `seq`: at once when there are `k`, else as many as there are when the time is over.
    ///
    /// A node that says so and then goes away is counted: what it said was true.
    pub async fn reached(&self, seq: Seq, k: u32, within_time: Duration) -> u32 {
        let wanted = usize::try_from(k).unwrap_or(usize::MAX);
        let mut seen = BTreeSet::new();
        let enough = async {
            let mut news = self.applied.subscribe();
            loop {
                {
                    let there = news.borrow_and_update();
                    seen.extend(there.iter().filter(|(_, applied)| **applied >= seq).map(|(node, _)| *node));
                }
                // The sender is this very object: it does not go away meanwhile.
                if seen.len() >= wanted || news.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = within(&*self.clock, within_time, enough).await;
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tandem_env::sim::SimClock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress() -> (Progress, Arc<SimClock>) {
        let clock = Arc::new(SimClock::manual());
        (Progress::new(clock.clone()), clock)
    }

    #[test]
    fn enough_nodes_end_the_wait_at_once() {
        let (progress, _) = progress();
        progress.report(1, Seq(7));
        assert_eq!(progress.reached(Seq(7), 1, Duration::ZERO).now_or_never(), Some(1));
        assert_eq!(progress.reached(Seq(7), 0, SECOND).now_or_never(), Some(1));
        let mut two = Box::pin(progress.reached(Seq(7), 2, SECOND));
        assert!((&mut two).now_or_never().is_none());
        progress.report(1, Seq(9));
        assert!((&mut two).now_or_never().is_none(), "one node twice is one node");
        progress.report(2, Seq(6));
        assert!((&mut two).now_or_never().is_none(), "not there yet");
        progress.report(2, Seq(8));
        assert_eq!(two.now_or_never(), Some(2));
    }

    #[test]
    fn too_few_nodes_are_counted_when_the_time_is_over() {
        let (progress, clock) = progress();
        let mut two = Box::pin(progress.reached(Seq(10), 2, SECOND));
        assert!((&mut two).now_or_never().is_none());
        progress.report(4, Seq(10));
        clock.advance(SECOND - Duration::from_millis(1));
        assert!((&mut two).now_or_never().is_none(), "there is time left");
        clock.advance(Duration::from_millis(1));
        assert_eq!(two.now_or_never(), Some(1));
    }

    #[test]
    fn reports_never_go_back_and_nodes_can_be_forgotten() {
        let (progress, clock) = progress();
        progress.report(1, Seq(5));
        progress.report(1, Seq(3));
        assert_eq!(progress.reached(Seq(5), 1, SECOND).now_or_never(), Some(1));
        let mut waiting = Box::pin(progress.reached(Seq(5), 2, SECOND));
        assert!((&mut waiting).now_or_never().is_none());
        progress.gone(1);
        progress.report(2, Seq(5));
        assert_eq!(waiting.now_or_never(), Some(2), "what it said before it went away was true");
        let mut other = Box::pin(progress.reached(Seq(5), 2, SECOND));
        assert!((&mut other).now_or_never().is_none());
        clock.advance(SECOND);
        assert_eq!(other.now_or_never(), Some(1));
        progress.gone(1);
    }
}
