//! What stands before all routes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::BodyDataStream;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, EXPECT, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::json;
use tandem_access::{Access, Right};
use tandem_env::{Clock, within};
use tandem_types::{Error, ErrorKind, Result};

use crate::lines::parameters;

/// Requests that were not let in.
const REFUSED: &str = "tandem_auth_refused_total";
/// What needs no token.
const OPEN: &[&str] = &["/healthz", "/ping", "/health", "/settings"];

/// What is read of the body of a request that is not let in, and for how long.
const HEARD_OUT: usize = 256 << 10;
const HEARD_FOR: Duration = Duration::from_secs(2);

/// Clients whose token nobody asked for that are remembered.
const TOLD: usize = 64;

#[derive(Clone)]
struct Guard {
    access: Access,
    clock: Arc<dyn Clock>,
    /// Who was told that its token is not asked for.
    told: Arc<Mutex<BTreeSet<String>>>,
}

/// The routes, and the answers for what is no route, behind the guard.
pub(crate) fn guarded(routes: Router, access: Access, clock: Arc<dyn Clock>) -> Router {
    routes.layer(from_fn_with_state(Guard { access, clock, told: Arc::default() }, check))
}

/// By which name of the token file a request was let in.
#[derive(Clone, Debug)]
pub(crate) struct Named(pub String);

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.admit(request.method(), request.uri(), request.headers()) {
        Ok(named) => {
            if let Some(named) = named {
                request.extensions_mut().insert(named);
            }
            next.run(request).await
        }
        Err(error) => {
            metrics::counter!(REFUSED, "via" => "http").increment(1);
            let answer = refusal(request.uri().path(), &error);
            // Who asks first sends nothing before he is answered.
            if !request.headers().contains_key(EXPECT) {
                hear_out(&mut request.into_body().into_data_stream(), HEARD_OUT, &*guard.clock).await;
            }
            answer
        }
    }
}

/// Reads a little of what is not wanted, `most` bytes: who is still sending when the connection ends may never see the answer.
pub(crate) async fn hear_out(pieces: &mut BodyDataStream, most: usize, clock: &dyn Clock) {
    let reading = async {
        let mut heard = 0;
        while heard < most
            && let Some(Ok(piece)) = pieces.next().await
        {
            heard += piece.len();
        }
    };
    // Too slow is as well as too long.
    let _ = within(clock, HEARD_FOR, reading).await;
}

impl Guard {
    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Option<Named>> {
        let path = uri.path();
        let reading = method == Method::GET || method == Method::HEAD;
        if reading && OPEN.contains(&path) {
            return Ok(None);
        }
        // A header that is no text is like one that is not understood.
        let shown = headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap_or_default());
        let mut shown: Vec<String> = shown.map(as_bearer).collect();
        if path == "/write" && shown.is_empty() {
            // InfluxDB's first clients have their password in the address.
            let password = parameters(uri).find(|(name, _)| name == "p");
            shown.extend(password.map(|(_, password)| format!("Bearer {password}")));
        }
        if self.access.tokens.is_none() && !shown.is_empty() {
            self.tell(headers);
        }
        let grant = self.access.admit(shown.iter().map(String::as_str), self.clock.now_micros())?;
        let right = if reading { Right::Read } else { Right::Write };
        grant.require(right, &format!("{method} {path}"))?;
        Ok(self.access.tokens.as_ref().map(|_| Named(grant.name().to_owned())))
    }
}

impl Guard {
    /// A token that nobody looks at keeps nobody out: its owner may believe that it does.
    fn tell(&self, headers: &HeaderMap) {
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("without a name");
        let agent: String = agent.chars().take(200).collect();
        let Ok(mut told) = self.told.lock() else { return };
        if told.len() < TOLD && told.insert(agent.clone()) {
            tracing::warn!(
                client = agent,
                "a client shows a token, and this node asks for none: --auth-token-file"
            );
        }
    }
}

/// InfluxDB's clients have a word of their own for it.
fn as_bearer(shown: &str) -> String {
    match shown.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("token") => format!("Bearer {}", token.trim()),
        _ => shown.to_owned(),
    }
}

/// On the routes of InfluxDB's clients in the shape that those read: they show what it says.
fn refusal(path: &str, error: &Error) -> Response {
    let forbidden = error.kind() == ErrorKind::Forbidden;
    let (status, code) = match forbidden {
        true => (StatusCode::FORBIDDEN, "forbidden"),
        false => (StatusCode::UNAUTHORIZED, "unauthorized"),
    };
    let body = match path {
        "/api/v2/write" => Some(json!({"code": code, "message": error.message()})),
        "/api/v3/write_lp" => Some(json!({"error": error.message()})),
        _ => None,
    };
    let mut response = match body {
        Some(body) => (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response(),
        None => (status, format!("{error}\n")).into_response(),
    };
    if !forbidden {
        // Basic as well, so that a browser asks.
        let how = HeaderValue::from_static("Bearer realm=\"tandem\", Basic realm=\"tandem\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, how);
    }
    response
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
        ("POST", "/write?p=writer-0123456789", [200, 401, 403, 200]),
        ("POST", "/write?p=wrong-0123456789", [401, 401, 403, 200]),
        ("GET", "/metrics?p=reader-0123456789", [401, 401, 200, 200]),
        ("GET", "/ping", [404, 404, 404, 404]),
        ("GET", "/health", [404, 404, 404, 404]),
        ("GET", "/settings", [404, 404, 404, 404]),
        ("POST", "/settings", [401, 401, 403, 404]),
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

    #[test]
    fn a_client_is_told_once_that_its_token_is_not_asked_for() {
        let guard = Guard { access: Access::default(), clock: Arc::new(SystemClock), told: Arc::default() };
        let headers = |agent: &str, token: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            if let Some(token) = token {
                headers.insert(AUTHORIZATION, token.parse().unwrap());
            }
            headers
        };
        let told = |agent: &str, token| {
            let uri = Uri::from_static("/write");
            assert!(guard.admit(&Method::POST, &uri, &headers(agent, token)).unwrap().is_none());
            guard.told.lock().unwrap().len()
        };
        assert_eq!(told("one", None), 0, "nobody believes in a token");
        assert_eq!(
            (told("one", Some(READER)), told("one", Some(WRITER)), told("one", Some("Token x"))),
            (1, 1, 1)
        );
        assert_eq!(told("two", Some("Basic eDp5")), 2);
        for i in 0..200 {
            told(&i.to_string(), Some(READER));
        }
        assert_eq!(guard.told.lock().unwrap().len(), TOLD, "however many names somebody makes up");
    }

    #[tokio::test]
    async fn without_tokens_everybody_is_let_in() {
        for (method, path, wanted) in TABLE {
            let (status, _) = ask(&Access::default(), method, path, None).await;
            assert_eq!(status, wanted[3], "{method} {path}");
        }
    }
}
