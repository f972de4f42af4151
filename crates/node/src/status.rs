//! How the node is doing: for people, scripts and gauges.

use serde_json::{Value, json};
use tandem_manifest::{Logged, Manifest, Mode};
use tandem_sql::NodeRow;
use tandem_types::Seq;

use crate::Shared;
use crate::alerts::{self, between};
use crate::peers::Heartbeat;
use crate::roles::{PRIMARY, REPLICA, STANDBY, WRITER};
use crate::upkeep::Expired;

/// Tables that have gauges of their own, at most: a database of a million tables must not become a million series.
const TABLES_MAX: usize = 1_000;

pub(crate) fn status(shared: &Shared) -> Value {
    let state = shared.writer.state();
    let sum = |of: fn(&tandem_manifest::Table) -> u64| state.tables().map(of).sum::<u64>();
    let lag = shared.writer.lag();
    let live = shared.peers.live(shared.env.clock.monotonic());
    let peers = live.iter().map(|peer| {
        json!({
            "node_id": peer.node_id,
            "role": role_of_peer(peer, &state),
            "address": peer.address,
            "seq": peer.applied_seq,
            "failover_priority": peer.failover_priority,
        })
    });
    let primary = state.primary().filter(|_| state.is_single_primary());
    let standing = shared.writer.standing();
    json!({
        "applies": standing.map(|_| shared.config.writer.limit.to_string()),
        "stands_still": standing.is_some_and(|standing| standing.ended),
        "next_commit_time": standing.and_then(|standing| standing.next).map(|(_, micros)| micros),
        "node_id": shared.config.node_id,
        "role": shared.role_name(&state),
        "mode": state.mode().name(),
        "primary": primary.map(|p| json!({ "node_id": p.node_id, "address": p.address })),
        "failover_priority": shared.config.failover_priority.filter(|_| shared.identity().is_some()),
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
        // Partitions that only a person lets go, by table.
        "ttl_waits": ttl_waits(&state),
        "failure": shared.failure().map(|e| e.to_string()),
    })
}

fn ttl_waits(state: &Manifest) -> Value {
    let waits = state.tables().filter_map(|table| {
        let expired = Expired::of(state, table);
        expired.is_suspicious().then(|| (table.name().to_string(), json!(expired.partitions.len())))
    });
    Value::Object(waits.collect())
}

/// What a node is called that says of itself what it was when it last said so: the log knows better who is the primary.
fn role_of_peer(peer: &Heartbeat, state: &Manifest) -> &'static str {
    let is_primary = state.primary().is_some_and(|primary| primary.node_id == peer.node_id);
    match state.mode() {
        _ if peer.role == REPLICA => REPLICA,
        Mode::MultiPrimary => WRITER,
        Mode::SinglePrimary if is_primary => PRIMARY,
        Mode::SinglePrimary => STANDBY,
    }
}

impl Shared {
    /// The rows of `system.nodes`: this node, and the others as their last heartbeats found them.
    pub(crate) fn node_rows(&self) -> Vec<NodeRow> {
        let state = self.writer.state();
        let lag = self.writer.lag();
        let (behind, newest) = (self.logged_behind(&state), self.newest_logged(&state));
        let own = NodeRow {
            node_id: self.config.node_id.clone(),
            address: self.config.advertise.clone(),
            role: self.role_name(&state).to_owned(),
            epoch: state.epoch().0,
            applied_seq: state.seq(),
            lag_commits: Some(lag.commits),
            lag_rows: Some(behind.rows),
            lag_bytes: Some(behind.bytes),
            lag_seconds: Some(lag.time.as_secs_f64()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            last_heartbeat: Some(self.env.clock.now_micros()),
        };
        let mut rows = vec![own];
        rows.extend(
            self.peers.all().into_iter().map(|seen| peer_row(seen.heartbeat, &state, lag.head, newest)),
        );
        rows
    }
}

fn peer_row(peer: Heartbeat, state: &Manifest, head: Seq, newest: Logged) -> NodeRow {
    let behind = between(newest, Logged { rows: peer.logged_rows, bytes: peer.logged_bytes });
    NodeRow {
        role: role_of_peer(&peer, state).to_owned(),
        epoch: peer.epoch,
        applied_seq: peer.applied(),
        lag_commits: Some(head.0.saturating_sub(peer.applied_seq)),
        lag_rows: Some(behind.rows),
        lag_bytes: Some(behind.bytes),
        lag_seconds: Some(peer.lag_seconds),
        last_heartbeat: Some(peer.time),
        node_id: peer.node_id,
        address: peer.address,
        version: peer.version,
    }
}

pub(crate) fn observe(shared: &Shared) {
    let state = shared.writer.state();
    let lag = shared.writer.lag();
    alerts::observe(shared, &state);
    metrics::gauge!("tandem_lag_commits").set(lag.commits as f64);
    metrics::gauge!("tandem_lag_seconds").set(lag.time.as_secs_f64());
    metrics::gauge!("tandem_feed_connected").set(shared.writer.feeds() as f64);
    metrics::gauge!("tandem_followers").set(shared.writer.recent().followers() as f64);
    let live = shared.peers.live(shared.env.clock.monotonic());
    metrics::gauge!("tandem_peers").set(live.len() as f64);
    metrics::gauge!("tandem_recent_bytes").set(shared.writer.recent().bytes() as f64);
    metrics::gauge!("tandem_applied_seq").set(state.seq().0 as f64);
    metrics::gauge!("tandem_epoch").set(state.epoch().0 as f64);
    metrics::gauge!("tandem_is_primary").set(if shared.is_primary(&state) { 1.0 } else { 0.0 });
    metrics::gauge!("tandem_tail_cache_bytes").set(shared.writer.tail().bytes() as f64);
    metrics::gauge!("tandem_footer_cache_bytes").set(shared.footers.bytes() as f64);
    metrics::gauge!("tandem_removed_objects").set(state.removed().count() as f64);
    // Known from the first collection on, and there before it: an alert on what is missing would never fire.
    metrics::gauge!("tandem_held_bytes").increment(0.0);
    for table in state.named_tables().take(TABLES_MAX) {
        let name = table.name().to_string();
        metrics::gauge!("tandem_tail_rows", "table" => name.clone()).set(table.tail_rows() as f64);
        metrics::gauge!("tandem_tail_sections", "table" => name.clone()).set(table.tail_sections() as f64);
        metrics::gauge!("tandem_table_rows", "table" => name.clone()).set(table.rows() as f64);
        metrics::gauge!("tandem_data_files", "table" => name.clone()).set(table.file_count() as f64);
        metrics::gauge!("tandem_data_file_bytes", "table" => name).set(table.file_bytes() as f64);
    }
}
