//! What a command works on: a running server, or a store.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_access::ClientTls;
use tandem_client::{ConnectOptions, LinkEvent};
use tandem_types::{Error, Result, parse_duration};

/// Where a server listens unless told otherwise.
const DEFAULT_CONNECT: &str = "grpc://127.0.0.1:8815";

/// The options that say where the database is.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// Server to use; of several, the first that can be reached, and the next when it is lost [default:
    /// grpc://127.0.0.1:8815]
    #[arg(long, value_name = "URL[,URL…]", conflicts_with = "store", help_heading = "Database")]
    pub connect: Option<String>,
    /// Store to open directly, without a server
    #[arg(long, value_name = "URL", help_heading = "Database")]
    pub store: Option<String>,
    /// Setting of the store's client; may be repeated
    #[arg(long = "store-option", value_name = "K=V", help_heading = "Database")]
    pub store_options: Vec<String>,
    /// Token to show to the server
    #[arg(
        long,
        env = "TANDEM_AUTH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Database"
    )]
    pub auth_token: Option<String>,
    /// Certificates by which the server's is checked, PEM, for grpc+tls:// [default: the machine's]
    #[arg(long, env = "TANDEM_TLS_CA", value_name = "FILE", help_heading = "Database")]
    pub tls_ca: Option<PathBuf>,
    /// How long to try again, at all servers in turn, when one is lost or cannot do it now; 0s: not at all
    #[arg(
        long,
        env = "TANDEM_RETRY_FOR",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = parse_duration,
        help_heading = "Database"
    )]
    pub retry_for: Duration,
}

/// A [`Target`] after defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Comma-separated addresses.
    Server(String),
    /// A store's URL.
    Store(String),
}

impl Target {
    /// How to connect: what to show to servers, and by what to know them.
    pub fn connect_options(&self) -> Result<ConnectOptions> {
        // A variable that is set to nothing is not set.
        let ca = self.tls_ca.as_deref().filter(|path| !path.as_os_str().is_empty());
        Ok(ConnectOptions {
            tls: ca.map(ClientTls::with_ca).transpose()?,
            access_token: self.auth_token.clone().filter(|token| !token.is_empty()),
            retry_for: self.retry_for,
            ..ConnectOptions::default()
        })
    }

    /// The same, saying when the connection changes.
    pub fn connect_with_remarks(
        &self,
        remark: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<ConnectOptions> {
        let retry_for = self.retry_for;
        // While nobody takes what is asked, all servers are tried in turn, again and again: that is said once.
        let said: Mutex<[String; 2]> = Mutex::default();
        let on_event = move |event: &LinkEvent| {
            let (kind, text) = match event {
                LinkEvent::Left { .. } if retry_for.is_zero() => return,
                LinkEvent::Left { url, why } => {
                    (0, format!("left {url}: {why}; trying again for {} s", retry_for.as_secs_f64()))
                }
                LinkEvent::Entered { url } => (1, format!("going on at {url}")),
            };
            let [left, entered] = &mut *said.lock().unwrap_or_else(PoisonError::into_inner);
            let last = if kind == 0 { left } else { entered };
            if *last != text {
                remark(&text);
                *last = text;
            }
        };
        Ok(ConnectOptions { on_event: Some(Arc::new(on_event)), ..self.connect_options()? })
    }

    /// A flag outranks `TANDEM_CONNECT`, which outranks `TANDEM_STORE`, which outranks the default.
    pub fn place(&self) -> Result<Place> {
        let place = self.place_given(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        if matches!(place, Place::Server(_)) && !self.store_options.is_empty() {
            return Err(Error::invalid("--store-option needs --store"));
        }
        Ok(place)
    }

    fn place_given(&self, variable: impl Fn(&str) -> Option<String>) -> Place {
        match (&self.connect, &self.store) {
            (Some(urls), _) => Place::Server(urls.clone()),
            (None, Some(store)) => Place::Store(store.clone()),
            (None, None) => variable("TANDEM_CONNECT")
                .map(Place::Server)
                .or_else(|| variable("TANDEM_STORE").map(Place::Store))
                .unwrap_or_else(|| Place::Server(DEFAULT_CONNECT.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_outrank_variables_and_variables_the_default() {
        let target = |connect: Option<&str>, store: Option<&str>| Target {
            connect: connect.map(str::to_owned),
            store: store.map(str::to_owned),
            store_options: Vec::new(),
            auth_token: None,
            tls_ca: None,
            retry_for: Duration::ZERO,
        };
        let none = |_: &str| None;
        let both = |name: &str| Some(name.to_lowercase());
        assert_eq!(target(None, None).place_given(none), Place::Server(DEFAULT_CONNECT.into()));
        assert_eq!(target(None, None).place_given(both), Place::Server("tandem_connect".into()));
        assert_eq!(target(None, Some("s")).place_given(both), Place::Store("s".into()));
        assert_eq!(target(Some("c"), None).place_given(both), Place::Server("c".into()));
    }
}
