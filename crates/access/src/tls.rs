//! TLS of both ends: certificates and keys from PEM files, rustls with one provider of cryptography.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tandem_types::{Error, Result};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A server's certificate and key.
#[derive(Clone)]
pub struct ServerTls {
    certificates: Arc<Vec<CertificateDer<'static>>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads a chain of certificates, the server's own first, and its key.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with the file if one cannot be read or the two do not belong together.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self> {
        let chain = read_certificates("--tls-cert", certificates)?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| Error::invalid(format!("--tls-key {}: {e}", key.display())))?;
        let tls = Self { certificates: Arc::new(chain), key: Arc::new(private) };
        tls.config(&[]).map_err(|e| {
            e.context(format!("--tls-cert {} with --tls-key {}", certificates.display(), key.display()))
        })?;
        Ok(tls)
    }

    /// What accepts connections that speak one of `protocols`, such as `h2`.
    pub(crate) fn acceptor(&self, protocols: &[&str]) -> Result<TlsAcceptor> {
        Ok(TlsAcceptor::from(Arc::new(self.config(protocols)?)))
    }

    fn config(&self, protocols: &[&str]) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(self.certificates.to_vec(), self.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// Whom a client believes.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Believes the certificates that those of `ca` vouch for, and no others.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with the file.
    pub fn with_ca(ca: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates("--tls-ca", ca)? {
            roots.add(certificate).map_err(|e| Error::invalid(format!("--tls-ca {}: {e}", ca.display())))?;
        }
        Self::of(roots)
    }

    /// Believes whom the machine believes.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the machine names nobody.
    pub fn of_machine() -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // Stores of machines hold certificates that are too old to be understood; the others are good.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::unavailable(
                "this machine has no certificates to check a server's by: name a file with --tls-ca",
            ));
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Begins TLS on a connection to `host`, whose certificate must be for that name or address.
    ///
    /// # Errors
    ///
    /// What rustls says against the server.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        // An IPv6 address is in brackets where it comes from an URL.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }
}

fn read_certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let invalid = |e: &dyn fmt::Display| Error::invalid(format!("{flag} {}: {e}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|e| invalid(&e))?
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| invalid(&e))?;
    if certificates.is_empty() {
        return Err(invalid(&"it holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn unusable(error: tokio_rustls::rustls::Error) -> Error {
    Error::invalid(format!("TLS: {error}"))
}
