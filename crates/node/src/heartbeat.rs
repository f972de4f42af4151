//! Saying that one is there, and looking who else is.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tandem_format::{NODES_DIR, heartbeat_path};
use tandem_types::{Result, Seq};

use crate::Shared;
use crate::peers::Heartbeat;

/// How often a node beats where a request costs nothing, and where it costs money.
const INTERVAL_LOCAL: Duration = Duration::from_secs(1);
const INTERVAL_REMOTE: Duration = Duration::from_secs(5);

/// A heartbeat may be late by this many intervals before its node is taken for gone.
const PATIENCE: u32 = 4;

/// Heartbeats of nodes that ended without a word are removed after this long.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Heartbeats that are read at once.
const READS: usize = 8;

/// Larger objects are no heartbeats.
const BYTES_MAX: usize = 16 << 10;

/// How often to beat on this store.
pub(crate) fn interval(config: &crate::NodeConfig, store: &tandem_env::Store) -> Duration {
    let usual = if store.is_local() { INTERVAL_LOCAL } else { INTERVAL_REMOTE };
    config.heartbeat.unwrap_or(usual)
}

pub(crate) fn patience(interval: Duration) -> Duration {
    interval * PATIENCE
}

/// Runs until the node ends, and takes the heartbeat away.
pub(crate) async fn run(shared: Arc<Shared>, interval: Duration) {
    let mut ending = shared.ending.subscribe();
    let mut beat = 0;
    let mut failing = false;
    while !*ending.borrow_and_update() {
        beat += 1;
        let said = shared.say(beat).await;
        let looked = shared.look().await;
        match said.and(looked) {
            Ok(()) => failing = false,
            Err(e) if !failing => {
                failing = true;
                metrics::counter!("tandem_heartbeat_failures_total").increment(1);
                tracing::warn!(error = %e, "heartbeats do not get through; other nodes may take this one for gone");
            }
            Err(_) => metrics::counter!("tandem_heartbeat_failures_total").increment(1),
        }
        tokio::select! {
            _ = ending.changed() => {}
            () = shared.env.clock.sleep(interval) => {}
            // Whoever asked for a look has only just begun itself.
            () = shared.peers.look.notified() => shared.env.clock.sleep(interval / 10).await,
        }
    }
    shared.fall_silent().await;
}

impl Shared {
    fn heartbeat(&self, beat: u64) -> Heartbeat {
        let state = self.writer.state();
        Heartbeat {
            node_id: self.config.node_id.clone(),
            address: self.config.advertise.clone(),
            role: self.role_name(&state).to_owned(),
            failover_priority: self.config.failover_priority.filter(|_| self.identity().is_some()),
            incarnation: self.writer.id().to_string(),
            epoch: state.epoch().0,
            applied_seq: state.seq().0,
            oldest_seq: self.oldest_query().map(|seq| seq.0),
            logged_rows: state.logged().rows,
            logged_bytes: state.logged().bytes,
            lag_seconds: self.writer.lag().time.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: self.env.clock.now_micros(),
            beat,
        }
    }

    async fn say(&self, beat: u64) -> Result<()> {
        let text = serde_json::to_vec(&self.heartbeat(beat))
            .map_err(|e| tandem_types::Error::internal(format!("heartbeat: {e}")))?;
        self.env.store.put_overwrite(&heartbeat_path(&self.config.node_id), text.into()).await
    }

    async fn fall_silent(&self) {
        let path = heartbeat_path(&self.config.node_id);
        if let Err(e) = self.env.store.delete(&path).await {
            tracing::debug!(error = %e, "the heartbeat stays behind");
        }
    }

    pub(crate) async fn look(&self) -> Result<()> {
        let names = self.env.store.list_dir(NODES_DIR).await?;
        let ids = names.iter().filter_map(|name| name.strip_suffix(".json"));
        let ids: Vec<String> = ids.filter(|id| *id != self.config.node_id).map(str::to_owned).collect();
        self.peers.only(&ids);
        let wanted: Vec<String> = ids.into_iter().filter(|id| self.peers.wants(id)).collect();
        let store = self.env.store.clone();
        let mut found = stream::iter(wanted)
            .map(move |id| {
                let store = store.clone();
                async move {
                    let bytes = store.get(&heartbeat_path(&id)).await;
                    (id, bytes)
                }
            })
            .buffer_unordered(READS);
        while let Some((id, bytes)) = found.next().await {
            // One that is gone, damaged or says another name is nobody's.
            let Some(bytes) = bytes?.filter(|bytes| bytes.len() <= BYTES_MAX) else { continue };
            match serde_json::from_slice::<Heartbeat>(&bytes) {
                Ok(heartbeat) if heartbeat.node_id == id => {
                    self.peers.found(heartbeat, self.env.clock.monotonic());
                }
                _ => tracing::debug!(node_id = %id, "a heartbeat is not readable"),
            }
        }
        self.take_note().await;
        Ok(())
    }

    /// What follows from what was found.
    async fn take_note(&self) {
        let now = self.env.clock.monotonic();
        let applied = |heartbeats: &[Heartbeat]| heartbeats.iter().map(Heartbeat::applied).max();
        let live = self.peers.live(now);
        self.writer.heard_of(applied(&live).unwrap_or(Seq(0)));
        // Whom a replica names depends on who is there.
        self.decide_role();
        if self.config.replica {
            return;
        }
        for node_id in self.peers.unchanged_for(FORGET_AFTER, now) {
            // Should it be alive after all, its next heartbeat brings it back.
            match self.env.store.delete(&heartbeat_path(&node_id)).await {
                Ok(()) => {
                    tracing::info!(%node_id, "a node has been silent for long; its heartbeat is removed")
                }
                Err(e) => tracing::debug!(%node_id, error = %e, "an old heartbeat stays"),
            }
        }
    }
}
