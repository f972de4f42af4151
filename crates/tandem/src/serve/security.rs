//! Whom a node serves, and over which wire.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use tandem_access::{Access, ClientTls, ServerTls, Tokens};
use tandem_client::ConnectOptions;
use tandem_types::{Error, Result};

/// The options that say so.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SecurityArgs {
    /// Who may connect: lines `read TOKEN [name]` or `write TOKEN [name]`; nodes show each other the first that may write
    #[arg(long, env = "TANDEM_AUTH_TOKEN_FILE", value_name = "FILE", help_heading = "Security")]
    auth_token_file: Option<PathBuf>,
    /// Certificate of this node, PEM, with those that vouch for it after it; turns TLS on for Flight, HTTP and PostgreSQL
    #[arg(long, env = "TANDEM_TLS_CERT", value_name = "FILE", help_heading = "Security")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, env = "TANDEM_TLS_KEY", value_name = "FILE", help_heading = "Security")]
    tls_key: Option<PathBuf>,
    /// Certificates by which this node checks those of other nodes, PEM [default: the machine's]
    #[arg(long, env = "TANDEM_TLS_CA", value_name = "FILE", help_heading = "Security")]
    tls_ca: Option<PathBuf>,
    /// Listen off loopback without tokens: whoever reaches the port may read and write
    #[arg(
        long,
        env = "TANDEM_INSECURE",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Security"
    )]
    #[serde(default)]
    insecure: bool,
}

/// All of it read.
#[derive(Clone, Debug)]
pub struct Security {
    /// What the listeners demand.
    pub access: Access,
    /// How this node connects to others: what it shows to them, and by what it knows them.
    pub peers: ConnectOptions,
    insecure: bool,
}

impl SecurityArgs {
    /// What is not given here is as the file says.
    pub fn or(self, file: Self) -> Self {
        Self {
            auth_token_file: self.auth_token_file.or(file.auth_token_file),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_ca: self.tls_ca.or(file.tls_ca),
            insecure: self.insecure || file.insecure,
        }
    }

    /// Reads the files.
    pub fn open(&self) -> Result<Security> {
        let tokens = self.auth_token_file.as_deref().map(Tokens::read).transpose()?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(ServerTls::read(certificate, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(Error::invalid("--tls-cert needs --tls-key")),
            (None, Some(_)) => return Err(Error::invalid("--tls-key needs --tls-cert")),
        };
        let peers = ConnectOptions {
            tls: self.tls_ca.as_deref().map(ClientTls::with_ca).transpose()?,
            access_token: tokens.as_ref().map(|tokens| tokens.own().to_owned()),
            ..ConnectOptions::default()
        };
        let access = Access { tokens: tokens.map(Arc::new), tls };
        Ok(Security { access, peers, insecure: self.insecure })
    }
}

impl Security {
    /// Refuses an address that others than this machine's users reach, if nothing protects it.
    pub fn check(&self, flag: &str, address: SocketAddr) -> Result<()> {
        if address.ip().is_loopback() {
            return Ok(());
        }
        match (&self.access.tokens, &self.access.tls) {
            (None, _) if !self.insecure => {
                return Err(Error::invalid(format!(
                    "{flag} {address}: whoever reaches this address could read and write everything; name the tokens \
                     that clients must show with --auth-token-file FILE, or say --insecure if all who reach it are to \
                     be trusted"
                )));
            }
            (None, _) => {
                tracing::warn!(%address, "{flag} --insecure: whoever reaches this address may read and write");
            }
            (Some(_), None) => tracing::warn!(
                %address,
                "{flag}: tokens and rows travel in the clear; --tls-cert and --tls-key end that"
            ),
            (Some(_), Some(_)) => {}
        }
        Ok(())
    }

    /// The scheme of this node's Flight addresses.
    pub fn flight_scheme(&self) -> &'static str {
        if self.access.tls.is_some() { "grpc+tls" } else { "grpc" }
    }

    /// The scheme of its HTTP addresses.
    pub fn http_scheme(&self) -> &'static str {
        if self.access.tls.is_some() { "https" } else { "http" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(args: SecurityArgs) -> Security {
        args.open().unwrap()
    }

    #[test]
    fn an_open_address_needs_tokens_or_the_word_insecure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "write 0123456789abcdef\n").unwrap();
        let anywhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
        let nothing = open(SecurityArgs::default());
        let refused = nothing.check("--http", anywhere).unwrap_err();
        for named in ["--http", "--auth-token-file", "--insecure"] {
            assert!(refused.message().contains(named), "{refused}");
        }
        for own in ["127.0.0.1:1", "127.0.0.2:1", "[::1]:1"] {
            nothing.check("--flight", own.parse().unwrap()).unwrap();
        }
        open(SecurityArgs { insecure: true, ..Default::default() }).check("--http", anywhere).unwrap();
        let file = SecurityArgs { auth_token_file: Some(path), ..Default::default() };
        open(SecurityArgs::default().or(file)).check("--http", anywhere).unwrap();
    }

    #[test]
    fn half_of_a_certificate_is_an_error() {
        let half = SecurityArgs { tls_cert: Some("x".into()), ..Default::default() };
        assert!(half.open().unwrap_err().message().contains("--tls-key"));
        let missing = SecurityArgs {
            tls_cert: Some("no.crt".into()),
            tls_key: Some("no.key".into()),
            ..Default::default()
        };
        assert!(missing.open().unwrap_err().message().contains("no.crt"));
    }
}
