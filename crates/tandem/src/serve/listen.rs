//! Listeners, bound before anything else is done.

use std::net::SocketAddr;

use tandem_types::{Error, Result};
use tokio::net::TcpListener;

use super::security::Security;

/// A listener and where it listens.
#[derive(Debug)]
pub struct Bound {
    pub listener: TcpListener,
    pub address: SocketAddr,
}

/// Binds the address that `flag` was given; `None` for `off`. Port 0 picks a free one.
pub async fn bind(flag: &str, address: &str, security: &Security) -> Result<Option<Bound>> {
    if address == "off" {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => Error::unavailable(format!(
            "{flag} {address}: the port is taken; choose another with {flag} ADDR (port 0 picks a free one)"
        )),
        _ => Error::invalid(format!("{flag} {address}: {e}")),
    })?;
    let address = listener.local_addr().map_err(|e| Error::unavailable(format!("{flag} {address}: {e}")))?;
    security.check(flag, address)?;
    Ok(Some(Bound { listener, address }))
}

#[cfg(test)]
mod tests {
    use super::super::security::SecurityArgs;
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_the_flag() {
        let security = SecurityArgs::default().open().unwrap();
        let first = bind("--flight", "127.0.0.1:0", &security).await.unwrap().unwrap();
        assert_ne!(first.address.port(), 0);
        let taken = bind("--flight", &first.address.to_string(), &security).await.unwrap_err();
        assert!(taken.message().contains("--flight"), "{taken}");
        assert!(bind("--http", "off", &security).await.unwrap().is_none());
        let nonsense = bind("--http", "nonsense", &security).await.unwrap_err();
        assert!(nonsense.message().contains("--http"), "{nonsense}");
        let open = bind("--http", "0.0.0.0:0", &security).await.unwrap_err();
        assert!(open.message().contains("--insecure"), "{open}");
    }
}
