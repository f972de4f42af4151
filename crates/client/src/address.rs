//! Addresses of servers and names of tables, as users write them.

use std::time::Duration;

use tandem_types::{Error, Result};
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control windows: large enough that a batch of 4 MiB does not wait for a round trip.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Turns `grpc://host:port`, `grpc+tcp://…`, `http://…` or a bare `host:port` into what tonic dials.
pub(crate) fn dialled_url(url: &str) -> Result<String> {
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
    let authority = rest.trim_end_matches('/');
    match scheme {
        "grpc" | "grpc+tcp" | "http" => {}
        "grpc+tls" | "https" => {
            return Err(Error::unsupported(format!(
                "the address {url:?} asks for TLS, which is not supported yet"
            )));
        }
        other => {
            return Err(Error::invalid(format!(
                "the address {url:?} has the unknown scheme {other:?}: write grpc://host:port"
            )));
        }
    }
    if authority.is_empty() || authority.contains(['/', ' ', '@', '?']) {
        return Err(Error::invalid(format!("the address {url:?} is not of the form grpc://host:port")));
    }
    Ok(format!("http://{authority}"))
}

/// Connects to the first of the comma-separated addresses that answers; returns it too.
pub(crate) async fn connect_first(urls: &str) -> Result<(Channel, String)> {
    let mut failures = Vec::new();
    let listed: Vec<&str> = urls.split(',').map(str::trim).filter(|u| !u.is_empty()).collect();
    // A misspelt address is an error even when an earlier one would have answered.
    let dialled = listed.iter().map(|u| dialled_url(u)).collect::<Result<Vec<_>>>()?;
    for (url, target) in listed.iter().zip(dialled) {
        match endpoint(&target)?.connect().await {
            Ok(channel) => return Ok((channel, (*url).to_owned())),
            Err(error) => failures.push(format!("{url}: {}", deepest(&error))),
        }
    }
    if failures.is_empty() {
        return Err(Error::invalid("no server address was given: write grpc://host:port"));
    }
    Err(Error::unavailable(format!("cannot reach a server at {}", failures.join("; "))))
}

fn endpoint(target: &str) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(target.to_owned())
        .map_err(|e| Error::invalid(format!("the address {target:?} is not valid: {e}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// The innermost cause: tonic's own text is only "transport error".
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

/// Splits `t` or `schema.t` into its parts. A part in double quotes may hold dots; `""` is a quote.
pub fn table_path(name: &str) -> Result<Vec<String>> {
    let bad =
        |why: &str| Error::invalid(format!("the table name {name:?} {why}: write table or schema.table"));
    let mut parts = Vec::new();
    let mut chars = name.chars().peekable();
    loop {
        let mut part = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    Some('"') => break,
                    Some(c) => part.push(c),
                    None => return Err(bad("has an unclosed quote")),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != '.') {
                part.push(c);
            }
        }
        if part.is_empty() {
            return Err(bad("has an empty part"));
        }
        parts.push(part);
        match chars.next() {
            None => break,
            Some('.') => {}
            Some(_) => return Err(bad("has text after a quoted part")),
        }
    }
    if parts.len() > 2 {
        return Err(bad("has more than two parts"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn addresses_are_dialled_without_their_scheme() {
        for url in ["grpc://h:1", "grpc+tcp://h:1/", "http://h:1", "h:1", " h:1 "] {
            assert_eq!(dialled_url(url).unwrap(), "http://h:1", "{url}");
        }
        assert_eq!(dialled_url("grpc+tls://h:1").unwrap_err().kind(), ErrorKind::Unsupported);
        for url in ["ftp://h:1", "grpc://", "grpc://h:1/path", "grpc://u@h:1"] {
            assert_eq!(dialled_url(url).unwrap_err().kind(), ErrorKind::InvalidInput, "{url}");
        }
    }

    #[test]
    fn table_names_split_at_dots_outside_quotes() {
        assert_eq!(table_path("t").unwrap(), ["t"]);
        assert_eq!(table_path("s.t").unwrap(), ["s", "t"]);
        assert_eq!(table_path(r#""a.b"."c""d""#).unwrap(), ["a.b", "c\"d"]);
        for name in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\""] {
            assert!(table_path(name).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named() {
        let error = connect_first("grpc://127.0.0.1:1,127.0.0.1:2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.message().contains("127.0.0.1:1") && error.message().contains("127.0.0.1:2"),
            "{error}"
        );
        assert_eq!(connect_first(" , ").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
