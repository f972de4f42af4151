//! What clients ask before they write.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tandem_types::MAX_NAME_BYTES;

use super::Service;

/// The version of InfluxDB whose write routes are served: clients look at it to know what they may send.
const INFLUX: &str = "v2.7.4";

/// QuestDB's clients learn here which versions of the protocol they may speak, and whether writes are taken.
pub(crate) async fn settings(State(service): State<Arc<Service>>) -> Response {
    let writes: &[&str] = if service.store.check_writes().is_ok() { &["http"] } else { &[] };
    json_answer(
        StatusCode::OK,
        &json!({
            "config": {
                "release.type": "OSS",
                "release.version": env!("CARGO_PKG_VERSION"),
                "line.proto.support.versions": [1, 2, 3],
                "ilp.proto.transports": ["http"],
                "posthog.enabled": false,
                "posthog.api.key": null,
                "cairo.max.file.name.length": MAX_NAME_BYTES,
            },
            "accepting.writes": writes,
            "preferences.version": 0,
            "preferences": {},
        }),
    )
}

/// InfluxDB's clients ask whether anybody is there.
pub(crate) async fn ping() -> Response {
    (StatusCode::NO_CONTENT, [("x-influxdb-version", INFLUX), ("x-influxdb-build", "OSS")]).into_response()
}

/// InfluxDB's clients ask whether all is well.
pub(crate) async fn health(State(service): State<Arc<Service>>) -> Response {
    let (status, state, message) = match (service.failure)() {
        None => (StatusCode::OK, "pass", "ready for queries and writes".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "fail", reason),
    };
    json_answer(
        status,
        &json!({
            "name": "tandemdb",
            "message": message,
            "status": state,
            "checks": [],
            "version": env!("CARGO_PKG_VERSION"),
        }),
    )
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
