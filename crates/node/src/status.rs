//! How the node is doing: for people, scripts and gauges.

use serde_json::{Value, json};
use tandem_manifest::Manifest;
use tandem_sql::NodeRow;
use tandem_types::Seq;

use crate::Shared;
use crate::peers::Heartbeat;

/// Tables that have gauges of their own, at most: a database of a million tables must not become a million series.
const TABLES_MAX: usize = 1_000;

pub(crate) fn status(shared: &Shared) -> Value {
    let state = shared.writer.state();
    let sum = |of: fn(&tandem_manifest::Table) -> u64| state.tables().map(of).sum::<u64>();
    let lag = shared.writer.lag();
    let live = shared.peers.live(shared.env.clock.monotonic());
    let peers = live.iter().map(|peer| {
        json!({ "node_id": peer.node_id, "role": peer.role, "address": peer.address, "seq": peer.applied_seq })
    });
    json!({
        "node_id": shared.config.node_id,
        "role": role(shared, &state, &shared.config.node_id),
        "address": shared.config.advertise,
        "epoch": state.epoch().0,
        "version": env!("CARGO_PKG_VERSION"),
        "database": state.database().to_string(),
        "store": shared.env.store.url(),
        "writer_id": shared.writer.id().to_string(),
        "seq": state.seq().0,
        "head_seq": lag.head.0,
        "lag_commits": lag.commits,
        "lag_seconds": lag.time.as_secs_f64(),
        "feeds": shared.writer.feeds(),
        "followers": shared.writer.recent().followers(),
        "peers": peers.collect::<Vec<_>>(),
        "checkpoint_seq": state.checkpoint().map(|(seq, _)| seq.0),
        "tables": state.tables().count(),
        "rows": sum(|t| t.rows()),
        "tail_rows": sum(|t| t.tail_rows()),
        "files": sum(|t| t.file_count() as u64),
        "file_bytes": sum(|t| t.file_bytes()),
        "tail_cache_bytes": shared.writer.tail().bytes(),
        "failure": shared.failure().map(|e| e.to_string()),
    })
}

/// `primary` where there is one and this is it, else what the node was started as.
fn role(shared: &Shared, state: &Manifest, node_id: &str) -> &'static str {
    match state.primary() {
        Some(primary) if primary.node_id == node_id => "primary",
        _ if shared.writer.role().is_replica() => "replica",
        _ => "writer",
    }
}

impl Shared {
    /// The rows of `system.nodes`: this node, and the others as their last heartbeats found them.
    pub(crate) fn node_rows(&self) -> Vec<NodeRow> {
        let state = self.writer.state();
        let lag = self.writer.lag();
        let own = NodeRow {
            node_id: self.config.node_id.clone(),
            address: self.config.advertise.clone(),
            role: role(self, &state, &self.config.node_id).to_owned(),
            epoch: state.epoch().0,
            applied_seq: state.seq(),
            lag_commits: Some(lag.commits),
            lag_seconds: Some(lag.time.as_secs_f64()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            last_heartbeat: Some(self.env.clock.now_micros()),
            ..NodeRow::default()
        };
        let mut rows = vec![own];
        rows.extend(self.peers.all().into_iter().map(|seen| peer_row(seen.heartbeat, &state, lag.head)));
        rows
    }
}

fn peer_row(peer: Heartbeat, state: &Manifest, head: Seq) -> NodeRow {
    let is_primary = state.primary().is_some_and(|primary| primary.node_id == peer.node_id);
    NodeRow {
        epoch: peer.epoch,
        applied_seq: peer.applied(),
        lag_commits: Some(head.0.saturating_sub(peer.applied_seq)),
        lag_seconds: Some(peer.lag_seconds),
        last_heartbeat: Some(peer.time),
        role: if is_primary { "primary".to_owned() } else { peer.role },
        node_id: peer.node_id,
        address: peer.address,
        version: peer.version,
        ..NodeRow::default()
    }
}

pub(crate) fn observe(shared: &Shared) {
    let state = shared.writer.state();
    let lag = shared.writer.lag();
    metrics::gauge!("tandem_lag_commits").set(lag.commits as f64);
    metrics::gauge!("tandem_lag_seconds").set(lag.time.as_secs_f64());
    metrics::gauge!("tandem_feed_connected").set(shared.writer.feeds() as f64);
    metrics::gauge!("tandem_followers").set(shared.writer.recent().followers() as f64);
    let live = shared.peers.live(shared.env.clock.monotonic());
    metrics::gauge!("tandem_peers").set(live.len() as f64);
    metrics::gauge!("tandem_recent_bytes").set(shared.writer.recent().bytes() as f64);
    metrics::gauge!("tandem_applied_seq").set(state.seq().0 as f64);
    metrics::gauge!("tandem_tail_cache_bytes").set(shared.writer.tail().bytes() as f64);
    metrics::gauge!("tandem_footer_cache_bytes").set(shared.footers.bytes() as f64);
    metrics::gauge!("tandem_removed_objects").set(state.removed().count() as f64);
    for table in state.named_tables().take(TABLES_MAX) {
        let name = table.name().to_string();
        metrics::gauge!("tandem_tail_rows", "table" => name.clone()).set(table.tail_rows() as f64);
        metrics::gauge!("tandem_tail_sections", "table" => name.clone()).set(table.tail_sections() as f64);
        metrics::gauge!("tandem_table_rows", "table" => name.clone()).set(table.rows() as f64);
        metrics::gauge!("tandem_data_files", "table" => name.clone()).set(table.file_count() as f64);
        metrics::gauge!("tandem_data_file_bytes", "table" => name).set(table.file_bytes() as f64);
    }
}
