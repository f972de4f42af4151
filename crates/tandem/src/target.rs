//! What a command works on: a running server, or a store.

use tandem_types::{Error, Result};

/// Where a server listens unless told otherwise.
const DEFAULT_CONNECT: &str = "grpc://127.0.0.1:8815";

/// The options that say where the database is.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// Server to use; of several, the first that can be reached [default: grpc://127.0.0.1:8815]
    #[arg(long, value_name = "URL[,URL…]", conflicts_with = "store", help_heading = "Database")]
    pub connect: Option<String>,
    /// Store to open directly, without a server
    #[arg(long, value_name = "URL", help_heading = "Database")]
    pub store: Option<String>,
    /// Setting of the store's client; may be repeated
    #[arg(long = "store-option", value_name = "K=V", help_heading = "Database")]
    pub store_options: Vec<String>,
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
        };
        let none = |_: &str| None;
        let both = |name: &str| Some(name.to_lowercase());
        assert_eq!(target(None, None).place_given(none), Place::Server(DEFAULT_CONNECT.into()));
        assert_eq!(target(None, None).place_given(both), Place::Server("tandem_connect".into()));
        assert_eq!(target(None, Some("s")).place_given(both), Place::Store("s".into()));
        assert_eq!(target(Some("c"), None).place_given(both), Place::Server("c".into()));
    }
}
