//! What stands before all routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tandem_access::{Access, Right};
use tandem_env::Clock;
use tandem_types::{Error, ErrorKind, Result};

/// Requests that were not let in.
const REFUSED: &str = "tandem_auth_refused_total";
/// What needs no token.
const OPEN: &[&str] = &["/healthz"];

#[derive(Clone)]
struct Guard {
    access: Access,
    clock: Arc<dyn Clock>,
}

/// The routes, and the answers for what is no route, behind the guard.
pub(crate) fn guarded(routes: Router, access: Access, clock: Arc<dyn Clock>) -> Router {
    routes.layer(from_fn_with_state(Guard { access, clock }, check))
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admit(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            metrics::counter!(REFUSED, "via" => "http").increment(1);
            refusal(&error)
        }
    }
}

impl Guard {
    fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<()> {
        let reading = method == Method::GET || method == Method::HEAD;
        if reading && OPEN.contains(&path) {
            return Ok(());
        }
        // A header that is no text is like one that is not understood.
        let shown = headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap_or_default());
        let grant = self.access.admit(shown, self.clock.now_micros())?;
        let right = if reading { Right::Read } else { Right::Write };
        grant.require(right, &format!("{method} {path}"))
    }
}

fn refusal(error: &Error) -> Response {
    let text = format!("{error}\n");
    if error.kind() == ErrorKind::Forbidden {
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    // Basic as well, so that a browser asks.
    let how = [(WWW_AUTHENTICATE, "Bearer realm=\"tandem\", Basic realm=\"tandem\"")];
    (StatusCode::UNAUTHORIZED, how, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::{get, post};
    use tandem_access::Tokens;
    use tandem_env::SystemClock;
    use tower::ServiceExt;

    use super::*;

    const READER: &str = "Bearer reader-0123456789";
    const WRITER: &str = "Bearer writer-0123456789";

    fn routes(access: Access) -> Router {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(|| async { "ok" }))
            .route("/metrics", get(|| async { "ok" }))
            .route("/write", post(|| async { "ok" }));
        guarded(routes, access, Arc::new(SystemClock))
    }

    fn with_tokens() -> Access {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "read reader-0123456789\nwrite writer-0123456789\n").unwrap();
        Access { tokens: Some(Arc::new(Tokens::read(&path).unwrap())), tls: None }
    }

    async fn ask(access: &Access, method: &str, path: &str, shown: Option<&str>) -> (u16, HeaderMap) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(shown) = shown {
            request = request.header(AUTHORIZATION, shown);
        }
        let answer = routes(access.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.headers().clone())
    }

    /// Method, path, and the answers without a token, with a wrong one, to a reader and to a writer.
    const TABLE: &[(&str, &str, [u16; 4])] = &[
        ("GET", "/healthz", [200, 200, 200, 200]),
        ("HEAD", "/healthz", [200, 200, 200, 200]),
        ("POST", "/healthz", [401, 401, 403, 405]),
        ("GET", "/readyz", [401, 401, 200, 200]),
        ("GET", "/metrics", [401, 401, 200, 200]),
        ("HEAD", "/metrics", [401, 401, 200, 200]),
        ("DELETE", "/metrics", [401, 401, 403, 405]),
        ("POST", "/write", [401, 401, 403, 200]),
        ("GET", "/", [401, 401, 404, 404]),
        ("GET", "/healthz/", [401, 401, 404, 404]),
        ("GET", "/healthz/../metrics", [401, 401, 404, 404]),
        ("GET", "//healthz", [401, 401, 404, 404]),
        ("GET", "/%68ealthz", [401, 401, 404, 404]),
        ("OPTIONS", "/metrics", [401, 401, 403, 405]),
        ("POST", "/unknown", [401, 401, 403, 404]),
    ];

    #[tokio::test]
    async fn every_path_and_method_needs_its_right() {
        let access = with_tokens();
        let shown = [None, Some("Bearer wrong-0123456789"), Some(READER), Some(WRITER)];
        for (method, path, wanted) in TABLE {
            for (shown, wanted) in shown.iter().zip(wanted) {
                let (status, headers) = ask(&access, method, path, *shown).await;
                assert_eq!(status, *wanted, "{method} {path} with {shown:?}");
                assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401, "{method} {path}");
            }
        }
    }

    #[tokio::test]
    async fn without_tokens_everybody_is_let_in() {
        for (method, path, wanted) in TABLE {
            let (status, _) = ask(&Access::default(), method, path, None).await;
            assert_eq!(status, wanted[3], "{method} {path}");
        }
    }
}
