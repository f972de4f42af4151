//! Line protocol, health and metrics over HTTP: translation only.
//!
//! - `/write`, `/api/v2/write`, `/api/v3/write_lp`: lines of QuestDB's and InfluxDB's clients, with `/settings`, `/ping` and
//!   `/health` as those ask for them;
//! - `/healthz`: 200 while the process works, 503 with the reason once it cannot go on and wants a restart;
//! - `/readyz`: 200 once requests are served, 503 before and while shutting down;
//! - `/metrics`: Prometheus text.
//!
//! Where tokens are asked for, only reading `/healthz`, `/ping`, `/health` and `/settings` is open to everybody: what
//! restarts a process has to ask it, and clients ask before they show anything. Every other path, known or not, needs a
//! token, and every method but GET and HEAD one that may write.
//!
//! It refuses to know what the numbers mean: whoever counts describes them. What becomes of lines is for whoever
//! implements [`LineStore`].

mod connections;
mod guard;
mod lines;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tandem_access::{Access, Incoming};
use tandem_env::{Clock, SystemClock};
use tandem_types::{Error, Result};
use tokio::net::TcpListener;

use connections::HEAD_TIME;

pub use lines::{LineOptions, LineReceipt, LineStore, LineTransaction, NewTables};

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

/// Serves those that `access` lets in, until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    probes: Probes,
    lines: Arc<dyn LineStore>,
    access: Access,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let incoming = Incoming::new(listener, access.tls.as_ref(), &["http/1.1"], clock.clone())?;
    let lines = lines::routes(lines, clock.clone(), probes.failure.clone());
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes)
        .merge(lines);
    connections::serve(incoming, guard::guarded(routes, access, clock), HEAD_TIME, shutdown).await;
    Ok(())
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
