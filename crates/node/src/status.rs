//! How the node is doing: for people, scripts and gauges.

use serde_json::{Value, json};

use crate::Shared;

/// Tables that have gauges of their own, at most: a database of a million tables must not become a million series.
const TABLES_MAX: usize = 1_000;

pub(crate) fn status(shared: &Shared) -> Value {
    let state = shared.writer.state();
    let sum = |of: fn(&tandem_manifest::Table) -> u64| state.tables().map(of).sum::<u64>();
    json!({
        "node_id": shared.config.node_id,
        "role": "writer",
        "version": env!("CARGO_PKG_VERSION"),
        "database": state.database().to_string(),
        "store": shared.env.store.url(),
        "writer_id": shared.writer.id().to_string(),
        "seq": state.seq().0,
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

pub(crate) fn observe(shared: &Shared) {
    let state = shared.writer.state();
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
