//! Health and metrics over HTTP: translation only.
//!
//! - `/healthz`: 200 while the process works, 503 with the reason once it cannot go on and wants a restart;
//! - `/readyz`: 200 once requests are served, 503 before and while shutting down;
//! - `/metrics`: Prometheus text.
//!
//! It refuses to know what the numbers mean: whoever counts describes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tandem_types::{Error, Result};
use tokio::net::TcpListener;

/// Upper bounds of latency histograms, in seconds.
const LATENCY_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Gathers the process's metrics from the call on. Once per process.
pub fn install_metrics() -> Result<Metrics> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS)
        .map_err(|e| Error::internal(format!("metrics: {e}")))?;
    let handle = builder.install_recorder().map_err(|e| Error::internal(format!("metrics: {e}")))?;
    Ok(Metrics { handle })
}

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// What the routes ask.
#[derive(Clone)]
pub struct Probes {
    pub metrics: Metrics,
    /// Sets gauges that are computed when somebody looks.
    pub observe: Arc<dyn Fn() + Send + Sync>,
    /// Why the process cannot go on, if so.
    pub failure: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    pub ready: Arc<AtomicBool>,
}

/// Serves until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    probes: Probes,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    axum::serve(listener, routes)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(|e| Error::unavailable(format!("the HTTP service failed: {e}")))
}

async fn healthz(State(probes): State<Probes>) -> impl IntoResponse {
    match (probes.failure)() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    match ((probes.failure)(), probes.ready.load(Ordering::Acquire)) {
        (None, true) => (StatusCode::OK, "ready\n".to_owned()),
        (Some(reason), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        (None, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    (probes.observe)();
    probes.metrics.handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probes.metrics.handle.render())
}
