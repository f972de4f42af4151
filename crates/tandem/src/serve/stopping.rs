//! The end of stopping: whatever keeps a node from it, a process that was told to stop does.
//!
//! What was acknowledged is in the store, so that nothing is lost by ending early; a process that stays holds up whoever
//! wants to start it anew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_types::{Error, Result};

/// More than all that is waited for while stopping may take together: each part has its own limit.
const LIMIT: Duration = Duration::from_secs(25);

/// A process on its way out.
#[derive(Clone, Debug, Default)]
pub struct Stopping {
    waits_for: Arc<Mutex<&'static str>>,
}

impl Stopping {
    /// From now on the process has a limited time to end by itself; then it is ended.
    pub fn begin() -> Result<Self> {
        Self::within(LIMIT, || std::process::exit(0))
    }

    /// A thread of its own sees to it: where tasks keep all others busy, none could.
    #[expect(clippy::disallowed_methods, reason = "it must not depend on the threads that it waits for")]
    fn within(limit: Duration, end: impl FnOnce() + Send + 'static) -> Result<Self> {
        let stopping = Self::default();
        let seen = stopping.clone();
        let watch = move || {
            std::thread::sleep(limit);
            tracing::warn!(waited_for = seen.waited_for(), ?limit, "stopping takes too long: ending at once");
            end();
        };
        let spawned = std::thread::Builder::new().name("stopping".to_owned()).spawn(watch);
        spawned.map_err(|e| Error::internal(format!("a thread cannot be started: {e}")))?;
        Ok(stopping)
    }

    /// What stopping waits for from now on.
    pub fn waits_for(&self, what: &'static str) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn waited_for(&self) -> &'static str {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_end_comes_whatever_is_waited_for() {
        let (ended, ends) = mpsc::channel();
        let limit = Duration::from_millis(50);
        let stopping = Stopping::within(limit, move || ended.send(()).unwrap()).unwrap();
        stopping.waits_for("one thing");
        stopping.waits_for("another");
        assert_eq!(stopping.waited_for(), "another");
        assert!(ends.try_recv().is_err(), "not at once");
        ends.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
