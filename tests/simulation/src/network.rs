//! Pushes from node to node, over a network that loses, repeats, delays and reorders, and carries what others say too.

use std::sync::Arc;
use std::time::Duration;

use tandem_log::StoredCommit;
use tandem_types::Seq;

use crate::node::{Cluster, Process};
use crate::world::event;

impl Cluster {
    /// Pushes what a process has applied to all others.
    pub async fn push(self: Arc<Self>, process: Arc<Process>) {
        let world = &self.world;
        if !world.plan.pushes {
            return;
        }
        let _follower = process.writer.recent().follow();
        let mut states = process.writer.watch();
        let mut pushed = states.borrow().seq();
        while states.changed().await.is_ok() {
            process.life.pass().await;
            let applied = states.borrow_and_update().seq();
            while pushed < applied {
                pushed = pushed.next();
                let Some(recent) = process.writer.recent().get(pushed) else { continue };
                let (object, whole) = recent.object(usize::MAX);
                let Ok(stored) = StoredCommit::decode(&object, whole) else { continue };
                for to in (0..world.plan.nodes).filter(|to| *to != process.node) {
                    self.send(process.node, to, stored.clone());
                }
            }
        }
    }

    fn send(self: &Arc<Self>, from: usize, to: usize, stored: StoredCommit) {
        let world = &self.world;
        let lossy = !world.is_calm() && world.share(world.plan.lossy);
        let (copies, slow) = match lossy {
            true => (world.below(3), true),
            false => (1, false),
        };
        for _ in 0..copies {
            let delay = if slow { world.millis(1, 1500) } else { world.millis(1, 8) };
            tokio::spawn(self.clone().deliver(from, to, stored.clone(), delay));
        }
        if !world.is_calm() && world.share(world.plan.forged) {
            let foreign = foreign(&stored, world.below(2) == 0);
            tokio::spawn(self.clone().deliver(from, to, foreign, world.millis(0, 4)));
        }
    }

    async fn deliver(self: Arc<Self>, from: usize, to: usize, stored: StoredCommit, delay: Duration) {
        self.world.sleep(delay).await;
        let Some(process) = self.process(to) else { return };
        process.life.pass().await;
        let feed = {
            let mut feeds = process.feeds.lock().unwrap();
            feeds.entry(from).or_insert_with(|| Arc::new(process.writer.feed())).clone()
        };
        self.world.note(&[event::PUSH, from as u64, to as u64, stored.commit.header.seq.0]);
        if feed.offer(stored).await.is_err() {
            // The link is made anew with the next push.
            process.feeds.lock().unwrap().remove(&from);
        }
    }
}

/// A commit of another history, at this seq or the one after it.
fn foreign(stored: &StoredCommit, next: bool) -> StoredCommit {
    let mut foreign = stored.clone();
    let header = &mut foreign.commit.header;
    header.transactions.clear();
    header.previous = [7; 32];
    header.commit_time += 1;
    if next {
        header.seq = Seq(header.seq.0 + 1);
    }
    foreign.commit.hash = [8; 32];
    foreign
}
