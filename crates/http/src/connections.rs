//! Connections, a task each, until all are done.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tandem_access::Incoming;
use tokio::sync::{mpsc, watch};

/// A connection on which no request begins and ends its head for so long is closed. Longer than clients keep theirs for the
/// next request, mostly.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(300);

/// Serves until `shutdown` resolves, and then until what is running is done.
pub(crate) async fn serve(
    mut incoming: Incoming,
    routes: Router,
    head_time: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(());
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let mut shutdown = pin!(shutdown);
    loop {
        let wire = tokio::select! {
            (wire, _) = incoming.accept() => wire,
            () = &mut shutdown => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let (mut stopping, open) = (stopping.clone(), open.clone());
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(head_time);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
            // Connections that break are their clients' business.
            let served = tokio::select! {
                served = connection.as_mut() => served,
                _ = stopping.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::trace!(error, "a connection broke");
            }
            drop(open);
        });
    }
    drop((stop, open));
    // Nobody sends: it ends when the last connection has.
    all_closed.recv().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::{get, post};
    use tandem_env::{Clock, SystemClock};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn slow_heads_are_cut_off_and_running_requests_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let incoming = Incoming::new(listener, None, &[], Arc::new(SystemClock)).unwrap();
        let address = incoming.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let routes = Router::new()
            .route("/quick", get(async || "quick"))
            .route("/body", post(async |body: String| body.len().to_string()));
        let shutdown = async { drop(ended.await) };
        let serving = tokio::spawn(serve(incoming, routes, Duration::from_millis(200), shutdown));

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /quick HTTP/1.1\r\nhost:").await.unwrap();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("quick"), "it was never asked for");

        // A body may take longer than a head.
        let mut running = TcpStream::connect(address).await.unwrap();
        running.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
        SystemClock.sleep(Duration::from_millis(400)).await;
        end.send(()).unwrap();
        SystemClock.sleep(Duration::from_millis(50)).await;
        assert!(!serving.is_finished());
        running.write_all(b"cd").await.unwrap();
        let mut answer = Vec::new();
        running.read_to_end(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer).ends_with("\r\n\r\n4"), "{answer:?}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
