//! Requests to cancel, which come by connections of their own: what a connection runs is found by its key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_env::Chance;
use tokio::sync::watch;

/// The connections that can be asked to cancel.
#[derive(Debug)]
pub(crate) struct Cancels {
    chance: Arc<dyn Chance>,
    known: Mutex<BTreeMap<u32, (u32, watch::Sender<()>)>>,
}

impl Cancels {
    pub fn new(chance: Arc<dyn Chance>) -> Self {
        Self { chance, known: Mutex::default() }
    }

    /// A key for a connection, good until it is dropped.
    pub fn register(self: &Arc<Self>) -> CancelKey {
        let mut known = self.lock();
        loop {
            let random = self.chance.next_u64();
            // Drivers keep it in a signed number and take zero for none.
            let process = u32::try_from(random >> 33).unwrap_or(1).max(1);
            let secret = u32::try_from(random & u64::from(u32::MAX)).unwrap_or(0);
            if known.contains_key(&process) {
                continue;
            }
            let (sender, asked) = watch::channel(());
            known.insert(process, (secret, sender));
            return CancelKey { process, secret, asked, all: self.clone() };
        }
    }

    /// Asks the connection of that key to cancel. Who asked is not told whether there was one.
    pub fn cancel(&self, process: u32, secret: u32) {
        if let Some((known, asked)) = self.lock().get(&process)
            && *known == secret
        {
            asked.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, (u32, watch::Sender<()>)>> {
        // Insertions and removals cannot leave it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client shows to have its connection's statement cancelled.
#[derive(Debug)]
pub(crate) struct CancelKey {
    pub process: u32,
    pub secret: u32,
    /// Changes when somebody asks. Whoever begins a statement takes older changes for seen.
    pub asked: watch::Receiver<()>,
    all: Arc<Cancels>,
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.all.lock().remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tandem_env::SystemChance;

    use super::*;

    #[test]
    fn only_the_whole_key_cancels() {
        let cancels = Arc::new(Cancels::new(Arc::new(SystemChance)));
        let (mut key, mut other) = (cancels.register(), cancels.register());
        cancels.cancel(key.process, key.secret.wrapping_add(1));
        assert!(key.asked.changed().now_or_never().is_none());
        cancels.cancel(key.process, key.secret);
        assert!(other.asked.changed().now_or_never().is_none());
        assert!(key.asked.changed().now_or_never().is_some());
        cancels.cancel(key.process, key.secret);
        key.asked.mark_unchanged();
        assert!(key.asked.changed().now_or_never().is_none(), "asked before the statement began");
        let process = key.process;
        drop(key);
        assert!(!cancels.lock().contains_key(&process));
    }
}
