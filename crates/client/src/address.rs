//! Addresses of servers and names of tables, as users write them.

use tandem_types::{Error, Result};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As it was written.
    pub(crate) url: String,
    /// `host:port`; an IPv6 host is in brackets.
    pub(crate) authority: String,
    pub(crate) tls: bool,
}

impl Address {
    /// Reads `grpc://host:port`, `grpc+tcp://…`, `grpc+tls://…`, `http://…`, `https://…` or a bare `host:port`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
        let authority = rest.trim_end_matches('/');
        let tls = match scheme {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "https" => true,
            other => {
                return Err(Error::invalid(format!(
                    "the address {url:?} has the unknown scheme {other:?}: write grpc://host:port or grpc+tls://host:port"
                )));
            }
        };
        if authority.is_empty() || authority.contains(['/', ' ', '@', '?']) {
            return Err(Error::invalid(format!("the address {url:?} is not of the form grpc://host:port")));
        }
        Ok(Self { url: url.to_owned(), authority: authority.to_owned(), tls })
    }

    /// Reads addresses separated by commas; at least one, each once.
    pub(crate) fn parse_all(urls: &str) -> Result<Vec<Self>> {
        let mut addresses: Vec<Self> = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|u| !u.is_empty()) {
            let address = Self::parse(url)?;
            if !addresses.iter().any(|known| known.is_same(&address)) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(Error::invalid("no server address was given: write grpc://host:port"));
        }
        Ok(addresses)
    }

    /// Whether both lead to the same server, however they are written.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.tls == other.tls && self.authority.eq_ignore_ascii_case(&other.authority)
    }

    /// The host alone, as a certificate names it.
    pub(crate) fn host(&self) -> &str {
        self.host_and_port().0
    }

    /// The port, if the address names one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.host_and_port().1
    }

    fn host_and_port(&self) -> (&str, Option<u16>) {
        let split = self.authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = split.map_or((self.authority.as_str(), None), |(host, port)| (host, Some(port)));
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }
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
    fn addresses_are_read_however_they_are_written() {
        for url in ["grpc://h:1", "grpc+tcp://h:1/", "http://h:1", "h:1", " h:1 "] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.tls, address.host(), address.port()), (false, "h", Some(1)), "{url}");
        }
        for url in ["grpc+tls://[fe80::a]:1", "https://[fe80::a]:1/"] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.tls, address.host(), address.port()), (true, "fe80::a", Some(1)), "{url}");
        }
        assert_eq!(Address::parse("https://h").unwrap().port(), None);
        for url in ["ftp://h:1", "grpc://", "grpc://h:1/path", "grpc://u@h:1"] {
            assert_eq!(Address::parse(url).unwrap_err().kind(), ErrorKind::InvalidInput, "{url}");
        }
    }

    #[test]
    fn lists_name_each_server_once_and_at_least_one() {
        let urls = |text: &str| {
            Address::parse_all(text).map(|all| all.into_iter().map(|a| a.url).collect::<Vec<_>>())
        };
        assert_eq!(urls("grpc://a:1, b:2,http://A:1,").unwrap(), ["grpc://a:1", "b:2"]);
        assert_eq!(urls(" , ").unwrap_err().kind(), ErrorKind::InvalidInput);
        // A misspelt address is an error even when another one would have answered.
        assert!(urls("a:1,ftp://b:2").is_err());
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
}
